import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from raw_files import RawSource, write, write_all

from attention_sampling.data import ArraySource
from attention_sampling.data.view_cache import view_reader

SIZE = (2, 3)


class CountingSource(RawSource):
    """Counts the views that are read."""

    def __init__(self, paths, **keywords):
        super().__init__(paths, **keywords)
        self.reads = []

    def read_view(self, index, size):
        self.reads.append(index)
        return super().read_view(index, size)


@pytest.fixture
def paths(tmp_path, rng):
    images = [rng.integers(0, 100, (4, 6, 1), dtype=np.uint8) for _ in range(3)]
    return write_all(tmp_path, images)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "deep" / "views"


def read_all(source, cache, size=SIZE):
    """Return all views, and the numbers of those that the source was asked for."""
    before = len(source.reads)
    read = view_reader(source, size, cache)
    return np.stack([read(index) for index in range(len(source))]), source.reads[
        before:
    ]


def test_memory_keeps_views_for_one_reader(paths):
    source = CountingSource(paths)
    read = view_reader(source, SIZE, "memory")
    np.testing.assert_array_equal(read(1), read(1))
    assert source.reads == [1]
    assert read_all(source, "memory")[1] == [0, 1, 2]


def test_later_runs_read_what_is_kept(paths, cache):
    views, reads = read_all(CountingSource(paths), cache)
    assert reads == [0, 1, 2]
    kept, reads = read_all(CountingSource(paths, threads=3, max_open=1), str(cache))
    assert reads == []
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, views)
    assert len(list(cache.iterdir())) == 3


def test_a_changed_file_is_read_anew(paths, cache):
    before, _ = read_all(CountingSource(paths), cache)
    status = paths[1].stat()
    write(paths[1], np.zeros((4, 6, 1), "uint8"))
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after, reads = read_all(CountingSource(paths), cache)
    assert reads == [1]
    np.testing.assert_array_equal(after, before * [[[[1]]], [[[0]]], [[[1]]]])
    assert len(list(cache.iterdir())) == 3, "the stale view has been replaced"


def test_sizes_and_kinds_of_source_are_kept_apart(paths, cache):
    class Inverse(CountingSource):
        def read(self, *window):
            return 255 - super().read(*window)

    views, _ = read_all(CountingSource(paths), cache)
    for source, size in ((CountingSource(paths), (1, 3)), (Inverse(paths), SIZE)):
        assert read_all(source, cache, size)[1] == [0, 1, 2]
    np.testing.assert_array_equal(read_all(Inverse(paths), cache)[0], 255 - views)
    assert read_all(CountingSource(paths), cache)[1] == []


def flip_a_pixel(path, data):
    pixel = data.index(b"\x93NUMPY") + 128
    path.write_bytes(data[:pixel] + bytes([data[pixel] ^ 1]) + data[pixel + 1 :])


def cut(path, data):
    path.write_bytes(data[: len(data) // 2])


def remove(path, data):
    path.unlink()


def pickled(path, data):
    with np.load(path) as kept, path.with_suffix(".part").open("wb") as file:
        np.savez(file, view=np.array([Trap()]), origin=kept["origin"])
    os.replace(path.with_suffix(".part"), path)


class Trap:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize("harm", [flip_a_pixel, cut, remove, pickled])
def test_a_broken_view_is_read_anew_and_replaced(paths, cache, harm):
    source = CountingSource(paths[:1])
    views, _ = read_all(source, cache)
    (kept,) = cache.iterdir()
    harm(kept, kept.read_bytes())
    again, reads = read_all(source, cache)
    assert reads == [0]
    np.testing.assert_array_equal(again, views)
    assert read_all(source, cache)[1] == []


def test_half_a_view_never_has_the_final_name(paths, cache, monkeypatch):
    def fail(file, **arrays):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    source = CountingSource(paths)
    read = view_reader(source, SIZE, cache)
    monkeypatch.setattr(np, "savez", fail)
    with pytest.warns(RuntimeWarning, match="deep/views.*No space left") as warned:
        views = [read(0), read(1)]
    assert len(warned) == 1, "said once"
    np.testing.assert_array_equal(views[1], source.read_view(1, SIZE))
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    read(1)
    assert len(list(cache.iterdir())) == 1


def test_many_readers_of_one_directory(paths, cache):
    expected, _ = read_all(CountingSource(paths), None)
    readers = [view_reader(CountingSource(paths), SIZE, cache) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        tasks = [
            (pool.submit(read, index), index)
            for _ in range(5)
            for read in readers
            for index in range(3)
        ]
        for task, index in tasks:
            np.testing.assert_array_equal(task.result(), expected[index])
    assert len(list(cache.iterdir())) == 3


def test_refuses_a_directory_that_cannot_be_made(paths):
    with pytest.raises(
        OSError, match=r"`cache` must be None.*Received: cache='.*0\.raw"
    ):
        view_reader(CountingSource(paths), SIZE, paths[0])


def test_refuses_to_keep_on_disk_what_is_not_in_files(tmp_path):
    source = ArraySource(np.zeros((1, 4, 6, 1), "uint8"))
    with pytest.raises(TypeError, match=r'Use cache="memory"\. Received: cache='):
        view_reader(source, SIZE, tmp_path)
