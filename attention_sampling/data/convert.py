"""Convert images of any format to one HDF5 file: tiles and a pyramid for each.

``python -m attention_sampling convert IN... OUT.h5``
"""

import contextlib
import hashlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from attention_sampling.checks import check_choice, check_count, check_flag
from attention_sampling.data.area import level_sizes
from attention_sampling.data.errors import SourceError, is_fault_of_process
from attention_sampling.data.hdf5_layout import FORMAT, FORMAT_ATTRIBUTE, IMAGES_GROUP
from attention_sampling.data.hdf5_writer import (
    COMPRESSIONS,
    ImageWriter,
    open_to_write,
    raw_bytes,
)
from attention_sampling.data.source import Size, Source
from attention_sampling.files import one_process

# Attribute of a finished image, in unfinished files alone.
_MARK = "fingerprint"
# What h5py raises about a file that is not whole.
_BROKEN = (OSError, RuntimeError, KeyError, ValueError, AttributeError)


def convert(
    source: Source,
    path: str | os.PathLike[str],
    chunk: int = 256,
    compression: str = "gzip",
    overwrite: bool = False,
    on_error: str = "raise",
    progress: bool = True,
) -> tuple[tuple[str, str], ...]:
    """Write the images of a source into one HDF5 file that `HDF5Source` reads.

    For images whose own format is slow to read windows from, such as JPEG and PNG, and
    to have thousands of them in one file. Images are read block by block: memory does
    not depend on their size, except where one has to be decoded as a whole, as JPEG, PNG
    and BMP have. Such an image larger than 1 GiB needs a source with its
    ``cache_bytes=None``; the command opens it so.

    The file appears under its name when it is whole. A conversion that was stopped or killed
    goes on after the last finished image of a file when it is run again; until then, what is
    finished is in the hidden directory ``.OUT.h5.unfinished`` beside the file.

    Args:
        source: the images.
        path: file to write, such as ``"images.h5"``.
        chunk: height and width of the tiles in pixels. A window is read by whole tiles.
        compression: ``"gzip"``; ``"lzf"``, larger files that are faster to read; or
            ``"none"``. None of them loses anything.
        overwrite: replace the file if it exists.
        on_error: what to do about an image that cannot be read: ``"raise"``, or
            ``"skip"`` to leave it out. If the process runs out of open files or memory,
            the error is raised in any case.
        progress: show a progress bar on stderr, if tqdm is installed.

    Returns:
        (name, reason) of each image left out.

    Raises:
        SourceError: an image cannot be read; with ``on_error="skip"``, none can, or the
            process lacks files or memory.
        OSError: the file exists, cannot be written, or is being written by another
            conversion; the disk is full.
        ValueError: an unknown ``compression`` or ``on_error``, a ``chunk`` below 16.

    Example:

    >>> from attention_sampling.data import ArraySource, HDF5Source
    >>> source = ArraySource([np.zeros((1500, 1001, 3), "uint8")])
    >>> convert(source, "images.h5", progress=False)
    ()
    >>> HDF5Source("images.h5").levels(0)
    ((1500, 1001), (750, 501), (375, 251))
    """
    check_count("chunk", chunk, smallest=16)
    check_choice("compression", compression, COMPRESSIONS)
    check_choice("on_error", on_error, ("raise", "skip"))
    check_flag("overwrite", overwrite)
    path = Path(path).resolve()
    check_target(path, overwrite)
    settings = (FORMAT, chunk, compression)
    marks = [_mark(source.fingerprint(index), settings) for index in range(len(source))]
    with _directory_beside(path) as directory:
        part, old = directory / "part.h5", directory / "old.h5"
        _set_aside(part, old)
        with (
            _progress_bar(source, path, progress) as advance,
            open_to_write(part, path, keep=_has_finished) as file,
        ):
            images = file.create_group(IMAGES_GROUP)
            _take_over(
                old, images, source, marks, lambda n: advance(raw_bytes(source, n))
            )
            file.flush()
            old.unlink(missing_ok=True)
            with ImageWriter(source, chunk, compression, advance) as writer:
                skipped = _write_images(source, images, marks, writer, on_error)
            _finish(file, source)
        check_target(path, overwrite)
        os.replace(part, path)
    return skipped


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a path that no file may be written to.

    Raises:
        FileExistsError: it exists and is not to be replaced, or is no file.
        FileNotFoundError: its directory does not exist.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(
            "The file must go into a directory that exists. Received: "
            f"{str(path)!r}. Make the directory first"
        )
    if path.exists() and not path.is_file():
        raise FileExistsError(
            f"A file is to be written. Received: {str(path)!r}, which is something else"
        )
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"The file must not exist. Received: {str(path)!r}. Delete it, name another, "
            "or replace it by overwrite=True"
        )


def _mark(fingerprint: str | None, settings: tuple[object, ...]) -> str | None:
    """Return what tells an image, as its file is now, from all others."""
    if fingerprint is None:
        return None
    return hashlib.sha256(ascii((fingerprint, settings)).encode()).hexdigest()


