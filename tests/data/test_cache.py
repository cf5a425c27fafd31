import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from attention_sampling.data.cache import Cache


class Shelf:
    """Makes things, and knows which of them are still held by somebody."""

    def __init__(self):
        self.made, self.gone, self.failing = [], [], set()

    def make(self, key):
        self.made.append(key)
        if key in self.failing:
            raise OSError(f"{key} is broken")
        return Kept(self, key)


class Kept:
    def __init__(self, shelf, key):
        self.shelf, self.key = shelf, key

    def __del__(self):
        self.shelf.gone.append(self.key)


@pytest.fixture
def shelf():
    return Shelf()


def use(cache, *keys):
    for key in keys:
        assert cache.get(key).key == key


def test_keeps_what_was_used_last(shelf):
    cache = Cache(shelf.make, limit=2)
    use(cache, "a", "b", "a", "c", "a", "b")
    assert shelf.made == ["a", "b", "c", "b"]
    assert shelf.gone == ["b", "c"]
    assert len(cache) == 2


def test_costs_count(shelf):
    cache = Cache(shelf.make, limit=10, cost=lambda kept: kept.key)
    use(cache, 4, 6, 5)
    assert shelf.gone == [4, 6]  # 5 + 6 are more than 10
    use(cache, 11)
    assert shelf.gone == [4, 6, 5]
    use(cache, 1)
    assert shelf.gone == [4, 6, 5, 11]


def test_what_is_in_use_is_not_closed(shelf):
    cache = Cache(shelf.make, limit=1)
    held = cache.get("a")
    use(cache, "b", "c")
    assert shelf.gone == ["b"]
    cache.drop("c")
    cache.drop("c")
    cache.clear()
    assert shelf.gone == ["b", "c"]
    del held
    assert shelf.gone == ["b", "c", "a"]
    use(cache, "a", "a")
    assert shelf.made == ["a", "b", "c", "a"]


def test_failing_to_make_leaves_nothing_and_is_tried_anew(shelf):
    cache = Cache(shelf.make, limit=2)
    shelf.failing.add("a")
    for _ in range(2):
        with pytest.raises(OSError, match="a is broken"):
            use(cache, "a")
    assert len(cache) == 0
    shelf.failing.clear()
    use(cache, "a", "b", "a")
    assert shelf.made == ["a", "a", "a", "b"]


def test_making_one_does_not_wait_for_another(shelf):
    both = threading.Barrier(2, timeout=30)

    def make(key):
        both.wait()
        return shelf.make(key)

    cache = Cache(make, 2)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(use, cache, key) for key in "ab"]:
            done.result(60)


def test_many_threads(shelf):
    cache = Cache(shelf.make, limit=3)

    def work(seed):
        rng = np.random.default_rng(seed)
        for key in rng.integers(0, 8, 200).tolist():
            kept = cache.get(key)
            assert kept.key == key
            if key == 7:
                cache.drop(int(rng.integers(0, 8)))
            time.sleep(0)  # to another thread
            if key == 0:
                cache.clear()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(cache) <= 3
    cache.clear()
    assert sorted(shelf.made) == sorted(shelf.gone)
    use(cache, *range(8))
    assert len(cache) == 3  # the limit counts anew
