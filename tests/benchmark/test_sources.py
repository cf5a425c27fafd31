import csv
import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

from attention_sampling.benchmark import __main__ as benchmark
from attention_sampling.benchmark import processes
from attention_sampling.benchmark.processes import Seconds
from attention_sampling.benchmark.sources import command as sources
from attention_sampling.benchmark.sources import flat as source_flat
from attention_sampling.benchmark.sources import readers as source_readers
from attention_sampling.benchmark.sources import reading as source_reading
from attention_sampling.benchmark.sources import speed_limits as source_speed_limits
from attention_sampling.benchmark.sources.files import (
    TiledImage,
    write_hdf5,
    write_tiff,
)
from attention_sampling.benchmark.sources.readers import make_readers, read_directly
from attention_sampling.benchmark.tables import missed_limits
from attention_sampling.data import HDF5Source, TiffSource
from attention_sampling.networks import residual_features

FLAT = source_flat.Setting(view_size=32, n_patches=2, patch_size=32, receptive_field=8)
SPEED_LIMITS = source_speed_limits.Setting(
    image_size=(96, 128), patch_size=24, n_patches=2, batch_size=2, batches=2
)


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def in_threads(monkeypatch):
    """Measure in threads of this process: starting others takes long."""
    monkeypatch.setattr(processes, "start_process", lambda: ThreadPoolExecutor(1))


# Images


def test_image_is_its_tiles_in_every_format(tmp_path):
    image = TiledImage((300, 520), seed=3)
    pixels = image.pixels()
    assert pixels.shape == (300, 520, 3)
    assert pixels.std() > 20
    write_hdf5(tmp_path / "a.h5", [pixels], "gzip")
    write_tiff(tmp_path / "a.tif", image, "deflate")
    for source in (HDF5Source(tmp_path / "a.h5"), TiffSource(tmp_path / "a.tif")):
        with source:
            read = source.read_patches([0], [(0, 0)], (300, 520))[0]
        np.testing.assert_array_equal(read, pixels)


def test_large_image_has_a_pyramid_and_is_never_in_memory(tmp_path, monkeypatch):
    monkeypatch.delattr(TiledImage, "pixels")
    paths = source_flat.write_images(tmp_path, [4.0, 0.25])
    assert list(paths) == ["0.25 MP", "4 MP"]
    with TiffSource(paths["4 MP"]) as source:
        assert source.levels(0) == ((2000, 2000), (1000, 1000), (500, 500))


# Reading


@pytest.fixture
def readers(tmp_path, monkeypatch):
    monkeypatch.setattr(source_reading, "_LEAST_SECONDS", 1e-3)
    return {reader.name: reader for reader in make_readers(tmp_path, 2, (300, 270))}


def test_every_format_is_read_both_ways(readers):
    rows = source_reading.measure_reading(
        readers.values(), [16], windows=3, repeats=2, threads=2
    )
    assert [row["source"] for row in rows] == [
        "arrays",
        "JPEG files",
        "JPEG files, decoded before",
        "HDF5, uncompressed",
        "HDF5, lzf",
        "HDF5, gzip",
        "TIFF, uncompressed",
        "TIFF, deflate",
        "TIFF, jpeg",
        "OpenSlide, TIFF jpeg",
    ]
    for row in rows:
        assert row["low"] <= row["ratio"] <= row["high"]
        assert (row["pool /s"] == "") == (row["source"].startswith(("arrays", "HDF5")))
        assert (row["limit"] == "") == (row["source"].endswith("before"))


def test_a_slow_source_misses_the_limit(readers, monkeypatch):
    reader = readers["HDF5, uncompressed"]
    once = HDF5Source.read_patches

    def read_often(*arguments):
        for _ in range(20):
            once(*arguments)
        return once(*arguments)

    monkeypatch.setattr(HDF5Source, "read_patches", read_often)
    rows = source_reading.measure_reading([reader], [16], 3, 3, 1)
    assert rows[0]["limit"] == ">= 0.85 MISSED"
    assert missed_limits("reading", rows)[0] == [
        "reading: HDF5, uncompressed, window = 16"
    ]


def test_a_source_that_reads_other_pixels_is_refused(readers, monkeypatch):
    monkeypatch.setattr(
        HDF5Source,
        "read_patches",
        lambda self, indices, origins, size: np.zeros((len(indices), size, size, 3)),
    )
    with pytest.raises(
        RuntimeError, match="HDF5, gzip: source and direct calls differ"
    ):
        source_reading.measure_reading([readers["HDF5, gzip"]], [16], 3, 1, 1)


