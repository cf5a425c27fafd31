"""Views kept in memory or on disk, so that each is made once."""

import functools
import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from attention_sampling.data.dihedral import Dihedral, transform
from attention_sampling.data.source import Size, Source
from attention_sampling.files import replacing

View = npt.NDArray[np.float32]

# Raise it whenever views change, so that older ones on disk are made again.
_VERSION = 2


def view_reader(
    source: Source, size: Size, cache: str | os.PathLike[str] | None = None
) -> Callable[[int], View]:
    """Return a function from the index of an image to its view; see `view_dataset`.

    ``cache`` is None, ``"memory"``, or a directory. Any number of threads may read.
    """
    if cache is not None and not os.fspath(cache):
        raise ValueError(
            '`cache` must be None, "memory" or a directory. Received: an empty path'
        )
    if isinstance(source, Dihedral):  # each view is kept once, as it is
        upright = view_reader(source.source, size, cache)
        turned = view_reader(source.source, size[::-1], cache)

        def read_variant(index: int) -> View:
            variant, image = divmod(index, len(source.source))
            view = turned(image) if variant >= 4 else upright(image)
            return np.ascontiguousarray(transform(view, variant))

        return read_variant
    if cache is not None and cache != "memory":
        return _DiskViews(source, size, cache)

    def read_view(index: int) -> View:
        return source.read_view(index, size)

    return read_view if cache is None else functools.cache(read_view)


class _DiskViews:
    """Views in a directory, one file each, for later runs and several processes.

    A view is made again if its image has changed since, or if its file is broken. Several
    sources may share a directory.
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
        """Return a view from disk; None if there is none, or it is broken or outdated."""
        try:
            # The archive holds a checksum of each array.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                if str(kept["origin"]) != origin:
                    return None
                view = kept["view"]
        except Exception:  # whatever is broken: the source still has the pixels
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
