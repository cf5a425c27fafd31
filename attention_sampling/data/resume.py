"""Take over from a killed conversion the images that it had finished."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from attention_sampling.data.libraries import import_library
from attention_sampling.data.pyramid import level_sizes
from attention_sampling.data.source import Source, SourceError

# Attribute of a finished image, in part files alone.
_MARK = "fingerprint"
# What h5py raises about a file that is not whole.
_BROKEN = (OSError, RuntimeError, KeyError, ValueError, AttributeError)


class FinishedImages:
    """What killed conversions had finished, to be copied instead of made again.

    A part file is never written on: a kill may have left it inconsistent. What is copied
    out of it is read whole, which gzip checks.

    A context manager: leaving it removes the part files, except where an image cannot be
    read or the user stops it.

    Args:
        source: the images to convert. Only what comes from files can be known again.
        settings: what the conversion depends on besides.
        parts: part files that nobody writes to.
    """

    def __init__(
        self, source: Source, settings: tuple[object, ...], parts: Sequence[Path]
    ) -> None:
        self._source = source
        self._marks = [_mark(source, index, settings) for index in range(len(source))]
        self._parts = parts
        self._images: dict[str, Any] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "FinishedImages":
        h5py = import_library("h5py")
        for part in self._parts:
            with contextlib.suppress(*_BROKEN):
                file = self._open.enter_context(h5py.File(part, "r"))
                for image in file["images"].values():
                    with contextlib.suppress(*_BROKEN):
                        self._images[image.attrs[_MARK]] = image
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()
        if not (self._images and kind in (SourceError, KeyboardInterrupt)):
            for part in self._parts:
                part.unlink(missing_ok=True)

    def copy(self, index: int, images: Any, key: str) -> bool:
        """Copy an image into a group, if it was finished and is whole."""
        mark = self._marks[index]
        found = None if mark is None else self._images.get(mark)
        if found is None:
            return False
        try:
            images.copy(found, key)
            self._check(index, images[key])
        except _BROKEN:
            if key in images:
                del images[key]
            return False
        return True

    def mark(self, index: int, image: Any) -> None:
        """Note in its group that an image is finished."""
        mark = self._marks[index]
        if mark is not None:
            image.attrs[_MARK] = mark

    def unmark(self, image: Any) -> None:
        """Take the note away."""
        image.attrs.pop(_MARK, None)

    def _check(self, index: int, image: Any) -> None:
        for number, size in enumerate(level_sizes(self._source.levels(index)[0])):
            level = image[str(number)]
            chunks = 1
            for extent, length in zip(level.shape, level.chunks, strict=True):
                chunks *= -(-extent // length)
            if level.shape[:2] != size or level.id.get_num_chunks() != chunks:
                raise OSError(f"level {number} is not whole")
            for place in level.iter_chunks():
                level[place]


def _mark(source: Source, index: int, settings: tuple[object, ...]) -> str | None:
    """Return what tells an image, as its file is now, from all others."""
    fingerprint = source.fingerprint(index)
    if fingerprint is None:
        return None
    return hashlib.sha256(repr((fingerprint, settings)).encode()).hexdigest()
