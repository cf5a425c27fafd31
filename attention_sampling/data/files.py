"""Sources whose images are in files: checked when opened, opened when read."""

import abc
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_choice, check_count
from attention_sampling.data.cache import Cache
from attention_sampling.data.errors import (
    SourceError,
    describe_error,
    is_fault_of_process,
)
from attention_sampling.data.source import Size, Source
from attention_sampling.threads import map_in_threads

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

# Number, size and time of a file: another where it was written again or replaced.
_Signature = tuple[int, int, int]

# Files that were open when the process was forked: the child neither reads nor closes
# them, as a thread of the parent may have held their locks.
_left_behind: list[Cache] = []


@dataclass(frozen=True)
class Image:
    """One image in a file."""

    key: str | int | None  # tells it from the others of its file; None of a single one
    levels: tuple[Size, ...]
    blocks: tuple[Size, ...]  # (height, width) of the tiles or chunks of each level
    channels: int
    dtype: str
    name: str | None = None  # if the file gives one


class OpenFile(abc.ABC):
    """An open file of a format. It is closed when nothing refers to it any more."""

    images: Sequence[Image] = ()  # all that it holds
    cost = 1  # counted towards the limit of its source: one file, or bytes

    @abc.abstractmethod
    def read(
        self, image: Image, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        """Return a window that is wholly inside a level, from any number of threads."""

    def close(self) -> None:
        """Close the file."""
        return

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()


@dataclass(frozen=True)
class _Stored:
    """An image, and its file as it was when the source was opened."""

    name: str
    path: str
    signature: _Signature
    image: Image


class FileSource(Source):
    """A source over files, each of one or several images.

    At the start every file is opened once. A broken file, or one with another channel count
    or dtype than most, is refused. Later a file is opened when a window of it is read, and at
    most ``max_open`` files stay open. A file that was changed, replaced or removed since the
    start is refused. ``paths`` holds the file of each image.

    A format derives from this class and writes ``open_file`` and ``recognizes``.
    """

    # Windows to read at once where the user says nothing.
    default_threads = min(8, 2 * (os.cpu_count() or 1))
    # Added to the error about an image with another channel count than the others.
    misfit_remedy = ""

    def __init__(
        self,
        paths: Paths,
        on_error: str = "raise",
        threads: int | None = None,
        max_open: int = 64,
    ) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        self.max_open = check_count("max_open", max_open, smallest=1)
        if isinstance(paths, str | os.PathLike):
            paths = [paths]
        files = [os.fspath(path) for path in paths]
        self._images, skipped = self._find_images(files, on_error == "skip")
        if not self._images and files:
            raise SourceError(
                f"None of {len(files)} files can be read; the first: "
                f"{': '.join(skipped[0])}"
            )
        super().__init__(
            [stored.name for stored in self._images],
            self._images[0].image.channels if files else 1,
            self._images[0].image.dtype if files else "uint8",
            self.default_threads if threads is None else threads,
        )
        self.skipped = tuple(skipped)
        self.paths = tuple(stored.path for stored in self._images)
        self._open_cache()

    # What a format of files is

    @classmethod
    def recognizes(cls, path: str, start: bytes) -> bool:
        """Tell whether this is the source for a file, from its first 4096 bytes."""
        return False

    @abc.abstractmethod
    def open_file(self, path: str) -> OpenFile:
        """Open a file, or raise an error that says what is wrong with it."""

    def inspect(self, path: str) -> Sequence[Image]:
        """Return the images of a file. Override it where that takes less than opening."""
        opened = self.open_file(path)
        try:
            return opened.images
        finally:
            opened.close()

    def limit(self, images: Sequence[Image]) -> int:
        """Return the largest sum of costs of the files that stay open."""
        return self.max_open

    # What a source is

    def levels(self, index: int) -> tuple[Size, ...]:
        """Return (height, width) of each level of an image, full resolution first."""
        return self._images[self.check_index(index)].image.levels

    def read(
        self, index: int, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        """Return a window of an image, unless its file was changed since the start."""
        stored = self._images[index]
        self._check_unchanged(stored)
        opened = self.cache.get(stored.path)
        return opened.read(stored.image, level, origin, size)

    def close(self) -> None:
        """Close all files, each after the last reading of it. Reading opens them again."""
        self.cache.clear()

    def block(self, index: int, level: int) -> Size:
        """Return (height, width) of the tiles of a level."""
        return self._images[index].image.blocks[level]

    def where(self, index: int) -> str:
        """Return the path of an image; of a file with several, also which one."""
        stored = self._images[index]
        return _name(stored.path, stored.image.key)

    def fingerprint(self, index: int) -> str:
        """Return a text of the file as it is now, the image in it, and the options."""
        stored = self._images[index]
        kind = type(self).__qualname__
        return repr((kind, stored.path, stored.signature, stored.image))

    @property
    def cache(self) -> Cache:
        """The files that are open, by path."""
        if self._process != os.getpid():
            _left_behind.append(self._cache)
            self._open_cache()
        return self._cache

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_cache"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_cache()

    def _open_cache(self) -> None:
        limit = self.limit([stored.image for stored in self._images])
        self._cache = Cache(self.open_file, limit, lambda opened: opened.cost)
        self._process = os.getpid()

    def _check_unchanged(self, stored: _Stored) -> None:
        try:
            if _signature(stored.path) != stored.signature:
                raise OSError(
                    "the file has been changed since the source was opened. Open the "
                    "source again"
                )
        except OSError:  # changed, or gone
            self.cache.drop(stored.path)
            raise

    def _find_images(
        self, files: Sequence[str], skip: bool
    ) -> tuple[list[_Stored], list[tuple[str, str]]]:
        """Return what is in the files, and what is wrong with those left out."""
        found: list[list[_Stored] | Exception] = []
        threads = self.default_threads
        with closing(map_in_threads(self._look, files, threads)) as looked_at:
            for path, result in zip(files, looked_at, strict=True):
                if isinstance(result, Exception):
                    if not skip or is_fault_of_process(result):
                        raise SourceError(
                            f"{path}: {describe_error(result)}"
                        ) from result
                found.append(result)
        usual = _most_common_kind([r for r in found if isinstance(r, list)])
        kept: list[_Stored] = []
        skipped: list[tuple[str, str]] = []
        for path, result in zip(files, found, strict=True):
            if isinstance(result, Exception):
                skipped.append((path, describe_error(result)))
            elif reason := self._find_misfit(result, usual):
                if not skip:
                    raise SourceError(f"{path}: {reason}")
                skipped.append((path, reason))
            else:
                kept += result
        return kept, skipped

    def _look(self, path: str) -> list[_Stored] | Exception:
        """Open a file to see what is in it."""
        name, path = path, os.path.abspath(path)
        try:
            signature = _signature(path)
            if not Path(path).is_file():
                raise OSError("this is no file")
            images = self.inspect(path)
            if not images:
                raise OSError("the file holds no image")
            for image in images:
                _check_image(image)
        except ImportError:  # no fault of the file
            raise
        except Exception as error:  # libraries raise what they like
            return error
        return [
            _Stored(image.name or _name(name, image.key), path, signature, image)
            for image in images
        ]

    def _find_misfit(self, images: Sequence[_Stored], usual: _Stored | None) -> str:
        """Return why the images of a file do not fit the usual one; "" if they do."""
        for stored in images:
            if usual is not None and _kind(stored) != _kind(usual):
                same_dtype = stored.image.dtype == usual.image.dtype
                return (
                    f"its images have {_kind(stored)}, those of {usual.path} "
                    f"{_kind(usual)}; all images of a source must have the same"
                    f"{self.misfit_remedy if same_dtype else ''}"
                )
        return ""


def _kind(stored: _Stored) -> str:
    return f"{stored.image.channels} channels of {stored.image.dtype}"


def _most_common_kind(files: Iterable[Sequence[_Stored]]) -> _Stored | None:
    """Return the first image of the kind that most files have; None of none."""
    firsts = [images[0] for images in files]
    if not firsts:
        return None
    [(kind, _)] = Counter(map(_kind, firsts)).most_common(1)
    return next(stored for stored in firsts if _kind(stored) == kind)


def _name(path: str, key: str | int | None) -> str:
    return path if key is None else f"{path}[{key}]"


def _signature(path: str) -> _Signature:
    """Return number, size and time of a file."""
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
