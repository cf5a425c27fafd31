"""Levels of an image, each half the extents of the one before."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.data.source import Size

_Array = npt.NDArray[Any]


def level_sizes(size: Size, smallest: int = 512) -> list[Size]:
    """Return (height, width) of each level of a pyramid, full resolution first.

    Args:
        size: (height, width) of the image in pixels.
        smallest: what the larger extent of the last level must not exceed, in pixels.

    Example:

    >>> level_sizes((1025, 800))
    [(1025, 800), (513, 400), (257, 200)]
    """
    sizes = [size]
    while max(sizes[-1]) > smallest:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def halve_window(
    read: Callable[[Size, Size], _Array], extents: Size, origin: Size, size: Size
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
