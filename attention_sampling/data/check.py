"""What is in image files, and whether they can be read."""

import functools
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from attention_sampling.data.errors import SourceError, in_options, is_fault_of_process
from attention_sampling.data.files import FileSource
from attention_sampling.data.opening import open_source
from attention_sampling.data.paths import Paths
from attention_sampling.data.source import Size, Source

_HEADER = ("file", "height x width", "channels", "dtype", "levels", "tiles", "read by")
# Windows of so many pixels along each side, and at most so many of them along each side
# of a level: at its corners, in its centre, and between.
_WINDOW = 256
_WINDOWS = 5


@dataclass
class Report:
    """What is in files.

    Attributes:
        images: a row of text for each image, as ``info`` prints it.
        kinds: how many images of which "3 channels of uint8", read by which source.
        broken: what is broken, and why: lines to print.
    """

    images: list[tuple[str, ...]] = field(default_factory=list)
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def note(self, error: SourceError, line: str) -> None:
        """Note that a file is broken, unless the process lacks files or memory."""
        if is_fault_of_process(error):
            raise error
        self.broken.append(line)


def open_any_size(paths: Paths, **keywords: Any) -> FileSource:
    """Open files for what goes through the images one by one.

    `open_source` refuses images that have to be decoded as a whole and are large, as
    reading windows of several in turn would decode them again and again.

    Args:
        paths: as `open_source` takes them.
        **keywords: further arguments of `open_source`.
    """
    # Tifffile logs what it stumbles on; what matters of it is raised.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        return open_source(paths, cache_bytes=None, **keywords)
    except TypeError:  # the files are of a kind that is not decoded as a whole
        return open_source(paths, **keywords)


def print_info(paths: Sequence[str], **keywords: Any) -> Report:
    """Print a table of the images in files.

    Args:
        paths: the files.
        **keywords: further arguments of `open_source`.

    Raises:
        SourceError: the process lacks files or memory.
    """
    report = Report()
    for path in paths:
        try:
            with open_any_size(path, **keywords) as source:
                report.images += [
                    _describe(source, path, i) for i in range(len(source))
                ]
        except SourceError as error:
            report.note(error, in_options(error))
    if report.images:
        rows = [_HEADER, *report.images]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(cells).rstrip())
    for line in report.broken:
        print(f"broken: {line}")
    return report


def check_files(
    paths: Sequence[str],
    everything: bool = False,
    threads: int | None = None,
    **keywords: Any,
) -> Report:
    """Read files here and there, and print which are broken, and why.

    Args:
        paths: the files.
        everything: read every pixel of every level, instead of windows at the corners,
            in the centre and between.
        threads: files to read at once; None for the processors.
        **keywords: further arguments of `open_source`.

    Raises:
        SourceError: the process lacks files or memory.

    Example:

    >>> with open("notes.txt", "w") as file:
    ...     _ = file.write("no image")
    >>> report = check_files(["notes.txt"])
    notes.txt: this is no image of a known format
    1 file: 0 images, 1 broken
    >>> report.broken
    ['notes.txt: this is no image of a known format']
    """
    whole = Report()
    check = functools.partial(_check_file, everything=everything, keywords=keywords)
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        try:
            for report in _show_progress(pool.map(check, paths), len(paths)):
                whole.kinds += report.kinds
                whole.broken += report.broken
                for line in report.broken:
                    print(line, flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    images: Counter[str] = Counter()
    for (kind, _), number in whole.kinds.items():
        images[kind] += number
    found = _count(images.total(), "image")
    if images:
        found += f" ({', '.join(f'{n} of {kind}' for kind, n in images.most_common())})"
    print(f"{_count(len(paths), 'file')}: {found}, {len(whole.broken)} broken")
    if len(images) > 1:
        print("These do not fit one source: all images must have the same channels.")
    return whole


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _describe(source: Source, path: str, index: int) -> tuple[str, ...]:
    levels = source.levels(index)
    height, width = levels[0]
    tile_height, tile_width = source.block(index, 0)
    # Rows or the whole image are no tiles.
    tiled = tile_width < width
    return (
        path if len(source) == 1 else _name(source, index, path),
        f"{height} x {width}",
        str(source.channels),
        str(source.dtype),
        str(len(levels)),
        f"{tile_height} x {tile_width}" if tiled else "-",
        type(source).__name__,
    )


def _check_file(path: str, everything: bool, keywords: dict[str, Any]) -> Report:
    """Return the kinds of images in a file, and what is broken."""
    report = Report()
    try:
        source = open_any_size(path, threads=1, **keywords)
    except SourceError as error:
        report.note(error, in_options(error))
        return report
    with source:
        kind = f"{_count(source.channels, 'channel')} of {source.dtype}"
        for index in range(len(source)):
            report.kinds[kind, type(source).__name__] += 1
            try:
                for level in range(len(source.levels(index))):
                    for window in _windows(source, index, level, everything):
                        source.read_window(index, level, *window)
            except SourceError as error:
                name = _name(source, index, path)
                reason = str(error).removeprefix(source.where(index)).lstrip(": ")
                report.note(error, f"{name}: {reason}")
    return report


def _windows(
    source: Source, index: int, level: int, everything: bool
) -> Iterator[tuple[Size, Size]]:
    """Yield (row, column) and (height, width) of the windows of a level to read."""
    if everything:
        yield from source.strips(index, level)
        return
    extents = source.levels(index)[level]
    size = (min(_WINDOW, extents[0]), min(_WINDOW, extents[1]))
    rows, columns = (
        _spread(extent - length, min(_WINDOWS, -(-extent // length)))
        for extent, length in zip(extents, size, strict=True)
    )
    for row in rows:
        for column in columns:
            yield (row, column), size


def _spread(end: int, count: int) -> list[int]:
    """Return numbers from 0 to ``end``, evenly spread."""
    return [end * number // max(count - 1, 1) for number in range(count)]


def _name(source: Source, index: int, path: str) -> str:
    """Return what to call an image, with its file as the user calls it."""
    return source.where(index).replace(os.path.abspath(path), path, 1)


def _show_progress(items: Iterator[Any], total: int) -> Iterator[Any]:
    """Go through what is being done, with a bar if there is a terminal to show it."""
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            items = tqdm(items, total=total, unit="file", desc="Checking")
    yield from items
