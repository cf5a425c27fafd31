"""Area averages of images too large to be in memory at once."""

import numpy as np
import numpy.typing as npt


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
