import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from attention_sampling.data import ArraySource
from attention_sampling.data.files import FileSource, Image
from attention_sampling.data.view_cache import view_reader

SIZE = (2, 3)


class RawSource(FileSource):
    """Files of the pixels of one (4, 6, 1) uint8 image each; counts views read."""

    def __init__(self, paths, gain=1, **keywords):
        self._gain = gain
        super().__init__(paths, **keywords)
        self.reads = []

    def __getstate__(self):
        return {key: x for key, x in super().__getstate__().items() if key != "reads"}

    def read_view(self, index, size):
        self.reads.append(index)
        return super().read_view(index, size)

    def _open(self, path):
        return Path(path).read_bytes()

    def _close_file(self, opened):
        pass

    def _describe(self, opened):
        return [Image(None, ((4, 6),), ((4, 6),), 1, "uint8")]

    def _read_from(self, opened, image, level, origin, size):
        pixels = np.frombuffer(opened, "uint8").reshape(4, 6, 1) * np.uint8(self._gain)
        (top, left), (height, width) = origin, size
        return pixels[top : top + height, left : left + width]


@pytest.fixture
def paths(tmp_path, rng):
    paths = [tmp_path / f"{number}.raw" for number in range(3)]
    for path in paths:
        path.write_bytes(rng.integers(0, 100, 24, dtype=np.uint8).tobytes())
    return paths


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


@pytest.mark.parametrize("kind", [None, "memory"])
def test_views_are_those_of_the_source(paths, kind):
    source = RawSource(paths)
    views, _ = read_all(source, kind)
    expected = [source.read_view(index, SIZE) for index in range(3)]
    np.testing.assert_array_equal(views, expected)


def test_memory_keeps_views_for_one_reader(paths):
    source = RawSource(paths)
    read = view_reader(source, SIZE, "memory")
    np.testing.assert_array_equal(read(1), read(1))
    assert source.reads == [1]
    assert read_all(source, "memory")[1] == [0, 1, 2]


def test_images_of_one_file_are_kept_apart(paths, cache):
    class TwoSource(RawSource):
        def _describe(self, opened):
            return [Image(key, ((2, 6),), ((2, 6),), 1, "uint8") for key in (0, 2)]

        def _read_from(self, opened, image, level, origin, size):
            origin = (origin[0] + image.key, origin[1])
            return super()._read_from(opened, image, level, origin, size)

    views, _ = read_all(TwoSource(paths[:1]), cache)
    assert (views[0] != views[1]).any()
    kept, reads = read_all(TwoSource(paths[:1]), cache)
    assert reads == []
    np.testing.assert_array_equal(kept, views)


def test_later_runs_read_what_is_kept(paths, cache):
    views, reads = read_all(RawSource(paths), cache)
    assert reads == [0, 1, 2]
    kept, reads = read_all(RawSource(paths, threads=3, max_open=1), str(cache))
    assert reads == []
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, views)
    assert len(list(cache.iterdir())) == 3


def test_what_is_kept_belongs_to_the_file_not_to_its_number(paths, cache):
    views, _ = read_all(RawSource(paths), cache)
    reordered, reads = read_all(RawSource(paths[::-1]), cache)
    assert reads == []
    np.testing.assert_array_equal(reordered, views[::-1])


def test_a_changed_file_is_read_anew(paths, cache):
    before, _ = read_all(RawSource(paths), cache)
    status = paths[1].stat()
    paths[1].write_bytes(bytes(24))
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after, reads = read_all(RawSource(paths), cache)
    assert reads == [1]
    np.testing.assert_array_equal(after, before * [[[[1]]], [[[0]]], [[[1]]]])
    assert len(list(cache.iterdir())) == 3, "the stale view has been replaced"


def test_a_replaced_file_is_read_anew(paths, cache):
    read_all(RawSource(paths), cache)
    status = paths[1].stat()
    other = paths[1].with_suffix(".other")
    other.write_bytes(bytes(24))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, paths[1])
    views, reads = read_all(RawSource(paths), cache)
    assert reads == [1]
    assert not views[1].any()


def test_sizes_options_and_kinds_of_source_are_kept_apart(paths, cache):
    class OtherSource(RawSource):
        pass

    views, _ = read_all(RawSource(paths), cache)
    others = [
        (RawSource(paths), (1, 3)),
        (RawSource(paths, gain=2), SIZE),
        (OtherSource(paths), SIZE),
    ]
    for source, size in others:
        assert read_all(source, cache, size)[1] == [0, 1, 2]
    np.testing.assert_array_equal(
        read_all(RawSource(paths, gain=2), cache)[0], 2 * views
    )
    assert read_all(RawSource(paths), cache)[1] == []


def flip_a_pixel(path, data):
    pixel = data.index(b"\x93NUMPY") + 128
    path.write_bytes(data[:pixel] + bytes([data[pixel] ^ 1]) + data[pixel + 1 :])


def cut(path, data):
    path.write_bytes(data[: len(data) // 2])


def empty(path, data):
    path.write_bytes(b"")


def zero(path, data):
    path.write_bytes(bytes(len(data)))


def remove(path, data):
    path.unlink()


def other_array(path, data):
    with np.load(path) as kept, path.with_suffix(".part").open("wb") as file:
        np.savez(file, view=np.zeros((9, 9, 1), "float32"), origin=kept["origin"])
    os.replace(path.with_suffix(".part"), path)


def other_content(path, data):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def pickled(path, data):
    with np.load(path) as kept, path.with_suffix(".part").open("wb") as file:
        np.savez(file, view=np.array([Trap()]), origin=kept["origin"])
    os.replace(path.with_suffix(".part"), path)


class Trap:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize(
    "harm",
    [flip_a_pixel, cut, empty, zero, remove, other_array, other_content, pickled],
)
def test_a_broken_view_is_read_anew_and_replaced(paths, cache, harm):
    source = RawSource(paths[:1])
    views, _ = read_all(source, cache)
    (kept,) = cache.iterdir()
    harm(kept, kept.read_bytes())
    again, reads = read_all(source, cache)
    assert reads == [0]
    np.testing.assert_array_equal(again, views)
    assert read_all(source, cache)[1] == []


def test_half_a_view_never_has_the_final_name(paths, cache, monkeypatch):
    def fail(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    source = RawSource(paths)
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


def test_an_error_of_the_source_is_not_kept(paths, cache):
    source = RawSource(paths)
    read = view_reader(source, SIZE, cache)
    content = paths[0].read_bytes()
    status = paths[0].stat()
    paths[0].write_bytes(content + content)
    with pytest.raises(OSError, match="has been changed"):
        read(0)
    paths[0].write_bytes(content)
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    np.testing.assert_array_equal(read(0), source.read_view(0, SIZE))


def test_many_readers_of_one_directory(paths, cache):
    expected, _ = read_all(RawSource(paths), None)
    readers = [view_reader(RawSource(paths), SIZE, cache) for _ in range(4)]
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
        view_reader(RawSource(paths), SIZE, paths[0])


def test_refuses_to_keep_on_disk_what_is_not_in_files(tmp_path):
    source = ArraySource(np.zeros((1, 4, 6, 1), "uint8"))
    with pytest.raises(TypeError, match=r'Use cache="memory"\. Received: cache='):
        view_reader(source, SIZE, tmp_path)
