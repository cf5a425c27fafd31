"""Open images of whatever format, told by what is in the files."""

import inspect
import os
from collections import Counter
from typing import Any

from attention_sampling.checks import check_choice
from attention_sampling.data.errors import (
    SourceError,
    describe_error,
    is_fault_of_process,
)
from attention_sampling.data.files import FileSource
from attention_sampling.data.hdf5 import HDF5Source
from attention_sampling.data.images import ImageFilesSource
from attention_sampling.data.paths import Paths, find_files, no_files
from attention_sampling.data.slides import OpenSlideSource
from attention_sampling.data.tiff import TiffSource, is_tiff

# The first that recognizes a file opens it.
_FORMATS: tuple[type[FileSource], ...] = (
    OpenSlideSource,
    TiffSource,
    HDF5Source,
    ImageFilesSource,
)


def open_source(paths: Paths, on_error: str = "raise", **keywords: Any) -> FileSource:
    """Open files of one format as a source, told by what is in them.

    - whole slides (SVS, NDPI, MRXS, DICOM, CZI ...), and TIFF in tiles among them:
      ``OpenSlideSource``; where openslide is not installed and the slide is a TIFF,
      ``TiffSource``;
    - TIFF in tiles, with a pyramid, or very large: ``TiffSource``;
    - HDF5: ``HDF5Source``;
    - JPEG, PNG, BMP and others, and other TIFF: ``ImageFilesSource``.

    Args:
        paths: a file; a directory, for the files in it, without those in directories
            inside it; a pattern such as ``"slides/*.svs"`` or ``"slides/**/*.png"``; or
            several of these. Files of a directory or pattern are sorted, numbers by
            their value; hidden files and the parts of MRXS slides are left out.
        on_error: what to do about a file that cannot be opened, is of another kind than
            most, or whose images have another channel count or dtype than most:
            ``"raise"``, or ``"skip"`` to leave it out and list it in ``skipped``.
        **keywords: for the source that is chosen, such as ``threads``.

    Raises:
        ImportError: the library of the format is missing; the message names the extra.
        SourceError: there are no such files; a file cannot be opened, or does not fit
            the others; with ``on_error="skip"``, none can.
        TypeError: a keyword that the source does not take; paths that are none.
        ValueError: an unknown ``on_error``, or a value that the source refuses.

    Example:

    >>> from PIL import Image
    >>> for number in (10, 9):
    ...     Image.new("RGB", (40, 30)).save(f"{number}.png")
    >>> source = open_source("*.png")
    >>> source.names
    ('9.png', '10.png')
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    files = find_files(paths)
    formats: dict[str, type[FileSource]] = {}
    reasons: dict[str, str] = {}
    for path in files:
        try:
            formats[path] = _find_format(path)
        except OSError as error:
            if is_fault_of_process(error):
                raise SourceError(f"{path}: {describe_error(error)}") from error
            reasons[path] = describe_error(error)
    _unite_tiffs(formats)
    if formats:
        [(chosen, _)] = Counter(formats.values()).most_common(1)
        usual = next(path for path, one in formats.items() if one is chosen)
        for path, one in formats.items():
            if one is not chosen:
                reasons[path] = (
                    f"this is for {one.__name__}, {usual} for {chosen.__name__}; all "
                    "files of a source must be of one kind"
                )
    fitting = [path for path in files if path not in reasons]
    if reasons and (on_error == "raise" or not fitting):
        path = next(path for path in files if path in reasons)
        remedy = (
            '. To leave such files out, give a pattern such as "images/*.png", or '
            'on_error="skip"'
        )
        helps = on_error == "raise" and len(files) > 1
        raise SourceError(f"{path}: {reasons[path]}{remedy if helps else ''}")
    _check_keywords(chosen, keywords)
    source = chosen(fitting, on_error=on_error, **keywords)
    # What the source itself has skipped comes behind.
    source.skipped = (*reasons.items(), *source.skipped)
    return source


def _find_format(path: str) -> type[FileSource]:
    """Return the source that opens a file, told by its first bytes."""
    start = _read_start(path)
    for source in _FORMATS:
        if source.recognizes(path, start):
            return source
    raise OSError("this is no image of a known format")


def _read_start(path: str) -> bytes:
    problem = no_files(path)
    if problem:
        raise OSError(problem)
    if not os.path.exists(path):
        raise FileNotFoundError("there is no such file")
    if not os.path.isfile(path):  # to open a pipe would wait for ever
        raise OSError("this is no file")
    with open(path, "rb") as file:
        return file.read(4096)


def _unite_tiffs(formats: dict[str, type[FileSource]]) -> None:
    """Let one source open what is TIFF in one way and another: slides, tiles, small."""
    kinds = set(formats.values())
    if OpenSlideSource in kinds:  # openslide reads TIFF in tiles, or says what is wrong
        for path, one in formats.items():
            if one is TiffSource:
                formats[path] = OpenSlideSource
    elif TiffSource in kinds:
        for path, one in formats.items():
            if one is ImageFilesSource and is_tiff(_read_start(path)):
                formats[path] = TiffSource


def _check_keywords(source: type[FileSource], keywords: dict[str, Any]) -> None:
    known = set(inspect.signature(source).parameters) - {"paths", "on_error"}
    unknown = sorted(set(keywords) - known)
    if unknown:
        raise TypeError(
            f"These files are opened by {source.__name__}, whose keywords are "
            f"{', '.join(sorted(known))}. Received: {', '.join(unknown)}"
        )
