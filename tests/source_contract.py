"""What every source must do, whatever the format: inherited by each one's test class.

A subclass says how images become a source of its format:

    class TestTiffSource(SourceContract):
        dtypes = ("uint8", "uint16")
        channels = (1, 3)

        def make(self, directory, images, **keywords):
            paths = [write(directory / f"{i}.tiff", x) for i, x in enumerate(images)]
            return TiffSource(paths, **keywords)
"""

import os
import pickle
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import REPOSITORY

from attention_sampling.data import SourceError

SLIDE = REPOSITORY.parent / "shared/data/slides/CMU-1-Small-Region.svs"
needs_slide = pytest.mark.skipif(not SLIDE.is_file(), reason=f"no slide at {SLIDE}")


class SourceContract:
    dtypes = ("uint8",)
    channels = (3,)
    # (height, width) of the images that the tests read.
    sizes = ((70, 90), (33, 301), (1, 1), (290, 40))

    def make(self, directory, images, **keywords):
        """Write images (height, width, channels) losslessly and return their source."""
        raise NotImplementedError

    def expected_view(self, image, size):
        """Return the view of an image; a source of pyramids may use another level."""
        return area_average(image, size)

    @pytest.fixture
    def images(self, rng):
        return draw_images(rng, self.sizes, self.channels[-1], self.dtypes[0])

    @pytest.fixture
    def source(self, tmp_path, images):
        with self.make(tmp_path, images) as source:
            yield source

    # What it says about itself

    def test_says_what_it_holds(self, source, images):
        assert len(source) == len(images)
        assert source.channels == images[0].shape[2]
        assert source.dtype == images[0].dtype
        assert type(source).__name__ in repr(source)
        for index, image in enumerate(images):
            assert source.shape(index) == image.shape
            levels = source.levels(index)
            assert levels[0] == image.shape[:2]
            assert list(levels) == sorted(levels, reverse=True)
            assert all(type(extent) is int for size in levels for extent in size)
        assert all(type(name) is str for name in source.names)
        assert len(set(source.names)) == len(images)
        assert source.skipped == ()

    def test_holds_every_dtype_and_channel_count(self, tmp_path, rng):
        for number, dtype in enumerate(self.dtypes):
            for channels in self.channels:
                directory = tmp_path / f"{number}-{channels}"
                directory.mkdir()
                images = draw_images(rng, self.sizes[:2], channels, dtype)
                with self.make(directory, images) as source:
                    assert source.dtype == np.dtype(dtype)
                    assert source.dtype.isnative
                    assert source.channels == channels
                    check_windows(source, images, rng)
                    view = source.read_view(0, 7)
                    assert view.dtype == np.float32
                    check_view(view, self.expected_view(images[0], (7, 7)))

    # Windows

    def test_any_window_is_the_padded_slice(self, source, images):
        places = st.integers(-90, 320)

        @settings(max_examples=60, deadline=None, derandomize=True)
        @given(
            st.lists(
                st.tuples(st.integers(0, len(images) - 1), places, places), max_size=4
            ),
            st.integers(1, 90),
            st.integers(1, 90),
        )
        def check(windows, height, width):
            indices = np.array([window[0] for window in windows], dtype="int32")
            origins = np.array([w[1:] for w in windows], "int32").reshape(-1, 2)
            patches = source.read_patches(indices, origins, (height, width))
            check_patches(patches, images, indices, origins, (height, width))

        check()

    @pytest.mark.parametrize("size", [(1, 1), (8, 8), (16, 5), (400, 350)])
    def test_windows_over_every_border_and_corner(self, source, images, size):
        windows = [
            (index, row, column)
            for index, image in enumerate(images)
            for row in places_over_borders(image.shape[0], size[0])
            for column in places_over_borders(image.shape[1], size[1])
        ]
        wanted = 300 if max(size) < 100 else 40
        windows = windows[:: 1 + len(windows) // wanted]
        indices = np.array([window[0] for window in windows])
        origins = np.array([window[1:] for window in windows])
        patches = source.read_patches(indices, origins, size)
        check_patches(patches, images, indices, origins, size)

    @pytest.mark.parametrize("dtype", ["int32", "int64"])
    def test_windows_far_outside_are_zero(self, source, dtype):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        origins = np.array(
            [(low, low), (low, 0), (0, high), (high, high), (high, low), (0, -9)], dtype
        )
        patches = source.read_patches(np.zeros(6, dtype), origins, 9)
        assert patches.shape == (6, 9, 9, source.channels)
        assert not patches.any()

    def test_no_windows(self, source):
        patches = source.read_patches([], np.zeros((0, 2), "int32"), (4, 5))
        assert patches.shape == (0, 4, 5, source.channels)
        assert patches.dtype == source.dtype

    def test_repeated_reads_are_equal_and_of_their_own(self, source, images):
        window = ([0], [(3, 4)], 20)
        first = source.read_patches(*window)
        kept = first.copy()
        assert first.flags.writeable
        first[...] = 7
        np.testing.assert_array_equal(source.read_patches(*window), kept)
        np.testing.assert_array_equal(source.read_view(1, 9), source.read_view(1, 9))

    # Views

    def test_views_are_area_averages(self, source, images):
        for index, image in enumerate(images):
            height, width = image.shape[:2]
            sizes = {(1, 1), (height, width), (height, -(-width // 2))}
            sizes |= {(-(-height // 3), -(-width // 4)), (-(-height * 5 // 7), 1)}
            for size in sizes:
                view = source.read_view(index, size)
                assert view.dtype == np.float32
                check_view(view, self.expected_view(image, size))

    def test_a_view_cut_into_pieces_is_the_same(self, source, images, monkeypatch):
        monkeypatch.setattr("attention_sampling.data.source._STRIP_PIXELS", 64 * 64)
        for index, image in enumerate(images):
            size = tuple(-(-extent * 2 // 3) for extent in image.shape[:2])
            check_view(source.read_view(index, size), self.expected_view(image, size))

    # Threads and processes

    def test_many_threads_at_once(self, tmp_path, images, rng):
        windows = [draw_windows(rng, images, 4) for _ in range(24)]
        for threads in (1, 3):
            directory = tmp_path / str(threads)
            directory.mkdir()
            with self.make(directory, images, threads=threads) as source:

                def read(window, source=source):
                    indices, origins = window
                    same = source.read_patches([0], [(5, 5)], 40)
                    return same, source.read_patches(indices, origins, (31, 17))

                with ThreadPoolExecutor(8) as pool:
                    results = list(pool.map(read, windows))
            for (indices, origins), (same, patches) in zip(
                windows, results, strict=True
            ):
                check_patches(same, images, [0], np.array([(5, 5)]), (40, 40))
                check_patches(patches, images, indices, origins, (31, 17))

    def test_reads_in_a_spawned_process_and_its_fork(self, tmp_path, images, rng):
        indices, origins = draw_windows(rng, images, 8)
        with self.make(tmp_path, images, threads=2) as source:
            here = source.read_patches(indices, origins, 21)
            # Read before it is pickled: what is open stays here.
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                there, forked, loaded = pool.submit(
                    read_elsewhere, source, indices, origins, 21
                ).result(timeout=120)
            np.testing.assert_array_equal(
                source.read_patches(indices, origins, 21), here
            )
        check_patches(here, images, indices, origins, (21, 21))
        np.testing.assert_array_equal(there, here)
        assert forked
        assert not {"keras", "tensorflow"} & set(loaded)

    def test_pickles_unopened_and_closed(self, tmp_path, images, rng):
        source = self.make(tmp_path, images)
        copies = [pickle.loads(pickle.dumps(source))]
        source.read_view(0, 1)
        source.close()
        copies.append(pickle.loads(pickle.dumps(source)))
        for copy in copies:
            with copy:
                assert copy.names == source.names
                check_windows(copy, images, rng)

    # Closing

    def test_reads_again_after_closing(self, tmp_path, images, rng):
        source = self.make(tmp_path, images, threads=2)
        for _ in range(2):
            check_windows(source, images, rng)
            source.close()
            source.close()
        with source as entered:
            assert entered is source
            check_windows(source, images, rng)

    def test_leaves_nothing_open_and_writes_nothing(self, tmp_path, images, rng):
        source = self.make(tmp_path, images, threads=2)
        assert open_files(tmp_path) == []
        files = list_files(tmp_path)
        check_windows(source, images, rng)
        source.read_view(0, 1)
        source.close()
        assert open_files(tmp_path) == []
        assert list_files(tmp_path) == files

    # What is refused

    def test_refuses_images_that_it_does_not_hold(self, source):
        for index in (-1, len(source), 2**40):
            with pytest.raises(IndexError, match="holds images 0 to"):
                source.read_patches([index], [(0, 0)], 4)
            with pytest.raises(IndexError, match="holds images 0 to"):
                source.read_view(index, 1)
            with pytest.raises(IndexError, match="holds images 0 to"):
                source.shape(index)
            with pytest.raises(IndexError, match="holds images 0 to"):
                source.levels(index)
        with pytest.raises(TypeError):
            source.read_view(0.5, 1)

    def test_what_goes_wrong_names_image_and_window(self, source, monkeypatch):
        monkeypatch.setattr(type(source), "read", fail)
        with pytest.raises(SourceError) as caught:
            source.read_patches([0, 1], [(0, 0), (2, 3)], (4, 5))
        assert "(image 0): rows 0 to 4, columns 0 to 5" in str(caught.value)
        assert "KeyError: 'broken'" in str(caught.value)
        with pytest.raises(SourceError, match=r"\(image 1\): rows 0 to"):
            source.read_view(1, 1)


def fail(*arguments):
    raise KeyError("broken")


# The slow reference


def padded_slice(image, origin, size):
    """Return a window of an image, zero outside of it."""
    rows = np.arange(size[0], dtype=object) + int(origin[0])
    columns = np.arange(size[1], dtype=object) + int(origin[1])
    inside_rows = ((rows >= 0) & (rows < image.shape[0])).astype(bool)
    inside_columns = ((columns >= 0) & (columns < image.shape[1])).astype(bool)
    patch = np.zeros((*size, image.shape[2]), image.dtype)
    patch[np.ix_(inside_rows, inside_columns)] = image[
        np.ix_(rows[inside_rows].astype(int), columns[inside_columns].astype(int))
    ]
    return patch


def area_average(image, size):
    """Return the mean of the area under each pixel of a view, in float64."""
    rows = coverage(image.shape[0], size[0])
    columns = coverage(image.shape[1], size[1])
    return np.einsum("ai,bj,ijc->abc", rows, columns, image, optimize=True)


def coverage(extent, size):
    """Return (size, extent): the fraction of each pixel in one of the view."""
    starts = np.arange(size)[:, None] * extent / size
    ends = np.arange(1, size + 1)[:, None] * extent / size
    pixels = np.arange(extent)[None]
    shares = np.minimum(ends, pixels + 1) - np.maximum(starts, pixels)
    shares = np.maximum(shares, 0)
    return shares / shares.sum(axis=1, keepdims=True)


# Images and checking


def draw_images(rng, sizes, channels, dtype):
    """Return an image of each size, its values over the whole range of integers."""
    dtype = np.dtype(dtype)
    shapes = [(*size, channels) for size in sizes]
    if dtype.kind == "f":
        return [rng.normal(size=shape).astype(dtype) for shape in shapes]
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return [
        rng.integers(low, high, shape, dtype=dtype, endpoint=True) for shape in shapes
    ]


def draw_windows(rng, images, count):
    """Return indices and origins, most of them somewhere in the images."""
    indices = rng.integers(0, len(images), count)
    extents = np.array([images[index].shape[:2] for index in indices])
    return indices, rng.integers(-20, extents + 5)


def places_over_borders(extent, length):
    """Return origins of windows before, over, at and behind both borders."""
    places = [-length - 1, -length, 1 - length, -1, 0, 1, extent // 2]
    places += [extent - length, extent - length + 1, extent - 1, extent, extent + 1]
    return sorted(set(places))


def check_patches(patches, images, indices, origins, size):
    expected = [
        padded_slice(images[index], origin, size)
        for index, origin in zip(indices, origins, strict=True)
    ]
    assert patches.shape == (len(indices), *size, images[0].shape[2])
    assert patches.dtype == images[0].dtype
    if expected:
        np.testing.assert_array_equal(patches, expected)


def check_windows(source, images, rng, count=12):
    indices, origins = draw_windows(rng, images, count)
    patches = source.read_patches(indices, origins, (19, 23))
    check_patches(patches, images, indices, origins, (19, 23))


def check_view(view, expected):
    assert view.shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(view, expected, rtol=1e-5, atol=1e-6 * scale + 1e-7)


def list_files(directory):
    return sorted(
        (path, path.stat().st_size, path.stat().st_mtime_ns)
        for path in Path(directory).rglob("*")
    )


def open_files(directory):
    """Return what this process has open there, where the system can tell."""
    if not os.path.isdir("/proc/self/fd"):
        return []
    targets = []
    for number in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # that of the listing itself
            continue
    return [target for target in targets if target.startswith(str(directory))]


# In another process


def read_elsewhere(source, indices, origins, size):
    """Return what is read there, whether a fork reads the same, what is imported."""
    patches = source.read_patches(indices, origins, size)
    view = source.read_view(0, 1)
    same = True
    if hasattr(os, "fork"):
        child = os.fork()
        if not child:
            equal = False
            try:
                equal = np.array_equal(
                    source.read_patches(indices, origins, size), patches
                ) and np.array_equal(source.read_view(0, 1), view)
            finally:
                os._exit(0 if equal else 1)
        same = wait_for(child, seconds=60) == 0
    source.close()
    return patches, same, sorted(sys.modules)


def wait_for(child, seconds):
    """Return the exit status of a process; kill one that hangs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
