"""Views kept in memory or on disk, so that each is made once."""

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from attention_sampling.data.source import Size, Source
from attention_sampling.files import replacing

View = npt.NDArray[np.float32]

# To be raised when views are made in another way: what was kept before is stale then.
_VERSION = 2


def view_reader(
    source: Source, size: Size, cache: str | os.PathLike[str] | None = None
) -> Callable[[int], View]:
    """Return what reads views of one size, by the number of the image; see `view_dataset`.

    ``cache`` is None, ``"memory"``, or a directory. Any number of threads may read.
    """
    if cache is not None and not os.fspath(cache):
        raise ValueError(
            '`cache` must be None, "memory" or a directory. Received: an empty path'
        )
    if cache is None:
        return lambda index: source.read_view(index, size)
    if cache == "memory":
        return _MemoryViews(source, size)
    return _DiskViews(source, size, cache)


class _MemoryViews:
    """Views in memory: height * width * channels * 4 bytes each."""

    def __init__(self, source: Source, size: Size) -> None:
        self._source, self._size = source, size
        self._views: dict[int, View] = {}

    def __call__(self, index: int) -> View:
        view = self._views.get(index)
        if view is None:
            view = self._views[index] = self._source.read_view(index, self._size)
        return view


class _DiskViews:
    """Views in a directory, one file each, for later runs and several processes.

    A kept view counts only for the file it was made of, as it was then. Any other, and what
    is broken, is made anew and replaced. Several sources may have one directory.
    """

    def __init__(
        self, source: Source, size: Size, directory: str | os.PathLike[str]
    ) -> None:
        if source.fingerprint(0) is None:
            raise TypeError(
                "Views are kept on disk for images in files alone: of others there is no "
                'telling whether they have changed. Use cache="memory". Received: '
                f"cache={os.fspath(directory)!r}, source={source!r}"
            )
        self._source, self._size, self._directory = source, size, Path(directory)
        self._warned = False
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                '`cache` must be None, "memory" or a directory. Received: '
                f"cache={os.fspath(directory)!r}, which cannot be made: {error}"
            ) from error

    def __call__(self, index: int) -> View:
        source = self._source
        kind = (type(source).__name__, source.channels, source.where(index), self._size)
        name = hashlib.sha256(repr(kind).encode(errors="surrogateescape")).hexdigest()
        path = self._directory / f"{name[:32]}.npz"
        origin = ascii((_VERSION, source.fingerprint(index)))
        view = self._load(path, origin)
        if view is None:
            view = source.read_view(index, self._size)
            self._keep(path, origin, view)
        return view

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
        try:
            with replacing(path) as part:
                np.savez(part, view=view, origin=np.array(origin))
        except OSError as error:  # a full disk must not end a training
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"Some views cannot be kept in {self._directory}, and are made anew in "
                    f"every epoch: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
