"""Megapixel MNIST on disk: ``train.h5`` and ``test.h5`` in a directory.

Each is an HDF5 file, that holds for ``count`` images:

- ``images``: (count, height, width, 1) uint8 in compressed chunks. Empty chunks are not
  stored, so that an empty background takes no space;
- ``labels``: (count,) int32;
- ``boxes``: (count, 5 * 4) int32, top, left, bottom and right of each digit;
- ``views``: (count, low_height * low_width) uint16, in 1/256 of a grey value;
- the attributes ``format``, ``version``, ``view_size``, ``noise_patches`` and ``seed``.

The images alone have more than two axes: ``attention_sampling.data.HDF5Source`` finds
them without a name, and reads them as they are needed.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from attention_sampling.checks import check_pair
from attention_sampling.data.hdf5_writer import open_to_write
from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.files import replacing

__all__ = ["MegapixelMNISTFile", "load_megapixel_mnist", "write_megapixel_mnist"]

_FILES = "train.h5", "test.h5"
_FORMAT, _VERSION = "megapixel_mnist", 3
# Views are stored as whole numbers of 1 / _VIEW_UNIT of a grey value: as exact in the
# brightest pixels as in the darkest, unlike 16-bit floats.
_VIEW_UNIT = 256
# Pixels of a chunk, each way. Twice as many take a tenth less space and twice as long to
# read patches of 50 x 50 pixels from.
_CHUNK = 64
_GZIP = {"compression": "gzip", "compression_opts": 6}


def write_megapixel_mnist(
    directory: str | os.PathLike[str],
    train: MegapixelMNIST,
    test: MegapixelMNIST,
    view_size: int | tuple[int, int],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``train.h5`` and ``test.h5`` into a directory, and replace what was there.

    The files appear when both are whole. One image is in memory at a time.

    Args:
        directory: where to write; it must exist.
        train: the images to train on.
        test: the images to test on, with another seed.
        view_size: (height, width) of the views in pixels, one int or two.
        progress: called after each image with how many images are written, and how many
            there are.

    Raises:
        OSError: a file cannot be written; what was there before is still there.
        ValueError: the views are larger than the images; the seeds are the same.
    """
    if train.seed == test.seed:
        raise ValueError(
            "Training and test images must have different seeds, or the digits are in "
            f"the same locations. Received: seed={train.seed} for both"
        )
    paths = [Path(directory, name) for name in _FILES]
    done, total = 0, len(train) + len(test)
    with replacing(paths[0]) as train_part, replacing(paths[1]) as test_part:
        for data, part, path in zip(
            (train, test), (train_part, test_part), paths, strict=True
        ):
            with open_to_write(part, path) as file:
                for _ in _write_images(file, data, view_size):
                    done += 1
                    if progress is not None:
                        progress(done, total)


def _write_images(
    file: h5py.File, data: MegapixelMNIST, view_size: int | tuple[int, int]
) -> Iterator[None]:
    """Write all that a file holds, and yield after each image."""
    (height, width), low = data.size, check_pair("view_size", view_size)
    file.attrs["format"] = _FORMAT
    file.attrs["version"] = _VERSION
    file.attrs["view_size"] = low
    file.attrs["noise_patches"] = data.noise_patches
    file.attrs["seed"] = data.seed
    file["labels"] = data.labels
    file["boxes"] = data.boxes.reshape(len(data), -1)
    chunk = min(_CHUNK, height), min(_CHUNK, width)
    images = file.create_dataset(
        "images", (len(data), height, width, 1), "u1", chunks=(1, *chunk, 1), **_GZIP
    )
    pixels = low[0] * low[1]
    views = file.create_dataset(
        "views", (len(data), pixels), "<u2", chunks=(1, pixels), **_GZIP
    )
    for index in range(len(data)):
        image = data.image(index)
        for top in range(0, height, chunk[0]):
            for left in range(0, width, chunk[1]):
                window = np.s_[top : top + chunk[0], left : left + chunk[1]]
                if image[window].any():
                    images[(index, *window)] = image[window]
        views[index] = np.rint(data.view(index, low) * _VIEW_UNIT).ravel()
        yield


