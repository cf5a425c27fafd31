"""Write images with their pyramids into an HDF5 file, block by block."""

import math
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.data.libraries import import_library
from attention_sampling.data.pyramid import halve_window, level_sizes
from attention_sampling.data.source import Size, Source

_Array = npt.NDArray[Any]
_GZIP_LEVEL = 4
_FILTERS: dict[str, dict[str, Any]] = {
    "gzip": {"compression": "gzip", "compression_opts": _GZIP_LEVEL, "shuffle": True},
    "lzf": {"compression": "lzf", "shuffle": True},
    "none": {},
}
COMPRESSIONS = tuple(_FILTERS)
# Bytes of a window that is read at a time; of one whose strips or tiles are large; and
# of one of the smaller levels, which are made of four times as many floats.
_WINDOW, _LARGEST_WINDOW, _SMALL_WINDOW = 2**24, 2**27, 2**20
# Bytes of windows that are in memory at once.
_WINDOWS = 2**27


class ImageWriter:
    """Write images of a source; windows are read and compressed by several threads.

    A context manager: leaving it ends the threads.

    Args:
        source: the images.
        chunk: height and width of a chunk in pixels.
        compression: ``"gzip"``, ``"lzf"`` or ``"none"``.
        progress: called with the bytes written, uncompressed.
    """

    def __init__(
        self,
        source: Source,
        chunk: int,
        compression: str,
        progress: Callable[[int], object],
    ) -> None:
        self._source, self._chunk, self._compression = source, chunk, compression
        self._progress = progress
        self._pixel_bytes = source.channels * source.dtype.itemsize
        self._workers = os.cpu_count() or 1
        # Two pools: who waits for compression must not keep a thread from it.
        self._readers = ThreadPoolExecutor(self._workers + 1, "convert-read")
        self._compressors = ThreadPoolExecutor(self._workers, "convert-compress")
        # h5py's own lock: up to 3.15 it does not take it to write a chunk as it is, and
        # crashes where another thread reads (h5py/h5py#2764).
        self._hdf5_lock = import_library("h5py._objects").phil
        # A source is read by as many threads at once as it allows.
        self._reading = threading.BoundedSemaphore(source.threads)

    def __enter__(self) -> "ImageWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._readers.shutdown(cancel_futures=True)
        self._compressors.shutdown(cancel_futures=True)

    def write(self, index: int, group: Any) -> None:
        """Write all levels of an image into a group.

        Raises:
            SourceError: the image cannot be read.
            OSError: the file cannot be written.
        """
        source = self._source
        sizes = level_sizes(source.levels(index)[0])

        read: Callable[[Size, Size], _Array]

        def read_source(origin: Size, size: Size) -> _Array:
            with self._reading:
                return source.read_window(index, 0, origin, size)

        read = read_source
        window = self._window(sizes[0], source.block(index, 0), _WINDOW)
        for number, size in enumerate(sizes):
            level = self._create(group, str(number), size)
            self._write_level(level, window, read)
            read = _read_halved(level)
            window = self._window(size, (1, 1), _SMALL_WINDOW)

    def _create(self, group: Any, name: str, size: Size) -> Any:
        shape = (*size, self._source.channels)
        return group.create_dataset(
            name,
            shape,
            self._source.dtype,
            chunks=tuple(map(min, shape, (self._chunk, self._chunk, shape[2]))),
            **_FILTERS[self._compression],
        )

    def _window(self, size: Size, block: Size, wanted: int) -> Size:
        """Return (height, width) of windows: whole chunks, and whole blocks if it can be.

        A block that reaches over several windows is decoded for each of them.
        """
        chunk = self._chunk
        pixels, most = wanted // self._pixel_bytes, _LARGEST_WINDOW // self._pixel_bytes
        side = max(chunk, _round_down(math.isqrt(pixels), chunk))
        block = (min(block[0], size[0]), min(block[1], size[1]))
        width = min(_round_up(max(side, block[1]), chunk), _round_down(most, chunk))
        height = max(block[0], side if width == side else pixels // width)
        tallest = max(chunk, _round_down(most // width, chunk))
        return min(_round_up(height, chunk), tallest), width

    def _write_level(
        self, level: Any, window: Size, read: Callable[[Size, Size], _Array]
    ) -> None:
        """Write a level by windows, as many at once as memory allows."""

        def prepare(origin: Size, size: Size) -> tuple[Size, _Array, list[Any]]:
            block = read(origin, size)
            if self._compression != "gzip":
                return origin, block, []
            # HDF5 itself would compress one chunk after the other.
            places, chunks = zip(*_cut(block, level.chunks), strict=True)
            data = self._compressors.map(_compress, chunks)
            return origin, block, list(zip(places, data, strict=True))

        at_once = _WINDOWS // (window[0] * window[1] * self._pixel_bytes)
        at_once = min(max(1, at_once), self._workers + 1)
        pending: deque[Future[tuple[Size, _Array, list[Any]]]] = deque()
        try:
            for origin, size in _windows(level.shape[:2], window):
                pending.append(self._readers.submit(prepare, origin, size))
                if len(pending) == at_once:
                    self._store(level, *pending.popleft().result())
            while pending:
                self._store(level, *pending.popleft().result())
        finally:
            for future in pending:
                future.cancel()
            wait(pending)

    def _store(
        self,
        level: Any,
        origin: Size,
        block: _Array,
        compressed: list[tuple[Size, bytes]],
    ) -> None:
        (top, left), (height, width) = origin, block.shape[:2]
        if compressed:
            for (row, column), data in compressed:
                with self._hdf5_lock:
                    level.id.write_direct_chunk((top + row, left + column, 0), data)
        else:
            level[top : top + height, left : left + width] = block
        self._progress(block.nbytes)


def _read_halved(level: Any) -> Callable[[Size, Size], _Array]:
    """Return what reads windows of the level that follows one already written."""

    def read_level(origin: Size, size: Size) -> _Array:
        (top, left), (height, width) = origin, size
        return level[top : top + height, left : left + width]

    def read(origin: Size, size: Size) -> _Array:
        return halve_window(read_level, level.shape[:2], origin, size)

    return read


def _round_up(extent: int, step: int) -> int:
    return -(-extent // step) * step


def _round_down(extent: int, step: int) -> int:
    return extent // step * step


def _windows(size: Size, window: Size) -> Iterator[tuple[Size, Size]]:
    """Cut a level into windows: origin and size of each."""
    for top in range(0, size[0], window[0]):
        for left in range(0, size[1], window[1]):
            height, width = (
                min(window[0], size[0] - top),
                min(window[1], size[1] - left),
            )
            yield (top, left), (height, width)


def _cut(block: _Array, chunk: tuple[int, int, int]) -> Iterator[tuple[Size, _Array]]:
    """Cut a window into whole chunks, filled up by zeros at the border of the image."""
    for (top, left), (height, width) in _windows(block.shape[:2], chunk[:2]):
        whole = np.zeros(chunk, block.dtype)
        whole[:height, :width] = block[top : top + height, left : left + width]
        yield (top, left), whole


def _compress(chunk: _Array) -> bytes:
    """Return what HDF5's filters shuffle and deflate make of a chunk."""
    data = chunk.reshape(-1).view("uint8").reshape(-1, chunk.dtype.itemsize)
    return zlib.compress(data.T.tobytes(), _GZIP_LEVEL)


def raw_bytes(source: Source, index: int) -> int:
    """Return the bytes of all levels that are written of an image, uncompressed."""
    sizes = level_sizes(source.levels(index)[0])
    pixels = sum(height * width for height, width in sizes)
    return pixels * source.channels * source.dtype.itemsize
