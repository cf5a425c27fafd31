"""Processes to measure in: each has a memory of its own."""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple


def start_process(memory_limit: float | None = None) -> Executor:
    """Start a process that does one thing after the other.

    Args:
        memory_limit: megabytes (10^6 bytes) that it may hold, where the system knows
            such limits; None for all there are. What needs more fails or ends the
            process, and leaves the others alone.
    """
    return ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_limit_memory,
        initargs=(memory_limit,),
    )


class Processes:
    """A process for each of several things to measure.

    Args:
        executors: by name.
    """

    def __init__(self, executors: Mapping[str, Executor]) -> None:
        self._executors = executors

    def call(
        self, function: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]]
    ) -> dict[str, Any]:
        """Call a function in each process, one after the other.

        Args:
            function: of a module, to be found there by its name.
            arguments: by name of the process.

        Returns:
            What it returned, by name of the process.
        """
        return {
            name: executor.submit(function, *arguments[name]).result()
            for name, executor in self._executors.items()
        }

    def in_turns(self, function: Callable[[], Any], turns: int) -> dict[str, list[Any]]:
        """Call a function in each process, again and again.

        Other work on the machine so falls upon all of them. Every other turn begins
        with the last.
        """
        results: dict[str, list[Any]] = {name: [] for name in self._executors}
        for turn in range(turns):
            for name in list(results)[:: -1 if turn % 2 else 1]:
                results[name].append(self._executors[name].submit(function).result())
        return results


@contextmanager
def processes(names: list[str]) -> Iterator[Processes]:
    """Start a process for each name, and end them."""
    with ExitStack() as stack:
        yield Processes({name: stack.enter_context(start_process()) for name in names})


class Seconds(NamedTuple):
    """What a call takes.

    Attributes:
        wall: seconds by the clock.
        processor: seconds of all threads of the process, whatever else the machine does.
    """

    wall: float
    processor: float


def seconds_of(function: Callable[..., Any], *arguments: Any) -> Seconds:
    """Call a function and return what it takes."""
    wall, processor = time.perf_counter(), time.process_time()
    function(*arguments)
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def peak_megabytes() -> float:
    """Return the largest resident memory of this process since the last reset.

    In 10^6 bytes; NaN where there is no /proc.
    """
    return _megabytes("/proc/self/status", "VmHWM")


def resident_megabytes() -> float:
    """Return the resident memory of this process, as ``peak_megabytes``."""
    return _megabytes("/proc/self/status", "VmRSS")


def available_megabytes() -> float:
    """Return what processes may still take of the machine, as ``peak_megabytes``."""
    return _megabytes("/proc/meminfo", "MemAvailable")


def reset_peak() -> None:
    """Forget the peak, where the system allows: it then is that since the beginning."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _megabytes(path: str, name: str) -> float:
    """Return an entry of a file of the system, NaN where there is none."""
    file = Path(path)
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def _limit_memory(megabytes: float | None) -> None:
    if megabytes is not None and sys.platform == "linux":
        import resource

        # Of what is written to: address space alone costs nothing, and TensorFlow
        # reserves much of it.
        limit, (_, hard) = (
            int(megabytes * 1e6),
            resource.getrlimit(resource.RLIMIT_DATA),
        )
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
