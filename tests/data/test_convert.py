"""Conversion to HDF5: the pixels, the pyramid, and nothing half written."""

import argparse
import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from attention_sampling.data import (
    ArraySource,
    HDF5Source,
    ImageFilesSource,
    SourceError,
    hdf5_file,
    hdf5_writer,
    open_source,
    resume,
)
from attention_sampling.data import convert as command
from attention_sampling.data.convert import convert
from attention_sampling.data.names import distinct_names
from attention_sampling.data.part_files import one_writer
from attention_sampling.data.pyramid import halve_window
from attention_sampling.files import open_to_write

h5py = pytest.importorskip("h5py")


def draw(rng, height, width, channels=1, dtype="uint8"):
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=(height, width, channels)).astype(dtype)
    largest = np.iinfo(dtype).max
    return rng.integers(0, largest, (height, width, channels), dtype, endpoint=True)


def read(source, index, level=0):
    return source.read(index, level, (0, 0), source.levels(index)[level])


def halve(image):
    """Average an image to half its extents, by the areas the pixels cover."""
    image = image.astype("float64")
    for axis in (0, 1):
        n = image.shape[axis]
        m = (n + 1) // 2
        j, i = np.arange(m)[:, None], np.arange(n)
        shares = np.minimum((j + 1) * n / m, i + 1) - np.maximum(j * n / m, i)
        shares = np.maximum(shares, 0) * m / n
        image = np.moveaxis(np.tensordot(shares, image, (1, axis)), 0, axis)
    return image


def hidden(directory):
    return sorted(path.name for path in directory.iterdir() if path.name[0] == ".")


class Faulty(ArraySource):
    """A source whose image 1 cannot be read below row 600."""

    def read(self, index, level, origin, size):
        if index == 1 and origin[0] + size[0] > 600:
            raise OSError("the tile is broken")
        return super().read(index, level, origin, size)


@pytest.mark.parametrize(
    ("dtype", "channels", "compression"),
    [
        ("uint8", 1, "gzip"),
        ("uint8", 3, "lzf"),
        ("uint16", 3, "gzip"),
        ("float32", 1, "none"),
        ("float32", 3, "gzip"),
    ],
)
def test_pixels_and_names_come_back(rng, tmp_path, dtype, channels, compression):
    sizes = [(530, 1027), (1, 3), (64, 64)]
    images = [draw(rng, *size, channels, dtype) for size in sizes]
    names = ["a/1.tif", "b/1.tif", "b/2 \N{LATIN SMALL LETTER E WITH ACUTE}.tif"]
    path = tmp_path / "images.h5"
    source = ArraySource(images, names)
    assert convert(source, path, 64, compression, progress=False) == ()
    assert hidden(tmp_path) == []
    with HDF5Source(path) as converted:
        assert converted.names == ("a/1.tif", "b/1.tif", names[2][2:])
        assert converted.dtype == dtype
        assert converted.levels(0) == ((530, 1027), (265, 514), (133, 257))
        assert converted.levels(1) == ((1, 3),)
        for index, image in enumerate(images):
            np.testing.assert_array_equal(read(converted, index), image)
    with h5py.File(path) as file:
        assert list(file["images/000000"].attrs) == ["name"]
        assert file["images/000000/0"].chunks == (64, 64, channels)
        assert file["images/000001/0"].chunks == (1, 3, channels)
        kept = {"gzip": "gzip", "lzf": "lzf", "none": None}[compression]
        assert file["images/000000/1"].compression == kept


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "int64"])
@pytest.mark.parametrize("size", [(600, 534), (601, 535), (1, 999), (515, 2)])
def test_levels_are_area_averages(rng, tmp_path, dtype, size, monkeypatch):
    monkeypatch.setattr(hdf5_writer, "_SMALL_WINDOW", 2**14)  # several windows
    image = draw(rng, *size, 2, dtype)
    convert(ArraySource([image]), tmp_path / "a.h5", chunk=32, progress=False)
    with HDF5Source(tmp_path / "a.h5") as source:
        assert len(source.levels(0)) > 1
        for level in range(1, len(source.levels(0))):
            expected = halve(read(source, 0, level - 1))
            found = read(source, 0, level).astype("float64")
            if dtype == "float32":
                np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
            elif dtype == "int64":
                np.testing.assert_allclose(found, expected, rtol=1e-12)
            else:
                assert abs(found - expected).max() < 0.52


