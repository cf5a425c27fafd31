"""Averages over areas: views of large images, and the levels of a pyramid."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_Size = tuple[int, int]

_SMALLEST = 512  # pixels: what the larger extent of the last level must not exceed


def average_area(
    image: npt.NDArray[np.generic], size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Average an image in memory down to a view.

    Args:
        image: (height, width, channels) of any dtype.
        size: (height, width) of the view in pixels, not larger.

    Returns:
        (height, width, channels) float32, each pixel the mean of the area it covers.

    Example:

    >>> average_area(np.arange(6).reshape(2, 3, 1), (1, 2))[..., 0].tolist()
    [[1.8333333730697632, 3.1666667461395264]]
    """
    average = AreaAverage(image.shape[:2], size, image.shape[2])
    average.add(0, 0, image)
    return average.result()


class AreaAverage:
    """Average an image down to a view, block by block.

    Each pixel of the view is the mean of the area of the image it covers; pixels at the
    edge of the area count by the fraction of them inside.

    Args:
        extents: (height, width) of the image in pixels.
        size: (height, width) of the view in pixels, not larger.
        channels: channels of the image.

    Example:

    >>> average = AreaAverage((2, 4), (1, 2), channels=1)
    >>> average.add(0, 0, np.array([[[0], [2]], [[4], [6]]]))
    >>> average.add(0, 2, np.array([[[1], [1]], [[1], [5]]]))
    >>> average.result()[:, :, 0].tolist()
    [[3.0, 2.0]]
    """

    def __init__(
        self, extents: tuple[int, int], size: tuple[int, int], channels: int
    ) -> None:
        self._extents, self._size = extents, size
        self._sums = np.zeros((*size, channels), dtype="float64")

    def add(self, top: int, left: int, block: npt.NDArray[np.generic]) -> None:
        """Take in a block (height, width, channels) at a location; each pixel once."""
        row, block = _sum_axis(block, 0, top, self._extents[0], self._size[0])
        column, block = _sum_axis(block, 1, left, self._extents[1], self._size[1])
        height, width = block.shape[:2]
        self._sums[row : row + height, column : column + width] += block

    def result(self) -> npt.NDArray[np.float32]:
        """Return the view, (height, width, channels)."""
        (high_rows, high_columns), (rows, columns) = self._extents, self._size
        area = (high_rows / rows) * (high_columns / columns)
        return (self._sums / area).astype("float32")


