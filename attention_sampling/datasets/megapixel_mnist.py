"""Megapixel MNIST: a few digits in a large empty image, among patches of noise."""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from attention_sampling.checks import check_count, check_pair
from attention_sampling.datasets._mnist import SIDE, read_mnist

__all__ = ["MegapixelMNIST", "read_mnist"]

_SAME = 3  # digits of the class that is the label
_OTHERS = 2
_PATTERNS = 50  # different noise patches in a data set
_STROKES = 2  # lines in a noise patch
_ATTEMPTS = 100  # layouts to draw before the digits are put on a grid

# Top, left, bottom, right: the pixels are [top, bottom) x [left, right).
Box = tuple[int, int, int, int]


class MegapixelMNIST:
    """Large images with five digits, of which the majority class is the label.

    Every image holds three digits of one class and two of any others, on top of patches
    of noise that look like strokes of digits. In a low-resolution view one sees that
    there is something, but not what: the classification task needs full-resolution
    patches from the right places.

    Only the numbers of the digits and their positions are kept; images are made when
    they are asked for. Image ``i`` depends on the seed, the digits and ``i``, not on how
    many images there are. Reading is thread-safe.

    Args:
        digits: (n_digits, 28, 28) uint8, of at least two classes.
        digit_labels: (n_digits,) ints.
        count: how many images there are.
        size: height and width of the images in pixels, one int or two.
        noise_patches: how many noise patches an image has, 28 x 28 pixels each. They
            may overlap each other, and lie behind the digits.
        seed: non-negative int; the same seed gives the same images.

    Attributes:
        size: (height, width) of the images, in pixels.
        noise_patches: how many an image has.
        seed: of the images.
        labels: (count,) int32, class of the three digits in each image.

    Raises:
        ValueError: an argument is out of range, or five digits do not fit into an image.

    Example:

    >>> digits = np.random.default_rng(0).integers(256, size=(20, 28, 28), dtype="uint8")
    >>> data = MegapixelMNIST(digits, np.arange(20) % 10, count=100, size=500)
    >>> data.image(0).shape, data.view(0, 100).shape
    ((500, 500, 1), (100, 100, 1))

    Reference:
        Katharopoulos and Fleuret 2019, section 4.2.
    """

    def __init__(
        self,
        digits: np.ndarray,
        digit_labels: np.ndarray,
        count: int,
        size: int | tuple[int, int] = (1500, 1500),
        noise_patches: int = 50,
        seed: int = 0,
    ) -> None:
        digits, digit_labels = np.asarray(digits), np.asarray(digit_labels)
        _check_digits(digits, digit_labels)
        count = check_count("count", count, smallest=1)
        noise_patches = check_count("noise_patches", noise_patches, smallest=0)
        seed = check_count("seed", seed, smallest=0)
        self.noise_patches, self.seed = noise_patches, seed
        self.size = check_pair("size", size)
        if (self.size[0] // SIDE) * (self.size[1] // SIDE) < _SAME + _OTHERS:
            raise ValueError(
                f"`size` must leave room for {_SAME + _OTHERS} digits of {SIDE} x "
                f"{SIDE} pixels side by side. Received: size={size!r}"
            )
        self._patterns = _draw_patterns(np.random.default_rng((seed, 0)))
        self._digits = digits
        self.labels = np.empty(count, "int32")
        self._drawn = np.empty((count, _SAME + _OTHERS), "int32")
        self._digit_places = np.empty((count, _SAME + _OTHERS, 2), "int32")
        self._noise = np.empty((count, noise_patches), "int32")
        self._noise_places = np.empty((count, noise_patches, 2), "int32")
        classes = np.unique(digit_labels)
        same = [np.flatnonzero(digit_labels == label) for label in classes]
        other = [np.flatnonzero(digit_labels != label) for label in classes]
        free = np.array(self.size) - SIDE + 1
        for index in range(count):
            # A stream for each image: it is the same whatever their number.
            rng = np.random.default_rng((seed, 1, index))
            chosen = rng.integers(len(classes))
            self.labels[index] = classes[chosen]
            self._drawn[index, :_SAME] = rng.choice(same[chosen], _SAME)
            self._drawn[index, _SAME:] = rng.choice(other[chosen], _OTHERS)
            self._digit_places[index] = _place_apart(rng, self.size, _SAME + _OTHERS)
            self._noise[index] = rng.integers(_PATTERNS, size=noise_patches)
            self._noise_places[index] = rng.integers(free, size=(noise_patches, 2))

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """Return image ``index``, (height, width, 1) uint8.

        Raises:
            IndexError: there is no such image.
        """
        return self.images([index])[0]

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return some images, (len(indices), height, width, 1) uint8.

        Raises:
            IndexError: there is no such image.
        """
        images = np.zeros((len(indices), *self.size), "uint8")
        for image, index in zip(images, indices, strict=True):
            for window, patch in self._patches(image, index):
                window[:] = patch
        return images[..., np.newaxis]

    def view(self, index: int, size: int | tuple[int, int]) -> np.ndarray:
        """Return a low-resolution view of image ``index``, of pixels 0 to 255.

        Each pixel is the mean of the area it covers, whose borders need not lie between
        the pixels of the image.

        Args:
            index: of the image.
            size: (height, width) of the view in pixels, one int or two.

        Returns:
            (low_height, low_width, 1) float32.

        Raises:
            IndexError: there is no such image.
            ValueError: the view is larger than the image.
        """
        low = check_pair("size", size)
        if any(small > large for small, large in zip(low, self.size, strict=True)):
            raise ValueError(
                "The view must not be larger than the image. "
                f"Received: size={size!r}, images of {self.size}"
            )
        # Almost all of the image is empty. A mean is linear: it is enough to add up what
        # each patch changes, for the few pixels of the view that its window touches.
        image = np.zeros(self.size, "uint8")
        changes = []
        for window, patch in self._patches(image, index):
            changes.append(patch.astype("float64") - window)
            window[:] = patch
        places = np.concatenate(
            [self._noise_places[index], self._digit_places[index]], dtype="int64"
        )
        (rows, row_weights), (columns, column_weights) = (
            _area_weights(places[:, axis], self.size[axis], low[axis])
            for axis in (0, 1)
        )
        means = row_weights @ np.array(changes) @ column_weights.transpose(0, 2, 1)
        # Room for the pixels beyond the border, whose weight is 0.
        view = np.zeros((low[0] + rows.shape[1], low[1] + columns.shape[1]))
        np.add.at(view, (rows[:, :, None], columns[:, None, :]), means)
        # Where a patch replaces another, rounding may leave less than nothing.
        return np.maximum(view[: low[0], : low[1], None], 0).astype("float32")

    def boxes(self, index: int) -> list[Box]:
        """Return where the digits are in image ``index``, the three of its class first.

        Returns:
            (top, left, bottom, right) of each digit in pixels: it fills
            ``image[top:bottom, left:right]``.

        Raises:
            IndexError: there is no such image.
        """
        self._check_index(index)
        return [
            (int(top), int(left), int(top) + SIDE, int(left) + SIDE)
            for top, left in self._digit_places[index]
        ]

    def _patches(
        self, image: np.ndarray, index: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield windows of an image and what they are to hold, back to front."""
        self._check_index(index)
        for place, number in zip(
            self._noise_places[index], self._noise[index], strict=True
        ):
            window = _window(image, place)
            yield window, np.maximum(window, self._patterns[number])
        # Replaced as a whole, so that noise never crosses a digit.
        for place, number in zip(
            self._digit_places[index], self._drawn[index], strict=True
        ):
            yield _window(image, place), self._digits[number]

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(
                f"There are images 0 to {len(self) - 1}. Received: index={index}"
            )


def _window(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    top, left = place
    return image[top : top + SIDE, left : left + SIDE]


def _draw_patterns(rng: np.random.Generator) -> np.ndarray:
    """Draw noise patches (_PATTERNS, 28, 28): straight lines of uneven brightness."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    shape = (_PATTERNS, _STROKES, 1, 1)
    angle = rng.uniform(0, np.pi, shape)
    # Lines through the middle half, so that each crosses a good part of the patch.
    row, column = rng.uniform(SIDE / 4, 3 * SIDE / 4, (2, *shape))
    across = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
    ink = (np.abs(across) < 1).any(axis=1)
    brightness = rng.uniform(0.8, 1, ink.shape)
    return np.rint(255 * ink * brightness).astype("uint8")


def _place_apart(
    rng: np.random.Generator, size: tuple[int, int], count: int
) -> np.ndarray:
    """Return (count, 2) top left corners of windows that do not overlap."""
    free = np.array(size) - SIDE + 1
    first, second = np.array(list(itertools.combinations(range(count), 2))).T
    for _ in range(_ATTEMPTS):
        places = rng.integers(free, size=(count, 2))
        distances = np.abs(places[first] - places[second]).max(axis=1)
        if distances.min() >= SIDE:
            return places
    # Hardly any room: cells of a grid, which is moved as far as the rest allows.
    cells = np.array(size) // SIDE
    chosen = rng.choice(cells.prod(), count, replace=False)
    moved = rng.integers(np.array(size) % SIDE + 1)
    return np.stack(np.divmod(chosen, cells[1]), axis=1) * SIDE + moved


def _area_weights(
    starts: np.ndarray, length: int, low_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the pixels of some windows weigh in the pixels of a view, on an axis.

    Args:
        starts: (count,) first pixel of each window.
        length: pixels of the image.
        low_length: pixels of the view.

    Returns:
        ``(pixels, weights)``: (count, k) pixels of the view that the windows touch, some
        perhaps beyond its border, and (count, k, 28) share of each pixel of the window
        in them.
    """
    touched = math.ceil(SIDE * low_length / length) + 1
    pixels = (starts * low_length // length)[:, None] + np.arange(touched)
    table = _area_weight_table(length, low_length, touched)
    window = starts[:, None, None] + np.arange(SIDE)
    return pixels, table[pixels[:, :, None], window]


@functools.lru_cache(maxsize=8)
def _area_weight_table(length: int, low_length: int, beyond: int) -> np.ndarray:
    """Return the share (low_length + beyond, length) of pixels in pixels of a view."""
    # In units of 1 / low_length of a pixel all borders are whole numbers.
    low = np.arange(low_length + beyond)[:, None] * length
    high = np.arange(length) * low_length
    overlap = np.minimum(low + length, high + low_length) - np.maximum(low, high)
    return np.maximum(overlap, 0) / length


def _check_digits(digits: np.ndarray, labels: np.ndarray) -> None:
    if digits.dtype != np.uint8 or digits.shape[1:] != (SIDE, SIDE):
        raise ValueError(
            f"`digits` must be uint8 of shape (count, {SIDE}, {SIDE}). "
            f"Received: {digits.dtype} of shape {digits.shape}"
        )
    if labels.shape != digits.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            "`digit_labels` must hold one int for each digit. "
            f"Received: {labels.dtype} of shape {labels.shape} for {len(digits)} digits"
        )
    if len(np.unique(labels)) < 2:
        raise ValueError(
            "`digit_labels` must be of at least two classes. "
            f"Received: classes {np.unique(labels).tolist()}"
        )
