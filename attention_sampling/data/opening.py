"""Find the files that a user names, and open them, whatever their format."""

import glob
import inspect
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from attention_sampling.checks import check_choice, check_class_names
from attention_sampling.data.errors import (
    SourceError,
    describe_error,
    is_fault_of_process,
)
from attention_sampling.data.files import FileSource, Paths
from attention_sampling.data.hdf5 import HDF5Source
from attention_sampling.data.images import ImageFilesSource
from attention_sampling.data.labels import label_images, read_table
from attention_sampling.data.slides import OpenSlideSource
from attention_sampling.data.tiff import TiffSource, is_tiff

# The first that recognizes a file opens it.
_FORMATS: tuple[type[FileSource], ...] = (
    OpenSlideSource,
    TiffSource,
    HDF5Source,
    ImageFilesSource,
)
# Files of a directory that are read, or else an error: also where their first bytes are
# not those of an image, as in an empty file. Others are told by their first bytes.
_SUFFIXES = """
.avif .bif .bmp .btf .czi .dcm .gif .h5 .hdf5 .heic .j2k .jp2 .jpeg .jpg .mrxs .ndpi .pbm
.pgm .png .pnm .ppm .scn .svs .svslide .tif .tiff .vms .vmu .webp
""".split()  # noqa: SIM905


def open_source(
    paths: Paths,
    on_error: str = "raise",
    labels: Any = None,
    class_names: Sequence[str] | None = None,
    **keywords: Any,
) -> FileSource:
    """Open files of one format as a source, told by what is in them.

    - whole slides (SVS, NDPI, MRXS, DICOM, CZI ...), and TIFF in tiles among them:
      ``OpenSlideSource``; where openslide is not installed and the slide is a TIFF,
      ``TiffSource``;
    - TIFF in tiles, with a pyramid, or very large: ``TiffSource``;
    - HDF5: ``HDF5Source``;
    - JPEG, PNG, BMP and others, and other TIFF: ``ImageFilesSource``.

    Args:
        paths: a file; a directory of images; a directory with one directory of images a
            class, whose names become the labels; a table ``*.csv`` of labels with the
            columns ``file``, relative to the table, and ``label``; a pattern such as
            ``"slides/*.svs"`` or ``"slides/**/*.png"``; or several of these. Images of a directory or pattern are sorted, numbers by
            their value. Hidden files and what is no image, such as ``labels.csv``, are
            left out of them. A file that is named itself must be an image.
        on_error: what to do about a file that cannot be opened, is of another kind than
            most, or whose images have another channel count or dtype than most:
            ``"raise"``, or ``"skip"`` to leave it out and list it in ``skipped``.
        labels: one for each image; or a table, as above, whose ``file`` may also be the
            name of an image in an HDF5 file.
        class_names: the classes in the order of their indices, such as those of a model
            that was trained already; None for all that are there, sorted.
        **keywords: for the source that is chosen, such as ``threads``.

    Returns:
        The source. With labels, its ``labels`` are indices of its ``class_names`` if they
        are text, and numbers if they are numbers: from a table, numbers of which one has
        a fraction.

    Raises:
        ImportError: the library of the format is missing; the message names the extra.
        SourceError: there are no such files; a file cannot be opened, or does not fit
            the others; with ``on_error="skip"``, none can.
        TypeError: a keyword that the source does not take; paths that are none.
        ValueError: an unknown ``on_error``, or a value that the source refuses; a table
            without these columns; an image without a label, or of another class.

    Example:

    >>> from PIL import Image
    >>> for file in ("cat/10.png", "cat/9.png", "dog/1.png"):
    ...     os.makedirs(os.path.dirname(f"pets/{file}"), exist_ok=True)
    ...     Image.new("RGB", (40, 30)).save(f"pets/{file}")
    >>> source = open_source("pets")
    >>> source.names
    ('pets/cat/9.png', 'pets/cat/10.png', 'pets/dog/1.png')
    >>> source.labels.tolist(), source.class_names
    ([0, 0, 1], ('cat', 'dog'))
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    directory: str | os.PathLike[str] = "."
    if labels is None and _is_table(paths):
        labels = read_table(paths)
        directory = os.path.dirname(paths)
        paths = [os.path.join(directory, name) for name in labels]
    elif _is_table(labels):
        directory, labels = os.path.dirname(labels), read_table(labels)
    files = find_files(paths)
    if (
        labels is None
        and isinstance(paths, str | os.PathLike)
        and _is_of_classes(paths)
    ):
        labels = {os.path.abspath(file): Path(file).parent.name for file in files}
        class_names = class_names or sorted({*labels.values()}, key=_natural)
    source = _open_files(files, on_error, keywords)
    if labels is not None:
        label_images(source, labels, class_names, directory)
    elif class_names is not None:
        source.class_names = check_class_names(class_names)
    return source


def _open_files(
    files: Sequence[str], on_error: str, keywords: dict[str, Any]
) -> FileSource:
    """Choose the source that most files are for, and open them."""
    formats: dict[str, type[FileSource]] = {}
    reasons: dict[str, str] = {}
    for path in files:
        try:
            found = _find_format(path)
        except OSError as error:
            if is_fault_of_process(error):
                raise SourceError(f"{path}: {describe_error(error)}") from error
            reasons[path] = describe_error(error)
        else:
            if found is None:
                reasons[path] = "this is no image of a known format"
            else:
                formats[path] = found
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
    # First what was skipped here, then what the source skipped.
    source.skipped = (*reasons.items(), *source.skipped)
    return source


def _is_table(paths: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Tell whether paths are a table of labels."""
    if not isinstance(paths, str | os.PathLike):
        return False
    path = os.fspath(paths)
    return path.lower().endswith(".csv") and not _is_pattern(path)


