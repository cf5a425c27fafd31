"""The commands, as processes: info, check, convert, experiments."""

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import processes
import pytest
import tifffile
from PIL import Image

from attention_sampling.__main__ import main
from attention_sampling.data import ArraySource, HDF5Source, SourceError, check


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


def run(*words, **keywords):
    """Run a command; return its exit status, and the lines of both outputs."""
    status, output, errors = processes.run(*processes.COMMANDS, *words, **keywords)
    return status, (output or "").splitlines(), errors.splitlines()


def spoil(path):
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2] ^= 255
    Path(path).write_bytes(data)


# info


def test_info_is_a_table_of_images(files):
    Path("note.txt").write_text("no image")
    status, lines, errors = run("info", "note.txt", *files)
    assert (status, errors) == (1, [])
    rows = [[cell.strip() for cell in line.split("  ") if cell] for line in lines]
    assert rows[0] == list(check._HEADER)
    size = ["300 x 700"]
    assert rows[1] == ["a.png", *size, "3", "uint8", "1", "-", "ImageFilesSource"]
    assert rows[2] == ["b.tif", *size, "3", "uint8", "1", "256 x 128", "TiffSource"]
    for row, name in zip(rows[3:5], ("c.h5[x[0]]", "c.h5[x[1]]"), strict=True):
        assert row == [name, *size, "1", "uint8", "1", "64 x 32", "HDF5Source"]
    assert len({line.index("uint8") for line in lines[1:5]}) == 1
    assert lines[5] == "broken: note.txt: this is no image of a known format"


def test_a_dataset_is_named_by_an_option():
    with h5py.File("a.h5", "w") as file:
        file["train"] = np.zeros((2, 30, 20, 3), "uint8")
        file["test"] = np.zeros((1, 30, 20, 3), "uint8")
    status, lines, _ = run("info", "a.h5")
    assert status == 1
    assert "not clear: name one by `dataset`" not in lines[0]
    assert "not clear: name one by --dataset" in lines[0]
    status, lines, _ = run("info", "a.h5", "--dataset", "train")
    assert (status, len(lines)) == (0, 3)


# check


def test_check_of_what_is_whole(files):
    status, lines, errors = run("check", "--all", "--threads", "1", *files)
    assert (status, errors) == (0, [])
    found = "3 files: 4 images (2 of 3 channels of uint8, 2 of 1 channel of uint8)"
    assert lines[0] == f"{found}, 0 broken"
    assert lines[1].startswith("These do not fit one source")
    assert run("check", "a.png", "b.tif")[1] == [
        "2 files: 2 images (2 of 3 channels of uint8), 0 broken"
    ]


def test_check_lists_what_is_broken(files):
    spoil("a.png")
    Path("d.h5").write_bytes(Path("c.h5").read_bytes()[:1500])
    Path("empty").mkdir()
    with h5py.File("c.h5") as file:
        chunks = file["x"].id
        at = chunks.get_chunk_info(chunks.get_num_chunks() - 1).byte_offset
    with open("c.h5", "r+b") as file:
        file.seek(at)
        file.write(bytes(100))
    status, lines, errors = run("check", "*.*", "empty")
    assert (status, errors) == (1, [])
    beginnings = [
        "a.png: (image 0): rows 0 to 256, columns 0 to 256 cannot be read: the PNG is",
        "c.h5[x[1]]: (image 1): rows 44 to 300, columns 444 to 700 cannot be read",
        "d.h5: it has been cut, or not been written to its end",
        "empty: this is a directory without images",
        "5 files: 4 images (2 of ",
        "These do not fit one source",
    ]
    for line, beginning in zip(lines, beginnings, strict=True):
        assert line.startswith(beginning)


def test_what_tifffile_logs_is_not_among_the_output(caplog):
    text = '<?xml version="1.0"?><OME xmlns="x"><Image></OME>'  # does not end
    image = np.zeros((64, 80), "uint8")
    tifffile.imwrite("a.tif", image, tile=(16, 16), description=text, metadata=None)
    with tifffile.TiffFile("a.tif") as file:
        assert len(file.series) == 1
    assert caplog.records  # there is something to log
    assert run("check", "a.tif") == (
        0,
        ["1 file: 1 image (1 of 1 channel of uint8), 0 broken"],
        [],
    )


class Recorder(ArraySource):
    """A source that notes what is read of it."""

    def read(self, index, level, origin, size):
        self.seen[origin[0] : origin[0] + size[0], origin[1] : origin[1] + size[1]] = 1
        return super().read(index, level, origin, size)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("extents", [(1, 1), (256, 257), (10, 2000), (3000, 2100)])
