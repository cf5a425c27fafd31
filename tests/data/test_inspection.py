"""python -m attention_sampling.data: info, check, exit status."""

import errno
import io
import os
import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

import attention_sampling
from attention_sampling.data import (
    ArraySource,
    ImageFilesSource,
    SourceError,
    inspection,
    open_source,
)
from attention_sampling.data.__main__ import main

REPOSITORY = Path(attention_sampling.__file__).parents[1]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(rng):
    """Write one file of each kind."""
    image = rng.integers(0, 255, (300, 700, 3), dtype="uint8")
    Image.fromarray(image).save("a.png")
    tifffile.imwrite("b.tif", image, photometric="rgb", tile=(256, 128))
    with h5py.File("c.h5", "w") as file:
        images = np.stack([image[:, :, :1]] * 2)
        file.create_dataset("x", data=images, chunks=(1, 64, 32, 1), compression="gzip")
    return ["a.png", "b.tif", "c.h5"]


def break_png(path):
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 255
    Path(path).write_bytes(data)


def run_python(code):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )


# info


def test_info_is_a_table_of_images(files, capsys):
    assert main(["info", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("  ") if cell] for line in lines]
    assert rows[0] == list(inspection._HEADER)
    size = ["300 x 700"]
    assert rows[1] == ["a.png", *size, "3", "uint8", "1", "-", "ImageFilesSource"]
    assert rows[2] == ["b.tif", *size, "3", "uint8", "1", "256 x 128", "TiffSource"]
    for row, name in zip(rows[3:], ("c.h5[x[0]]", "c.h5[x[1]]"), strict=True):
        assert row[0] == name
        assert row[1:] == [*size, "1", "uint8", "1", "64 x 32", "HDF5Source"]
    assert len({line.index("uint8") for line in lines[1:]}) == 1


def test_info_tells_what_is_broken_and_goes_on(files, capsys):
    Path("note.txt").write_text("no image")
    assert main(["info", "note.txt", "a.png"]) == 1
    output = capsys.readouterr().out
    assert "broken: note.txt: this is no image of a known format\n" in output
    assert "300 x 700" in output
    assert "on_error" not in output


# check


def test_check_of_what_is_whole(files, capsys):
    assert main(["check", *files]) == 0
    assert main(["check", "--all", "--threads", "1", *files]) == 0
    found = "3 files: 4 images (2 of 3 channels of uint8, 2 of 1 channel of uint8)"
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [f"{found}, 0 broken"] * 2


