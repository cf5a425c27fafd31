"""The images that the training benchmark trains and tests on, in batches."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import keras
import numpy as np

from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST, read_mnist

# Images that take no more bytes than this are rendered once and kept.
_MOST_BYTES_KEPT = 2**30


class Images(NamedTuple):
    """Labels, views, and a way to full-resolution images."""

    labels: np.ndarray  # (count,) int32
    views: np.ndarray  # (count, low_height, low_width, 1) float32
    read: Callable[[np.ndarray], np.ndarray]  # indices -> (..., height, width, 1) uint8


class Batches(keras.utils.PyDataset):
    """Batches ``((views, images), labels)``, made in threads while the model trains.

    Args:
        images: to take them from.
        batch_size: images a batch; the last batch may be smaller.
        shuffle_seed: int to shuffle anew in every epoch, None to keep the order.
    """

    def __init__(
        self, images: Images, batch_size: int, shuffle_seed: int | None = None
    ) -> None:
        super().__init__(workers=2, max_queue_size=4)
        self.images = images
        self.batch_size = batch_size
        self.order = np.arange(len(images.labels))
        self.rng = None
        if shuffle_seed is not None:
            self.rng = np.random.default_rng(shuffle_seed)
            self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        chosen = self.order[index * self.batch_size :][: self.batch_size]
        labels, views, read = self.images
        return (views[chosen], read(chosen)), labels[chosen]

    def on_epoch_end(self) -> None:
        """Put the images into another order, if they are to be shuffled."""
        if self.rng is not None:
            self.order = self.rng.permutation(self.order)


def read_digits(directory: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read MNIST: the digits of the training images, and those of the test images."""
    return {split: read_mnist(directory, split) for split in ("train", "test")}


def make_images(
    settings: dict[str, Any],
    digits: dict[str, tuple[np.ndarray, np.ndarray]],
    seed: int,
) -> dict[str, Images]:
    """Make the images to train on and those to test on.

    Args:
        settings: of the benchmark.
        digits: as ``read_digits`` returns them.
        seed: of the images; no image of one seed or split is that of another.

    Returns:
        Images by split, ``"train"`` and ``"test"``.
    """
    made = {}
    for number, (split, (split_digits, labels)) in enumerate(digits.items()):
        data = MegapixelMNIST(
            split_digits,
            labels,
            count=settings[split],
            size=settings["image_size"],
            noise_patches=settings["noise_patches"],
            seed=len(digits) * seed + number,
        )
        indices = range(len(data))
        size = settings["view_size"]
        views = np.empty((len(data), size, size, 1), "float32")
        with ThreadPoolExecutor() as threads:
            for index, view in enumerate(
                threads.map(data.view, indices, itertools.repeat(size))
            ):
                views[index] = view
        read = data.images
        if len(data) * settings["image_size"] ** 2 <= _MOST_BYTES_KEPT:
            read = data.images(indices).__getitem__
        made[split] = Images(data.labels, views, read)
    return made
