"""Conversion to HDF5: the pixels, the pyramid, and going on after a kill."""

import os
import re
import signal
import time

import h5py
import numpy as np
import pytest
from processes import REPOSITORY, run, start
from raw_files import RawSource, write
from source_contract import area_average, draw_images

from attention_sampling.data import ArraySource, HDF5Source, SourceError, hdf5_writer
from attention_sampling.data.area import halve_window
from attention_sampling.data.convert import convert


def noise(rng, height, width, channels=1, dtype="uint8"):
    return draw_images(rng, [(height, width)], channels, dtype)[0]


def read(source, index, level=0):
    return source.read_window(index, level, (0, 0), source.levels(index)[level])


@pytest.fixture
def small():
    return ArraySource([np.zeros((20, 30, 1), "uint8")])


# Pixels


@pytest.mark.parametrize(
    ("dtype", "channels", "compression"),
    [
        ("uint8", 3, "lzf"),
        ("uint16", 3, "gzip"),
        ("float32", 1, "none"),
        ("float32", 3, "gzip"),
    ],
)
def test_pixels_and_names_come_back(rng, tmp_path, dtype, channels, compression):
    images = [noise(rng, *size, channels, dtype) for size in [(530, 1027), (1, 3)]]
    names = ["/in/a/1.tif", "/in/b/\N{LATIN SMALL LETTER E WITH ACUTE}\udce9.tif"]
    path = tmp_path / "images.h5"
    source = ArraySource(images, names)
    assert convert(source, path, 64, compression, progress=False) == ()
    assert [file.name for file in tmp_path.iterdir()] == ["images.h5"]
    with HDF5Source(path) as converted:
        assert converted.names[0] == "a/1.tif"
        assert converted.names[1] == "b/\N{LATIN SMALL LETTER E WITH ACUTE}\\udce9.tif"
        assert converted.dtype == dtype
        assert converted.levels(0) == ((530, 1027), (265, 514), (133, 257))
        assert converted.levels(1) == ((1, 3),)
        for index, image in enumerate(images):
            np.testing.assert_array_equal(read(converted, index), image)
    with h5py.File(path) as file:
        assert list(file["images/000000"].attrs) == ["name"]
        assert file["images/000000/0"].chunks == (64, 64, channels)
        kept = {"gzip": "gzip", "lzf": "lzf", "none": None}[compression]
        assert file["images/000000/1"].compression == kept


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "int64"])
@pytest.mark.parametrize("size", [(600, 534), (601, 535), (1, 999)])
def test_levels_are_area_averages(rng, tmp_path, dtype, size, monkeypatch):
    monkeypatch.setattr(hdf5_writer, "_WINDOW", 2**14)  # several windows
    image = noise(rng, *size, 2, dtype)
    if np.dtype(dtype).itemsize == 8:
        image >>= 8  # float64 has 53 bits
    convert(ArraySource([image]), tmp_path / "a.h5", chunk=32, progress=False)
    with HDF5Source(tmp_path / "a.h5") as source:
        assert len(source.levels(0)) > 1
        for level in range(1, len(source.levels(0))):
            above = read(source, 0, level - 1)
            expected = area_average(above, source.levels(0)[level])
            found = read(source, 0, level).astype("float64")
            scale = abs(expected).max()
            rounding = 0.52 if np.dtype(dtype).kind in "iu" else 1e-6 * scale
            np.testing.assert_allclose(
                found, expected, rtol=0, atol=rounding + 1e-12 * scale
            )


def test_halves_are_rounded_to_even_and_do_not_overflow():
    level = np.array([[1, 2, 3, 4], [1, 2, 3, 4]], dtype="uint8")[:, :, None]
    found = halve_window(lambda origin, size: level, (2, 4), (0, 0), (1, 2))
    assert found.ravel().tolist() == [2, 4]
    largest = np.iinfo("uint64").max
    level = np.full((2, 2, 1), largest, dtype="uint64")
    found = halve_window(lambda origin, size: level, (2, 2), (0, 0), (1, 1))
    assert found.item() >= largest - 2**11


class Recorder(ArraySource):
    """A source that notes the windows it is asked for, and how many at once."""

    def __init__(self, images, block, **keywords):
        super().__init__(images, **keywords)
        self.stored, self.asked, self.inside, self.most = block, [], 0, 0

    def block(self, index, level):
        return self.stored

    def read(self, index, level, origin, size):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.001)  # for others to come in, if they may
        self.asked.append((*origin, *size))
        self.inside -= 1
        return super().read(index, level, origin, size)


