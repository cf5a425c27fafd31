"""Several threads at work, which Ctrl-C always ends."""

import threading
from collections.abc import Callable, Generator, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

__all__ = ["map_in_threads"]


def map_in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], threads: int
) -> Generator[Result, None, None]:
    """Yield what a function returns for each item, in their order.

    Ctrl-C can leave the lock of a future of `concurrent.futures` taken, and its pool then
    waits for ever. Here results come by a queue that is written in C, which it cannot.

    Args:
        function: called in other threads, with one item.
        items: taken in their order.
        threads: calls at once.

    Raises:
        BaseException: what a call raised. Others that have begun are waited for, no
            further one begins; likewise where the caller closes the iterator.

    Example:

    >>> list(map_in_threads(abs, [-1, 2, -3], threads=2))
    [1, 2, 3]
    """
    if min(threads, len(items)) < 2:
        yield from map(function, items)
        return
    left = iter(range(len(items)))
    ended: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
    stopped = False

    def work() -> None:
        for number in left:
            if stopped:
                return
            try:
                ended.put((number, function(items[number]), None))
            except BaseException as error:
                ended.put((number, None, error))

    workers: list[threading.Thread] = []
    early: dict[int, list[Any]] = {}
    try:
        for _ in range(min(threads, len(items))):
            worker = threading.Thread(target=work, daemon=True)
            worker.start()
            workers.append(worker)
        for number in range(len(items)):
            while number not in early:
                at, *outcome = ended.get()
                early[at] = outcome
            result, error = early.pop(number)
            if error is not None:
                raise error
            yield result
    finally:
        stopped = True
        for worker in workers:
            worker.join()