def test_halves_are_rounded_to_even():
    level = np.array([[1, 2, 3, 4], [1, 2, 3, 4]], dtype="uint8")[:, :, None]
    found = halve_window(lambda origin, size: level, (2, 4), (0, 0), (1, 2))
    assert found.ravel().tolist() == [2, 4]


def test_largest_integers_do_not_overflow():
    largest = np.iinfo("uint64").max
    level = np.full((2, 2, 1), largest, dtype="uint64")
    found = halve_window(lambda origin, size: level, (2, 2), (0, 0), (1, 1))
    assert found.item() >= largest - 2**11


@pytest.mark.parametrize("extent", [1025, 1028, 1030])
def test_views_of_the_pyramid_are_neither_shifted_nor_weighted(tmp_path, extent):
    # A ramp: its views are as exact as a shift of a level would make them wrong.
    ramp = np.broadcast_to(
        np.arange(extent, dtype="float32")[:, None, None], (extent, 600, 1)
    )
    source = ArraySource([np.ascontiguousarray(ramp)])
    convert(source, tmp_path / "a.h5", progress=False)
    with HDF5Source(tmp_path / "a.h5") as converted:
        size = (converted.levels(0)[-1][0], 100)
        view, exact = converted.read_view(0, size), source.read_view(0, size)
    assert abs(view - exact).max() < 0.01
    assert abs(view.mean() - exact.mean()) < 1e-3


class Recorder(ArraySource):
    """A source that notes the windows it is asked for."""

    block = (1, 1)

    def _block(self, index, level):
        return self.block

    def read(self, index, level, origin, size):
        self.asked.append((*origin, *size))
        return super().read(index, level, origin, size)


@pytest.mark.parametrize(
    ("block", "largest"),
    [
        ((64, 64), 2**16),  # tiles
        ((1, 3000), 2**20),  # rows
        ((7, 3000), 2**20),
        ((2000, 3000), 2**20),  # one piece: too large to be read at once
    ],
)
def test_windows_are_small_and_read_once(rng, tmp_path, monkeypatch, block, largest):
    monkeypatch.setattr(hdf5_writer, "_WINDOW", 2**16)
    monkeypatch.setattr(hdf5_writer, "_LARGEST_WINDOW", 2**20)
    source = Recorder([draw(rng, 2000, 3000)])
    source.block, source.asked = block, []
    convert(source, tmp_path / "a.h5", 64, "none", progress=False)
    sizes = [height * width for _, _, height, width in source.asked]
    assert max(sizes) <= largest
    assert sum(sizes) == 2000 * 3000
    if block[1] == 3000:  # rows are not decoded for one window after the other
        assert {(left, width) for _, left, _, width in source.asked} == {(0, 3000)}
    with HDF5Source(tmp_path / "a.h5") as converted:
        np.testing.assert_array_equal(read(converted, 0), read(source, 0))


def test_few_windows_are_in_memory_at_once(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_writer, "_WINDOW", 2**14)
    monkeypatch.setattr(hdf5_writer, "_WINDOWS", 2**15)
    source = Recorder([draw(rng, 1024, 1024)], threads=8)
    source.block, source.asked = (64, 64), []
    ahead = []
    store = hdf5_writer.ImageWriter._store

    def count(self, level, *rest):
        store(self, level, *rest)
        if level.shape == (1024, 1024, 1):
            count.stored += 1
            ahead.append(len(source.asked) - count.stored)

    count.stored = 0
    monkeypatch.setattr(hdf5_writer.ImageWriter, "_store", count)
    convert(source, tmp_path / "a.h5", 64, progress=False)
    assert count.stored == 64
    assert max(ahead) <= 2


def test_source_of_one_thread_is_read_by_one_at_a_time(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_writer, "_WINDOW", 2**14)
    source = Recorder([draw(rng, 512, 512)])
    inside, most = [], []

    def read(index, level, origin, size):
        inside.append(origin)
        time.sleep(0.01)  # for others to come in, if they may
        most.append(len(inside))
        window = ArraySource._read(source, index, level, origin, size)
        inside.remove(origin)
        return window

    monkeypatch.setattr(source, "_read", _read)
    convert(source, tmp_path / "a.h5", 64, progress=False)
    assert max(most) == 1


