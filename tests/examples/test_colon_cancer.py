"""The example of the colon cancer images, with small settings."""

import csv
import functools
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from attention_sampling.datasets.drawn_colon_cancer import write_colon_cancer
from attention_sampling.experiments.tasks import TASKS

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "the examples are written for the TensorFlow backend", allow_module_level=True
    )

EXAMPLES = Path(__file__).parents[2] / "examples"
REAL = EXAMPLES.parents[1] / "shared/data/crchisto"
SMALL = ["--method=ats-2", "--batch-size=4"]
EPOCHS = 8  # more than a loaded machine does before a signal is sent
# The keys of metrics.json, which the benchmark's report reads.
MEASURES = {"train_loss", "train_error", "test_loss", "test_error"}
FIT = {"run", "seed", "fold", "epochs", "seconds", "n_train", "n_test", "curve"}
FIT |= {"extended_from"}
METRICS = {
    *("kind", "task", "image_shape", "view_size", "method", "date", "command"),
    *("settings", "versions", "machine"),
}
METRICS |= {"fits", "runs", "mean", "standard_error"}


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "tissue"
    write_colon_cancer(directory, count=9, size=(80, 80), progress=False)
    return directory


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)  # as for a script
        yield importlib.import_module("colon_cancer")


@pytest.fixture
def eager(monkeypatch):
    """Train without building graphs, which takes longer than a few small steps."""
    compile_model = keras.Model.compile
    monkeypatch.setattr(
        keras.Model,
        "compile",
        functools.partialmethod(compile_model, run_eagerly=True),
    )


def read_metrics(output):
    return json.loads((output / "metrics.json").read_text())


