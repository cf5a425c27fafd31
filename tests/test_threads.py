"""Work in threads: its order, its errors, and that Ctrl-C ends it."""

import textwrap
import threading
import time

import pytest
from processes import run_code

from attention_sampling.threads import map_in_threads


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_results_come_in_the_order_of_the_items(threads):
    def wait(item):
        time.sleep(0.002 * (item % 3))
        return -item

    assert list(map_in_threads(wait, range(30), threads)) == [-n for n in range(30)]
    assert list(map_in_threads(wait, [], threads)) == []


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_ends_the_others_and_is_raised(kind):
    begun = []

    def work(item):
        begun.append(item)
        if item == 5:
            raise kind("five")
        time.sleep(0.001)

    before = threading.active_count()
    with pytest.raises(kind, match="five"):
        list(map_in_threads(work, range(10_000), 3))
    assert threading.active_count() == before
    assert len(begun) < 1000


def test_closed_on_the_way_no_thread_goes_on():
    before = threading.active_count()
    results = map_in_threads(str, range(10**9), 3)
    assert next(results) == "0"
    results.close()
    assert threading.active_count() == before


@pytest.mark.slow
def test_ctrl_c_at_any_moment_ends_it():
    # A pool of `concurrent.futures` hangs within 400 of these.
    code = """
        import random, signal, time
        from attention_sampling.threads import map_in_threads

        def interrupt(*_):
            raise KeyboardInterrupt

        def wait(item):
            time.sleep(1e-4)

        signal.signal(signal.SIGALRM, interrupt)
        interrupted = 0
        for _ in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.003, 0.02))
                for _ in map_in_threads(wait, range(10**9), 8):
                    pass
            except KeyboardInterrupt:
                interrupted += 1
        print(interrupted)
    """
    assert run_code(textwrap.dedent(code)) == "400\n"