def test_image_that_breaks_ends_it_and_leaves_nothing(rng, tmp_path):
    source = Faulty([draw(rng, 700, 50) for _ in range(3)])
    with pytest.raises(SourceError, match=r"array 1 \(image 1\).*tile is broken"):
        convert(source, tmp_path / "a.h5", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_image_that_breaks_is_left_out(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_writer, "_WINDOW", 2**14)  # it breaks when half is written
    images = [draw(rng, 700, 50) for _ in range(3)]
    skipped = convert(
        Faulty(images), tmp_path / "a.h5", 64, on_error="skip", progress=False
    )
    assert [name for name, _ in skipped] == ["array 1"]
    assert "the tile is broken" in skipped[0][1]
    with HDF5Source(tmp_path / "a.h5") as converted:
        assert converted.names == ("array 0", "array 2")
        np.testing.assert_array_equal(read(converted, 0), images[0])
        np.testing.assert_array_equal(read(converted, 1), images[2])


def test_no_image_can_be_read(tmp_path, monkeypatch):
    source = ArraySource([np.zeros((5, 5, 1))])
    monkeypatch.setattr(source, "_read", lambda *window: 1 / 0)
    with pytest.raises(SourceError, match=r"None of 1 images can be read.*division"):
        convert(source, tmp_path / "a.h5", on_error="skip", progress=False)
    assert list(tmp_path.iterdir()) == []


class Short(ArraySource):
    """A source for whose image 1 the process lacks something."""

    error = OSError(errno.EMFILE, "Too many open files")

    def read(self, index, level, origin, size):
        if index == 1:
            raise self.error
        return super().read(index, level, origin, size)


@pytest.mark.parametrize("error", [Short.error, MemoryError()])
def test_shortage_of_the_process_leaves_no_image_out(small, tmp_path, error):
    source = Short([np.zeros((5, 5, 1))] * 3)
    source.error = error
    with pytest.raises(SourceError, match=r"array 1 \(image 1\).*(Too many|Memory)"):
        convert(source, tmp_path / "a.h5", on_error="skip", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_stopped_by_the_user_leaves_nothing(tmp_path):
    class Stopped(ArraySource):
        def read(self, *window):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(Stopped([np.zeros((5, 5, 1))]), tmp_path / "a.h5", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small():
    return ArraySource([np.ones((20, 30, 1), "uint8")])


def test_existing_file_is_kept_or_replaced(small, tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"must not exist. Received: .*a\.h5"):
        convert(small, path, progress=False)
    assert path.read_text() == "precious"
    convert(small, path, overwrite=True, progress=False)
    assert HDF5Source(path).shape(0) == (20, 30, 1)


def test_file_that_appears_meanwhile_is_kept(small, tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    write = hdf5_writer.ImageWriter.write

    def write_late(self, *arguments):
        path.write_text("precious")
        write(self, *arguments)

    monkeypatch.setattr(hdf5_writer.ImageWriter, "write", write_late)
    with pytest.raises(FileExistsError):
        convert(small, path, progress=False)
    assert path.read_text() == "precious"
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("missing/a.h5", FileNotFoundError, "directory that exists"),
        (".", FileExistsError, "something else"),
    ],
)
def test_place_where_no_file_can_be(small, tmp_path, place, error, message):
    with pytest.raises(error, match=f"{message}.*Received|Received.*{message}"):
        convert(small, tmp_path / place, overwrite=True, progress=False)


def test_directory_that_may_not_be_written(small, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may everything
    with pytest.raises(PermissionError, match=r"must be writable\. Received"):
        convert(small, tmp_path / "a.h5", progress=False)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"chunk": 8}, "Received: chunk=8"),
        ({"compression": "zip"}, "Received: compression='zip'"),
        ({"on_error": "ignore"}, "Received: on_error='ignore'"),
    ],
)
def test_settings_that_are_none(small, tmp_path, keywords, message):
    with pytest.raises(ValueError, match=message):
        convert(small, tmp_path / "a.h5", progress=False, **keywords)


def test_two_at_once(small, tmp_path):
    path = tmp_path / "a.h5"
    with one_writer(path):
        with pytest.raises(BlockingIOError, match="another is writing"):
            convert(small, path, progress=False)
        convert(small, tmp_path / "b.h5", progress=False)
    convert(small, path, progress=False)
    assert hidden(tmp_path) == []


def test_no_room_without_compression(small, tmp_path, monkeypatch):
    usage = SimpleNamespace(free=599)
    monkeypatch.setattr(hdf5_file.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"600 bytes are needed.*599 bytes free"):
        convert(small, tmp_path / "a.h5", compression="none", progress=False)


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


@pytest.mark.parametrize("compression", ["gzip", "lzf", "none"])
def test_disk_that_is_full(tmp_path, compression):
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, tmp_path / "a.h5", compression],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("The file cannot be written") == 2
    assert "File too large" in done.stdout
    assert "Make room on the disk" in done.stdout
    assert list(tmp_path.iterdir()) == []