def read_epochs(directory):
    with (directory / "log.csv").open(newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def killed(tissue, tmp_path_factory):
    """Return the output of a series that was killed in its second fold."""
    output = tmp_path_factory.mktemp("runs") / "killed"
    arguments = [str(tissue), *SMALL, f"--output={output}", "--folds=2"]
    arguments.append(f"--epochs={EPOCHS}")
    process = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error::UserWarning:keras",
            EXAMPLES / "colon_cancer.py",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    deadline = time.monotonic() + 240
    while not (output / "run-0/fold-1/model.keras").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return output, arguments


@pytest.fixture(scope="module")
def resumed(killed, example):
    """Return what a killed series had, what it has, and its files that were done."""
    output, arguments = killed
    before = read_metrics(output)
    done = output / "run-0/fold-0/model.keras"
    modified = done.stat().st_mtime_ns
    example.main([*arguments, "--resume", "--pictures=2"])
    assert done.stat().st_mtime_ns == modified
    return before, read_metrics(output)


def test_a_killed_series_keeps_its_fits_and_goes_on(killed, resumed):
    output, _ = killed
    before, after = resumed
    assert [fit["fold"] for fit in before["fits"]] == [0]
    assert before["runs"] == []
    assert after["fits"][0] == before["fits"][0]
    assert [fit["fold"] for fit in after["fits"]] == [0, 1]
    for fold in (0, 1):
        assert read_epochs(output / f"run-0/fold-{fold}") == list(
            map(str, range(EPOCHS))
        )
    model = keras.saving.load_model(output / "run-0/fold-1/model.keras")
    n_train = after["fits"][1]["n_train"]
    assert int(model.optimizer.iterations) == EPOCHS * -(-n_train // 4)


def test_metrics_have_the_keys_that_the_report_reads(resumed):
    _, metrics = resumed
    assert set(metrics) == METRICS
    assert metrics["kind"] == "training"
    assert metrics["task"] == "colon_cancer"
    assert metrics["method"] == "ats-2"
    assert metrics["command"].startswith("python examples/colon_cancer.py /")
    assert metrics["settings"]["folds"] == 2
    assert metrics["settings"]["backend"] == "tensorflow"
    data = metrics["settings"]["data"]
    assert (data["drawn"], data["images"]) == (True, 9)
    assert re.fullmatch("[0-9a-f]{16}", data["digest"])
    for fit in metrics["fits"]:
        assert set(fit) == FIT | MEASURES
        assert set(fit["curve"]) == MEASURES | {"seconds"}
        assert {len(values) for values in fit["curve"].values()} == {fit["epochs"]}
        assert fit["n_train"] + fit["n_test"] == 9
        assert 0 <= fit["test_error"] <= 1
        assert 0 < fit["curve"]["seconds"][0] < fit["seconds"]
    [run] = metrics["runs"]
    assert set(run) == {"run", "seed", "epochs", "seconds"} | MEASURES
    assert set(metrics["mean"]) == {"epochs", "seconds"} | MEASURES
    assert set(metrics["standard_error"]) == set(metrics["mean"])
    assert set(metrics["standard_error"].values()) == {None}
    errors = sum(fit["test_error"] * fit["n_test"] for fit in metrics["fits"])
    assert run["test_error"] == pytest.approx(errors / 9, abs=1e-5)


def test_pictures_show_tissue_times_attention(killed, resumed):
    output, _ = killed
    pictures = sorted(path.name for path in (output / "pictures").iterdir())
    assert len(pictures) == 4
    assert pictures[1] == pictures[0].replace(".png", "_patches.png")
    for path in [output / "curve.png", *(output / "pictures").iterdir()]:
        with Image.open(path) as image:
            assert min(image.size) > 300
    with Image.open(output / "pictures" / pictures[0]) as image:
        left, right = np.split(np.asarray(image.convert("L"), float), 2, axis=1)
    assert right.mean() < left.mean() - 10
    assert not list(output.rglob("*part*"))


def test_a_series_that_is_done_is_not_trained_again(
    killed, resumed, example, monkeypatch, capsys
):
    output, arguments = killed
    monkeypatch.setattr(keras.Model, "fit", None)
    example.main([*arguments, "--resume", "--pictures=0"])
    assert read_metrics(output)["fits"] == resumed[1]["fits"]
    printed = capsys.readouterr().out
    assert "Done before: run 1 of 1, fold 1\n" in printed
    assert "Done before: run 1 of 1, fold 2\n" in printed
    # The models and logs say as much, should the metrics get lost.
    (output / "metrics.json").unlink()
    example.main([*arguments, "--resume", "--pictures=0"])
    assert capsys.readouterr().out.count(f"Going on after epoch {EPOCHS}.") == 2
    assert read_metrics(output)["fits"] == resumed[1]["fits"]


@pytest.mark.parametrize(
    ("lost", "what"),
    [
        ("epochs", "a training lacks epochs. Delete"),
        ("fold", "a training lacks fold. Delete"),
        ("test_error", "a training lacks test_error. Delete"),
        ("curve", "a training lacks curve. Delete"),
        (None, "'int' is not iterable. Delete"),
    ],
)
def test_damaged_metrics_say_how_to_go_on(killed, resumed, example, lost, what):
    output, arguments = killed
    kept = (output / "metrics.json").read_bytes()
    fit = json.loads(kept)["fits"][0]
    fit = {name: x for name, x in fit.items() if name != lost} if lost else 0
    try:
        (output / "metrics.json").write_text(json.dumps({"fits": [fit]}))
        message = refuse(example, *arguments, "--resume")
    finally:
        (output / "metrics.json").write_bytes(kept)
    assert "cannot be read" in message
    assert what in message


def refuse(example, *arguments):
    with pytest.raises((ValueError, OSError)) as caught:
        example.main(list(map(str, arguments)))
    return str(caught.value)


def test_runs_are_not_overwritten_by_accident(killed, resumed, example):
    output, arguments = killed
    models = sorted(output.rglob("model.keras"))
    before = [path.stat().st_mtime_ns for path in models]
    assert "holds a run. Go on with it by --resume" in refuse(example, *arguments)
    message = refuse(example, *arguments, "--resume", "--method=ats-3")
    assert "--method was ats-2, is ats-3" in message
    message = refuse(example, *arguments, "--resume", "--epochs=2")
    assert f"has {EPOCHS} epochs already" in message
    # What cannot be built deletes nothing.
    assert "Cannot draw 9999" in refuse(
        example, *arguments, "--overwrite", "--method=ats-9999"
    )
    assert [path.stat().st_mtime_ns for path in models] == before
    assert len(read_metrics(output)["fits"]) == 2


def test_deep_mil_trains_by_ids_and_is_overwritten(example, eager, tissue, tmp_path):
    arguments = [str(tissue), "--method=deep-mil", "--epochs=1", f"--output={tmp_path}"]
    arguments += ["--train-on=1-4", "--pictures=1", "--batch-size=4"]
    example.main(arguments)
    stale = tmp_path / "run-3" / "model.keras"
    stale.parent.mkdir()
    stale.touch()
    example.main([*arguments, "--overwrite"])
    assert not stale.parent.exists()
    [fit] = read_metrics(tmp_path)["fits"]
    assert fit["fold"] is None
    assert (fit["n_train"], fit["n_test"]) == (4, 5)
    assert (tmp_path / "run-0" / "model.keras").exists()
    [picture] = (tmp_path / "pictures").iterdir()
    assert int(picture.stem.removeprefix("img")) >= 5


def test_a_training_that_diverges_says_so_and_is_not_kept(
    example, eager, tissue, tmp_path
):
    message = refuse(
        example,
        tissue,
        *SMALL,
        f"--output={tmp_path}",
        "--epochs=1",
        "--learning-rate=1e38",
        "--test-on=1-5",
    )
    assert "The training diverged in epoch 1. Expected: finite losses" in message
    assert not list(tmp_path.rglob("model.keras"))
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("method", [*TASKS["colon_cancer"].methods, "deep-mil-gated"])
def test_every_method_takes_the_batches(example, tissue, tmp_path, method):
    training = importlib.import_module("experiment_training")
    arguments = example.parse_arguments(
        [str(tissue), f"--method={method}", "--test-on=1-6", "--dropout=0.5"]
    )
    experiment = example.load_experiment(arguments, tmp_path)
    [split] = experiment.splits(0)
    model = training.build_compiled_model(arguments, experiment.task, None, 3, seed=0)
    inputs, labels = next(iter(split.train.batches(arguments.method.inputs, 2, 0)))
    np.testing.assert_allclose(np.sum(model(inputs), axis=1), [1, 1], rtol=1e-5)
    assert labels.dtype == "int32"
    is_cnn = method.startswith("cnn")
    layers = model._flatten_layers()
    assert is_cnn != any(isinstance(layer, keras.layers.Dropout) for layer in layers)


def load_images(example, tissue, augmentation):
    arguments = example.parse_arguments(
        [str(tissue), "--test-on=1-2", f"--augmentation={augmentation}"]
    )
    return example.load_experiment(arguments, None).splits(0)[0]


def read_batches(images, seed=None):
    batches = list(images.batches(("view", "image"), 4, seed))
    views, pixels = (
        np.concatenate([inputs[number] for inputs, _ in batches]) for number in (0, 1)
    )
    return views, pixels, np.concatenate([labels for _, labels in batches])


@pytest.mark.parametrize("augmentation", ["none", "light", "strong"])
def test_training_images_alone_are_changed(example, tissue, augmentation):
    split = load_images(example, tissue, augmentation)
    _, plain, labels = read_batches(split.train)
    np.testing.assert_array_equal(labels, split.train.labels)
    for number, image in enumerate(plain):
        np.testing.assert_array_equal(image, split.train.picture(number).image)
    views, changed, changed_labels = read_batches(split.train, seed=3)
    assert changed.dtype == np.uint8
    assert sorted(changed_labels) == sorted(labels)
    found = [(image == plain).all(axis=(1, 2, 3)).any() for image in changed]
    assert all(found) == (augmentation == "none")
    assert any(found) == (augmentation == "none")
    # View and image show the same: the view is the mean of 5 x 5 pixels.
    means = changed.reshape(-1, 16, 5, 16, 5, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(views, means, atol=0.01)
    again = read_batches(split.train, seed=3)
    np.testing.assert_array_equal(again[1], changed)
    other = read_batches(split.train, seed=4)
    assert not np.array_equal(other[1], changed)


def test_every_epoch_has_its_own_order_and_changes(example, tissue):
    images = load_images(example, tissue, "light").train
    assert len({tuple(read_batches(images, seed)[2]) for seed in range(9)}) > 1
    dataset = images.batches(("view",), 9, seed=0)
    orders = {tuple(labels.numpy()) for _ in range(5) for _, labels in dataset}
    assert len(orders) > 1
    # Of images that are all alike, the changes alone can differ.
    images.pixels = keras.ops.full((9, 80, 80, 3), 128, dtype="uint8")
    dataset = images.batches(("image",), 9, seed=0)
    [((first,), _)], [((second,), _)] = list(dataset), list(dataset)
    means = [np.sort(np.mean(epoch, axis=(1, 2, 3))) for epoch in (first, second)]
    assert not np.array_equal(*means)


def test_images_are_mirrored_and_turned(example):
    tissue_module = importlib.import_module("stained_tissue")
    change = tissue_module.Augmentation(brightness=0, contrast=0, orient=True)
    image = np.arange(4, dtype="uint8").reshape(2, 2, 1).repeat(3, axis=-1)
    seen = {
        tissue_module.augment(image, change, (0, number)).numpy()[..., 0].tobytes()
        for number in range(60)
    }
    plain = image[..., 0]
    expected = {
        np.rot90(start, turns).tobytes()
        for start in (plain, plain[:, ::-1])
        for turns in range(4)
    }
    assert len(expected) == 8
    assert seen == expected


def test_contrast_gets_more_or_less_around_the_mean(example):
    tissue_module = importlib.import_module("stained_tissue")
    change = tissue_module.Augmentation(brightness=0, contrast=0.2)
    image = np.full((2, 2, 3), 90, "uint8")
    image[0] = 150
    seen = np.array(
        [tissue_module.augment(image, change, (1, number)) for number in range(40)]
    ).astype(float)
    np.testing.assert_allclose(seen.mean(axis=(1, 2, 3)), 120, atol=1)
    ratios = (seen[:, 0] - seen[:, 1]).mean(axis=(1, 2)) / 60
    assert 0.78 < ratios.min() < 0.87
    assert 1.13 < ratios.max() < 1.22


def test_a_stain_gets_more_or_less_and_glass_stays(example):
    tissue_module = importlib.import_module("stained_tissue")
    change = tissue_module.Augmentation(brightness=0, contrast=0, stain=0.2)
    density = np.array([0.65, 0.70, 0.29])  # of haematoxylin
    image = np.full((2, 2, 3), 255, "uint8")
    image[0] = np.rint(256 * np.exp(-density) - 1)
    seen = np.array(
        [tissue_module.augment(image, change, (1, number)) for number in range(40)]
    )
    assert (seen[:, 1] == 255).all()
    amounts = -np.log((seen[:, 0, 0] + 1.0) / 256) / density
    assert np.ptp(amounts, axis=1).max() < 0.03  # pixels are rounded
    assert 0.78 < amounts.min() < 0.9
    assert 1.1 < amounts.max() < 1.22


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds=3", "--test-on=1"], "--folds does not go with --train-on"),
        (["--folds=1"], "--folds must be at least 2"),
        (["--train-on=5-1"], "goes down"),
        (["--dropout=1"], "--dropout must be at least 0 and below 1"),
        (["--augmentation=more"], "invalid choice"),
        (["--resume", "--overwrite"], "not allowed with argument --resume"),
    ],
)
def test_options_out_of_range_are_refused(example, capsys, arguments, message):
    with pytest.raises(SystemExit):
        example.parse_arguments(arguments)
    assert message in " ".join(capsys.readouterr().err.split())


def test_data_that_do_not_fit_are_refused(example, tissue, tmp_path):
    output = f"--output={tmp_path / 'run'}"
    assert "The data set is not there" in refuse(example, tmp_path / "x", output)
    assert "no samples of these numbers" in refuse(
        example, tissue, output, "--train-on=1-90"
    )
    assert "too few samples for 20 folds" in refuse(
        example, tissue, output, "--folds=20"
    )
    assert "Received: 1 of the same class" in refuse(
        example, tissue, output, "--train-on=1", "--test-on=2"
    )
    assert not (tmp_path / "run").exists()


def test_settings_of_the_paper(example):
    arguments = example.parse_arguments(["--paper", "--epochs=7"])
    assert arguments.epochs == 7
    assert (arguments.mix, arguments.estimator, arguments.center) == (
        0,
        "ordered",
        False,
    )
    assert arguments.clip == "global"
    assert example.parse_arguments([]).folds == 5


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not there")
def test_the_published_images_are_split_by_folds(example, tmp_path):
    arguments = example.parse_arguments([str(REAL)])
    experiment = example.load_experiment(arguments, tmp_path)
    splits = experiment.splits(0)
    assert [len(split.test.labels) for split in splits] == [14] * 5
    assert sum(sum(split.test.labels) for split in splits) == 41

    def tests(seed):
        return [n for split in experiment.splits(seed) for n in split.test.numbers]

    assert sorted(tests(0)) == list(range(70))
    assert tests(0) != tests(1)
    assert experiment.task.grid_size == (50, 50)
