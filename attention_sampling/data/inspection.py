"""What is in image files, and whether they can be read."""

import functools
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

from attention_sampling.data.base import Size, Source, SourceError
from attention_sampling.data.opening import open_source

_HEADER = ("file", "height x width", "channels", "dtype", "levels", "tiles", "read by")
# Windows of so many pixels along each side, and at most so many of them along each side
# of a level: at its corners, in its centre, and between.
_WINDOW = 256
_PLACES = 5
_FileReport = tuple[Counter[tuple[int, str]], list[tuple[str, str]]]


def print_info(paths: Sequence[str], output: TextIO | None = None) -> int:
    """Print a table of the images in files.

    Args:
        paths: the files.
        output: where to print; standard output by default.

    Returns:
        1 if a file cannot be opened, 0 if none.
    """
    output = output or sys.stdout
    rows: list[tuple[str, ...]] = [_HEADER]
    broken = []
    for path in paths:
        try:
            with open_source(path) as source:
                rows += [_describe(source, path, i) for i in range(len(source))]
        except SourceError as error:
            broken.append(_without_remedy(error))
    if len(rows) > 1:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(cells).rstrip(), file=output)
    for line in broken:
        print(f"broken: {line}", file=output)
    return 1 if broken else 0


def check_files(
    paths: Sequence[str],
    everything: bool = False,
    threads: int | None = None,
    output: TextIO | None = None,
) -> int:
    """Read files here and there, and print which are broken, and why.

    A progress bar goes to standard error if that is a terminal.

    Args:
        paths: the files.
        everything: read every pixel of every level, instead of windows at the corners,
            in the centre and between.
        threads: files to read at once; None for the processors.
        output: where to print; standard output by default.

    Returns:
        1 if a file is broken, 0 if none.

    Example:

    >>> with open("notes.txt", "w") as file:
    ...     _ = file.write("no image")
    >>> check_files(["notes.txt"])
    notes.txt: this is no image of a known format
    1 file: 0 images, 1 broken
    1
    """
    output = output or sys.stdout
    kinds: Counter[tuple[int, str]] = Counter()
    n_broken = 0
    check = functools.partial(_check_file, everything=everything)
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        try:
            for found, faults in _show_progress(pool.map(check, paths), len(paths)):
                kinds += found
                n_broken += len(faults)
                for place, reason in faults:
                    print(f"{place}: {reason}", file=output, flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    images = ", ".join(
        f"{number} of {_count(channels, 'channel')} of {dtype}"
        for (channels, dtype), number in kinds.most_common()
    )
    found = _count(kinds.total(), "image") + (f" ({images})" if images else "")
    print(f"{_count(len(paths), 'file')}: {found}, {n_broken} broken", file=output)
    return 1 if n_broken else 0


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _describe(source: Source, path: str, index: int) -> tuple[str, ...]:
    levels = source.levels(index)
    height, width = levels[0]
    tile_height, tile_width = source._block(index, 0)
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


def _check_file(path: str, everything: bool) -> _FileReport:
    """Return the kinds of images in a file, and what is broken."""
    kinds: Counter[tuple[int, str]] = Counter()
    try:
        source = open_source(path, threads=1)
    except SourceError as error:
        return kinds, [(path, _without_path(error, path))]
    faults = []
    with source:
        for index in range(len(source)):
            kinds[source.channels, str(source.dtype)] += 1
            try:
                for level in range(len(source.levels(index))):
                    for window in _windows(source, index, level, everything):
                        source._guarded_read(index, level, *window)
            except SourceError as error:
                reason = _without_path(error, source._where(index))
                faults.append((_name(source, index, path), reason))
    return kinds, faults


def _windows(
    source: Source, index: int, level: int, everything: bool
) -> Iterator[tuple[Size, Size]]:
    """Yield (row, column) and (height, width) of the windows of a level to read."""
    if everything:
        for top, left, height, width in source._strips(index, level):
            yield (top, left), (height, width)
        return
    extents = source.levels(index)[level]
    size = (min(_WINDOW, extents[0]), min(_WINDOW, extents[1]))
    rows, columns = (
        _spread(extent - length, min(_PLACES, -(-extent // length)))
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
    return source._where(index).replace(os.path.abspath(path), path, 1)


def _without_path(error: SourceError, path: str) -> str:
    text = _without_remedy(error)
    return text.removeprefix(path).removeprefix(": ").removeprefix(" ")


def _without_remedy(error: SourceError) -> str:
    """Return what is wrong, without how to open the other files."""
    return str(error).split(". To leave such files out", 1)[0]


def _show_progress(items: Iterator[Any], total: int) -> Iterator[Any]:
    """Go through what is being done, with a bar if there is a terminal to show it."""
    if not sys.stderr.isatty():
        yield from items
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield from items
        return
    yield from tqdm(items, total=total, unit="file", desc="Checking")