def test_images_are_decoded_anew_for_each_call(readers, monkeypatch):
    decoded = []
    decode = source_readers._decode

    def count(path):
        decoded.append(path)
        return decode(path)

    monkeypatch.setattr(source_readers, "_decode", count)
    reader = readers["JPEG files"]
    by_hand = source_reading._by_hand(reader, None, 16, 3)
    for calls in (1, 2):
        by_hand(np.array([0, 0, 1]), np.zeros((3, 2), int))
        assert len(decoded) == 2 * calls


def test_windows_by_hand_are_those_asked_for(readers):
    pixels = [TiledImage((300, 270), seed).pixels() for seed in range(2)]
    read = readers["arrays"].direct(None)
    windows = read_directly(read, np.array([1, 0]), np.array([[5, 9], [0, 254]]), 16, 3)
    np.testing.assert_array_equal(windows[0], pixels[1][5:21, 9:25])
    np.testing.assert_array_equal(windows[1], pixels[0][:16, 254:])


# Steps


def test_flat_cost_is_held_against_the_smallest(tmp_path, monkeypatch):
    took = {"1 MP": 1.0, "16 MP": 1.1, "256 MP": 1.2, "1024 MP": 5.0}
    peaks = {"1 MP": 800.0, "16 MP": 790.0, "256 MP": 849.0, "1024 MP": 851.0}
    files = {}
    for name in took:
        files[name] = tmp_path / name
        files[name].write_bytes(b"0123456789")

    class Measured:
        def call(self, function, arguments):
            if function is source_flat.end:
                return peaks
            return {name: source_flat.Prepared(0.5, 700.0) for name in arguments}

        def in_turns(self, function, turns):
            assert turns == 3
            return {
                name: [
                    source_flat.Turn(
                        Seconds(seconds * noise, seconds), Seconds(0.1, 0.1)
                    )
                    # Noise that falls upon all of them in a turn.
                    for noise in (1, 40, 2)
                ]
                for name, seconds in took.items()
            }

    monkeypatch.setattr(source_flat, "processes", lambda names: AsContext(Measured()))
    rows = source_flat.measure_flat(files, FLAT, steps=6)
    assert [row["ratio"] for row in rows] == pytest.approx(list(took.values()))
    assert [row["time limit"] for row in rows] == [
        "<= 1.15 PASS",
        "<= 1.15 PASS",
        "<= 1.15 MISSED",
        "<= 1.15 MISSED",
    ]
    assert [row["memory limit"] for row in rows] == [
        *["<= 50 PASS"] * 3,
        "<= 50 MISSED",
    ]
    assert missed_limits("flat", rows) == (
        ["flat: 256 MP, time", "flat: 1024 MP, time", "flat: 1024 MP, memory"],
        8,
    )


class AsContext:
    def __init__(self, entered):
        self.entered = entered

    def __enter__(self):
        return self.entered

    def __exit__(self, *error):
        return


def test_speed_limits_are_held_against_memory(monkeypatch):
    took = {"in memory": 2.0, "on demand, HDF5": 2.2, "on demand, TIFF": 2.4}
    peaks = {"in memory": 1000.0, "on demand, HDF5": 999.0, "on demand, TIFF": 1001.0}

    class Measured:
        def call(self, function, arguments):
            return peaks

        def in_turns(self, function, turns):
            return {
                name: [(Seconds(seconds, 9.0), Seconds(1.0, 9.0))] * turns
                for name, seconds in took.items()
            }

    monkeypatch.setattr(
        source_speed_limits, "processes", lambda names: AsContext(Measured())
    )
    rows = source_speed_limits.measure_speed_limits(
        {name: [] for name in took}, SPEED_LIMITS, steps=2
    )
    assert missed_limits("speed", rows) == (
        ["speed: on demand, TIFF, step", "speed: on demand, TIFF, memory"],
        6,
    )


def test_turns_go_back_and_forth_in_processes_of_their_own():
    with processes.processes(["a", "b"]) as started:
        ids = started.call(os.getpid, {"a": (), "b": ()})
        turns = started.in_turns(os.getpid, 3)
    assert len({*ids.values(), os.getpid()}) == 3
    assert turns == {name: [process] * 3 for name, process in ids.items()}


