"""Windows a second: through a source, and by direct calls of its library."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import numpy as np

from attention_sampling.benchmark.sources.readers import Reader, read_directly
from attention_sampling.benchmark.tables import Row, at_least
from attention_sampling.data import Source

# Windows a second of a source, over those of direct calls.
SMALLEST_RATIO = 0.85
# What is measured at a time takes at least as long.
_LEAST_SECONDS = 0.02

Read = Callable[[np.ndarray, np.ndarray], np.ndarray]
# (windows,) image numbers, and (windows, 2) origins.
Places = tuple[np.ndarray, np.ndarray]


def measure_reading(
    readers: Iterable[Reader],
    sizes: Sequence[int],
    windows: int,
    repeats: int,
    threads: int,
) -> list[Row]:
    """Compare sources with direct calls, all of them in turn on the same windows.

    The files are in the page cache, as far as memory allows: what is compared is the
    work of the processor.

    Args:
        readers: as ``make_readers`` yields them.
        sizes: heights and widths of windows, in pixels.
        windows: number read by one call.
        repeats: how often each way is measured, at other places each time.
        threads: of the thread pool.

    Returns:
        A row for each reader and size. ``ratio`` is the median over the repeats of the
        time of direct calls over that of the source with one thread, between the
        quartiles ``low`` and ``high``.

    Raises:
        RuntimeError: a source reads other pixels than direct calls do.
    """
    return [
        _measure(reader, size, windows, repeats, threads)
        for reader in readers
        for size in sizes
    ]


def _measure(
    reader: Reader, size: int, windows: int, repeats: int, threads: int
) -> Row:
    rng = np.random.default_rng(0)
    with ExitStack() as stack:
        source = stack.enter_context(reader.open(1))
        ways = [
            _by_hand(reader, stack, size, source.channels),
            _by_source(reader, source, size),
        ]
        if reader.has_threads:
            pool = stack.enter_context(reader.open(threads))
            ways.append(_by_source(reader, pool, size))
        calls = _count_calls(ways, _draw_places(rng, source, size, windows), reader)
        seconds = np.empty((repeats, len(ways)))
        for repeat in range(repeats):
            places = [_draw_places(rng, source, size, windows) for _ in range(calls)]
            # Each way comes first in its turn.
            for way in np.roll(np.arange(len(ways)), repeat):
                seconds[repeat, way] = _seconds(ways[way], places)
    low, ratio, high = np.quantile(seconds[:, 0] / seconds[:, 1], [0.25, 0.5, 0.75])
    rates = calls * windows / np.median(seconds, axis=0)
    row: Row = {
        "source": reader.name,
        "window": size,
        "direct /s": float(rates[0]),
        "source /s": float(rates[1]),
        "ratio": float(ratio),
        "low": float(low),
        "high": float(high),
        "limit": at_least(ratio, SMALLEST_RATIO) if reader.is_judged else "",
        "threads": "",
        "pool /s": "",
        "pool over one": "",
    }
    if reader.has_threads:
        row["threads"], row["pool /s"] = threads, float(rates[2])
        row["pool over one"] = float(np.median(seconds[:, 1] / seconds[:, 2]))
    return row


def _by_hand(reader: Reader, stack: ExitStack, size: int, channels: int) -> Read:
    read_window = reader.direct(stack)

    def read(indices: np.ndarray, origins: np.ndarray) -> np.ndarray:
        way = reader.direct(stack) if reader.forgets else read_window
        return read_directly(way, indices, origins, size, channels)

    return read


def _by_source(reader: Reader, source: Source, size: int) -> Read:
    def read(indices: np.ndarray, origins: np.ndarray) -> np.ndarray:
        if reader.forgets:
            source.close()
        return source.read_patches(indices, origins, size)

    return read


def _draw_places(
    rng: np.random.Generator, source: Source, size: int, windows: int
) -> Places:
    """Draw windows that lie inside the images."""
    indices = rng.integers(len(source), size=windows)
    room = np.array([source.shape(index)[:2] for index in indices.tolist()]) - size
    return indices, rng.integers(room + 1)


def _count_calls(ways: Sequence[Read], places: Places, reader: Reader) -> int:
    """Warm up, and return how many calls take long enough to be measured."""
    expected = ways[0](*places)
    for way in ways[1:]:
        if not np.array_equal(way(*places), expected):
            raise RuntimeError(f"{reader.name}: source and direct calls differ")
    return math.ceil(_LEAST_SECONDS / _seconds(ways[0], [places]))


def _seconds(way: Read, batches: Sequence[Places]) -> float:
    start = time.perf_counter()
    for indices, origins in batches:
        way(indices, origins)
    return time.perf_counter() - start
