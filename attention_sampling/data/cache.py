"""A cache of open files and decoded images: the least recently used one goes first."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class Cache:
    """Keep the values that were used last; when there are too many, drop the oldest.

    ``make`` makes the value of a key. Threads that want the same key wait while one of them
    makes it; if that fails, the next one tries again. ``limit`` is the largest sum of costs;
    the newest value is kept even if it costs more alone. A dropped value is not closed here:
    a thread that still uses it may go on, and it closes itself when nothing refers to it.
    """

    def __init__(
        self,
        make: Callable[[Any], Any],
        limit: int,
        cost: Callable[[Any], int] = lambda kept: 1,
    ) -> None:
        self._make, self._limit, self._cost = make, limit, cost
        self._lock = threading.Lock()
        # The least recently used first.
        self._entries: OrderedDict[Any, _Entry] = OrderedDict()
        self._total = 0

    def get(self, key: Any) -> Any:
        """Return the value of a key; make it if it is not kept."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        if not entry.is_made:
            try:
                with entry.making:
                    if not entry.is_made:
                        self._add(key, entry, self._make(key))
            except BaseException:
                self._remove(key, entry)
                raise
        return entry.kept

    def drop(self, key: Any) -> None:
        """Drop the value of a key."""
        self._remove(key, self._entries.get(key))

    def clear(self) -> None:
        """Drop all values."""
        leaving = self._entries  # dropped after the lock is free: closing takes time
        with self._lock:
            self._entries, self._total = OrderedDict(), 0
        del leaving

    def __len__(self) -> int:
        return len(self._entries)

    def _add(self, key: Any, entry: "_Entry", kept: Any) -> None:
        entry.cost = self._cost(kept)
        leaving = []  # dropped after the lock is free: closing takes time
        with self._lock:
            entry.kept, entry.is_made = kept, True
            if self._entries.get(key) is entry:  # not dropped meanwhile
                self._entries.move_to_end(key)
                self._total += entry.cost
            while self._total > self._limit and len(self._entries) > 1:
                _, oldest = self._entries.popitem(last=False)
                self._total -= oldest.cost if oldest.is_made else 0
                leaving.append(oldest)

    def _remove(self, key: Any, entry: "_Entry | None") -> None:
        with self._lock:
            if entry is not None and self._entries.get(key) is entry:
                del self._entries[key]
                self._total -= entry.cost if entry.is_made else 0


class _Entry:
    """A value that is kept or is being made."""

    def __init__(self) -> None:
        self.making = threading.Lock()
        self.is_made = False
        self.kept: Any = None
        self.cost = 0
