"""Sources whose images are in files: checked when opened, opened when read."""

import abc
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_choice, check_count
from attention_sampling.data.base import (
    Size,
    Source,
    SourceError,
    describe_error,
    is_fault_of_process,
)
from attention_sampling.data.cache import LeaseCache


@dataclass(frozen=True)
class Image:
    """One image in a file.

    Attributes:
        key: what tells the image from others of the file; None if it is the only one.
        levels: (height, width) of each level in pixels, full resolution first.
        blocks: (height, width) of the tiles or chunks of each level.
        channels: channels.
        dtype: name of the dtype.
        name: name of the image, if the file tells it.
    """

    key: str | int | None
    levels: tuple[Size, ...]
    blocks: tuple[Size, ...]
    channels: int
    dtype: str
    name: str | None = None


# What changes when a file is written again or replaced.
_Signature = tuple[int, int, int]


@dataclass(frozen=True)
class _Place:
    """Where an image is: which file as it was when opened, and what of it."""

    name: str
    path: str
    signature: _Signature
    image: Image


# What of a source's state tells nothing about the pixels of one of its images.
_OF_NO_EFFECT = {
    "_cache_bytes",
    "_max_open",
    "_names",
    "_places",
    "_skipped",
    "_threads",
}


class FileSource(Source):
    """A source over files, each of one or several images.

    Every file is opened once at the beginning, to learn what is in it and to refuse what
    is broken. After that, files are opened when they are read, and at most ``max_open``
    of them are kept open.

    A file that is replaced, changed or removed after that is refused when it is read.

    Args:
        paths: a file or several.
        on_error: what to do about a file that cannot be opened, or whose images have
            another channel count or dtype than the first: ``"raise"``, or ``"skip"`` to
            leave it out and list it in ``skipped``.
        threads: windows to read at once; None for what suits the format.
        max_open: files to keep open.

    Raises:
        SourceError: a file cannot be opened, or does not fit the others; with
            ``on_error="skip"``, none can.
        ValueError: no files; an unknown ``on_error``; a number that is not positive.
    """

    # What an error adds about an image that does not fit the first.
    _misfit_remedy = ""

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        on_error: str = "raise",
        threads: int | None = None,
        max_open: int = 64,
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        self._max_open = check_count("max_open", max_open, smallest=1)
        if isinstance(paths, str | os.PathLike):
            paths = [paths]
        files = [os.fspath(path) for path in paths]
        self._places, self._skipped = self._find_images(files, on_error == "skip")
        if not self._places and files:
            raise SourceError(
                f"None of {len(files)} files can be read; the first: "
                f"{': '.join(self._skipped[0])}"
            )
        super().__init__(
            [place.name for place in self._places],
            self._places[0].image.channels if files else 1,
            self._places[0].image.dtype if files else "uint8",
            self._default_threads() if threads is None else threads,
        )

    @property
    def paths(self) -> tuple[str, ...]:
        """The file of each image."""
        return tuple(place.path for place in self._places)

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of each file left out by ``on_error="skip"``."""
        return tuple(self._skipped)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_cache"]
        return state

    def _reading(self) -> tuple[str, list[tuple[str, str]]]:
        """Return what, beside its file, decides what the pixels of an image are."""
        state = self.__getstate__()
        options = [(k, repr(state[k])) for k in sorted(state.keys() - _OF_NO_EFFECT)]
        return type(self).__qualname__, options

    @abc.abstractmethod
    def _open(self, path: str) -> Any:
        """Open a file."""

    @abc.abstractmethod
    def _describe(self, opened: Any) -> Sequence[Image]:
        """Return the images of an open file, or say what is wrong with it."""

    def _inspect(self, path: str) -> Sequence[Image]:
        """Return the images of a file. Override it where that takes less than opening."""
        opened = self._open(path)
        try:
            return self._describe(opened)
        finally:
            self._close_file(opened)

    @abc.abstractmethod
    def _read_from(
        self, opened: Any, image: Image, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        """Return a window that lies wholly inside a level of an image.

        ``opened`` may be used by several threads at once.
        """

    def _close_file(self, opened: Any) -> None:
        opened.close()

    def _cost(self, opened: Any) -> int:
        return 1

    def _limit(self) -> int:
        return self._max_open

    def _default_threads(self) -> int:
        return min(8, 2 * (os.cpu_count() or 1))

    def _where(self, index: int) -> str:
        place = self._places[index]
        return _name(place.path, place.image.key)

    def _levels(self, index: int) -> Sequence[Size]:
        return self._places[index].image.levels

    def _block(self, index: int, level: int) -> Size:
        return self._places[index].image.blocks[level]

    def _read(
        self, index: int, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        place = self._places[index]
        self._check_unchanged(place)
        lease = self._cache.acquire(place.path)
        try:
            return self._read_from(lease.kept, place.image, level, origin, size)
        finally:
            self._cache.release(lease)

    def _check_unchanged(self, place: _Place) -> None:
        try:
            if _signature(place.path) == place.signature:
                return
        except OSError:  # it is gone
            self._cache.drop(place.path)
            raise
        self._cache.drop(place.path)
        raise OSError(
            "the file has been changed since the source was opened. Open the source again"
        )

    def _close(self) -> None:
        self._cache.clear()

    def _forget_process(self) -> None:
        super()._forget_process()
        self._cache = LeaseCache(
            self._open, self._close_file, self._limit(), self._cost
        )

    def _find_images(
        self, files: Sequence[str], skip: bool
    ) -> tuple[list[_Place], list[tuple[str, str]]]:
        """Return what is in the files, and what is wrong with those left out."""
        places: list[_Place] = []
        skipped: list[tuple[str, str]] = []
        pool = ThreadPoolExecutor(self._default_threads())
        try:
            for path, found in zip(files, pool.map(self._look, files), strict=True):
                try:
                    if isinstance(found, Exception):
                        raise found
                    _check_fit(found, places, self._misfit_remedy)
                except Exception as error:
                    if not skip or is_fault_of_process(error):
                        raise SourceError(f"{path}: {describe_error(error)}") from error
                    skipped.append((path, describe_error(error)))
                else:
                    places.extend(found)
        finally:
            pool.shutdown(cancel_futures=True)
        return places, skipped

    def _look(self, path: str) -> list[_Place] | Exception:
        """Open a file to see what is in it."""
        name, path = path, os.path.abspath(path)
        try:
            signature = _signature(path)
            if not Path(path).is_file():
                raise OSError("this is no file")
            images = self._inspect(path)
            if not images:
                raise OSError("the file holds no image")
            for image in images:
                _check_image(image)
        except ImportError:  # no fault of the file
            raise
        except Exception as error:  # libraries raise what they like
            return error
        return [
            _Place(image.name or _name(name, image.key), path, signature, image)
            for image in images
        ]


def _name(path: str, key: str | int | None) -> str:
    return path if key is None else f"{path}[{key}]"


def _signature(path: str) -> _Signature:
    """Return what changes when a file is written again or replaced."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _check_image(image: Image) -> None:
    if np.dtype(image.dtype).kind not in "uif" or image.channels < 1:
        raise OSError(
            f"images must hold integers or floats, of one channel or more. Received: "
            f"{image.dtype}, {image.channels} channels"
        )
    if any(extent < 1 for size in image.levels for extent in size):
        raise OSError(f"an image without pixels: levels {image.levels}")


def _check_fit(found: list[_Place], places: list[_Place], remedy: str) -> None:
    """Refuse images of another kind than the first of all."""
    first = (places or found)[0]
    for place in found:
        kinds = [(p.image.channels, p.image.dtype) for p in (place, first)]
        if kinds[0] != kinds[1]:
            raise OSError(
                f"its images have {kinds[0][0]} channels of {kinds[0][1]}, those of "
                f"{first.path} {kinds[1][0]} of {kinds[1][1]}; all images of a source "
                f"must have the same{remedy}"
            )