def _sum_axis(
    block: npt.NDArray[np.generic], axis: int, start: int, extent: int, size: int
) -> tuple[int, npt.NDArray[np.generic]]:
    """Sum a block (height, width, channels) along an axis over the pixels of the view.

    Pixel i of the view covers [i extent / size, (i + 1) extent / size). In units of
    1 / size of a pixel all bounds are integers.

    Returns:
        The first pixel of the view that the block touches, and the sums.
    """
    length = block.shape[axis]
    end = start + length
    first = start * size // extent
    last = -(-end * size // extent)
    # What the pixel at each bound between two pixels of the view gives to the left one.
    bounds = np.arange(first + 1, last, dtype="int64") * extent
    whole, fractions = bounds // size - start, (bounds % size) / size
    # The block may begin inside a pixel that the first bound splits.
    splits_first = len(whole) > 0 and whole[0] == 0
    starts = whole if splits_first else np.concatenate([[0], whole])
    sums = np.moveaxis(_sum_between(block, axis, starts), axis, 0)
    if splits_first:
        sums = np.concatenate([np.zeros_like(sums[:1]), sums])
    (split,) = np.nonzero(fractions)
    if len(split):
        given = np.moveaxis(block, axis, 0)[whole[split]] * fractions[split, None, None]
        sums[split] += given
        sums[split + 1] -= given
    return first, np.moveaxis(sums, 0, axis)


def _sum_between(
    block: npt.NDArray[np.generic], axis: int, starts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Sum along an axis from each start to the next, the last one to the end."""
    if axis:
        return np.add.reduceat(block, starts, axis=axis, dtype="float64")
    # Whole rows: a tenth of the time that reduceat takes.
    rows = block.reshape(len(block), -1)
    sums = np.empty((len(starts), rows.shape[1]))
    for row, start, end in zip(sums, starts, [*starts[1:], len(rows)], strict=True):
        np.add.reduce(rows[start:end], axis=0, dtype="float64", out=row)
    return sums.reshape(-1, *block.shape[1:])


def level_sizes(size: _Size) -> list[_Size]:
    """Return (height, width) of each level of a pyramid, full resolution first.

    Args:
        size: (height, width) of the image in pixels.

    Example:

    >>> level_sizes((1025, 800))
    [(1025, 800), (513, 400), (257, 200)]
    """
    sizes = [size]
    while max(sizes[-1]) > _SMALLEST:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def halve_window(
    read: Callable[[_Size, _Size], _Array], extents: _Size, origin: _Size, size: _Size
) -> _Array:
    """Make a window of a level from the level before.

    Each pixel is the mean of the area it covers: 2 x 2 pixels where the extents are
    even. n pixels become m = (n + 1) / 2 where n is odd, and then a pixel covers n / m
    of them, not 2: every level shows the whole image, nothing is shifted or weighs more
    than the rest. That integers are rounded (half to even) is the only error.

    Args:
        read: callable from origin and size to a window of the level before.
        extents: (height, width) of the level before, in pixels.
        origin: (row, column) of the window, in pixels of the level to be made.
        size: (height, width) of the window, likewise.

    Example:

    >>> level = np.array([0, 4, 2, 3, 9], dtype="uint8").reshape(1, 5, 1)
    >>> def read(origin, size):
    ...     return level[:, origin[1] : origin[1] + size[1]]
    >>> halve_window(read, (1, 5), (0, 0), (1, 3)).ravel().tolist()
    [2, 3, 7]
    """
    starts = [2 * o - (n % 2 if o else 0) for o, n in zip(origin, extents, strict=True)]
    ends = [
        min(2 * (o + length), n)
        for o, length, n in zip(origin, size, extents, strict=True)
    ]
    block = read((starts[0], starts[1]), (ends[0] - starts[0], ends[1] - starts[1]))
    dtype = block.dtype
    # Rows of channels apart: NumPy is slow where the innermost axis is short.
    planes = np.moveaxis(block, 2, 0)
    planes = planes.astype("float32" if dtype.itemsize <= 2 else "float64", order="C")
    for axis in (0, 1):
        planes = _average_pairs(planes, axis, origin[axis], size[axis], extents[axis])
    if dtype.kind in "iu":
        planes = np.rint(planes)
        if dtype.itemsize == 8:  # the float next to the largest integer is larger
            largest = np.nextafter(float(np.iinfo(dtype).max), 0)
            planes = np.minimum(planes, largest)
    return np.moveaxis(planes, 0, 2).astype(dtype, order="C")


def _average_pairs(
    planes: _Array, axis: int, first: int, count: int, extent: int
) -> _Array:
    """Average pixels along an axis into half as many, weighted if their number is odd.

    Of an odd number n, in units of 1 / m pixel: pixel j covers [j n, (j + 1) n), which is
    j of pixel 2 j - 1, all m of pixel 2 j and m - 1 - j of pixel 2 j + 1.
    """
    if axis == 0:
        planes = planes.swapaxes(1, 2)
    if extent % 2 == 0:
        averages = (planes[..., 0::2] + planes[..., 1::2]) / 2
    else:
        half = (extent + 1) // 2
        weights = np.arange(first, first + count, dtype=planes.dtype)
        # Pixels before the first and after the last would have weight 0.
        at_start, at_end = int(first == 0), int(first + count == half)
        middle = planes[..., 1 - at_start :: 2][..., :count]
        averages = half * middle
        before = planes[..., at_start : (-1 if at_end else -2) : 2]
        averages[..., at_start:] += weights[at_start:] * before
        after = planes[..., (1 if at_start else 2) :: 2]
        stop = count - at_end
        averages[..., :stop] += (half - 1 - weights[:stop]) * after
        averages /= extent
    return averages.swapaxes(1, 2) if axis == 0 else averages
