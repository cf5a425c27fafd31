"""The example of whole slides, with small settings, as a person runs it."""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from attention_sampling import SamplePatches
from attention_sampling.data import open_source
from attention_sampling.datasets.drawn_slides import write_drawn_slides

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "the example is written for the TensorFlow backend", allow_module_level=True
    )

EXAMPLE = Path(__file__).parents[2] / "examples" / "slides.py"
SLIDE = EXAMPLE.parents[2] / "shared/data/slides/CMU-1-Small-Region.svs"
SMALL = ["--n-patches=2", "--patch-size=32", "--view-size=64", "--batch-size=4"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "drawn"
    write_drawn_slides(directory, 9, (1024, 1024), (1030, 1200), progress=False)
    return directory


@pytest.fixture
def data(drawn, tmp_path):
    """Return a copy of the slides and labels, to be spoiled."""
    return shutil.copytree(drawn, tmp_path / "data")


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE.parent)  # as for a script
    spec = importlib.util.spec_from_file_location("slides_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def run(*arguments, code=0):
    process = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:keras", EXAMPLE, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert process.returncode == code, process.stdout + process.stderr
    return process.stdout if code == 0 else process.stderr.strip().splitlines()[-1]


def use(directory):
    """Return the options that name the slides and labels of a directory."""
    return [f"--slides={directory / 'slides'}", f"--labels={directory / 'labels.csv'}"]


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_labels(directory, *lines, header="file,label"):
    (directory / "labels.csv").write_text("\n".join([header, *lines]) + "\n")


@pytest.fixture(scope="module")
def finished(drawn, tmp_path_factory):
    """Return the output of a run of one epoch that went on for another."""
    output = tmp_path_factory.mktemp("runs") / "finished"
    small = [*use(drawn), *SMALL, f"--output={output}", "--decay=0"]
    first = run(*small, "--epochs=1", "--pictures=0")
    second = run(*small, "--epochs=2", "--pictures=2", "--resume")
    return output, first, second


def test_trains_resumes_and_leaves_scores_log_model_and_pictures(finished):
    output, first, second = finished
    assert "6 training and 3 test slides of 1." in first
    assert "classes hollow, long, round" in first
    assert "Test accuracy" in first
    assert "Going on after epoch 1." in second
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["epochs"] == 2
    assert metrics["extended_from"] == [1]
    assert metrics["settings"]["data"]["images"] == 9
    assert metrics["settings"]["data"]["drawn"] is False
    assert metrics["n_test"] == 3
    assert metrics["most_frequent_class_accuracy"] == pytest.approx(1 / 3)
    assert metrics["settings"]["view_size"] == 64
    last = read_rows(output / "log.csv")[-1]
    for name, column in (
        ("train_loss", "cross_entropy"),
        ("test_loss", "val_cross_entropy"),
        ("test_accuracy", "val_accuracy"),
    ):
        assert metrics[name] == float(last[column])
    assert last["loss"] != last["cross_entropy"]
    assert [row["epoch"] for row in read_rows(output / "log.csv")] == ["0", "1"]
    pictures = sorted((output / "pictures").iterdir())
    assert len(pictures) == 2
    for picture in [*pictures, output / "curve.png"]:
        with Image.open(picture) as image:
            assert min(image.size) > 300
    assert len(list((output / "views").glob("*.npz"))) == 9
    assert not list(output.rglob("*part*"))
    model = keras.saving.load_model(output / "model.keras")
    assert int(model.optimizer.iterations) == 2 * 2
    (sample,) = (
        layer for layer in model._flatten_layers() if isinstance(layer, SamplePatches)
    )
    # As the first epoch was begun with, however many were to follow.
    assert float(sample.mix) == pytest.approx(1 - 1 / 20)


def test_an_image_that_breaks_in_training_is_one_line(data, tmp_path):
    path = data / "slides" / "slide_004.tif"
    content = bytearray(path.read_bytes())
    # Its header and directories stay: it breaks when it is read.
    for place in range(20_000, len(content) - 60_000, 1000):
        content[place : place + 500] = bytes(500)
    path.write_bytes(content)
    assert len(open_source(path)) == 1
    line = run(*use(data), *SMALL, f"--output={tmp_path / 'run'}", code=1)
    assert line.startswith(f"error: {path}")
    assert "cannot be read" in line


# In this process, which takes less time


def test_predicts_slides_without_labels(example, finished, data, tmp_path, capsys):
    output, _, _ = finished
    (data / "slides" / "slide_003.tif").write_bytes(b"II*\0cut off")
    arguments = [f"--slides={data / 'slides'}", f"--predict={output / 'model.keras'}"]
    to = f"--output={tmp_path / 'answers'}"
    example.main([*arguments, to, "--on-error=skip", "--batch-size=3"])
    assert "Left out: " in capsys.readouterr().out
    rows = read_rows(tmp_path / "answers" / "predictions.csv")
    names = [f"slide_{n:03d}.tif" for n in range(9) if n != 3]
    assert [row["file"] for row in rows] == names
    for row in rows:
        shares = {
            name: float(row[f"probability of {name}"])
            for name in ("hollow", "long", "round")
        }
        assert sum(shares.values()) == pytest.approx(1, abs=2e-4)
        assert row["label"] == max(shares, key=shares.get)


def test_trains_without_test_slides(example, drawn, tmp_path, capsys):
    more = ["--test-fraction=0", "--epochs=1", "--pictures=1", f"--output={tmp_path}"]
    example.main([*use(drawn), *SMALL, *more])
    printed = capsys.readouterr().out
    assert "9 training and 0 test slides" in printed
    assert "Training accuracy" in printed
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["n_test"] == 0
    assert "test_accuracy" not in metrics
    assert len(list((tmp_path / "pictures").iterdir())) == 1
    assert (tmp_path / "curve.png").exists()


def refuse(example, *arguments):
    with pytest.raises((ValueError, OSError)) as caught:
        example.main(list(map(str, arguments)))
    assert "\n" not in sys.modules["script"].describe_error(caught.value)
    return str(caught.value)


def test_a_run_is_not_overwritten_by_accident(example, finished, data):
    output, _, _ = finished
    before = (output / "model.keras").read_bytes()
    small = [*use(data), *SMALL, f"--output={output}", "--epochs=3", "--decay=0"]
    assert "holds a run. Go on with it by --resume" in refuse(example, *small)
    text = (data / "labels.csv").read_text().replace("round", "oblong")
    (data / "labels.csv").write_text(text)
    message = refuse(example, *small, "--resume")
    assert "--classes was ['hollow', 'long', 'round'], is ['hollow'," in message
    assert (output / "model.keras").read_bytes() == before


def test_files_of_a_user_are_never_lost(example, drawn, tmp_path):
    (tmp_path / "log.csv").write_text("mine")
    small = [*use(drawn), *SMALL, f"--output={tmp_path}"]
    for more in ([], ["--overwrite"], ["--resume"]):
        message = refuse(example, *small, *more)
        assert message.startswith(f"{tmp_path / 'log.csv'} would be written to")
        assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
        assert (tmp_path / "log.csv").read_text() == "mine"


def test_predictions_are_not_overwritten_by_accident(example, finished, data, tmp_path):
    (tmp_path / "predictions.csv").write_text("mine")
    model = finished[0] / "model.keras"
    message = refuse(
        example,
        f"--slides={data / 'slides'}",
        f"--predict={model}",
        f"--output={tmp_path}",
    )
    assert "predictions.csv exists" in message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["nowhere.tif,a"], "'nowhere.tif', which names none"),
        (["slide_000.tif,a", "slide_000.tif,b"], "line 3: a file must have one line"),
        (["slide_000.tif,a", "slide_000,a"], "'slide_000', which names /"),
        (["slide_000.tif,"], "line 2 does not parse"),
        (["slide_000.tif"], "line 2 does not parse"),
        (["slide_000.tif,a,b"], "line 2 does not parse"),
        (["slide_000.tif,a"], "8 of 9 files have no label"),
        ([], "9 of 9 files have no label"),
        ([f"slide_{n:03d},a" for n in range(9)], "There is nothing to tell apart"),
        (
            [f"slide_{n:03d},{'a' if n else 'b'}" for n in range(9)],
            "a single slide labelled 'b'",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(example, data, tmp_path, lines, message):
    write_labels(data, *lines)
    assert message in refuse(example, *use(data), f"--output={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_a_table_without_header_is_refused(example, data, tmp_path):
    write_labels(data, "slide_000.tif;a", header="file;label")
    message = refuse(example, *use(data), f"--output={tmp_path / 'run'}")
    assert "lacks its header" in message
    assert "Received: ['file;label']" in message


def test_what_is_missing_is_named(example, data, tmp_path):
    labels = f"--labels={data / 'labels.csv'}"
    message = refuse(example, f"--slides={tmp_path / 'nowhere'}", labels)
    assert "must be in a directory" in message
    message = refuse(example, f"--slides={data / 'slides'}", "--labels=nowhere.csv")
    assert "nowhere.csv" in message
    model = f"--predict={tmp_path / 'nowhere.keras'}"
    assert "nowhere.keras" in refuse(example, f"--slides={data / 'slides'}", model)
    (tmp_path / "model.keras").touch()
    (tmp_path / "settings.json").write_text("{}")  # of another example
    model = f"--predict={tmp_path / 'model.keras'}"
    message = refuse(example, f"--slides={data / 'slides'}", model)
    assert "must be the model.keras of a run of this example" in message


def test_what_is_broken_or_not_labelled_is_left_out_on_demand(example, data, capsys):
    slides = data / "slides"
    # The table may lie among the slides, and name them without their suffix.
    (data / "labels.csv").rename(slides / "labels.csv")
    write_labels(slides, *(f"slide_{n:03d},{'ab'[n % 2]}" for n in range(7)))
    (slides / "slide_002.tif").write_bytes(b"II*\0cut off")
    (slides / "notes.txt").write_text("mine")
    arguments = example.parse_arguments(
        [f"--slides={slides}", f"--labels={slides / 'labels.csv'}", "--on-error=skip"]
    )
    loaded = example.load_slides(arguments, data)
    assert loaded.classes == ["a", "b"]
    assert loaded.labels == [0, 1, 1, 0, 1, 0]
    assert sorted(loaded.train + loaded.test) == list(range(6))
    assert {loaded.labels[number] for number in loaded.test} == {0, 1}
    names = [Path(name).stem for name in loaded.source.names]
    assert names == [f"slide_{n:03d}" for n in (0, 1, 3, 4, 5, 6)]
    printed = capsys.readouterr().out.splitlines()
    left_out = sorted(Path(line.split(": ")[1]).name for line in printed)
    assert left_out == ["notes.txt", *(f"slide_00{n}.tif" for n in (2, 7, 8))]


def test_split_takes_its_share_of_each_class(example):
    split = sys.modules["slide_folder"].split
    names = ["a"] * 8 + ["b"] * 2 + ["c"] * 20
    train, test = split(names, 0.25, seed=0)
    assert sorted(train + test) == list(range(30))
    taken = [names[number] for number in test]
    assert [taken.count(name) for name in "abc"] == [2, 1, 5]
    assert split(names, 0.25, seed=0) == (train, test)
    assert split(names, 0.25, seed=1)[1] != test
    assert split(["a", "b"], 0, seed=0) == ([0, 1], [])


def test_pixels_of_16_bits_are_refused(example, tmp_path):
    import tifffile

    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), "uint16"), tile=(16, 16))
    with pytest.raises(ValueError, match=r"8 bits\. Received: .*deep\.tif of uint16"):
        example.open_slides([path], "raise")