class MegapixelMNISTFile:
    """One file of Megapixel MNIST: labels, views and boxes, and a way to the images.

    Reading is thread-safe, and an object can be pickled: no file stays open.

    Args:
        path: of ``train.h5`` or ``test.h5``.

    Attributes:
        path: of the file, absolute; ``HDF5Source(data.path)`` reads patches from it.
        size: (height, width) of the images, in pixels.
        view_size: (height, width) of the views, in pixels.
        noise_patches: how many an image has.
        seed: of the images.
        labels: (count,) int32, class of the three digits in each image.
        boxes: (count, 5, 4) int32, of each digit top, left, bottom and right: it fills
            ``image[top:bottom, left:right]``. Those of the class come first.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: it is damaged, no file of Megapixel MNIST, or of another version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        with _open_to_read(self.path) as file:
            self.size: tuple[int, int] = file["images"].shape[1:3]
            self.view_size = check_pair("view_size", file.attrs["view_size"].tolist())
            self.noise_patches = int(file.attrs["noise_patches"])
            self.seed = int(file.attrs["seed"])
            self.labels: np.ndarray = file["labels"][:]
            self.boxes: np.ndarray = file["boxes"][:].reshape(len(self), -1, 4)

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def views(self) -> np.ndarray:
        """All views, (count, low_height, low_width, 1) float32, of pixels 0 to 255.

        Read when first asked for, and kept: 4 bytes a pixel. They are exact to 1/512.
        """
        with _open_to_read(self.path) as file:
            views = file["views"].astype("float32")[:]
        views /= _VIEW_UNIT
        return views.reshape(len(self), *self.view_size, 1)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read some images, (len(indices), height, width, 1) uint8.

        Raises:
            IndexError: there is no such image.
            OSError: the file cannot be read.
            ValueError: it is damaged.
        """
        images = np.empty((len(indices), *self.size, 1), "uint8")
        with _open_to_read(self.path) as file:
            for image, index in zip(images, indices, strict=True):
                file["images"].read_direct(image, np.s_[index])
        return images


def load_megapixel_mnist(
    directory: str | os.PathLike[str],
) -> tuple[MegapixelMNISTFile, MegapixelMNISTFile]:
    """Open what ``examples/make_mnist.py`` or ``write_megapixel_mnist`` has written.

    Args:
        directory: holds ``train.h5`` and ``test.h5``.

    Returns:
        ``(train, test)``.

    Raises:
        FileNotFoundError: a file is missing.
        OSError: a file cannot be read.
        ValueError: a file is damaged, no file of Megapixel MNIST, or of another version.

    Example:

    >>> digits = np.random.default_rng(0).integers(256, size=(20, 28, 28), dtype="uint8")
    >>> train, test = (
    ...     MegapixelMNIST(digits, np.arange(20) % 10, count=4, size=500, seed=seed)
    ...     for seed in (0, 1)
    ... )
    >>> write_megapixel_mnist(".", train, test, view_size=100)
    >>> train, test = load_megapixel_mnist(".")
    >>> train.views.shape, test.images([2, 0]).shape
    ((4, 100, 100, 1), (2, 500, 500, 1))

    Reference:
        Katharopoulos and Fleuret 2019, section 4.2.
    """
    train, test = (Path(directory, name) for name in _FILES)
    return MegapixelMNISTFile(train), MegapixelMNISTFile(test)


@contextlib.contextmanager
def _open_to_read(path: str) -> Iterator[Any]:
    """Open a file; what is broken in it is a ValueError that names it."""
    if not os.path.isfile(path):
        raise FileNotFoundError(
            "A file of Megapixel MNIST is missing. Make the images first: python "
            f"examples/make_mnist.py {os.path.dirname(path)}. Received: {path!r}"
        )
    try:
        with h5py.File(path, "r") as file:
            found = [file.attrs.get(name) for name in ("format", "version")]
            if found != [_FORMAT, _VERSION]:
                raise OSError(f"it is {found}, not {[_FORMAT, _VERSION]}")
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # whatever h5py makes of it
        if getattr(error, "errno", None) is not None:  # the system's, not the file's
            raise
        raise ValueError(
            "The file is damaged, no file of Megapixel MNIST, or of another version "
            f"({error}). Make it again by examples/make_mnist.py. Received: {path!r}"
        ) from error