def test_check_reads_here_and_there_or_everything(monkeypatch, extents, everything):
    source = Recorder([np.zeros((*extents, 1), "uint8")])
    source.seen = seen = np.zeros(extents, bool)
    monkeypatch.setattr(check, "open_source", lambda path, **keywords: source)
    assert check.check_files(["x"], everything)
    rows, columns = extents
    assert seen[[0, 0, -1, -1, rows // 2], [0, -1, 0, -1, columns // 2]].all()
    assert seen.all() == (everything or min(extents) == max(extents) - 1 or rows == 1)
    if extents == (3000, 2100):  # no large part of it goes unseen
        assert seen.reshape(3, 1000, 3, 700).any(axis=(1, 3)).all()


@pytest.mark.parametrize("command", ["info", "check"])
def test_shortage_is_no_fault_of_the_file(files, capsys, monkeypatch, command):
    def fail(path, **keywords):
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError as error:
            raise SourceError(f"{path}: {error}") from error

    monkeypatch.setattr(check, "open_source", fail)
    assert main([command, *files]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: a.png: [Errno 24] Too many open files\n"
    assert captured.out == ""


# convert


def test_convert(files):
    Path("note.txt").write_text("no image")
    Image.new("L", (30, 20)).save("grey.png")
    status, lines, errors = run("convert", "*.*", "out.h5", "--quiet")
    assert (status, lines) == (1, [])
    assert errors[0].startswith("error: b.tif: this is for TiffSource, a.png for")
    assert errors[0].endswith("or --on-error skip")
    asked = ("convert", "*.*", "out.h5", "--quiet", "--on-error", "skip")
    status, lines, errors = run(*asked)
    assert (status, lines) == (1, [])
    names = [line.split(": ")[1] for line in errors[:-1]]
    assert names == ["b.tif", "c.h5", "grey.png"]
    assert errors[-1] == "out.h5 was written without these"
    status, _, errors = run(*asked)
    assert status == 2
    assert errors[0].endswith("or replace it by --overwrite")
    colours = ("a.png", "grey.png", "out.h5", "--overwrite", "--channels", "3")
    status, lines, errors = run("convert", *colours)
    assert (status, lines) == (0, [])
    assert "100%" in errors[-1]  # the progress bar
    with HDF5Source("out.h5") as source:
        assert source.names == ("a.png", "grey.png")
        assert source.shape(1) == (20, 30, 3)


@pytest.mark.slow
def test_convert_stopped_by_ctrl_c_says_so_and_goes_on(rng):
    for number in range(5):
        image = rng.integers(0, 255, (900, 900, 3), dtype="uint8")
        Image.fromarray(image).save(f"{number}.bmp")
    unfinished = Path(".out.h5.unfinished/part.h5")
    words = ("convert", "*.bmp", "out.h5", "--quiet")
    with processes.start(*processes.COMMANDS, *words) as process:
        processes.wait_until(
            lambda: unfinished.exists() and unfinished.stat().st_size >= 2**18, process
        )
        status, _, errors = processes.interrupt(process)
    assert status == 130
    assert errors == "stopped: run it again to go on after the last finished image\n"
    assert run(*words) == (0, [], [])
    assert not unfinished.parent.exists()
    assert len(HDF5Source("out.h5")) == 5


# The command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: "),
        (["info"], "usage: "),
        (["unknown", "a.png"], "usage: "),
        (
            ["check", "nothing/*.png"],
            "error: nothing/*.png: no image fits this pattern",
        ),
        (
            ["convert", "a.png", "b.png"],
            "error: The last argument is the file to write",
        ),
        (["convert", "a.png", "none/b.h5"], "error: The file must go into a directory"),
        (
            ["convert", "a.png", "b.h5", "--dataset", "x"],
            "error: --dataset is for HDF5 files, --channels for photographs",
        ),
        (["info", "a.png", "--dataset", "x"], "error: --dataset is for HDF5 files"),
        (["convert", "b.tif", "b.h5", "--channels", "3"], "error: --dataset is for"),
    ],
)
def test_misuse_is_status_2_and_one_clear_message(files, capsys, arguments, message):
    try:
        status = main(arguments)
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", ""])
@pytest.mark.parametrize(
    ("command", "option", "smallest"),
    [
        (["check", "a.png"], "--threads", 1),
        (["convert", "a.png", "b.h5"], "--chunk", 16),
    ],
)
def test_numbers_that_are_none(capsys, command, option, smallest, value):
    with pytest.raises(SystemExit) as ended:
        main([*command, f"{option}={value}"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(
        f"argument {option}: must be an integer of at least {smallest}. "
        f"Received: {value}\n"
    )


def test_alpha_among_colours_is_left_out_by_an_option():
    Image.new("RGB", (30, 20), (1, 2, 3)).save("a.png")
    Image.new("RGBA", (30, 20), (4, 5, 6, 7)).save("b.png")
    status, _, errors = run("convert", "*.png", "out.h5", "--quiet")
    assert status == 1
    assert errors[0].endswith(
        "To repeat the channel of grey images and leave out alpha: --channels 3"
    )
    asked = ("convert", "*.png", "out.h5", "--quiet", "--channels", "3")
    assert run(*asked) == (0, [], [])
    with HDF5Source("out.h5") as source:
        assert source.shape(1) == (20, 30, 3)


def test_output_that_cannot_be_written(files):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        status, _, (line,) = run("info", *files, stdout=full)
    assert status == 1
    assert line.startswith("error: the output cannot be written: [Errno 28]")


def test_names_that_the_terminal_does_not_know():
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"
    Image.new("L", (30, 20)).save(name)
    environment = {"PYTHONIOENCODING": "ascii"}
    status, lines, errors = run("info", name, environment=environment)
    assert (status, errors) == (0, [])
    assert lines[1].startswith(r"caf\xe9.png  20 x 30")


def test_commands_load_no_network(files):
    processes.run_code(
        "import sys\n"
        "from attention_sampling.__main__ import main\n"
        "assert main(['check', 'a.png']) == 0\n"
        "loaded = {'keras', 'tensorflow', 'skimage', 'tqdm'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
