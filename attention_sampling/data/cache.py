"""Open files, or decoded images, kept for the next reading, up to a limit."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class LeaseCache:
    """Keep what was opened last; close what was not used for longest.

    What is in use is never closed, so that the limit may be exceeded by as many as are
    in use at once.

    Args:
        open: callable from a key to what is kept.
        close: callable on what is kept, when it leaves. Its errors are ignored: what was
            only read loses nothing.
        limit: sum of the costs of what is kept.
        cost: callable from what is kept to what it counts; 1 each by default.
    """

    def __init__(
        self,
        open: Callable[[Any], Any],
        close: Callable[[Any], None],
        limit: int,
        cost: Callable[[Any], int] = lambda kept: 1,
    ) -> None:
        self._open, self._close, self._limit, self._cost = open, close, limit, cost
        self._process = os.getpid()
        self._lock = threading.Lock()
        # From what was used least lately to what was used last.
        self._entries: OrderedDict[Any, Lease] = OrderedDict()
        self._total = 0

    @contextmanager
    def lease(self, key: Any) -> Iterator[Any]:
        """Use what belongs to a key, opening it first where needed."""
        lease = self.acquire(key)
        try:
            yield lease.kept
        finally:
            self.release(lease)

    def acquire(self, key: Any) -> "Lease":
        """Return what belongs to a key, opening it first where needed.

        Several threads may use it at once, and one of them opens it. If opening fails,
        the next one to ask tries anew. ``release`` it after use.
        """
        with self._lock:
            lease = self._entries.get(key)
            if lease is None:
                lease = self._entries[key] = Lease(key)
            self._entries.move_to_end(key)
            lease.users += 1
        if not lease.is_open:
            try:
                self._open_once(lease)
            except BaseException:
                self.release(lease)
                raise
        return lease

    def release(self, lease: "Lease") -> None:
        """End a use; close it if it was dropped, and the oldest beyond the limit."""
        leaving = []
        with self._lock:
            lease.users -= 1
            if not lease.users:
                if not lease.is_open:
                    self._remove(lease)
                elif self._entries.get(lease.key) is not lease:  # dropped
                    leaving.append(lease)
            if self._total > self._limit:
                for entry in list(self._entries.values()):
                    if entry.is_open and not entry.users:
                        self._remove(entry)
                        leaving.append(entry)
                        if self._total <= self._limit:
                            break
        self._close_all(leaving)

    def drop(self, key: Any) -> None:
        """Close what belongs to a key, as soon as nobody uses it.

        The next one to ask for it opens it anew.
        """
        with self._lock:
            lease = self._entries.get(key)
            if lease is None:
                return
            self._remove(lease)
            unused = lease.is_open and not lease.users
        if unused:
            self._close_all([lease])

    def clear(self) -> None:
        """Close everything, as soon as nobody uses it."""
        with self._lock:
            keys = list(self._entries)
        for key in keys:
            self.drop(key)

    def __len__(self) -> int:
        return len(self._entries)

    def __del__(self) -> None:
        # Nobody uses anything any more, or there would be a reference to this; but in a
        # forked process, threads that stayed behind may hold the lock for ever.
        with suppress(Exception):
            if self._process == os.getpid():
                self.clear()

    def _open_once(self, lease: "Lease") -> None:
        with lease.opening:
            if lease.is_open:
                return
            kept = self._open(lease.key)
            try:
                cost = self._cost(kept)
            except BaseException:
                self._close(kept)
                raise
            with self._lock:
                lease.kept, lease.cost, lease.is_open = kept, cost, True
                if self._entries.get(lease.key) is lease:  # not dropped meanwhile
                    self._total += cost

    def _remove(self, lease: "Lease") -> None:
        """Forget an entry, if it has not been; the lock is held."""
        if self._entries.get(lease.key) is lease:
            del self._entries[lease.key]
            self._total -= lease.cost

    def _close_all(self, leaving: list["Lease"]) -> None:
        for lease in leaving:
            with suppress(Exception):
                self._close(lease.kept)


class Lease:
    """What is kept, and how many use it."""

    def __init__(self, key: Any) -> None:
        self.key = key
        self.opening = threading.Lock()
        self.kept: Any = None
        self.is_open = False
        self.users = 0
        self.cost = 0
