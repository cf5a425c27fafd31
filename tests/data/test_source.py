import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import run_code
from raw_files import write_all
from source_contract import check_windows, draw_images

from attention_sampling.data import Source, SourceError


class OneImage(Source):
    """As little as a format of one's own needs."""

    def __init__(self, image, threads=1):
        super().__init__(["the image"], image.shape[2], image.dtype, threads)
        self.image = image

    def levels(self, index):
        return [self.image.shape[:2]]

    def read(self, index, level, origin, size):
        (top, left), (height, width) = origin, size
        return self.image[top : top + height, left : left + width]


class Levels(OneImage):
    """Levels of these sizes, whose pixels are all the number of the level."""

    def __init__(self, sizes):
        super().__init__(np.zeros((1, 1, 1), "uint8"))
        self.sizes = sizes

    def levels(self, index):
        return self.sizes

    def read(self, index, level, origin, size):
        return np.full((*size, 1), level, "uint8")


@pytest.fixture
def image(rng):
    return draw_images(rng, [(40, 50)], 3, "uint8")[0]


def test_a_format_of_ones_own_is_two_methods(image, rng):
    with OneImage(image) as source:
        check_windows(source, [image], rng)
        assert source.read_view(0, (40, 50)).tolist() == image.tolist()


def test_closing_is_the_formats_and_threads_end_all_the_same(image, rng):
    class Closing(OneImage):
        closed = False

        def close(self):  # calls no other
            self.closed = True

    with Closing(image, threads=4) as source:
        check_windows(source, [image], rng)
        assert not [t for t in threading.enumerate() if "attention" in t.name]
    assert source.closed


def test_refuses_what_is_no_source(image):
    with pytest.raises(TypeError, match="abstract"):
        Source(["a"], 3, "uint8")
    with pytest.raises(ValueError, match="`threads` must be an int of at least 1"):
        OneImage(image, threads=0)
    with pytest.raises(ValueError, match="`channels` must be an int of at least 1"):
        OneImage(image[:, :, :0])


# Arguments


@pytest.fixture
def source(image):
    return OneImage(image)


def test_refuses_a_view_larger_than_the_image(source):
    height, width = source.shape(0)[:2]
    for size in ((height + 1, 1), (1, width + 1)):
        with pytest.raises(ValueError, match="must not be larger") as caught:
            source.read_view(0, size)
        assert f"size={size}" in str(caught.value)
        assert str((height, width)) in str(caught.value)


@pytest.mark.parametrize(
    ("indices", "origins", "message"),
    [
        ([0], [(0.0, 0.0)], "`origins` must be integers.*float64"),
        ([0.0], [(0, 0)], "`indices` must be integers.*float64"),
        ([True], [(0, 0)], "`indices` must be integers.*bool"),
        (0, [(0, 0)], "must have shape"),
        ([[0]], [(0, 0)], "must have shape"),
        ([0], [0, 0], "must have shape"),
        ([0], [(0, 0, 0)], "must have shape"),
        ([0, 1], [(0, 0)], "must have shape"),
    ],
)
def test_refuses_windows_that_fit_nothing(source, indices, origins, message):
    with pytest.raises(ValueError, match=message):
        source.read_patches(indices, origins, 4)


@pytest.mark.parametrize("size", [0, -1, (4, 0), 2.5, (4, 4, 4)])
def test_refuses_sizes_that_are_none(source, size):
    with pytest.raises(ValueError, match="`patch_size` must be a positive"):
        source.read_patches([0], [(0, 0)], size)
    with pytest.raises(ValueError, match="`size` must be a positive"):
        source.read_view(0, size)


# Views


@pytest.mark.parametrize(
    ("size", "level"),
    [
        ((100, 200), 0),
        ((51, 1), 0),
        ((1, 101), 0),
        ((50, 100), 1),
        ((26, 50), 0),
        ((25, 50), 2),
        ((25, 49), 1),
        ((12, 25), 2),
        (1, 2),
    ],
)
def test_views_come_from_a_level_of_twice_the_size(size, level):
    source = Levels([(100, 200), (50, 100), (25, 50)])
    assert (source.read_view(0, size) == level).all()


