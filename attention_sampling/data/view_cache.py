"""Views kept in memory or on disk, so that each is made once."""

import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from attention_sampling.data.base import Size, Source
from attention_sampling.data.files import FileSource

View = npt.NDArray[np.float32]

# To be raised when views are made in another way: what was kept before is stale then.
_VERSION = 1


def view_reader(
    source: Source, size: Size, cache: str | os.PathLike[str] | None = None
) -> Callable[[int], View]:
    """Return what reads views of one size, and keeps them if asked to.

    Args:
        source: images.
        size: (height, width) of the views in pixels.
        cache: None, ``"memory"``, or a directory: see ``view_dataset``.

    Returns:
        Callable from the number of an image to its view, for any number of threads.

    Raises:
        OSError: the directory cannot be made.
        TypeError: a directory for a source that is not in files.
        ValueError: ``cache`` is empty.

    Example:

    >>> from attention_sampling.data import ArraySource
    >>> read = view_reader(ArraySource([np.ones((6, 8, 1))]), (3, 4), cache="memory")
    >>> read(0).shape
    (3, 4, 1)
    """
    if cache is not None and not os.fspath(cache):
        raise ValueError(
            '`cache` must be None, "memory" or a directory. Received: an empty path'
        )
    if cache is None:
        return lambda index: source.read_view(index, size)
    if cache == "memory":
        return MemoryViews(source, size)
    return DiskViews(source, size, cache)


class MemoryViews:
    """Views in memory: height * width * channels * 4 bytes each.

    Args:
        source: images.
        size: (height, width) of the views in pixels.
    """

    def __init__(self, source: Source, size: Size) -> None:
        self._source, self._size = source, size
        self._views: dict[int, View] = {}

    def __call__(self, index: int) -> View:
        """Return the view of an image."""
        view = self._views.get(index)
        if view is None:
            view = self._views[index] = self._source.read_view(index, self._size)
        return view


class DiskViews:
    """Views in a directory, one file each, for later runs and several processes.

    A kept view counts only for the file it was made of, as it was then: path, inode,
    size and time of the last change, and the options of the source. Anything else in
    its place, and what is broken, is made anew and replaced.

    Args:
        source: images in files.
        size: (height, width) of the views in pixels.
        directory: where to keep them; made if need be. Several sources may share it.

    Raises:
        OSError: the directory cannot be made.
        TypeError: the images are not in files.
    """

    def __init__(
        self, source: Source, size: Size, directory: str | os.PathLike[str]
    ) -> None:
        if not isinstance(source, FileSource):
            raise TypeError(
                "Views are kept on disk for images in files alone: of others there is no "
                'telling whether they have changed. Use cache="memory". Received: '
                f"cache={os.fspath(directory)!r}, source={source!r}"
            )
        self._source, self._size, self._directory = source, size, Path(directory)
        self._reading = source._reading()
        self._warned = False
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                '`cache` must be None, "memory" or a directory. Received: '
                f"cache={os.fspath(directory)!r}, which cannot be made: {error}"
            ) from error

    def __call__(self, index: int) -> View:
        """Return the view of an image."""
        path, origin = self._describe(index)
        view = self._load(path, origin)
        if view is None:
            view = self._source.read_view(index, self._size)
            self._keep(path, origin, view)
        return view

    def _describe(self, index: int) -> tuple[Path, str]:
        """Return where a view is kept, and what it must have been made of."""
        place = self._source._places[index]
        identity = json.dumps((*self._reading, place.path, place.image.key, self._size))
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        levels = place.image.levels
        origin = json.dumps((_VERSION, identity, place.signature, levels))
        return self._directory / f"{name}.npz", origin

    def _load(self, path: Path, origin: str) -> View | None:
        """Return a kept view, or None if there is none that counts."""
        try:
            # The archive holds a checksum of each array.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                if str(kept["origin"]) != origin:
                    return None
                view = kept["view"]
        except Exception:  # whatever is broken about it, the source has the pixels
            return None
        shape = (*self._size, self._source.channels)
        return view if view.shape == shape and view.dtype == np.float32 else None

    def _keep(self, path: Path, origin: str, view: View) -> None:
        """Write under another name first: no reader ever sees half a file."""
        unfinished = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            try:
                with unfinished.open("xb") as file:
                    np.savez(file, view=view, origin=np.array(origin))
                os.replace(unfinished, path)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:  # a full disk must not end a training
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"Some views cannot be kept in {self._directory}, and are made anew in "
                    f"every epoch: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
