"""Write HDF5 files: images with their pyramids, block by block."""

import contextlib
import math
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py._objects import phil

from attention_sampling.data.area import halve_window, level_sizes
from attention_sampling.data.errors import SourceError
from attention_sampling.data.source import Size, Source

_Array = npt.NDArray[Any]
_Read = Callable[[Size, Size], _Array]
# A window that is read: its origin, its pixels, and its chunks as they are stored, if they
# are compressed here.
_Prepared = tuple[Size, _Array, list[tuple[Size, bytes]]]
_GZIP_LEVEL = 4
_FILTERS: dict[str, dict[str, Any]] = {
    "gzip": {"compression": "gzip", "compression_opts": _GZIP_LEVEL, "shuffle": True},
    "lzf": {"compression": "lzf", "shuffle": True},
    "none": {},
}
COMPRESSIONS = tuple(_FILTERS)
# Bytes of a window that is read at a time, and of one whose strips or tiles are large.
_WINDOW, _LARGEST_WINDOW = 2**22, 2**27
# Bytes of windows that are in memory at once.
_WINDOWS = 2**27


@contextlib.contextmanager
def open_to_write(
    part: Path, path: Path, keep: Callable[[h5py.File], bool] = lambda file: False
) -> Iterator[h5py.File]:
    """Open a new HDF5 file, and close it also where the disk is full.

    Args:
        part: file to write.
        path: what to call it in errors.
        keep: tells whether the file stays after an error. One that cannot be written is
            removed in any case.

    Raises:
        OSError: it cannot be written.
        KeyboardInterrupt: the user stops it.
    """
    file = None
    try:
        # Without a cache of chunks: a chunk in it that cannot be written crashes HDF5.
        file = h5py.File(part, "w", rdcc_nbytes=0)
        yield file
        file.close()
    except BaseException as error:
        # h5py raises something else after an interrupt in one of its callbacks.
        stopped = isinstance(error.__context__, KeyboardInterrupt)
        # HDF5 raises either when it cannot write.
        cannot_write = isinstance(error, OSError | RuntimeError) and not (
            stopped or isinstance(error, SourceError)
        )
        if file is not None:
            _close(file, part, None if cannot_write else keep)
        if stopped:
            raise KeyboardInterrupt from error
        if not cannot_write:
            raise
        raise OSError(
            f"The file cannot be written ({error}). Make room on the disk, or write "
            f"elsewhere. Received: {str(path)!r}"
        ) from error


def _close(
    file: h5py.File, part: Path, keep: Callable[[h5py.File], bool] | None
) -> None:
    """Close a file after an error, and remove it unless it is to be kept."""
    with contextlib.suppress(OSError, RuntimeError, KeyError):
        if keep is not None and keep(file):
            file.close()
            return
    # Closing writes: give it room. An HDF5 file that could not be closed keeps its space on
    # the disk until the process ends.
    os.truncate(part, 0)
    with contextlib.suppress(OSError, RuntimeError):
        file.close()
    part.unlink(missing_ok=True)


class ImageWriter:
    """Write images of a source; windows are read and compressed by several threads.

    A context manager: leaving it ends the threads. ``progress`` is called with the bytes
    written, uncompressed.
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
        self._pool = ThreadPoolExecutor(self._workers, "convert")
        # A source is read by as many threads at once as it allows.
        self._reading = threading.BoundedSemaphore(source.threads)

    def __enter__(self) -> "ImageWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def write(self, index: int, group: Any) -> None:
        """Write all levels of an image into a group."""

        def read_source(origin: Size, size: Size) -> _Array:
            with self._reading:
                return self._source.read_window(index, 0, origin, size)

        read: _Read = read_source
        sizes = level_sizes(self._source.levels(index)[0])
        window = self._window(sizes[0], self._source.block(index, 0))
        for number, size in enumerate(sizes):
            shape = (*size, self._source.channels)
            level = group.create_dataset(
                str(number),
                shape,
                self._source.dtype,
                chunks=tuple(map(min, shape, (self._chunk, self._chunk, shape[2]))),
                **_FILTERS[self._compression],
            )
            for prepared in self._prepare_all(level, window, read):
                self._store(level, *prepared)
            read = _read_halved(level)
            window = self._window(size, (1, 1))

    def _window(self, size: Size, block: Size) -> Size:
        """Return (height, width) of windows: whole chunks, and whole blocks if it can be.

        A block that reaches over several windows is decoded for each of them.
        """
        chunk = self._chunk
        pixels, most = (
            _WINDOW // self._pixel_bytes,
            _LARGEST_WINDOW // self._pixel_bytes,
        )
        side = max(chunk, _round_down(math.isqrt(pixels), chunk))
        block = (min(block[0], size[0]), min(block[1], size[1]))
        width = min(_round_up(max(side, block[1]), chunk), _round_down(most, chunk))
        height = max(block[0], side if width == side else pixels // width)
        tallest = max(chunk, _round_down(most // width, chunk))
        return min(_round_up(height, chunk), tallest), width

    def _prepare_all(
        self, level: Any, window: Size, read: _Read
    ) -> Iterator[_Prepared]:
        """Read and compress the windows of a level, as many at once as memory allows."""

        def prepare(origin: Size, size: Size) -> _Prepared:
            block = read(origin, size)
            # HDF5 itself would compress one chunk after the other.
            cut = _cut(block, level.chunks) if self._compression == "gzip" else ()
            return origin, block, [(corner, _compress(chunk)) for corner, chunk in cut]

        at_once = _WINDOWS // (window[0] * window[1] * self._pixel_bytes)
        at_once = min(max(1, at_once), self._workers + 1)
        pending: deque[Future[_Prepared]] = deque()
        try:
            for origin, size in _windows(level.shape[:2], window):
                pending.append(self._pool.submit(prepare, origin, size))
                if len(pending) == at_once:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
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
        for (row, column), data in compressed:
            # Up to 3.15, h5py does not take its lock to write a chunk as it is, and crashes
            # where another thread reads (h5py/h5py#2764).
            with phil:
                level.id.write_direct_chunk((top + row, left + column, 0), data)
        if not compressed:
            level[top : top + height, left : left + width] = block
        self._progress(block.nbytes)


def raw_bytes(source: Source, index: int) -> int:
    """Return the bytes of all levels that are written of an image, uncompressed."""
    sizes = level_sizes(source.levels(index)[0])
    pixels = sum(height * width for height, width in sizes)
    return pixels * source.channels * source.dtype.itemsize


def _read_halved(level: Any) -> _Read:
    """Return what reads windows of the level that follows one already written."""

    def read_level(origin: Size, size: Size) -> _Array:
        (top, left), (height, width) = origin, size
        return level[top : top + height, left : left + width]

    return lambda origin, size: halve_window(read_level, level.shape[:2], origin, size)


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
