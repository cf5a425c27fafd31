"""Processes to measure in: each has a memory of its own."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple


def start_process() -> Executor:
    """Start a process that does one thing after the other."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context)


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
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def reset_peak() -> None:
    """Forget the peak, where the system allows: it then is that since the beginning."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
