"""What is in image files, and whether they can be read."""

import contextlib
import functools
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from attention_sampling.data.errors import SourceError, in_options, is_fault_of_process
from attention_sampling.data.files import FileSource, Paths
from attention_sampling.data.opening import open_source
from attention_sampling.data.source import Size, Source
from attention_sampling.threads import map_in_threads

_HEADER = ("file", "height x width", "channels", "dtype", "levels", "tiles", "read by")
# Windows of so many pixels along each side, and at most so many of them along each side
# of a level: at its corners, in its centre, and between.
_WINDOW = 256
_WINDOWS = 5


def open_any_size(paths: Paths, **keywords: Any) -> FileSource:
    """Open files for a command, which reads one image after the other, however large.

    `open_source` refuses large images that have to be decoded as a whole, as reading
    windows of several in turn would decode them again and again.

    Raises:
        ValueError: an option that is not for these files.
    """
    with contextlib.suppress(TypeError):  # these files are not decoded as a whole
        return open_source(paths, cache_bytes=None, **keywords)
    try:
        return open_source(paths, **keywords)
    except TypeError as error:
        raise ValueError(
            "--dataset is for HDF5 files, --channels for photographs: JPEG, PNG and "
            f"others that are decoded as a whole. Received: {paths}"
        ) from error


def print_info(paths: Sequence[str], **keywords: Any) -> bool:
    """Print a table of the images in files; return whether all can be opened.

    Raises:
        SourceError: the process lacks files or memory.
    """
    rows: list[tuple[str, ...]] = [_HEADER]
    broken = []
    for path in paths:
        try:
            with open_any_size(path, **keywords) as source:
                rows += [_describe(source, path, i) for i in range(len(source))]
        except SourceError as error:
            broken.append(_fault(error))
    if len(rows) > 1:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(cells).rstrip())
    for line in broken:
        print(f"broken: {line}")
    return not broken


def check_files(
    paths: Sequence[str],
    everything: bool = False,
    threads: int | None = None,
    **keywords: Any,
) -> bool:
    """Read files here and there, and print which are broken; return whether none is.

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
    >>> check_files(["notes.txt"])
    notes.txt: this is no image of a known format
    1 file: 0 images, 1 broken
    False
    """
    kinds: Counter[str] = Counter()
    broken = 0
    check = functools.partial(_check_file, everything=everything, keywords=keywords)
    threads = threads or os.cpu_count() or 1
    with contextlib.closing(map_in_threads(check, paths, threads)) as checked:
        for found, lines in _show_progress(checked, len(paths)):
            kinds += found
            broken += len(lines)
            for line in lines:
                print(line, flush=True)
    images = _count(kinds.total(), "image")
    if kinds:
        images += f" ({', '.join(f'{n} of {kind}' for kind, n in kinds.most_common())})"
    print(f"{_count(len(paths), 'file')}: {images}, {broken} broken")
    if len(kinds) > 1:
        print("These do not fit one source: all images must have the same channels.")
    return not broken


def _fault(error: SourceError) -> str:
    """Return what is wrong with a file, if it is not the process that lacks something."""
    if is_fault_of_process(error):
        raise error
    return in_options(error)


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


def _check_file(
    path: str, everything: bool, keywords: dict[str, Any]
) -> tuple[Counter[str], list[str]]:
    """Return the kinds of images in a file, and a line for each that is broken."""
    kinds: Counter[str] = Counter()
    broken = []
    try:
        source = open_any_size(path, threads=1, **keywords)
    except SourceError as error:
        return kinds, [_fault(error)]
    with source:
        kinds[f"{_count(source.channels, 'channel')} of {source.dtype}"] = len(source)
        for index in range(len(source)):
            try:
                for level in range(len(source.levels(index))):
                    for window in _windows(source, index, level, everything):
                        source.read_window(index, level, *window)
            except SourceError as error:
                reason = _fault(error).removeprefix(source.where(index)).lstrip(": ")
                broken.append(f"{_name(source, index, path)}: {reason}")
    return kinds, broken


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
        np.linspace(0, extent - length, min(_WINDOWS, -(-extent // length)), dtype=int)
        for extent, length in zip(extents, size, strict=True)
    )
    for row in rows:
        for column in columns:
            yield (int(row), int(column)), size


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