@pytest.mark.parametrize(
    ("block", "largest"),
    [
        ((64, 64), 2**16),  # tiles
        ((7, 3000), 2**20),  # rows
        ((2000, 3000), 2**20),  # one piece: too large to be read at once
    ],
)
def test_windows_are_small_and_read_once(rng, tmp_path, monkeypatch, block, largest):
    monkeypatch.setattr(hdf5_writer, "_WINDOW", 2**16)
    monkeypatch.setattr(hdf5_writer, "_LARGEST_WINDOW", 2**20)
    source = Recorder([noise(rng, 2000, 3000)], block)
    convert(source, tmp_path / "a.h5", 64, "none", progress=False)
    sizes = [height * width for _, _, height, width in source.asked]
    assert max(sizes) <= largest
    assert sum(sizes) == 2000 * 3000
    assert source.most == 1  # a source of one thread
    if block[1] == 3000:  # rows are not decoded for one window after the other
        assert {(left, width) for _, left, _, width in source.asked} == {(0, 3000)}
    with HDF5Source(tmp_path / "a.h5") as converted:
        np.testing.assert_array_equal(read(converted, 0), read(source, 0))


# What goes wrong


class Faulty(ArraySource):
    """A source of which image 1 cannot be read below row 600."""

    def read(self, index, level, origin, size):
        if index == 1 and origin[0] + size[0] > 600:
            raise self.error
        return super().read(index, level, origin, size)


def test_image_that_breaks_ends_it_or_is_left_out(rng, tmp_path):
    images = [noise(rng, 300 * (1 + n), 70) for n in range(3)]
    images[1] = noise(rng, 900, 70)
    source = Faulty(images, ["0", "1", "2"])
    source.error = OSError("the tile is broken")
    with pytest.raises(SourceError, match=r"1 \(image 1\): .*the tile is broken"):
        convert(source, tmp_path / "a.h5", progress=False)
    assert list(tmp_path.iterdir()) == []
    ((name, reason),) = convert(
        source, tmp_path / "a.h5", on_error="skip", progress=False
    )
    assert name == "1"
    assert "the tile is broken" in reason
    with HDF5Source(tmp_path / "a.h5") as converted:
        assert converted.names == ("0", "2")
        np.testing.assert_array_equal(read(converted, 1), images[2])
    only = Faulty(images[:2])
    only.read = lambda *window: 1 // 0
    with pytest.raises(SourceError, match="None of 2 images can be read; the first"):
        convert(only, tmp_path / "b.h5", on_error="skip", progress=False)
    source.error = MemoryError()
    with pytest.raises(SourceError, match="MemoryError"):
        convert(source, tmp_path / "b.h5", on_error="skip", progress=False)
    source.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "b.h5", on_error="skip", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_existing_file_is_kept_or_replaced(small, tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"a\.h5'.*or replace it by overwrite="):
        convert(small, path, progress=False)
    assert path.read_text() == "mine"
    convert(small, path, overwrite=True, progress=False)
    assert HDF5Source(path).shape(0) == (20, 30, 1)


def test_places_and_settings_that_are_none(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="Make the directory first"):
        convert(small, tmp_path / "none/a.h5", progress=False)
    with pytest.raises(FileExistsError, match="which is something else"):
        convert(small, tmp_path, overwrite=True, progress=False)
    for keywords in ({"chunk": 15}, {"compression": "zip"}, {"on_error": "ignore"}):
        ((name, value),) = keywords.items()
        with pytest.raises(ValueError, match=f"`{name}` must be.*{value}"):
            convert(small, tmp_path / "a.h5", progress=False, **keywords)
    assert list(tmp_path.iterdir()) == []


DISK_FULL = """
import resource, sys
import numpy as np
from attention_sampling.data import ArraySource
from attention_sampling.data.convert import convert

resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
noise = np.random.default_rng(0).integers(0, 256, (800, 800, 1), "uint8")
for _ in range(2):
    try:
        convert(ArraySource([noise]), sys.argv[1], compression=sys.argv[2], progress=False)
    except OSError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_disk_that_is_full(tmp_path, compression):
    words = "-c", DISK_FULL, tmp_path / "a.h5", compression
    status, printed, errors = run(*words)
    assert (status, errors) == (0, "")
    assert printed.count("The file cannot be written") == 2
    assert "File too large" in printed
    assert "Make room on the disk" in printed
    assert list(tmp_path.iterdir()) == []


# Stopped, killed, and run again

COUNT = 6
SLOW = """
import signal, sys, time
from attention_sampling.data.convert import convert
from raw_files import RawSource

class SlowSource(RawSource):
    def read(self, index, level, origin, size):
        print("reading", index, flush=True)
        time.sleep(2 if index == int(sys.argv[2]) else 0.1)
        return super().read(index, level, origin, size)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
try:
    convert(SlowSource(sys.argv[3:]), sys.argv[1], 64, "none", progress=False)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
except KeyboardInterrupt:
    sys.exit("stopped")