@contextlib.contextmanager
def _directory_beside(path: Path) -> Iterator[Path]:
    """Give a hidden directory to write in, which goes when nothing in it is of use."""
    directory = path.with_name(f".{path.name}.unfinished")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(one_process(directory))
        except BlockingIOError as error:
            raise BlockingIOError(
                f"Another process is writing {str(path)!r}. Wait for its end, or name "
                "another file"
            ) from error
        try:
            yield directory
        finally:
            if not any(directory.glob("*.h5")):
                shutil.rmtree(directory, ignore_errors=True)


def _has_finished(file: h5py.File) -> bool:
    """Tell whether another conversion can go on from a file."""
    return any(_MARK in image.attrs for image in file[IMAGES_GROUP].values())


def _set_aside(part: Path, old: Path) -> None:
    """Keep the file that a stopped conversion was writing, under another name.

    Where there is an older one, that conversion was stopped while it took it over: the
    older one has all that was finished.
    """
    if old.exists():
        part.unlink(missing_ok=True)
    elif part.exists():
        os.replace(part, old)


def _take_over(
    old: Path,
    images: h5py.Group,
    source: Source,
    marks: Sequence[str | None],
    advance: Callable[[int], object],
) -> None:
    """Copy from an unfinished file what is wanted and whole.

    The file itself is never written on: a kill may have left it inconsistent. What is copied
    out of it is read whole, which gzip checks.
    """
    with contextlib.suppress(*_BROKEN), h5py.File(old, "r") as file:
        found = {}
        for image in file["images"].values():
            with contextlib.suppress(*_BROKEN):
                found[image.attrs[_MARK]] = image
        for index, mark in enumerate(marks):
            if mark is not None and mark in found:
                key = _image_key(index)
                try:
                    images.copy(found[mark], key)
                    _check_whole(images[key], level_sizes(source.levels(index)[0]))
                    advance(index)
                except _BROKEN:
                    if key in images:
                        del images[key]


def _image_key(index: int) -> str:
    """Return the name of the group of an image."""
    return f"{index:06d}"


def _check_whole(image: h5py.Group, sizes: Sequence[Size]) -> None:
    """Read an image, and refuse one of which something is missing."""
    for number, size in enumerate(sizes):
        level = image[str(number)]
        chunks = np.prod(-(-np.array(level.shape) // level.chunks))
        if level.shape[:2] != size or level.id.get_num_chunks() != chunks:
            raise OSError(f"level {number} is not whole")
        for window in level.iter_chunks():
            level[window]


def _write_images(
    source: Source,
    images: h5py.Group,
    marks: list[str | None],
    writer: ImageWriter,
    on_error: str,
) -> tuple[tuple[str, str], ...]:
    """Write the images that are not there yet; return (name, reason) of those left out."""
    skipped = []
    for index, mark in enumerate(marks):
        key = _image_key(index)
        if key in images:
            continue
        try:
            writer.write(index, images.create_group(key))
        except SourceError as error:
            if on_error == "raise" or is_fault_of_process(error):
                raise
            del images[key]
            skipped.append((source.names[index], str(error)))
            continue
        if mark is not None:
            images[key].attrs[_MARK] = mark
            images.file.flush()  # from here on a kill does not lose it
    if not len(images):
        raise SourceError(
            f"None of {len(source)} images can be read; the first: {skipped[0][1]}"
        )
    return tuple(skipped)


def _finish(file: h5py.File, source: Source) -> None:
    """Number the images that are there, and name them."""
    images = file[IMAGES_GROUP]
    names = _shorten(source.names)
    for position, key in enumerate(sorted(images)):
        image = images[key]
        image.attrs.pop(_MARK, None)
        # File names need not be Unicode, what HDF5 stores does.
        name = names[int(key)].encode(errors="backslashreplace").decode()
        image.attrs["name"] = name
        if key != _image_key(position):
            images.move(key, _image_key(position))
    file.attrs[FORMAT_ATTRIBUTE] = FORMAT


def _shorten(names: Sequence[str]) -> list[str]:
    """Return names without the directory that all have in common."""
    try:
        common = os.path.commonpath([os.path.dirname(name) for name in names])
        return [Path(os.path.relpath(name, common)).as_posix() for name in names]
    except ValueError:  # some absolute, some relative
        return list(names)


@contextlib.contextmanager
def _progress_bar(
    source: Source, path: Path, progress: bool
) -> Iterator[Callable[[int], Any]]:
    """Show how much is written; gives what is called with bytes of pixels."""
    if not progress or importlib.util.find_spec("tqdm") is None:
        yield lambda count: None
        return
    from tqdm import tqdm

    total = sum(raw_bytes(source, index) for index in range(len(source)))
    with tqdm(total=total, desc=path.name, unit="B", unit_scale=True) as bar:
        yield bar.update
