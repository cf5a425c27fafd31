"""Megapixel MNIST on disk: a file for the training images and one for the test images.

``train.h5`` and ``test.h5`` are HDF5 files. Each holds, for ``count`` images:

- ``images``: (count, height, width, 1) uint8 in compressed chunks. Empty chunks are not
  stored, so that an empty background takes no space;
- ``labels``: (count,) int32;
- ``boxes``: (count, digits), each of top, left, bottom and right in pixels;
- ``views``: (count, low_height * low_width) uint16, in 1/256 of a grey value;
- the attributes ``format``, ``version``, ``view_size``, ``noise_patches``, ``seed`` and
  ``settings``, which is JSON.

``attention_sampling.data.HDF5Source`` reads the images of such a file from disk as they
are needed.
"""

import functools
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attention_sampling.datasets._megapixel_mnist_format import VIEW_UNIT, read_contents
from attention_sampling.datasets._megapixel_mnist_hdf5 import open_to_read
from attention_sampling.datasets._megapixel_mnist_splits import (
    FILES,
    check_directory,
    write_megapixel_mnist_splits,
)
from attention_sampling.datasets._megapixel_mnist_writer import write_megapixel_mnist

__all__ = [
    "MegapixelMNISTFile",
    "MegapixelMNISTSplits",
    "check_directory",
    "load_megapixel_mnist",
    "write_megapixel_mnist",
    "write_megapixel_mnist_splits",
]

_VIEWS_AT_ONCE = 64


class MegapixelMNISTFile:
    """One file of Megapixel MNIST: labels, views and boxes, and a way to the images.

    Reading is thread-safe, and an object can be pickled: no file stays open. A file that
    is replaced or changed afterwards is refused.

    Args:
        path: of a file that ``write_megapixel_mnist`` has written.

    Attributes:
        path: of the file, absolute; ``HDF5Source(data.path)`` reads patches from it.
        size: (height, width) of the images, in pixels.
        view_size: (height, width) of the views, in pixels.
        noise_patches: how many an image has.
        seed: of the images.
        settings: what the file was made with, by name.
        labels: (count,) int32, the class of the majority of the digits.
        boxes: (count, 5, 4) int32, of each digit top, left, bottom and right: it fills
            ``image[top:bottom, left:right]``. Those of the class come first.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: it is damaged, no file of Megapixel MNIST, or of another version.

    Example:

    >>> from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
    >>> digits = np.random.default_rng(0).integers(256, size=(20, 28, 28), dtype="uint8")
    >>> made = MegapixelMNIST(digits, np.arange(20) % 10, count=4, size=500)
    >>> write_megapixel_mnist("four.h5", made, view_size=100)
    >>> data = MegapixelMNISTFile("four.h5")
    >>> data.views.shape, data.images([2, 0]).shape
    ((4, 100, 100, 1), (2, 500, 500, 1))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        contents = read_contents(Path(self.path))
        self._identity = _identify(self.path)
        self.size = contents.size
        self.view_size = contents.view_size
        self.noise_patches = contents.noise_patches
        self.seed = contents.seed
        self.settings: dict[str, Any] = contents.settings
        self.labels = contents.labels
        self.boxes = contents.boxes

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def views(self) -> np.ndarray:
        """All views, (count, low_height, low_width, 1) float32, of pixels 0 to 255.

        Read when first asked for, and kept: 4 bytes a pixel. They are exact to 1/512.
        """
        height, width = self.view_size
        views = np.empty((len(self), height * width), "float32")
        self._check_unchanged()
        with open_to_read(Path(self.path)) as file:
            for start in range(0, len(self), _VIEWS_AT_ONCE):
                some = slice(start, start + _VIEWS_AT_ONCE)
                views[some] = file["views"][some]
        views /= VIEW_UNIT
        return views.reshape(len(self), height, width, 1)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read some images, (len(indices), height, width, 1) uint8.

        Raises:
            IndexError: there is no such image.
            OSError: the file cannot be read, or is not the one that was opened.
            ValueError: it is damaged.
        """
        numbers = [operator.index(index) for index in indices]
        for number in numbers:
            if not 0 <= number < len(self):
                raise IndexError(
                    f"There are images 0 to {len(self) - 1} in {self.path!r}. "
                    f"Received: index={number}"
                )
        images = np.empty((len(numbers), *self.size, 1), "uint8")
        self._check_unchanged()
        with open_to_read(Path(self.path)) as file:
            dataset = file["images"]
            for image, number in zip(images, numbers, strict=True):
                dataset.read_direct(image, np.s_[number])
        return images

    def _check_unchanged(self) -> None:
        if _identify(self.path) != self._identity:
            raise OSError(
                "The file has been replaced or changed since it was opened. Expected: "
                f"the same file. Received: {self.path!r}. Load it again"
            )


class MegapixelMNISTSplits(NamedTuple):
    """A data set on disk: the images to train on, and those to test on."""

    train: MegapixelMNISTFile
    test: MegapixelMNISTFile


def load_megapixel_mnist(directory: str | os.PathLike[str]) -> MegapixelMNISTSplits:
    """Open what ``examples/make_mnist.py`` has written.

    Args:
        directory: where ``train.h5`` and ``test.h5`` lie.

    Returns:
        ``(train, test)``.

    Raises:
        FileNotFoundError: a file is missing.
        OSError: a file cannot be read.
        ValueError: a file is damaged, no file of Megapixel MNIST, or of another version;
            the two were not made for each other.

    Reference:
        Katharopoulos and Fleuret 2019, section 4.2.
    """
    train, test = (MegapixelMNISTFile(Path(directory) / name) for name in FILES)
    for name in ("size", "view_size", "noise_patches", "settings"):
        if getattr(train, name) != getattr(test, name):
            raise ValueError(
                f"The two files were made in different ways. Expected: the same {name}. "
                f"Received: {getattr(train, name)} in {train.path!r}, "
                f"{getattr(test, name)} in {test.path!r}"
            )
    if train.seed == test.seed:
        raise ValueError(
            "The test images lie where the training images do. Expected: another seed. "
            f"Received: seed={train.seed} in {train.path!r} and {test.path!r}"
        )
    return MegapixelMNISTSplits(train, test)


def _identify(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