SLOW = """
import sys, time
from attention_sampling.data import HDF5Source, hdf5_file
from attention_sampling.data.convert import convert

class Counted(HDF5Source):  # the name, too, tells how pixels are read
    def _read_from(self, opened, image, level, origin, size):
        if "2.h5" in opened.file.filename and origin[0] > 0:
            print("in the middle", flush=True)
            time.sleep(100)
        return super()._read_from(opened, image, level, origin, size)

hdf5_file._FLUSH = 1
from attention_sampling.data import hdf5_writer
hdf5_writer._WINDOW = 2**14
convert(Counted(sys.argv[2:]), sys.argv[1], chunk=64, progress=False)
"""


class Counted(HDF5Source):
    """A source that notes the files it is asked for."""

    def _read_from(self, opened, image, level, origin, size):
        self.asked.add(Path(opened.file.filename).name)
        return super()._read_from(opened, image, level, origin, size)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Return a directory where a conversion was killed in the third of four files."""
    directory = tmp_path_factory.mktemp("killed")
    (directory / "in").mkdir()
    (directory / "out").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        with h5py.File(directory / "in" / f"{number}.h5", "w") as file:
            file.create_dataset("image", data=draw(rng, 700, 300), chunks=(64, 64, 1))
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", SLOW, directory / "out" / "a.h5"),
            *sorted((directory / "in").iterdir()),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "in the middle\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return directory


@pytest.fixture
def again(killed, tmp_path):
    """Return a function that runs it again, after a change, and tells what was read."""
    for path in (killed / "out").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (part,) = tmp_path.glob(".a.h5.*.part")

    def run(change=lambda part: None, **keywords):
        change(part)
        files = sorted((killed / "in").iterdir())
        with Counted(files) as source:
            Counted.asked = set()  # of the class: a source is told by its state
            convert(
                source, tmp_path / "a.h5", progress=False, **{"chunk": 64, **keywords}
            )
            asked = sorted(source.asked)
            with HDF5Source(tmp_path / "a.h5") as converted:
                assert converted.names == ("0.h5", "1.h5", "2.h5", "3.h5")
                for index in range(4):
                    np.testing.assert_array_equal(
                        read(converted, index), read(source, index)
                    )
        with h5py.File(tmp_path / "a.h5") as file:
            assert list(file["images/000001"].attrs) == ["name"]
        assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
        return asked

    return run


def test_killed_leaves_hidden_files_alone(killed):
    names = sorted(path.name for path in (killed / "out").iterdir())
    assert len(names) == 2
    assert names[0].startswith(".a.h5.")
    assert names[0].endswith(".part")
    assert names[1] == ".a.h5.lock"


def test_killed_goes_on_where_it_was(again):
    assert again() == ["2.h5", "3.h5"]


def cut(part):
    os.truncate(part, part.stat().st_size // 2)


def empty(part):
    os.truncate(part, 0)


def zero(part):
    """Zero a piece of the first image's pixels."""
    with h5py.File(part) as file:
        chunk = file["images/000000/0"].id.get_chunk_info(3)
    with part.open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        file.write(bytes(50))


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        (cut, ["0.h5", "1.h5", "2.h5", "3.h5"]),
        (empty, ["0.h5", "1.h5", "2.h5", "3.h5"]),
        (zero, ["0.h5", "2.h5", "3.h5"]),
    ],
)
def test_broken_part_file_is_made_anew(again, change, asked):
    assert again(change) == asked


@pytest.mark.parametrize("keywords", [{"chunk": 32}, {"compression": "lzf"}])
def test_other_settings_begin_anew(again, keywords):
    assert again(**keywords) == ["0.h5", "1.h5", "2.h5", "3.h5"]


