"""What every source of large images can do, whatever the format."""

import abc
import errno
import operator
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_count, check_pair
from attention_sampling.data.area import AreaAverage

# Pixels of a level that are in memory at a time, for each thread that makes a view.
_STRIP_PIXELS = 2**20

# What the operating system says where the process may hold no more.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

# (height, width) in pixels.
Size = tuple[int, int]


class SourceError(OSError):
    """Pixels could not be read: the message names file, image and window."""


class Source(abc.ABC):
    """A sequence of large images of one channel count and dtype, read by windows.

    Layers take patches from it (``attention_sampling(source=...)``), and
    ``attention_sampling.data.views.view_dataset`` makes the low-resolution views. Reading is
    repeatable and may go on in several threads and processes at once: a source can be
    pickled, and opens its files anew where it arrives.

    For a format of your own, derive from it and write ``_levels``, ``_read`` and, if
    there is something to close, ``_close``.

    Args:
        names: a name for each image, for error messages and to join labels.
        channels: channels of all images.
        dtype: dtype of all images.
        threads: windows to read at once; 1 reads in the calling thread.

    Raises:
        ValueError: no images; ``threads`` or ``channels`` not positive.
    """

    _pool: ThreadPoolExecutor | None

    def __init__(
        self,
        names: Sequence[str],
        channels: int,
        dtype: npt.DTypeLike,
        threads: int = 1,
    ) -> None:
        if not names:
            raise ValueError("A source must hold at least one image. Received: none")
        self._names = tuple(map(str, names))
        self._channels = check_count("channels", channels, smallest=1)
        self._dtype = np.dtype(dtype)
        self._threads = check_count("threads", threads, smallest=1)
        self._forget_process()

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        images = "1 image" if len(self) == 1 else f"{len(self)} images"
        return (
            f"<{type(self).__name__}: {images}, {self.channels} channels, {self.dtype}>"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each image."""
        return self._names

    @property
    def channels(self) -> int:
        """Channels of all images."""
        return self._channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of all images, and of the patches read from them."""
        return self._dtype

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of each image left out by ``on_error="skip"``."""
        return ()

    def shape(self, index: int) -> tuple[int, int, int]:
        """Return (height, width, channels) of an image at full resolution."""
        height, width = self._levels(self._check_index(index))[0]
        return height, width, self.channels

    def levels(self, index: int) -> tuple[Size, ...]:
        """Return (height, width) of each level of an image, full resolution first."""
        return tuple(self._levels(self._check_index(index)))

    def read_view(self, index: int, size: int | Size) -> npt.NDArray[np.float32]:
        """Read a low-resolution view of an image.

        It is averaged from a level of the pyramid near its size, in pieces: however
        large the image, memory stays bounded. That is the smallest level of at least
        twice the size, as pixels that are little smaller than those of the view blur
        it; or where there is none up to eight times, the smallest that is not smaller.

        Args:
            index: number of the image.
            size: height and width of the view in pixels, one int or two.

        Returns:
            (height, width, channels) float32, each pixel the mean of the area it
            covers, on the scale of the image (0 to 255 for uint8).

        Raises:
            IndexError: no such image.
            ValueError: the view is larger than the image.
            SourceError: the image cannot be read.
        """
        index = self._check_index(index)
        height, width = check_pair("size", size)
        levels = self._levels(index)
        if height > levels[0][0] or width > levels[0][1]:
            raise ValueError(
                "The view must not be larger than the image. Received: "
                f"size={(height, width)}, image {index} of {levels[0]}"
            )
        level = _view_level(levels, (height, width))
        average = AreaAverage(levels[level], (height, width), self.channels)
        for top, left, rows, columns in self._strips(index, level):
            block = self._guarded_read(index, level, (top, left), (rows, columns))
            average.add(top, left, block)
        return average.result()

    def read_patches(
        self,
        indices: npt.ArrayLike,
        origins: npt.ArrayLike,
        patch_size: int | Size,
    ) -> npt.NDArray[Any]:
        """Read windows at full resolution, several at once.

        Args:
            indices: (count,) numbers of the images.
            origins: (count, 2) row and column of each window's top-left pixel, in
                full-resolution pixels; may lie outside the image.
            patch_size: height and width of the windows in pixels, one int or two.

        Returns:
            (count, patch_height, patch_width, channels) of ``dtype``; pixels outside
            the image are zero.

        Raises:
            IndexError: no such image.
            ValueError: arguments that are no integers or do not fit each other.
            SourceError: a window cannot be read.
        """
        numbers, places = _check_windows(indices, origins)
        for number in {*numbers}:
            self._check_index(number)
        height, width = check_pair("patch_size", patch_size)
        # Not np.zeros, whose memory comes in small pages: that takes twice as long.
        patches = np.empty(
            (len(numbers), height, width, self.channels), dtype=self.dtype
        )

        def fill(position: int) -> None:
            self._fill(patches[position], numbers[position], places[position])

        if self._threads == 1 or len(numbers) < 2:
            for position in range(len(numbers)):
                fill(position)
        else:
            self._share(fill, len(numbers))
        return patches

    def close(self) -> None:
        """Close what is open. The next reading opens it again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        self._close()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_lock"], state["_pool"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_process()

    @abc.abstractmethod
    def _levels(self, index: int) -> Sequence[Size]:
        """Return (height, width) of each level, full resolution first."""

    @abc.abstractmethod
    def _read(
        self, index: int, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        """Return a window that lies wholly inside a level, (height, width, channels).

        Called from several threads at once if there are several.
        """

    def _block(self, index: int, level: int) -> Size:
        """Return (height, width) of what is stored together in a level: a tile."""
        return (256, 256)

    def _where(self, index: int) -> str:
        """Return what an error message calls an image: its file and what of it."""
        return self._names[index]

    def _close(self) -> None:
        """Close what ``_read`` opened."""
        return

    def _forget_process(self) -> None:
        """Begin anew where threads and open files of another process are of no use."""
        self._lock = threading.RLock()
        self._pool = None
        _sources.add(self)

    def _share(self, task: Callable[[int], None], count: int) -> None:
        """Let the threads do a task for each number below ``count``.

        All are waited for: no thread goes on after an error has been raised.
        """
        # Taken one by one: a future for each would take longer than a small window.
        numbers = deque(range(count))
        errors: dict[int, Exception] = {}

        def work() -> None:
            while numbers:
                try:
                    number = numbers.popleft()
                except IndexError:  # another thread took the last one
                    return
                try:
                    task(number)
                except Exception as error:
                    errors[number] = error

        with self._lock:  # close() waits for all of it, or comes before
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, "attention-sampling")
            pending = [
                self._pool.submit(work) for _ in range(min(self._threads, count))
            ]
        for future in pending:
            future.result()
        if errors:
            raise errors[min(errors)]

    def _fill(self, patch: npt.NDArray[Any], index: int, place: Size) -> None:
        """Read what of a window lies inside the image; the rest is zero."""
        (row, column), (rows, columns) = place, self._levels(index)[0]
        height, width, _ = patch.shape
        if 0 <= row <= rows - height and 0 <= column <= columns - width:
            patch[...] = self._guarded_read(index, 0, place, (height, width))
            return
        top, bottom = max(row, 0), min(row + height, rows)
        left, right = max(column, 0), min(column + width, columns)
        patch[...] = 0
        if top >= bottom or left >= right:
            return
        inside = patch[top - row : bottom - row, left - column : right - column]
        inside[...] = self._guarded_read(
            index, 0, (top, left), (bottom - top, right - left)
        )

    def _guarded_read(
        self, index: int, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        """Read a window; whatever goes wrong is a SourceError that names it."""
        try:
            window = self._read(index, level, origin, size)
            if window.shape != (*size, self._channels) or window.dtype != self._dtype:
                raise ValueError(
                    f"it holds {window.dtype} of shape {window.shape} there, expected "
                    f"{self.dtype} of shape {(*size, self.channels)}"
                )
        except Exception as error:  # libraries raise what they like
            (top, left), (height, width) = origin, size
            resolution = f" of level {level}" if level else ""
            raise SourceError(
                f"{self._where(index)} (image {index}): rows {top} to {top + height}, "
                f"columns {left} to {left + width}{resolution} cannot be read: "
                f"{describe_error(error)}"
            ) from error
        return window

    def _strips(self, index: int, level: int) -> list[tuple[int, int, int, int]]:
        """Cut a level into windows of whole tiles: (top, left, height, width)."""
        height, width = self._levels(index)[level]
        tile_height, tile_width = self._block(index, level)
        tiles = max(1, _STRIP_PIXELS // (tile_height * tile_width))
        columns = min(width, tiles * tile_width)
        across = -(-columns // tile_width)
        rows = max(1, tiles // across) * tile_height
        return [
            (top, left, min(rows, height - top), min(columns, width - left))
            for top in range(0, height, rows)
            for left in range(0, width, columns)
        ]

    def _check_index(self, index: int) -> int:
        index = operator.index(index)
        if not 0 <= index < len(self._names):
            raise IndexError(
                f"The source holds images 0 to {len(self) - 1}. Received: index={index}"
            )
        return index


def _view_level(levels: Sequence[Size], size: Size) -> int:
    """Return the number of the level to average a view of some size from."""
    ratios = [min(level[0] / size[0], level[1] / size[1]) for level in levels]
    nearest = max(number for number, ratio in enumerate(ratios) if ratio >= 1)
    if tuple(levels[nearest]) == size:
        return nearest
    ample = [number for number, ratio in enumerate(ratios) if 2 <= ratio <= 8]
    return max(ample, default=nearest)


# Those of this process, and what those of the parent process had open, which is neither
# used nor closed here: threads that stayed behind may hold its locks.
_sources: "weakref.WeakSet[Source]" = weakref.WeakSet()
_left_behind: list[dict[str, Any]] = []


def _after_fork() -> None:
    for source in list(_sources):
        _left_behind.append(dict(source.__dict__))
        source._forget_process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def describe_error(error: BaseException) -> str:
    """Return what an error says, and its kind where it says too little."""
    text = str(error)
    if "too many open files" in text.lower():
        text += ". Open the source with a lower max_open, or raise `ulimit -n`"
    if isinstance(error, OSError | ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_fault_of_process(error: BaseException | None) -> bool:
    """Return whether the process lacked files or memory, so that no file is to blame."""
    while error is not None:
        number = getattr(error, "errno", None)
        if isinstance(error, MemoryError) or number in _SHORTAGES:
            return True
        if "too many open files" in str(error).lower():  # libraries that keep the text
            return True
        error = error.__cause__
    return False


def _check_windows(
    indices: npt.ArrayLike, origins: npt.ArrayLike
) -> tuple[list[int], list[Size]]:
    """Return image numbers and (row, column) of windows as Python ints."""
    numbers, places = np.asarray(indices), np.asarray(origins)
    if numbers.ndim != 1 or places.shape != (len(numbers), 2):
        raise ValueError(
            "`indices` must have shape (count,) and `origins` (count, 2), row and column "
            f"of each window. Received: indices.shape={numbers.shape}, "
            f"origins.shape={places.shape}"
        )
    for name, values in (("indices", numbers), ("origins", places)):
        if values.size and values.dtype.kind not in "iu":
            raise ValueError(
                f"`{name}` must be integers. Received: {name} of dtype {values.dtype}"
            )
    return numbers.tolist(), [(row, column) for row, column in places.tolist()]