def test_check_tells_what_does_not_fit_one_source(files, capsys):
    Image.new("L", (30, 20)).save("grey.png")
    assert main(["check", "grey.png", "a.png"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("These do not fit one source: a.png: its images have 3 ch")
    assert last.endswith("For grey images among colours: channels=3")
    assert main(["check", *files]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("These do not fit one source: b.tif: its kind is TIFF, that")
    assert "on_error" not in last


def test_check_says_nothing_where_the_sound_fit(files, capsys):
    image = np.asarray(Image.open("a.png"))
    Image.fromarray(image).save("d.png")
    tifffile.imwrite("untiled.tif", image[:, :650], photometric="rgb")
    Image.fromarray(image[:, :, 0]).save("broken.png")
    break_png("broken.png")
    assert main(["check", "a.png", "d.png", "broken.png"]) == 1
    assert main(["check", "b.tif", "untiled.tif"]) == 0
    assert "do not fit" not in capsys.readouterr().out


def test_empty_directory_is_listed_among_others(files, capsys):
    Path("empty").mkdir()
    assert main(["check", "a.png", "empty"]) == 1
    assert main(["info", "empty", "a.png"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("empty: ")
    assert lines[1].startswith("2 files: 1 image ")
    assert lines[-1].startswith("broken: empty: ")


@pytest.mark.parametrize("command", ["info", "check"])
def test_images_larger_than_a_cache_are_read(files, monkeypatch, command):
    # All defaults but that of cache_bytes.
    monkeypatch.setattr(
        ImageFilesSource.__init__, "__defaults__", ("raise", None, 1000, None)
    )
    with pytest.raises(SourceError, match="cache_bytes=1000"):
        open_source("a.png")
    assert main([command, *files]) == 0


# What the process lacks


def lack(place):
    try:
        raise OSError(errno.EMFILE, "Too many open files")
    except OSError as error:
        raise SourceError(f"{place}: {error}") from error


@pytest.mark.parametrize("command", ["info", "check"])
def test_shortage_is_no_fault_of_the_file(files, capsys, monkeypatch, command):
    def open_some(path, **keywords):
        return lack(path) if path == "a.png" else open_source(path, **keywords)

    monkeypatch.setattr(inspection, "open_source", open_some)
    Path("note.txt").write_text("no image")
    assert main([command, *files, "note.txt"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: a.png: [Errno 24] Too many open files\n"
    assert "a.png" not in captured.out
    assert "note.txt: this is no image" in captured.out
    if command == "check":
        assert captured.out.splitlines()[1].endswith("1 broken, 1 not read")


def test_shortage_in_reading_is_no_fault_of_the_image(capsys, monkeypatch):
    class Short(ArraySource):
        def read(self, *window):
            raise MemoryError

    source = Short([np.zeros((30, 20, 1))])
    monkeypatch.setattr(inspection, "open_source", lambda path, **keywords: source)
    assert main(["check", "x"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: array 0: (image 0): rows 0 to 30")
    assert captured.out.endswith("), 0 broken, 1 not read\n")


def test_check_lists_what_is_broken(files, capsys):
    break_png("a.png")
    Path("d.h5").write_bytes(Path("c.h5").read_bytes()[:1500])
    Path("note.txt").write_text("no image")
    assert main(["check", "*.*"]) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "a.png",
        "d.h5",
        "note.txt",
        "5 files",
        "These do not fit one source",
    ]
    assert lines[0].startswith("a.png: (image 0): rows 0 to 256, columns 0 to 256 can")
    assert lines[2] == "note.txt: this is no image of a known format"
    assert lines[3].endswith("3 broken")
    assert captured.err == ""


def test_check_tells_which_image_of_a_file_is_broken(files, capsys):
    with h5py.File("c.h5", "r") as file:
        chunks = file["x"].id
        place = chunks.get_chunk_info(chunks.get_num_chunks() - 1).byte_offset
    data = bytearray(Path("c.h5").read_bytes())
    data[place : place + 100] = bytes(100)
    Path("c.h5").write_bytes(data)
    assert main(["check", "c.h5"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("c.h5[x[1]]: (image 1): rows 44 to 300, columns 444 to")
    assert lines[1].startswith("1 file: 2 images")


class Recorder(ArraySource):
    """A source that notes what is read of it."""

    def read(self, index, level, origin, size):
        self.seen[origin[0] : origin[0] + size[0], origin[1] : origin[1] + size[1]] = 1
        return super().read(index, level, origin, size)


@pytest.mark.parametrize("everything", [False, True])
def test_check_reads_here_and_there_or_everything(monkeypatch, everything):
    source = Recorder([np.zeros((3000, 2100, 1), "uint8")])
    source.seen = np.zeros((3000, 2100), bool)
    monkeypatch.setattr(inspection, "open_source", lambda path, **keywords: source)
    assert inspection.check_files(["x"], everything, output=io.StringIO()) == 0
    seen = source.seen
    if everything:
        assert seen.all()
        return
    assert seen[[0, 0, -1, -1, 1500], [0, -1, 0, -1, 1050]].all()
    # No large part of it goes unseen.
    blocks = seen.reshape(3, 1000, 3, 700).any(axis=(1, 3))
    assert blocks.all()
    assert not seen.all()


@pytest.mark.parametrize("extents", [(1, 1), (256, 257), (10, 2000)])
def test_windows_of_check_lie_inside(extents):
    source = ArraySource([np.zeros((*extents, 1), "uint8")])
    for everything in (False, True):
        seen = np.zeros(extents, bool)
        windows = list(inspection._windows(source, 0, 0, everything))
        for (row, column), (height, width) in windows:
            assert row >= 0
            assert column >= 0
            assert row + height <= extents[0]
            assert column + width <= extents[1]
            seen[row : row + height, column : column + width] = True
        assert len(set(windows)) == len(windows)
        assert seen[[0, 0, -1, -1], [0, -1, 0, -1]].all()
        assert seen.all() or not everything


def test_check_shows_its_progress_on_a_terminal(files, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["check", *files]) == 0
    captured = capsys.readouterr()
    assert "3/3" in captured.err
    assert "3/3" not in captured.out


# The command line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["info"],
        ["check"],
        ["unknown", "a.png"],
        ["check", "--threads", "0", "a.png"],
        ["check", "nothing/*.png"],
        ["info", "nothing/*.png"],
    ],
)
def test_misuse_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: ")


@pytest.mark.parametrize("command", ["info", "check"])
def test_a_missing_library_is_status_2_and_names_the_extra(files, command):
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        "from attention_sampling.data.__main__ import main\n"
        f"sys.exit(main(['{command}', 'c.h5']))"
    )
    done = run_python(code)
    assert done.returncode == 2
    assert "attention-sampling[hdf5]" in done.stderr
    assert done.stdout == ""


def test_convert_is_handed_its_arguments(monkeypatch):
    module = types.ModuleType("attention_sampling.data.convert")
    module.add_arguments = lambda parser: parser.add_argument("files", nargs="+")
    module.run = lambda arguments: len(arguments.files)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert main(["convert", "a.png", "b.h5"]) == 2


def test_runs_as_a_module(files):
    Path("note.txt").write_text("no image")
    code = (
        "import runpy, sys; sys.argv = ['data', 'check', 'a.png', 'note.txt']\n"
        "names = {'keras', 'tensorflow', 'skimage', 'h5py', 'openslide', 'tqdm'}\n"
        "try:\n"
        "    runpy.run_module('attention_sampling.data', run_name='__main__')\n"
        "finally:\n"
        "    loaded = names & set(sys.modules)\n"
        "    assert not loaded, loaded"
    )
    done = run_python(code)
    assert done.stdout.startswith("note.txt: this is no image")
    assert done.stderr == ""
    assert done.returncode == 1


def start_module(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "attention_sampling.data", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
    )


@pytest.mark.parametrize("command", ["info", "check"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_of_the_output_that_goes_away(files, command, unbuffered):
    with start_module(command, *files, PYTHONUNBUFFERED=unbuffered) as running:
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1


def test_names_that_the_terminal_does_not_know():
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"
    Image.new("L", (30, 20)).save(name)
    with start_module("info", name, PYTHONIOENCODING="ascii") as running:
        output, errors = running.communicate(timeout=100)
    assert errors == b""
    assert rb"caf\xe9.png  20 x 30" in output
    assert running.returncode == 0
