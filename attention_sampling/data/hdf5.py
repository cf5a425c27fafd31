"""HDF5 files as sources, by h5py."""

import os
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from attention_sampling.data.files import FileSource, OpenFile
from attention_sampling.data.hdf5_layout import find_images, open_dataset
from attention_sampling.data.source import Size

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Datasets kept open in a file. Each keeps up to 1 MiB of decoded chunks.
_KEPT_DATASETS = 8

# What HDF5 says when it opens a file, and what that means.
_MEANINGS = {
    "unable to lock file": "it is open for writing elsewhere. Close it there first",
    "already open for write": "it is open for writing elsewhere, or its writer was "
    "killed. If it is whole, `h5clear -s FILE` makes it readable",
    "truncated file": "it has been cut, or not been written to its end",
    "file signature not found": "this is no HDF5 file",
}


class HDF5Source(FileSource):
    """Images in HDF5 files.

    It reads datasets (height, width, channels) of one image, (height, width) of one grey
    image, and (count, height, width, channels) of several; and files that
    ``python -m attention_sampling convert`` wrote, with all their levels. Windows are read
    fast from datasets in chunks (``chunks=(256, 256, 3)``) of little compression.

    External links and virtual datasets, which lead to other files, are refused. So is a
    file that is open for writing, if HDF5 can tell: a file that is written without locks,
    or whose writer was killed after a flush, looks complete, and missing pixels are zero.

    HDF5 reads one window at a time in a process, whatever the threads.

    Args:
        paths: a file or several.
        dataset: path of the dataset in each file; None for the only one that looks like
            images.
        on_error: "raise", or "skip" to leave out files that cannot be opened.
        max_open: files to keep open.
        threads: windows to ask for at once.

    Raises:
        SourceError: a file cannot be opened, or does not fit the others; it holds no
            images, or what are images is not clear.

    Example:

    >>> import h5py
    >>> with h5py.File("photos.h5", "w") as file:
    ...     photos = np.ones((2, 600, 800, 3), "uint8")
    ...     _ = file.create_dataset("photos", data=photos, chunks=(1, 256, 256, 3))
    >>> source = HDF5Source("photos.h5")
    >>> source.shape(1)
    (600, 800, 3)
    >>> source.read_patches([1], [(100, 200)], 50).shape
    (1, 50, 50, 3)
    >>> source.close()
    """

    default_threads = 1  # HDF5 has one lock

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        dataset: str | None = None,
        on_error: str = "raise",
        max_open: int = 64,
        threads: int = 1,
    ) -> None:
        self._dataset = dataset
        super().__init__(paths, on_error, threads, max_open)

    @classmethod
    def recognizes(cls, path: str, start: bytes) -> bool:
        """Tell an HDF5 file, which may begin after a block of the user's own."""
        return any(start[n : n + 8] == _SIGNATURE for n in (0, 512, 1024, 2048))

    def open_file(self, path: str) -> "_HDF5File":
        """Open a file."""
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            for text, meaning in _MEANINGS.items():
                if text in str(error):
                    raise OSError(f"{meaning} ({error})") from error
            raise
        # Opened for writing in this very process, it would not be locked.
        if file.id.get_intent() & h5py.h5f.ACC_RDWR:
            file.close()
            raise OSError(
                "it is open for writing in this process. Close it there first"
            )
        return _HDF5File(file, self._dataset)


class _HDF5File(OpenFile):
    """A file, and the datasets that were read last."""

    def __init__(self, file: Any, dataset: str | None) -> None:
        self.file = file
        self.dataset = lru_cache(_KEPT_DATASETS)(partial(open_dataset, file))
        try:
            self.images = find_images(file, dataset)
        except BaseException:
            self.close()
            raise

    def read(
        self, image: Any, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        dataset = self.dataset(image.datasets[level])
        (top, left), (height, width) = origin, size
        rows, columns = slice(top, top + height), slice(left, left + width)
        if image.number is None:
            window = dataset[rows, columns]
        else:
            window = dataset[image.number, rows, columns]
        if window.ndim == 2:
            window = window[:, :, np.newaxis]
        return window.astype(window.dtype.newbyteorder("="), copy=False)

    def close(self) -> None:
        self.dataset.cache_clear()
        self.file.close()
