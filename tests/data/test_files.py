"""FileSource, by a format that is nothing but a line and pixels."""

import errno
import gc
import os
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from raw_files import HEADER, RawSource, write, write_all
from source_contract import SourceContract, check_windows, draw_images, open_files

from attention_sampling.data import SourceError, TiffSource
from attention_sampling.data.files import Image


@pytest.fixture
def images(rng):
    return draw_images(rng, [(20, 30), (10, 12), (25, 7)], 3, "uint8")


@pytest.fixture
def paths(tmp_path, images):
    return write_all(tmp_path, images)


class TestRawFiles(SourceContract):
    dtypes = ("uint8", "float32")
    channels = (2, 3)

    def make(self, directory, images, **keywords):
        return RawSource(write_all(directory, images), **keywords)


# Names


def test_names_are_the_paths_as_given(paths, monkeypatch, tmp_path, images, rng):
    monkeypatch.chdir(tmp_path)
    source = RawSource(["0.raw", Path("1.raw"), str(paths[2])])
    assert source.names == ("0.raw", "1.raw", str(paths[2]))
    assert source.paths == tuple(map(str, paths))
    monkeypatch.chdir("/")
    check_windows(source, images, rng)


def test_images_of_one_file_have_names_of_their_own(paths):
    class Twice(RawSource):
        def inspect(self, path):
            (image,) = super().inspect(path)
            rest = (image.levels, image.blocks, image.channels, image.dtype)
            return [Image("first", *rest), Image(1, *rest), Image(2, *rest, "mine")]

    source = Twice(paths[:1])
    path = str(paths[0])
    assert source.names == (f"{path}[first]", f"{path}[1]", "mine")
    paths[0].unlink()
    with pytest.raises(SourceError, match=r"0.raw\[2\] \(image 2\)"):
        source.read_view(2, 1)


# Files that do not open


def no_pixels(path):
    write(path, np.ones((0, 5, 3), "uint8"))


def other_channels(path):
    write(path, np.ones((4, 5, 2), "uint8"))


def other_dtype(path):
    write(path, np.ones((4, 5, 3), "uint16"))


def complex_numbers(path):
    write(path, np.ones((4, 5, 3), "complex64"))


def directory(path):
    path.unlink()
    path.mkdir()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_text("no image at all"), "invalid literal"),
        (Path.unlink, "No such file"),
        (directory, "this is no file"),
        (pipe, "this is no file"),
        (other_channels, "have 2 channels of uint8, those of .*0.raw 3 channels of"),
        (other_dtype, "3 channels of uint16, those of .*0.raw 3 channels of uint8"),
        (complex_numbers, "must hold integers or floats.*complex64"),
        (no_pixels, "without pixels"),
    ],
)
def test_broken_files_are_refused_or_left_out(
    paths, images, rng, tmp_path, spoil, message
):
    spoil(paths[1])
    with pytest.raises(SourceError, match=rf"1\.raw: .*{message}"):
        RawSource(paths)
    with RawSource(paths, on_error="skip") as source:
        assert source.paths == (str(paths[0]), str(paths[2]))
        ((path, reason),) = source.skipped
        assert path == str(paths[1])
        assert re.search(message, reason)
        check_windows(source, [images[0], images[2]], rng)
        assert pickle.loads(pickle.dumps(source)).skipped == source.skipped
    assert open_files(tmp_path) == []


def test_most_files_decide_what_fits(paths, images, rng):
    write(paths[0], np.ones((4, 5, 1), "uint8"))
    with pytest.raises(
        SourceError, match=r"0\.raw: its images have 1 channels of uint8"
    ):
        RawSource(paths)
    with RawSource(paths, on_error="skip") as source:
        assert source.paths == (str(paths[1]), str(paths[2]))
        assert "2 images, 3 channels, uint8, 1 skipped" in repr(source)
        check_windows(source, images[1:], rng)


