import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from attention_sampling.data.cache import LeaseCache


class Kept:
    def __init__(self, key):
        self.key = key
        self.closed = False


class Shelf:
    """Opens and closes things, and knows which."""

    def __init__(self):
        self.opened, self.closed = [], []
        self.failing = set()

    def open(self, key):
        self.opened.append(key)
        if key in self.failing:
            raise OSError(f"{key} is broken")
        return Kept(key)

    def close(self, kept):
        assert not kept.closed
        kept.closed = True
        self.closed.append(kept.key)

    def cache(self, limit, **keywords):
        return LeaseCache(self.open, self.close, limit, **keywords)


@pytest.fixture
def shelf():
    return Shelf()


def use(cache, *keys):
    for key in keys:
        with cache.lease(key) as kept:
            assert kept.key == key
            assert not kept.closed


def test_keeps_what_was_used_last(shelf):
    cache = shelf.cache(limit=2)
    use(cache, "a", "b", "a", "c", "a", "b")
    assert shelf.opened == ["a", "b", "c", "b"]
    assert shelf.closed == ["b", "c"]
    assert len(cache) == 2


def test_costs_count(shelf):
    cache = shelf.cache(limit=10, cost=lambda kept: kept.key)
    use(cache, 4, 6, 5)
    assert shelf.closed == [4, 6]  # 5 + 6 are more than 10
    use(cache, 11)
    assert shelf.closed == [4, 6, 5, 11]
    assert len(cache) == 0


def test_what_is_in_use_stays_open_beyond_the_limit(shelf):
    cache = shelf.cache(limit=1)
    with cache.lease("a") as first, cache.lease("b"), cache.lease("a") as again:
        assert first is again
        use(cache, "c")
        assert shelf.closed == ["c"]
    assert shelf.closed == ["c", "b"]
    assert len(cache) == 1


def test_failing_to_open_leaves_nothing_and_is_tried_anew(shelf):
    cache = shelf.cache(limit=2)
    shelf.failing.add("a")
    for _ in range(2):
        with pytest.raises(OSError, match="a is broken"):
            use(cache, "a")
    assert len(cache) == 0
    shelf.failing.clear()
    use(cache, "a", "b", "a")
    assert shelf.opened == ["a", "a", "a", "b"]
    assert shelf.closed == []


def test_costs_that_fail_leave_nothing_open(shelf):
    cache = shelf.cache(limit=2, cost=lambda kept: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        use(cache, "a")
    assert shelf.closed == ["a"]
    assert len(cache) == 0


def test_those_who_wait_for_one_that_fails_try_it_themselves(shelf):
    begun, go = threading.Event(), threading.Event()
    tries = []

    def open(key):
        tries.append(key)
        if len(tries) == 1:
            begun.set()
            assert go.wait(30)
            raise OSError("not yet")
        return Kept(key)

    cache = LeaseCache(open, shelf.close, 2)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(use, cache, "a")
        assert begun.wait(30)
        others = [pool.submit(use, cache, "a") for _ in range(2)]
        while cache._entries["a"].users < 3:
            continue
        go.set()
        with pytest.raises(OSError, match="not yet"):
            first.result(30)
        for other in others:
            other.result(30)
    assert len(tries) == 2
    assert len(cache) == 1


def test_opening_one_does_not_wait_for_another(shelf):
    both = threading.Barrier(2, timeout=30)

    def open(key):
        both.wait()
        return Kept(key)

    cache = LeaseCache(open, shelf.close, 2)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(use, cache, key) for key in "ab"]:
            done.result(60)


def test_dropped_in_use_is_closed_after_it_and_opened_anew(shelf):
    cache = shelf.cache(limit=2)
    with cache.lease("a") as first:
        cache.drop("a")
        cache.drop("a")
        assert not first.closed
        with cache.lease("a") as second:
            assert second is not first
        assert not first.closed
    assert first.closed
    assert not second.closed
    assert len(cache) == 1
    cache.drop("a")
    assert second.closed
    cache.drop("a")
    assert shelf.closed == ["a", "a"]


def test_dropped_while_it_opens_is_closed_and_counts_nothing(shelf):
    def open(key):
        if key == "a":
            cache.drop("a")
        return shelf.open(key)

    cache = LeaseCache(open, shelf.close, 1)
    use(cache, "a")
    assert shelf.closed == ["a"]
    use(cache, "b", "b")
    assert shelf.opened == ["a", "b"]


def test_clear_closes_all(shelf):
    cache = shelf.cache(limit=5)
    use(cache, "a", "b")
    with cache.lease("c"):
        cache.clear()
        assert shelf.closed == ["a", "b"]
    assert shelf.closed == ["a", "b", "c"]
    use(cache, "a", "b", "c", "d", "e")
    assert len(cache) == 5  # the limit counts anew


def test_errors_when_closing_are_nobodys(shelf):
    def close(kept):
        shelf.close(kept)
        raise OSError("cannot be closed")

    cache = LeaseCache(shelf.open, close, 1)
    use(cache, "a", "b", "c")
    cache.clear()
    assert shelf.closed == ["a", "b", "c"]


def test_many_threads(shelf):
    cache = shelf.cache(limit=3)

    def work(seed):
        rng = np.random.default_rng(seed)
        for key in rng.integers(0, 8, 200).tolist():
            with cache.lease(key) as kept:
                assert kept.key == key
                assert not kept.closed
                if key == 7:
                    cache.drop(rng.integers(0, 8))
                time.sleep(0)  # to another thread
                assert not kept.closed
            if key == 0:
                cache.clear()
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(cache) <= 3
    assert len(shelf.opened) - len(shelf.closed) == len(cache)
    cache.clear()
    assert sorted(shelf.opened) == sorted(shelf.closed)
    assert cache._total == 0
