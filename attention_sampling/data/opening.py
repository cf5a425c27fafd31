"""Open images of whatever format, told by what is in the files."""

import importlib.util
import inspect
from typing import Any

import attention_sampling.data as sources
from attention_sampling.checks import check_choice
from attention_sampling.data.decoding import IMAGE_FORMATS
from attention_sampling.data.file_paths import Paths, find_files, no_files
from attention_sampling.data.files import FileSource
from attention_sampling.data.formats import find_format
from attention_sampling.data.libraries import import_library
from attention_sampling.data.source import (
    Source,
    SourceError,
    describe_error,
    is_fault_of_process,
)
from attention_sampling.data.tiff import check_pages

# Kind of file -> name of its source.
_SOURCES = {
    "slide": "OpenSlideSource",
    "TIFF": "TiffSource",
    "HDF5": "HDF5Source",
    "image": "ImageFilesSource",
}
# Slides whose first bytes tell nothing, or that their overview is a JPEG.
_SLIDE_SUFFIXES = (".mrxs", ".vms", ".vmu")
# An untiled TIFF of more bytes is not decoded as a whole.
_LARGE_TIFF = 2**28


def open_source(paths: Paths, on_error: str = "raise", **keywords: Any) -> Source:
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
            the first, or whose images have another channel count or dtype: ``"raise"``,
            or ``"skip"`` to leave it out and list it in ``skipped``.
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
    kinds: list[str] = []
    known: list[str] = []
    reasons: dict[str, str] = {}
    for path in files:
        try:
            kinds.append(_find_kind(path))
            known.append(path)
        except OSError as error:
            if is_fault_of_process(error):
                raise SourceError(f"{path}: {describe_error(error)}") from error
            reasons[path] = describe_error(error)
    if "slide" in kinds:  # openslide reads TIFF in tiles, or says what is wrong with it
        kinds = ["slide" if kind == "TIFF" else kind for kind in kinds]
    elif set(kinds) == {"image", "TIFF"} and all(map(_is_tiff, known)):
        kinds = ["TIFF"] * len(known)  # some of them large, some small
    for path, kind in zip(known, kinds, strict=True):
        if kind != kinds[0]:
            reasons[path] = (
                f"its kind is {kind}, that of {known[0]} is {kinds[0]}; all files of a "
                "source must be of one kind"
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
    kind_of_source = getattr(sources, _SOURCES[kinds[0]])
    _check_keywords(kind_of_source, keywords)
    source: FileSource = kind_of_source(fitting, on_error=on_error, **keywords)
    # What the source itself has skipped comes behind.
    source.skipped = (*reasons.items(), *source.skipped)
    return source


def _check_keywords(kind_of_source: type, keywords: dict[str, Any]) -> None:
    known = set(inspect.signature(kind_of_source).parameters) - {"paths", "on_error"}
    unknown = sorted(set(keywords) - known)
    if unknown:
        raise TypeError(
            f"These files are opened by {kind_of_source.__name__}, whose keywords are "
            f"{', '.join(sorted(known))}. Received: {', '.join(unknown)}"
        )


def _find_kind(path: str) -> str:
    """Return the kind of a file: a key of ``_SOURCES``."""
    problem = no_files(path)
    if problem:
        raise OSError(problem)
    file_format = find_format(path)
    if file_format in ("DICOM", "CZI"):
        return "slide"
    if file_format == "TIFF":
        return _find_kind_of_tiff(path)
    if path.lower().endswith(_SLIDE_SUFFIXES):
        return "slide"
    if file_format == "HDF5":
        return "HDF5"
    if file_format in IMAGE_FORMATS:
        return "image"
    raise OSError("this is no image of a known format")


def _is_tiff(path: str) -> bool:
    return find_format(path) == "TIFF"


def _find_kind_of_tiff(path: str) -> str:
    if importlib.util.find_spec("openslide"):
        vendor = import_library("openslide").OpenSlide.detect_format(path)
        if vendor not in (None, "generic-tiff"):
            return "slide"
    tifffile = import_library("tifffile")
    try:
        # The flags: tifffile would open other files that this one names or lies beside.
        with tifffile.TiffFile(
            path, _multifile=False, is_mmstack=False, is_ndtiff=False
        ) as file:
            check_pages(file)
            page = file.pages.first
            large = page.is_tiled or page.nbytes > _LARGE_TIFF
            pyramid = large or any(len(series.levels) > 1 for series in file.series)
            return "TIFF" if pyramid else "image"
    except OSError:
        raise
    except Exception as error:  # whatever tifffile stumbles on
        raise OSError(f"the TIFF is broken: {describe_error(error)}") from error