def test_other_pixels_of_the_same_file_begin_anew(tmp_path):
    """What was finished of one dataset of a file is not taken for another of it."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["stained"] = np.full((40, 50, 1), 7, "uint8")
        file["mask"] = np.full((40, 50, 1), 200, "uint8")
    marks = []
    for dataset in ("stained", "mask", "mask"):
        with HDF5Source(
            tmp_path / "a.h5", dataset=dataset, threads=len(marks) + 1
        ) as a:
            marks.append(resume._mark(a, 0, (64,)))
    assert marks[0] != marks[1] == marks[2]


def test_part_file_of_another_name_is_left_alone(small, tmp_path):
    other = tmp_path / ".a.h5.b.h5.01234567.part"
    other.write_text("of b.h5")
    convert(small, tmp_path / "a.h5", progress=False)
    assert other.exists()


def test_names_tell_images_apart():
    assert distinct_names(["x/y/a", "z/y/a", "y/b", "b"]) == [
        "x/y/a",
        "z/y/a",
        "y/b",
        "b",
    ]
    assert distinct_names(["/1/a", "/1/a", "c"]) == ["a (1)", "a (2)", "c"]


def test_name_that_is_not_unicode(tmp_path):
    source = ArraySource([np.zeros((5, 5, 1))], [os.fsdecode(b"a/\xff.tif")])
    convert(source, tmp_path / "a.h5", progress=False)
    with HDF5Source(tmp_path / "a.h5") as converted:
        assert converted.names == (r"\udcff.tif",)


def run_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "attention_sampling.data", "convert", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_command_line(rng, tmp_path):
    for name in ("b.h5", "a.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("image", data=draw(rng, 70, 80, 3))
    (tmp_path / "c.h5").write_text("no image")
    out = tmp_path / "out.h5"
    inputs = [tmp_path / "b.h5", tmp_path / "c.h5", tmp_path / "a.h5"]
    done = run_command(*inputs, out, "--on-error", "skip", "--chunk", "32")
    assert done.returncode == 1, done.stderr
    assert f"skipped: {tmp_path / 'c.h5'}: " in done.stderr
    assert done.stderr.endswith(f"{out} was written without these\n")
    assert "out.h5: 100%" in done.stderr
    with HDF5Source(out) as source:
        assert source.names == ("b.h5", "a.h5")
        assert source.block(0, 0) == (32, 32)


def run_here(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(list(map(str, arguments))))


@pytest.mark.parametrize(
    ("names", "status", "message"),
    [
        (["a.h5", "b.tif"], 2, r"its name ends in .h5 or .hdf5. Received: '.*b.tif'"),
        (["a.h5", "a.h5"], 2, "must not exist"),
        (["c.h5", "new.h5"], 1, "c.h5"),
    ],
)
def test_command_line_says_what_is_wrong(tmp_path, capsys, names, status, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", data=np.zeros((7, 8, 3), "uint8"))
    (tmp_path / "c.h5").write_text("no image")
    assert run_here(*(tmp_path / name for name in names)) == status
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(message, error)
    assert not (tmp_path / "new.h5").exists()


def test_command_line_where_all_is_well_or_the_process_lacks_files(
    tmp_path, capsys, monkeypatch
):
    kind = ArraySource
    monkeypatch.setattr(
        command, "open_any_size", lambda *_, **__: kind([np.zeros((5, 5, 1))] * 2)
    )
    arguments = ["x.png", tmp_path / "a.h5", "--on-error", "skip", "--quiet"]
    assert run_here(*arguments) == 0
    assert capsys.readouterr().err == ""
    kind = Short
    assert run_here(*arguments, "--overwrite") == 2
    assert "Too many open files" in capsys.readouterr().err
    assert HDF5Source(tmp_path / "a.h5").names == ("array 0", "array 1")  # as before


def test_command_line_takes_images_larger_than_a_cache(rng, tmp_path, monkeypatch):
    pillow = pytest.importorskip("PIL.Image")
    image = draw(rng, 70, 80, 3)
    pillow.fromarray(image).save(tmp_path / "a.png")
    # All defaults but that of cache_bytes.
    monkeypatch.setattr(
        ImageFilesSource.__init__,
        "__defaults__",
        ("raise", None, 70 * 80 * 3 - 1, None),
    )
    with pytest.raises(SourceError, match="convert"):
        open_source(tmp_path / "a.png")
    assert run_here(tmp_path / "a.png", tmp_path / "a.h5", "--quiet") == 0
    with HDF5Source(tmp_path / "a.h5") as source:
        np.testing.assert_array_equal(read(source, 0), image)


def test_help_tells_the_exit_status():
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert "Exit status: 0 if all are in it; 1 if" in " ".join(
        parser.format_help().split()
    )


def test_interrupt_that_h5py_hides_stays_an_interrupt(tmp_path):
    error = TypeError("of a callback")
    error.__context__ = KeyboardInterrupt()
    part, path = tmp_path / "part", tmp_path / "new.h5"
    with (
        pytest.raises(KeyboardInterrupt),
        open_to_write(h5py, part, path),
    ):
        raise error