"""


@pytest.fixture
def slow(tmp_path, rng):
    """Return a function that starts a conversion of a few small files.

    It waits longer at one of them, if asked to, for a signal.
    """
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    images = [noise(rng, 90, 70) for _ in range(COUNT)]
    paths = [write(tmp_path / f"in/{n}.raw", image) for n, image in enumerate(images)]

    def begin(wait_at=-1):
        words = "-c", SLOW, tmp_path / "out/a.h5", wait_at, *paths
        return start(*words, path=[REPOSITORY / "tests"])

    begin.images = images
    return begin


def wait_for(process, text):
    """Wait for a line; return all up to it."""
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.strip() == text:
            return lines
    raise AssertionError(f"{text!r} did not come: {lines}, {process.stderr.read()}")


def check_result(tmp_path, images):
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.h5"]
    with HDF5Source(tmp_path / "out/a.h5") as converted:
        assert converted.names == tuple(f"{n}.raw" for n in range(COUNT))
        for index, image in enumerate(images):
            np.testing.assert_array_equal(read(converted, index), image)
    with h5py.File(tmp_path / "out/a.h5") as file:
        assert list(file["images/000001"].attrs) == ["name"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_goes_on_after_the_last_finished_image(slow, tmp_path, how):
    """However small the images, and however often it is stopped."""
    for number in (1, 2, 4):
        with slow(wait_at=number) as process:
            lines = wait_for(process, f"reading {number}")
            process.send_signal(how)
            process.communicate(timeout=60)
        assert process.returncode != 0
        assert set(lines) == {f"reading {n}" for n in range(number // 2, number + 1)}
        # Nothing piles up.
        files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) < (COUNT + 2) * 2**15
        assert not (tmp_path / "out/a.h5").exists()
    with slow() as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert set(output.splitlines()) == {"reading 4", "reading 5"}
    check_result(tmp_path, slow.images)


def test_a_second_process_ends_at_once_with_one_line(slow, tmp_path):
    with slow() as first:
        wait_for(first, "reading 0")
        first.send_signal(signal.SIGSTOP)  # so that it is not at its end before
        with slow() as second:
            output, errors = second.communicate(timeout=60)
        assert output == ""
        assert re.fullmatch(r"BlockingIOError: Another process is writing .*\n", errors)
        first.send_signal(signal.SIGCONT)
        first.communicate(timeout=60)
    assert first.returncode == 0
    check_result(tmp_path, slow.images)


def finish_two(tmp_path, rng, **keywords):
    """Return three files of which a conversion was ended by the last, as it was broken."""
    paths = [write(tmp_path / f"{n}.raw", noise(rng, 600, 70)) for n in range(3)]
    content = paths[2].read_bytes()
    source = RawSource(paths)
    os.truncate(paths[2], 100)
    with pytest.raises(SourceError, match="has been changed"):
        convert(source, tmp_path / "a.h5", progress=False, **keywords)
    paths[2].write_bytes(content)
    return paths, tmp_path / ".a.h5.unfinished" / "part.h5"


def convert_again(tmp_path, paths, **keywords):
    """Convert, check what came of it, and return the files that were read."""
    asked = set()

    class Asked(RawSource):
        __qualname__ = "RawSource"  # a fingerprint holds the name

        def read(self, index, level, origin, size):
            asked.add(index)
            return super().read(index, level, origin, size)

    source = Asked(paths)
    convert(source, tmp_path / "a.h5", progress=False, **keywords)
    again = sorted(asked)
    assert not (tmp_path / ".a.h5.unfinished").exists()
    with HDF5Source(tmp_path / "a.h5") as converted:
        for index in range(len(paths)):
            np.testing.assert_array_equal(read(converted, index), read(source, index))
    return again


def test_an_image_that_cannot_be_read_can_be_mended(tmp_path, rng):
    paths, _ = finish_two(tmp_path, rng)
    assert convert_again(tmp_path, paths) == [2]


def test_what_has_changed_is_made_anew(tmp_path, rng):
    paths, _ = finish_two(tmp_path, rng)
    write(paths[0], noise(rng, 600, 70))
    os.utime(paths[0], ns=(0, 12345))
    assert convert_again(tmp_path, paths) == [0, 2]


def zero(part):
    """Zero a piece of the first image's pixels."""
    with h5py.File(part) as file:
        chunk = file["images/000000/0"].id.get_chunk_info(0)
    with part.open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(bytes(50))


@pytest.mark.parametrize(
    ("harm", "asked"),
    [
        (zero, [0, 2]),
        (lambda part: os.truncate(part, part.stat().st_size // 2), [0, 1, 2]),
        (lambda part: os.truncate(part, 0), [0, 1, 2]),
    ],
)
def test_a_broken_unfinished_file_is_made_anew(tmp_path, rng, harm, asked):
    paths, part = finish_two(tmp_path, rng)
    harm(part)
    assert convert_again(tmp_path, paths) == asked


@pytest.mark.parametrize("keywords", [{"chunk": 32}, {"compression": "lzf"}])
def test_other_settings_begin_anew(tmp_path, rng, keywords):
    paths, _ = finish_two(tmp_path, rng)
    assert convert_again(tmp_path, paths, **keywords) == [0, 1, 2]