def _is_of_classes(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a directory with one directory of images a class."""
    return os.path.isdir(path) and not _images_in(os.fspath(path))


def find_files(paths: Paths) -> list[str]:
    """Return the files that a user names by paths, directories and patterns.

    Of a directory or pattern only images, broken ones among them; see `open_source`. One
    without images is returned as it is, if there are others: opening it fails.

    Raises:
        SourceError: there are none.
        TypeError: ``paths`` are no paths.

    Example:

    >>> os.mkdir("slides")
    >>> for name in ("b10.svs", "b9.svs", "labels.csv", ".hidden"):
    ...     open(f"slides/{name}", "w").close()
    >>> find_files("slides")
    ['slides/b9.svs', 'slides/b10.svs']
    """
    names = [os.fspath(path) for path in _check_paths(paths)]
    if not names:
        raise SourceError("A source needs one file or more. Received: none")
    found = {name: _expand(name) for name in names}
    if not any(found.values()):
        raise SourceError(f"{names[0]}: {_describe_empty(names[0])}")
    return list(dict.fromkeys(file for name in names for file in found[name] or [name]))


def _describe_empty(path: str) -> str:
    """Return what is wrong with a directory or pattern without images; "" for a file."""
    if os.path.isdir(path):
        inside = os.path.join(glob.escape(path), "**", "*.png")
        return (
            "this is a directory without images, and so are those in it. For images "
            f"deeper inside, give a pattern such as {inside!r}"
        )
    return "no image fits this pattern" if _is_pattern(path) else ""


def _check_paths(paths: Paths) -> list[str | os.PathLike[str]]:
    if isinstance(paths, str | os.PathLike):
        return [paths]
    several = list(paths) if isinstance(paths, Iterable) else [paths]
    for path in several:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                "`paths` must be a path, or several: texts or pathlib.Path. Received: "
                f"{path!r} of type {type(path).__name__}"
            )
    return several


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not os.path.lexists(path)


def _expand(path: str) -> list[str]:
    """Return the images of a directory or a pattern; a file as it is."""
    if os.path.isdir(path):
        return _images_in(path) or _images_of_classes(path)
    if not _is_pattern(path):
        return [path]  # whether it is there shows when it is opened
    return _keep_images(glob.glob(path, recursive=True))


def _images_of_classes(path: str) -> list[str]:
    """Return the images of the directories in a directory."""
    inside = sorted(glob.glob(os.path.join(glob.escape(path), "*", "")))
    return [file for entry in inside for file in _images_in(entry.rstrip(os.sep))]


def _images_in(path: str) -> list[str]:
    return _keep_images(glob.glob(os.path.join(glob.escape(path), "*")))


def _keep_images(paths: Iterable[str]) -> list[str]:
    files = sorted(filter(os.path.isfile, paths), key=_natural)
    return [file for file in files if _is_image(file)]


def _is_image(path: str) -> bool:
    """Tell whether a file is meant to be an image, even if it is a broken one."""
    try:
        return path.lower().endswith(tuple(_SUFFIXES)) or _find_format(path) is not None
    except OSError:  # opening it tells what is wrong
        return True


def _natural(path: str) -> tuple[list[str | int], str]:
    """Return a key that sorts numbers by their value."""
    parts = re.split(r"([0-9]+)", path)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], path


def _find_format(path: str) -> type[FileSource] | None:
    """Return the source that opens a file, told by its first bytes; None if none does."""
    start = _read_start(path)
    return next((one for one in _FORMATS if one.recognizes(path, start)), None)


def _read_start(path: str) -> bytes:
    problem = _describe_empty(path)
    if problem:
        raise OSError(problem)
    if not os.path.exists(path):
        raise FileNotFoundError("there is no such file")
    if not os.path.isfile(path):  # to open a pipe would wait for ever
        raise OSError("this is no file")
    with open(path, "rb") as file:
        return file.read(4096)


def _unite_tiffs(formats: dict[str, type[FileSource]]) -> None:
    """Let one source open all TIFF files, if some are slides, in tiles, or small."""
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