@pytest.mark.skipif(not SLIDE.exists(), reason=f"{SLIDE} is not there")
def test_the_real_slide_cannot_be_split(example, tmp_path):
    directory = tmp_path / "data"
    (directory / "slides").mkdir(parents=True)
    for name in ("one", "two"):
        (directory / "slides" / f"{name}.svs").symlink_to(SLIDE)
    write_labels(directory, "one,a", "two,b")
    assert "--test-fraction 0" in refuse(example, *use(directory))
    arguments = example.parse_arguments([*use(directory), "--test-fraction=0"])
    loaded = example.load_slides(arguments, tmp_path)
    assert (loaded.labels, loaded.train, loaded.test) == ([0, 1], [0, 1], [])
    assert loaded.source.shape(1) == (2967, 2220, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slides=x"], "--slides and --labels go together"),
        (["--labels=x"], "--slides and --labels go together"),
        (["--predict=x"], "--predict needs --slides DIR"),
        (
            ["--predict=x", "--slides=x", "--labels=x"],
            "--predict does without --labels",
        ),
        (["--view-size=30"], "--view-size must be a multiple of 4"),
        (["--test-fraction=1"], "--test-fraction must be at least 0 and below 1"),
        (["--patch-size=0"], "--patch-size must be positive"),
        (["--seed=4294967296"], "--seed must be below 4294967296"),
        (["--decay=2"], "--decay must be from 0 to 1"),
        (["--learning-rate=nan"], "--learning-rate must be at least 0 and finite"),
        (["--resume", "--overwrite"], "not allowed with argument --resume"),
    ],
)
def test_options_out_of_range_are_refused(example, capsys, arguments, message):
    with pytest.raises(SystemExit):
        example.parse_arguments(arguments)
    assert message in capsys.readouterr().err
