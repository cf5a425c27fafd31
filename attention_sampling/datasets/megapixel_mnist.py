"""Megapixel MNIST: a few digits in a large empty image, among patches of noise."""

import itertools
from typing import NamedTuple

import numpy as np

from attention_sampling.checks import check_count, check_pair
from attention_sampling.data.area import average_area
from attention_sampling.datasets.mnist import SIDE

__all__ = ["MegapixelMNIST"]

_SAME = 3  # digits of the class that is the label
_OTHERS = 2
_DIGITS = _SAME + _OTHERS
_PATTERNS = 50  # different noise patches in a data set
_STROKES = 2  # lines in a noise patch
_ATTEMPTS = 100  # before the digits are put on a grid


class _Layout(NamedTuple):
    """What an image holds: corners are top left, (row, column)."""

    label: int
    digits: np.ndarray
    digit_corners: np.ndarray
    noise: np.ndarray
    noise_corners: np.ndarray


class MegapixelMNIST:
    """Large images with five digits, of which the majority class is the label.

    Every image holds three digits of one class and two of any others, on top of patches
    of noise that look like strokes of digits. In a low-resolution view one sees that
    there is something, but not what: the classification task needs full-resolution
    patches from the right locations.

    Images are generated when they are asked for. Image ``i`` depends on the seed, the
    digits and ``i``, not on how many images there are. Reading is thread-safe.

    Args:
        digits: (n_digits, 28, 28) uint8, of at least two classes, as ``read_mnist``
            returns them.
        digit_labels: (n_digits,) ints.
        count: how many images there are.
        size: height and width of the images in pixels, one int or two.
        noise_patches: how many noise patches an image has, 28 x 28 pixels each. They
            may overlap each other, and are behind the digits.
        seed: non-negative int; the same seed gives the same images.

    Attributes:
        size: (height, width) of the images, in pixels.
        noise_patches: how many an image has.
        seed: of the images.
        labels: (count,) int32, class of the three digits in each image.
        boxes: (count, 5, 4) int32, of each digit top, left, bottom and right: it fills
            ``image[top:bottom, left:right]``. Those of the class come first.

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
        self._digits, digit_labels = np.asarray(digits), np.asarray(digit_labels)
        _check_digits(self._digits, digit_labels)
        count = check_count("count", count, smallest=1)
        self.noise_patches = check_count("noise_patches", noise_patches, smallest=0)
        self.seed = check_count("seed", seed, smallest=0)
        self.size = check_pair("size", size)
        if (self.size[0] // SIDE) * (self.size[1] // SIDE) < _DIGITS:
            raise ValueError(
                f"`size` must leave room for {_DIGITS} digits of {SIDE} x {SIDE} pixels "
                f"side by side. Received: size={size!r}"
            )
        self._patterns = _generate_patterns(np.random.default_rng((self.seed, 0)))
        classes = np.unique(digit_labels)
        same = [np.flatnonzero(digit_labels == label) for label in classes]
        others = [np.flatnonzero(digit_labels != label) for label in classes]
        self._layouts = [
            self._lay_out(index, classes, same, others) for index in range(count)
        ]
        self.labels = np.array([layout.label for layout in self._layouts], "int32")
        corners = np.array([layout.digit_corners for layout in self._layouts], "int32")
        self.boxes = np.concatenate([corners, corners + SIDE], axis=-1)

    def __len__(self) -> int:
        return len(self._layouts)

    def image(self, index: int) -> np.ndarray:
        """Return image ``index``, (height, width, 1) uint8."""
        layout = self._layouts[index]
        image = np.zeros(self.size, "uint8")
        for (top, left), number in zip(layout.noise_corners, layout.noise, strict=True):
            window = image[top : top + SIDE, left : left + SIDE]
            np.maximum(window, self._patterns[number], out=window)
        # Replaced as a whole, so that noise never crosses a digit.
        for (top, left), number in zip(
            layout.digit_corners, layout.digits, strict=True
        ):
            image[top : top + SIDE, left : left + SIDE] = self._digits[number]
        return image[..., np.newaxis]

    def view(self, index: int, size: int | tuple[int, int]) -> np.ndarray:
        """Return a low-resolution view of image ``index``, averaged over areas.

        Args:
            index: of the image.
            size: (height, width) of the view in pixels, one int or two.

        Returns:
            (low_height, low_width, 1) float32, 0 to 255.

        Raises:
            ValueError: the view is larger than the image.
        """
        low = check_pair("view_size", size)
        if low[0] > self.size[0] or low[1] > self.size[1]:
            raise ValueError(
                "The view must not be larger than the image. "
                f"Received: view_size={size!r}, images of {self.size}"
            )
        return average_area(self.image(index), low)

    def _lay_out(
        self,
        index: int,
        classes: np.ndarray,
        same: list[np.ndarray],
        others: list[np.ndarray],
    ) -> _Layout:
        """Choose what image ``index`` holds, from random numbers of its own."""
        rng = np.random.default_rng((self.seed, 1, index))
        chosen = rng.integers(len(classes))
        free = np.array(self.size) - SIDE + 1
        return _Layout(
            label=int(classes[chosen]),
            digits=np.concatenate(
                [rng.choice(same[chosen], _SAME), rng.choice(others[chosen], _OTHERS)]
            ),
            digit_corners=_choose_corners(rng, self.size),
            noise=rng.integers(_PATTERNS, size=self.noise_patches),
            noise_corners=rng.integers(free, size=(self.noise_patches, 2)),
        )


def _generate_patterns(rng: np.random.Generator) -> np.ndarray:
    """Return noise patches (_PATTERNS, 28, 28): straight lines of uneven brightness."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    shape = (_PATTERNS, _STROKES, 1, 1)
    angle = rng.uniform(0, np.pi, shape)
    # Lines through the middle half, so that each crosses a good part of the patch.
    row, column = rng.uniform(SIDE / 4, 3 * SIDE / 4, (2, *shape))
    across = (rows - row) * np.cos(angle) - (columns - column) * np.sin(angle)
    ink = (np.abs(across) < 1).any(axis=1)
    brightness = rng.uniform(0.8, 1, ink.shape)
    return np.rint(255 * ink * brightness).astype("uint8")


def _choose_corners(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return (5, 2) top left corners of digits that do not overlap."""
    free = np.array(size) - SIDE + 1
    first, second = np.array(list(itertools.combinations(range(_DIGITS), 2))).T
    for _ in range(_ATTEMPTS):
        corners = rng.integers(free, size=(_DIGITS, 2))
        distances = np.abs(corners[first] - corners[second]).max(axis=1)
        if distances.min() >= SIDE:
            return corners
    # Hardly any room: cells of a grid, which is moved as far as the rest allows.
    cells = np.array(size) // SIDE
    chosen = rng.choice(cells.prod(), _DIGITS, replace=False)
    moved = rng.integers(np.array(size) % SIDE + 1)
    return np.stack(np.divmod(chosen, cells[1]), axis=1) * SIDE + moved


def _check_digits(digits: np.ndarray, labels: np.ndarray) -> None:
    if (
        digits.dtype != np.uint8
        or digits.shape[1:] != (SIDE, SIDE)
        or labels.shape != digits.shape[:1]
        or labels.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"`digits` must be uint8 of shape (count, {SIDE}, {SIDE}), and `digit_labels` "
            f"one int for each. Received: {digits.dtype} of shape {digits.shape} and "
            f"{labels.dtype} of shape {labels.shape}"
        )
    if len(np.unique(labels)) < 2:
        raise ValueError(
            "`digit_labels` must be of at least two classes. "
            f"Received: classes {np.unique(labels).tolist()}"
        )
