"""The base of all sources of large images: reading of views and patches from any format."""

import abc
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_count, check_pair
from attention_sampling.data.area import AreaAverage
from attention_sampling.data.errors import SourceError, describe_error
from attention_sampling.threads import map_in_threads

# Pixels of a level that are in memory at a time, for each thread that makes a view.
_STRIP_PIXELS = 2**20

# (height, width) in pixels.
Size = tuple[int, int]


class Source(abc.ABC):
    """A sequence of large images of one channel count and dtype, read by windows.

    Layers take patches from it (``attention_sampling(source=...)``), and
    ``attention_sampling.data.views.view_dataset`` makes the low-resolution views.

    For a format of your own, derive from it and write ``levels`` and ``read``, and
    ``close`` if there is something to close; override ``block``, ``where`` and
    ``fingerprint`` if your format knows better. Everything else is inherited. ``read`` is
    called from several threads at once. Before a source is pickled, its open files must be
    taken out of its attributes (``__getstate__``).

    Args:
        names: a name for each image, for error messages and to join labels.
        channels: channels of all images.
        dtype: dtype of all images.
        threads: windows that ``read_patches`` reads at once; 1 reads in the calling thread.

    Attributes:
        names: a name for each image.
        channels: channels of all images.
        dtype: dtype of all images, and of the patches read from them.
        threads: windows that ``read_patches`` reads at once.
        skipped: (name, reason) of each image left out by ``on_error="skip"``.
        variants: how often each picture is there, turned: once, and 8 times in ``Dihedral``.
        labels: (count,) label of each picture, if ``open_source`` knows them, else None.
        class_names: name of each class that ``labels`` counts, else None.

    Raises:
        ValueError: no images; ``threads`` or ``channels`` not positive.

    Example:

    >>> class Black(Source):
    ...     def levels(self, index):
    ...         return [(2000, 3000)]
    ...     def read(self, index, level, origin, size):
    ...         return np.zeros((*size, 3), "uint8")
    >>> source = Black(["first", "second"], channels=3, dtype="uint8")
    >>> source.shape(1), source.read_patches([1], [(-5, 0)], 10).shape
    ((2000, 3000, 3), (1, 10, 10, 3))
    """

    variants = 1

    def __init__(
        self,
        names: Sequence[str],
        channels: int,
        dtype: npt.DTypeLike,
        threads: int = 1,
    ) -> None:
        if not names:
            raise ValueError("A source must hold at least one image. Received: none")
        self.names = tuple(map(str, names))
        self.channels = check_count("channels", channels, smallest=1)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.threads = check_count("threads", threads, smallest=1)
        self.skipped: tuple[tuple[str, str], ...] = ()
        self.labels: npt.NDArray[Any] | None = None
        self.class_names: tuple[str, ...] | None = None

    # What a format is

    @abc.abstractmethod
    def levels(self, index: int) -> Sequence[Size]:
        """Return (height, width) of each level of an image, full resolution first."""

    @abc.abstractmethod
    def read(
        self, index: int, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        """Return a window that is wholly inside a level, (height, width, channels).

        Call ``read_window`` instead, whose errors name the image.

        Args:
            index: of the image.
            level: 0 for full resolution.
            origin: (row, column) of the window, in pixels of the level.
            size: (height, width) of the window, in pixels of the level.
        """

    def close(self) -> None:
        """Close what ``read`` opened. The next reading opens it again."""
        return

    def block(self, index: int, level: int) -> Size:
        """Return (height, width) of the tiles in which a level is stored."""
        return (256, 256)

    def where(self, index: int) -> str:
        """Return the name of an image for error messages, such as the path of its file."""
        return self.names[index]

    def fingerprint(self, index: int) -> str | None:
        """Return a text that changes when the pixels of an image change.

        Views kept on disk, and the finished images of a stopped conversion, are used again
        only if it is the same. None if a change cannot be noticed.
        """
        return None

    # What everybody calls

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        images = "1 image" if len(self) == 1 else f"{len(self)} images"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"<{type(self).__name__}: {images}, {self.channels} channels, "
            f"{self.dtype}{skipped}>"
        )

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def shape(self, index: int) -> tuple[int, int, int]:
        """Return (height, width, channels) of an image at full resolution."""
        height, width = self.levels(self.check_index(index))[0]
        return height, width, self.channels

    def read_view(self, index: int, size: int | Size) -> npt.NDArray[np.float32]:
        """Read a low-resolution view of an image.

        It is averaged from a level of the pyramid, piece by piece: memory stays bounded
        however large the image. The level is the smallest that has at least twice the
        height and width of the view: a level of nearly its size would blur it. If that
        level is more than eight times as large, a smaller one that is still as large as
        the view is taken.

        Args:
            index: of the image.
            size: height and width of the view in pixels, one int or two.

        Returns:
            (height, width, channels) float32, each pixel the mean of the area it
            covers, on the scale of the image (0 to 255 for uint8).

        Raises:
            IndexError: no such image.
            ValueError: the view is larger than the image.
            SourceError: the image cannot be read.
        """
        index = self.check_index(index)
        height, width = check_pair("size", size)
        levels = self.levels(index)
        if height > levels[0][0] or width > levels[0][1]:
            raise ValueError(
                "The view must not be larger than the image. Received: "
                f"size={(height, width)}, image {index} of {tuple(levels[0])}"
            )
        level = _view_level(levels, (height, width))
        average = AreaAverage(levels[level], (height, width), self.channels)
        for origin, extents in self.strips(index, level):
            average.add(*origin, self.read_window(index, level, origin, extents))
        view = average.result()
        if not np.isfinite(view).all():
            raise SourceError(
                f"{self.where(index)} (image {index}): its view is not finite. Replace "
                "NaN and infinite pixels in the image"
            )
        return view

    def read_patches(
        self, indices: npt.ArrayLike, origins: npt.ArrayLike, patch_size: int | Size
    ) -> npt.NDArray[Any]:
        """Read windows at full resolution, several at once.

        Args:
            indices: (count,) which image each window is of.
            origins: (count, 2) row and column of each window's top-left pixel, in
                full-resolution pixels; may be outside the image.
            patch_size: height and width of the windows in pixels, one int or two.

        Returns:
            (count, patch_height, patch_width, channels) of ``dtype``; pixels outside
            the image are zero.

        Raises:
            IndexError: no such image.
            ValueError: arguments that are no integers or do not fit each other.
            SourceError: a window cannot be read.
        """
        numbers, corners = _check_windows(indices, origins)
        for number in {*numbers}:
            self.check_index(number)
        height, width = check_pair("patch_size", patch_size)
        # Not np.zeros, whose memory comes in small pages: that takes twice as long.
        patches = np.empty((len(numbers), height, width, self.channels), self.dtype)

        def fill(position: int) -> None:
            self._fill(patches[position], numbers[position], corners[position])

        for _ in map_in_threads(fill, range(len(numbers)), self.threads):
            pass
        return patches

    def read_window(
        self, index: int, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        """Read a window that is wholly inside a level; see ``read``.

        Raises:
            SourceError: it cannot be read, for whatever reason; names image and window.
        """
        try:
            window = self.read(index, level, origin, size)
            if window.shape != (*size, self.channels) or window.dtype != self.dtype:
                raise ValueError(
                    f"it holds {window.dtype} of shape {window.shape} there, expected "
                    f"{self.dtype} of shape {(*size, self.channels)}"
                )
        except Exception as error:  # libraries raise what they like
            (top, left), (height, width) = origin, size
            resolution = f" of level {level}" if level else ""
            raise SourceError(
                f"{self.where(index)} (image {index}): rows {top} to {top + height}, "
                f"columns {left} to {left + width}{resolution} cannot be read: "
                f"{describe_error(error)}"
            ) from error
        return window

    def strips(self, index: int, level: int) -> list[tuple[Size, Size]]:
        """Cut a level into windows of whole tiles, each small enough for memory.

        Returns:
            (origin, size) of each window, in pixels of the level.
        """
        height, width = self.levels(index)[level]
        block_height, block_width = self.block(index, level)
        blocks = max(1, _STRIP_PIXELS // (block_height * block_width))
        columns = min(width, blocks * block_width)
        across = -(-columns // block_width)
        rows = max(1, blocks // across) * block_height
        return [
            ((top, left), (min(rows, height - top), min(columns, width - left)))
            for top in range(0, height, rows)
            for left in range(0, width, columns)
        ]

    def check_index(self, index: int) -> int:
        """Return the index of an image as an int.

        Raises:
            IndexError: no such image.
        """
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(
                f"The source holds images 0 to {len(self) - 1}. Received: index={index}"
            )
        return index

    def _fill(self, patch: npt.NDArray[Any], index: int, origin: Size) -> None:
        """Read the part of a window inside the image; the rest is zero."""
        (row, column), (rows, columns) = origin, self.levels(index)[0]
        height, width, _ = patch.shape
        top, bottom = max(row, 0), min(row + height, rows)
        left, right = max(column, 0), min(column + width, columns)
        if (bottom - top, right - left) == (height, width):
            patch[...] = self.read_window(index, 0, origin, (height, width))
            return
        patch[...] = 0
        if top < bottom and left < right:
            size = bottom - top, right - left
            inside = patch[top - row : bottom - row, left - column : right - column]
            inside[...] = self.read_window(index, 0, (top, left), size)


def _view_level(levels: Sequence[Size], size: Size) -> int:
    """Return the level to average a view of some size from; see ``read_view``."""
    ratios = [min(level[0] / size[0], level[1] / size[1]) for level in levels]
    nearest = max(number for number, ratio in enumerate(ratios) if ratio >= 1)
    if tuple(levels[nearest]) == size:
        return nearest
    ample = [number for number, ratio in enumerate(ratios) if 2 <= ratio <= 8]
    return max(ample, default=nearest)


def _check_windows(
    indices: npt.ArrayLike, origins: npt.ArrayLike
) -> tuple[list[int], list[Size]]:
    """Return image and (row, column) of each window as Python ints."""
    numbers, corners = np.asarray(indices), np.asarray(origins)
    if numbers.ndim != 1 or corners.shape != (len(numbers), 2):
        raise ValueError(
            "`indices` must have shape (count,) and `origins` (count, 2), row and column "
            f"of each window. Received: indices.shape={numbers.shape}, "
            f"origins.shape={corners.shape}"
        )
    for name, values in (("indices", numbers), ("origins", corners)):
        if values.size and values.dtype.kind not in "iu":
            raise ValueError(
                f"`{name}` must be integers. Received: {name} of dtype {values.dtype}"
            )
    return numbers.tolist(), [(row, column) for row, column in corners.tolist()]
