"""What is in image files, and whether they can be read."""

import dataclasses
import functools
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

from attention_sampling.data.file_paths import Paths
from attention_sampling.data.opening import open_source
from attention_sampling.data.source import (
    Size,
    Source,
    SourceError,
    is_fault_of_process,
)

_HEADER = ("file", "height x width", "channels", "dtype", "levels", "tiles", "read by")
# Windows of so many pixels along each side, and at most so many of them along each side
# of a level: at its corners, in its centre, and between.
_WINDOW = 256
_PLACES = 5


@dataclasses.dataclass
class _FileReport:
    """What is in a file.

    Attributes:
        kinds: how many images of which (channels, dtype).
        reader: name of the source that reads the file.
        broken: what is broken, and why: lines to print.
        unread: what was not read as the process lacks files or memory, and why.
    """

    kinds: Counter[tuple[int, str]]
    reader: str = ""
    broken: list[str] = dataclasses.field(default_factory=list)
    unread: list[str] = dataclasses.field(default_factory=list)


def open_any_size(paths: Paths, **keywords: Any) -> Source:
    """Open files for what goes through the images one by one.

    `open_source` refuses images that have to be decoded as a whole and are large, as
    reading windows of several in turn would decode them again and again.

    Args:
        paths: as `open_source` takes them.
        **keywords: further arguments of `open_source`.
    """
    try:
        return open_source(paths, cache_bytes=None, **keywords)
    except TypeError:  # the files are of a kind that is not decoded as a whole
        return open_source(paths, **keywords)


def print_info(paths: Sequence[str], output: TextIO | None = None) -> int:
    """Print a table of the images in files.

    Args:
        paths: the files.
        output: where to print; standard output by default.

    Returns:
        1 if a file cannot be opened, 0 if none; 2, and a line on standard error, if the
        process lacks files or memory.
    """
    output = output or sys.stdout
    rows: list[tuple[str, ...]] = [_HEADER]
    broken: list[str] = []
    unread: list[str] = []
    for path in paths:
        try:
            with open_any_size(path) as source:
                rows += [_describe(source, path, i) for i in range(len(source))]
        except SourceError as error:
            lines = unread if is_fault_of_process(error) else broken
            lines.append(_without_remedy(error))
    if len(rows) > 1:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(cells).rstrip(), file=output)
    for line in broken:
        print(f"broken: {line}", file=output)
    return _end(broken, unread)


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
        1 if a file is broken, 0 if none; 2, and lines on standard error, if the process
        lacks files or memory.

    Example:

    >>> with open("notes.txt", "w") as file:
    ...     _ = file.write("no image")
    >>> check_files(["notes.txt"])
    notes.txt: this is no image of a known format
    1 file: 0 images, 1 broken
    1
    """
    output = output or sys.stdout
    reports = []
    check = functools.partial(_check_file, everything=everything)
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        try:
            for report in _show_progress(pool.map(check, paths), len(paths)):
                reports.append(report)
                for line in report.broken:
                    print(line, file=output, flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    kinds = sum((report.kinds for report in reports), Counter[tuple[int, str]]())
    broken = [line for report in reports for line in report.broken]
    unread = [line for report in reports for line in report.unread]
    images = ", ".join(
        f"{number} of {_count(channels, 'channel')} of {dtype}"
        for (channels, dtype), number in kinds.most_common()
    )
    found = _count(kinds.total(), "image") + (f" ({images})" if images else "")
    faults = f"{len(broken)} broken" + (f", {len(unread)} not read" if unread else "")
    print(f"{_count(len(paths), 'file')}: {found}, {faults}", file=output)
    misfit = _find_misfit(paths, reports)
    if misfit:
        print(f"These do not fit one source: {misfit}", file=output)
    return _end(broken, unread)


def _end(broken: Sequence[str], unread: Sequence[str]) -> int:
    """Say on standard error what was not read; return the exit status."""
    for line in unread:
        print(f"error: {line}", file=sys.stderr)
    if unread:
        return 2
    return 1 if broken else 0


def _find_misfit(paths: Sequence[str], reports: Sequence[_FileReport]) -> str:
    """Return why `open_source` would refuse files of which each by itself is sound."""
    sound = {
        path: report
        for path, report in zip(paths, reports, strict=True)
        if not report.broken and not report.unread
    }
    kinds = {(*kind, file.reader) for file in sound.values() for kind in file.kinds}
    if len(kinds) < 2:
        return ""
    try:
        open_any_size(list(sound)).close()
    except SourceError as error:
        return "" if is_fault_of_process(error) else _without_remedy(error)
    return ""  # such as TIFF of different layouts


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


def _check_file(path: str, everything: bool) -> _FileReport:
    """Return the kinds of images in a file, and what is broken."""
    report = _FileReport(Counter())

    def note(error: SourceError, name: str, place: str) -> None:
        lines = report.unread if is_fault_of_process(error) else report.broken
        lines.append(f"{name}: {_without_path(error, place)}")

    try:
        source = open_any_size(path, threads=1)
    except SourceError as error:
        note(error, path, path)
        return report
    report.reader = type(source).__name__
    with source:
        for index in range(len(source)):
            report.kinds[source.channels, str(source.dtype)] += 1
            try:
                for level in range(len(source.levels(index))):
                    for window in _windows(source, index, level, everything):
                        source.read_window(index, level, *window)
            except SourceError as error:
                note(error, _name(source, index, path), source.where(index))
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
    return source.where(index).replace(os.path.abspath(path), path, 1)


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