@settings(max_examples=80, deadline=None, derandomize=True)
@given(*[st.integers(1, 3000)] * 2, *[st.integers(1, 400)] * 2)
def test_views_are_read_in_pieces_of_whole_tiles(height, width, rows, columns):
    source = Levels([(height, width)])
    source.block = lambda index, level: (rows, columns)
    read = np.zeros((height, width), "uint8")
    for (top, left), (piece_rows, piece_columns) in source.strips(0, 0):
        assert top % rows == 0
        assert left % columns == 0
        for start, length, tile, extent in (
            (top, piece_rows, rows, height),
            (left, piece_columns, columns, width),
        ):
            assert length % tile == 0 or start + length == extent
        assert piece_rows * piece_columns <= 2**20
        read[top : top + piece_rows, left : left + piece_columns] += 1
    assert (read == 1).all()


# Errors


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (np.zeros((4, 5, 2), "uint8"), r"uint8 of shape \(4, 5, 2\) there, expected"),
        (np.zeros((4, 4, 3), "uint8"), r"expected uint8 of shape \(4, 5, 3\)"),
        (np.zeros((4, 5, 3), "uint16"), "holds uint16 of shape"),
        (np.zeros((4, 5, 3), ">u2"), "holds >u2 of shape"),
        (None, "AttributeError"),
    ],
)
def test_what_is_no_such_window_is_refused(image, window, message):
    source = OneImage(image)
    source.read = lambda *arguments: window
    with pytest.raises(SourceError, match=rf"the image \(image 0\): .*{message}"):
        source.read_patches([0], [(1, 2)], (4, 5))


def test_after_an_error_no_thread_goes_on(image):
    source = OneImage(image, threads=4)
    reading = []

    def read(index, level, origin, size):
        reading.append(origin)
        time.sleep(0.05 if origin[0] % 2 else 0)
        if origin[0] in (1, 2):
            raise OSError(f"row {origin[0]} is broken")
        reading.remove(origin)
        return image[: size[0], : size[1]]

    source.read = read
    for _ in range(3):
        reading.clear()
        with pytest.raises(SourceError, match="row 1 is broken"):
            source.read_patches([0] * 30, [(row, row) for row in range(30)], 4)
        assert {row for row, _ in reading} <= {1, 2}
        assert not [t for t in threading.enumerate() if "attention" in t.name]


# Closing and forking


def test_closing_while_others_read_breaks_nothing(image, rng):
    source = OneImage(image, threads=3)
    stop = threading.Event()

    def read(seed):
        while not stop.is_set():
            check_windows(source, [image], np.random.default_rng(seed))

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read, seed) for seed in range(3)]
        try:
            for _ in range(60):
                source.close()
        finally:
            stop.set()
        for reader in readers:
            reader.result()
    source.close()


FORK = """
import os, sys, threading
import numpy as np
from raw_files import RawSource
source = RawSource(sys.argv[1:], threads=2)
window = [0, 1, 0], [(0, 0), (3, 4), (1, 1)], 8
here = source.read_patches(*window)
held, go = threading.Event(), threading.Event()

def hold():
    with source.cache._lock:
        held.set()
        go.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if not child:
    equal = False
    try:
        source.close()
        equal = np.array_equal(source.read_patches(*window), here)
        source.close()
    finally:
        os._exit(0 if equal else 1)
status = os.waitpid(child, 0)[1]
go.set()
thread.join()
np.testing.assert_array_equal(source.read_patches(*window), here)
sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_reads_though_a_thread_held_the_lock(tmp_path, rng):
    paths = write_all(tmp_path, draw_images(rng, [(20, 30), (10, 12)], 3, "uint8"))
    run_code(FORK, *paths, path=[Path(__file__).parents[1]])