def test_fingerprints_tell_files_images_and_changes(paths, images):
    source = RawSource(paths)
    before = [source.fingerprint(index) for index in range(3)]
    assert len(set(before)) == 3
    assert before == [RawSource(paths).fingerprint(index) for index in range(3)]
    write(paths[1], images[1])
    os.utime(paths[1], ns=(0, 12345))
    assert RawSource(paths).fingerprint(1) not in before


def test_refuses_bad_arguments(paths):
    with pytest.raises(ValueError, match="`on_error` must be one of 'raise', 'skip'"):
        RawSource(paths, on_error="ignore")
    with pytest.raises(ValueError, match="`max_open` must be an int of at least 1"):
        RawSource(paths, max_open=0)
    with pytest.raises(ValueError, match="`threads` must be an int of at least 1"):
        RawSource(paths, threads=0)


# Files that change in use


def replace(path, image):
    write(path.with_suffix(".new"), image)
    os.replace(path.with_suffix(".new"), path)


def rewrite(path, image):
    with open(path, "r+b") as file:
        file.seek(HEADER)
        file.write(bytes(5))
    os.utime(path, ns=(0, 12345))  # even within one tick of the clock


def cut(path, image):
    os.truncate(path, HEADER + 50)


def append(path, image):
    with open(path, "ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [replace, rewrite, cut, append])
@pytest.mark.parametrize("opened", [True, False])
def test_a_file_changed_in_use_is_refused(paths, images, rng, change, opened, tmp_path):
    with RawSource(paths) as source:
        if opened:
            check_windows(source, images, rng)
        change(paths[1], images[1])
        for _ in range(2):
            with pytest.raises(SourceError) as caught:
                source.read_patches([0, 1], [(0, 0), (2, 3)], 4)
            for part in ("1.raw (image 1): rows 2 to 6", "has been changed", "again"):
                assert part in str(caught.value)
        assert not [target for target in open_files(tmp_path) if "1.raw" in target]
        with pytest.raises(SourceError, match="has been changed"):
            source.read_view(1, 2)
        check_windows(source, images[:1], rng)


def test_a_file_that_disappears_is_named(paths, images, rng, tmp_path):
    with RawSource(paths) as source:
        check_windows(source, images, rng)
        content = paths[1].read_bytes()
        paths[1].unlink()
        with pytest.raises(SourceError, match=r"1.raw \(image 1\): rows 0.*No such"):
            source.read_patches([1], [(0, 0)], 4)
        assert not [target for target in open_files(tmp_path) if "1.raw" in target]
        check_windows(source, images[:1], rng)
        paths[1].write_bytes(content)  # another file of the same name
        with pytest.raises(SourceError, match="has been changed"):
            source.read_patches([1], [(0, 0)], 4)


# More files than may be open


def test_few_files_are_open_at_a_time(tmp_path, images):
    paths = [write(tmp_path / f"{n}.raw", images[n % 3]) for n in range(40)]
    with RawSource(paths, max_open=5, threads=4) as source:
        for _ in range(2):
            source.read_patches(np.arange(40), np.zeros((40, 2), int), 4)
            assert 0 < len(open_files(tmp_path)) <= 5


def test_a_source_that_is_forgotten_closes_its_files(tmp_path, rng):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, draw_images(rng, [(20, 30)], 3, "uint8")[0])
    source = TiffSource(path)
    source.itself = source  # as a model that holds it is full of circles
    source.read_patches([0], [(0, 0)], 5)
    assert open_files(tmp_path)
    del source
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    assert not open_files(tmp_path)


# A process that may hold no more


@pytest.mark.parametrize(
    "shortage",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENFILE, "Too many open files in system"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        MemoryError(),
        ValueError("Failed to open it: Too many open files"),
    ],
)
def test_a_shortage_skips_nothing(paths, shortage):
    class Short(RawSource):
        def open_file(self, path):
            if path.endswith("1.raw"):
                raise shortage
            return super().open_file(path)

    with pytest.raises(SourceError, match=r"1\.raw: ") as raised:
        Short(paths, on_error="skip")
    names_a_remedy = "lower max_open, or raise `ulimit -n`" in str(raised.value)
    assert names_a_remedy == ("too many" in str(shortage).lower())
