"""What was opened or decoded last, kept for the next reading, up to a limit."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class Cache:
    """Keep what was used last, and let go of what was not used for longest.

    ``make`` gives what belongs to a key; threads that ask for one key wait for the one that
    makes it, and where it fails, the next one to ask tries anew. ``limit`` is the sum of the
    costs of what is kept; what was made last is always kept. What leaves closes itself when
    nobody holds it any more, so that a thread may go on with what it has.
    """

    def __init__(
        self,
        make: Callable[[Any], Any],
        limit: int,
        cost: Callable[[Any], int] = lambda kept: 1,
    ) -> None:
        self._make, self._limit, self._cost = make, limit, cost
        self._lock = threading.Lock()
        # From what was used least lately to what was used last.
        self._entries: OrderedDict[Any, _Entry] = OrderedDict()
        self._total = 0

    def get(self, key: Any) -> Any:
        """Return what belongs to a key, made first where needed."""
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
        """Forget what belongs to a key. The next one to ask for it makes it anew."""
        self._remove(key, self._entries.get(key))

    def clear(self) -> None:
        """Forget everything."""
        leaving = self._entries  # let go of outside of the lock: closing takes time
        with self._lock:
            self._entries, self._total = OrderedDict(), 0
        del leaving

    def __len__(self) -> int:
        return len(self._entries)

    def _add(self, key: Any, entry: "_Entry", kept: Any) -> None:
        entry.cost = self._cost(kept)
        leaving = []  # let go of outside of the lock: closing takes time
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
    """What is kept, or is just being made."""

    def __init__(self) -> None:
        self.making = threading.Lock()
        self.is_made = False
        self.kept: Any = None
        self.cost = 0