def test_order_of_the_turns():
    calls = []

    class Executor:
        def __init__(self, name):
            self.name = name

        def submit(self, function):
            calls.append(self.name)
            return self

        def result(self):
            return 0

    names = {name: Executor(name) for name in "abc"}
    processes.Processes(names).in_turns(print, 3)
    assert "".join(calls) == "abccbaabc"


def test_peak_of_memory_is_that_since_the_reset():
    if np.isnan(processes.peak_megabytes()):
        pytest.skip("the system has no /proc")
    array = np.ones(50_000_000, "uint8")
    before = processes.peak_megabytes()
    del array
    processes.reset_peak()
    after = processes.peak_megabytes()
    assert after < before - 25
    array = np.ones(80_000_000, "uint8")
    assert array.nbytes
    assert processes.peak_megabytes() > after + 60


# The command


def test_command_writes_tables_and_figures(tmp_path, monkeypatch, capsys, in_threads):
    """Smaller than by its options, as to what they do not say."""
    pytest.importorskip("tensorflow")
    for name, smaller in {
        "WINDOW_SIZES": (16,),
        "IMAGES": 1,
        "IMAGE_SIZE": (40, 50),
    }.items():
        monkeypatch.setattr(sources, name, smaller)
    monkeypatch.setattr(source_reading, "_LEAST_SECONDS", 1e-3)
    monkeypatch.setattr(source_flat, "Setting", lambda: FLAT)
    monkeypatch.setattr(
        source_speed_limits,
        "residual_features",
        partial(residual_features, filters=(4,), strides=(2,)),
    )
    monkeypatch.setattr(source_speed_limits, "Setting", lambda: SPEED_LIMITS)
    output, work = tmp_path / "made" / "for it", tmp_path / "work"
    work.mkdir()
    words = ["--output", str(output), "--work", str(work), "--megapixels", "0.07"]
    words += ["--windows", "2", "--repeats", "1", "--steps", "1", "--threads", "2"]
    benchmark.main(["sources", *words])
    names = ("reading", "flat", "speed_limits")
    assert {path.name for path in output.iterdir()} == {
        "sources.json",
        *(f"{name}.{suffix}" for name in names for suffix in ("csv", "png")),
    }
    assert not list(work.iterdir())
    for name in names:
        with Image.open(output / f"{name}.png") as image:
            image.load()
    flat = read_rows(output / "flat.csv")
    assert [row["image"] for row in flat] == ["0.07 MP"]
    assert flat[0]["ratio"] == "1"
    assert len(read_rows(output / "speed_limits.csv")) == 4
    printed = capsys.readouterr().out
    verdicts = [
        x.split()[-1]
        for name in names
        for row in read_rows(output / f"{name}.csv")
        for column, x in row.items()
        if column.endswith("limit") and x
    ]
    missed = [line for line in printed.splitlines() if line.startswith("MISSED: ")]
    assert verdicts.count("MISSED") == len(missed)
    assert f"Limits met: {verdicts.count('PASS')} of {len(verdicts)}" in printed
    record = json.loads((output / "sources.json").read_text())
    assert record["arguments"]["megapixels"] == [0.07]
    assert record["versions"]["tifffile"]
    assert str(tmp_path) not in json.dumps(record)


def test_command_measures_only_what_is_asked_for(tmp_path, monkeypatch):
    done = []
    for name in sources.PARTS:
        monkeypatch.setitem(
            sources.PARTS,
            name,
            lambda report, path, words, name=name: done.append(name),
        )
    benchmark.main(
        ["sources", "--output", str(tmp_path), "--only", "speed-limits,reading"]
    )
    assert done == ["speed-limits", "reading"]
    with pytest.raises(ValueError, match=r"sources\.json holds an earlier measurement"):
        benchmark.main(["sources", "--output", str(tmp_path)])
    assert done == ["speed-limits", "reading"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--windows", "0"], "--windows must be at least 1. Received: 0"),
        (["--repeats", "0"], "--repeats must be"),
        (["--threads", "0"], "--threads must be"),
        (["--steps", "-1"], "--steps must be at least 1. Received: -1"),
        (["--slide", "nowhere.svs"], "--slide must be a file. Received: nowhere.svs"),
    ],
)
def test_command_refuses_what_is_out_of_range(words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        benchmark.main(["sources", "--output", str(tmp_path / "none"), *words])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "words", [["--only", "all"], ["--megapixels", "0.01"], ["--megapixels", "1,x"]]
)
def test_command_line_says_what_it_expects(words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["sources", "--output", str(tmp_path), *words])
    assert "expected" in capsys.readouterr().err
