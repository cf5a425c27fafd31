import csv
import gzip
import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from attention_sampling import SamplePatches
from attention_sampling.benchmark import __main__ as benchmark
from attention_sampling.benchmark.training import command as training
from attention_sampling.benchmark.training import data as training_data
from attention_sampling.benchmark.training import report as training_report
from attention_sampling.benchmark.training.data import Batches, Images, make_images
from attention_sampling.benchmark.training.methods import (
    CALLBACKS,
    METHODS,
    build_model,
)

TINY = {
    "preset": "small",
    "image_size": 90,
    "view_size": 18,
    "patch_size": 20,
    "n_patches": 3,
    "noise_patches": 1,
    "train": 24,
    "test": 10,
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "entropy": 1e-4,
    "dtype_policy": "float32",
}


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """Return a directory with forty digits, for training and for test."""
    directory = tmp_path_factory.mktemp("mnist")
    rng = np.random.default_rng(0)
    digits = rng.integers(256, size=(40, 28, 28), dtype="uint8")
    labels = np.arange(40, dtype="uint8") % 10
    for prefix in ("train", "t10k"):
        for name, array in (("images-idx3", digits), ("labels-idx1", labels)):
            shape = b"".join(extent.to_bytes(4, "big") for extent in array.shape)
            data = bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()
            path = directory / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(data))
    return directory


def command(output, *words, mnist=None, **settings):
    """Return a command line with the tiny settings."""
    words = ["training", "--output", str(output), *words]
    if mnist is not None:
        words += ["--mnist", str(mnist)]
    for name, value in {**TINY, **settings}.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def write_run(directory, method, seed, accuracy, seconds=2.0, **settings):
    """Write a run as if it had been trained; without all epochs it is not finished."""
    name = f"small-{method}-{seed}"
    run = {"method": method, "seed": seed, "settings": {**TINY, **settings}}
    (directory / f"{name}.json").write_text(json.dumps({**run, "versions": {}}))
    lines = ["epoch,loss,accuracy,val_loss,val_accuracy,seconds"]
    for epoch, value in enumerate(accuracy, start=1):
        lines.append(f"{epoch},2.3,0.1,2.3,{value},{seconds}")
    if accuracy:
        (directory / f"{name}.csv").write_text("\n".join(lines) + "\n")


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# The command


def test_names_the_extra_where_matplotlib_is_missing(tmp_path, monkeypatch):
    """Before hours of training, not after them."""
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"pip install 'attention-sampling\[examples\]'"
    ):
        benchmark.main(command(tmp_path, "--methods", "control"))


def test_a_run_that_cannot_begin_leaves_nothing(mnist, tmp_path):
    """Or the run with better settings would be refused."""
    with pytest.raises(ValueError, match="Cannot draw 3 different cells"):
        benchmark.main(
            command(tmp_path, "--methods", "control", mnist=mnist, view_size=1)
        )
    assert contents(tmp_path) == {}


def test_runs_are_logged_resumed_and_reported(mnist, tmp_path, capsys):
    output = tmp_path / "new" / "runs"
    words = command(output, mnist=mnist)
    benchmark.main([*words, "--methods", "ordered"])
    first = contents(output)
    assert set(first) == {
        "small-ordered-0.csv",
        "small-ordered-0.json",
        "small.csv",
        "small.png",
    }
    rows = read_rows(output / "small-ordered-0.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        assert list(row) == ["epoch", *training_report.MEASURES, "seconds"]
        assert 0 <= float(row["val_accuracy"]) <= 1
        assert 0 < float(row["loss"]) < 10
        assert float(row["seconds"]) > 0
    description = json.loads(first["small-ordered-0.json"])
    assert description["method"] == "ordered"
    assert description["seed"] == 0
    assert description["settings"] == TINY
    assert description["versions"]["keras"] == keras.__version__
    assert "Training: ordered, seed 0" in capsys.readouterr().out

    # The finished run stays; one that was killed is done again, from the beginning.
    write_run(output, "uniform", 0, [0.9])
    benchmark.main([*words, "--methods", "ordered,uniform,ordered"])
    shown = capsys.readouterr().out
    assert "Done before: ordered, seed 0" in shown
    assert shown.count("Training: ") == 1
    second = contents(output)
    for name in ("small-ordered-0.csv", "small-ordered-0.json"):
        assert second[name] == first[name]
    assert len(read_rows(output / "small-uniform-0.csv")) == 2
    table = read_rows(output / "small.csv")
    assert [row["method"] for row in table] == ["ordered", "uniform"]
    assert shown.splitlines()[-2].startswith("ordered ")

    # Nothing is left to do: neither digits nor training are needed.
    benchmark.main([*command(output, mnist=tmp_path), "--methods", "ordered"])
    assert "Training: " not in capsys.readouterr().out


def test_same_seed_same_log(mnist, tmp_path):
    logs = []
    for name, seed in (("first", "3"), ("second", "3"), ("third", "4")):
        words = command(tmp_path / name, mnist=mnist, epochs=1)
        benchmark.main([*words, "--methods", "ordered", "--seeds", seed])
        (row,) = read_rows(tmp_path / name / f"small-ordered-{seed}.csv")
        logs.append({**row, "seconds": None})
    assert logs[0] == logs[1]
    assert logs[0]["loss"] != logs[2]["loss"]


def test_overwrite_does_a_run_again(mnist, tmp_path, capsys):
    write_run(tmp_path, "proposal", 0, [0.9, 0.9, 0.9], epochs=3)
    words = command(tmp_path, mnist=mnist, epochs=1)
    benchmark.main([*words, "--methods", "proposal", "--overwrite"])
    assert "Training: proposal, seed 0" in capsys.readouterr().out
    assert len(read_rows(tmp_path / "small-proposal-0.csv")) == 1


@pytest.mark.parametrize("finished", [True, False])
def test_runs_of_other_settings_are_refused(mnist, tmp_path, finished):
    write_run(tmp_path, "ordered", 0, [0.1, 0.2] if finished else [], n_patches=7)
    before = contents(tmp_path)
    words = command(tmp_path, mnist=mnist)
    message = r"small-ordered-0, n_patches is 7, not 3.*another directory"
    with pytest.raises(ValueError, match=message):
        benchmark.main([*words, "--methods", "ordered"])
    # Overwriting one method leaves the others, with which it would be compared.
    with pytest.raises(ValueError, match=message):
        benchmark.main([*words, "--methods", "uniform", "--overwrite"])
    assert contents(tmp_path) == before


def test_other_presets_may_share_the_directory(tmp_path):
    write_run(tmp_path, "ordered", 0, [0.1, 0.2], n_patches=7)
    arguments = benchmark.parse_arguments(command(tmp_path, mnist="m", preset="medium"))
    settings = training.choose_settings(arguments)
    missing = training.find_missing_runs(arguments, settings, tmp_path)
    assert missing == [(method, 0) for method in METHODS]


def test_presets_and_what_replaces_them():
    words = ["training", "--output", "o", "--mnist", "m", "--preset", "large"]
    settings = training.choose_settings(benchmark.parse_arguments(words))
    assert settings["image_size"] == 1500
    assert settings["batch_size"] == 32
    words += ["--n-patches", "20", "--learning-rate", "0.01", "--noise-patches", "0"]
    changed = training.choose_settings(benchmark.parse_arguments(words))
    assert changed == {
        **settings,
        "n_patches": 20,
        "learning_rate": 0.01,
        "noise_patches": 0,
    }


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("epochs", 0, r"--epochs must be at least 1 .*Received: 0"),
        ("batch_size", 0, r"--batch-size must be at least 1"),
        ("noise_patches", -1, r"--noise-patches must be at least 0"),
        ("learning_rate", "nan", r"--learning-rate must be .*finite.*nan"),
        ("entropy", "inf", r"--entropy must be .*finite.*inf"),
        ("dtype_policy", "floot32", r"Cannot convert 'floot32'"),
    ],
)
def test_settings_out_of_range(tmp_path, option, value, message):
    with pytest.raises(ValueError, match=message):
        benchmark.main(command(tmp_path, mnist=tmp_path, **{option: value}))


def test_mnist_is_needed(tmp_path):
    with pytest.raises(ValueError, match=r"--mnist DIR.*--report-only"):
        benchmark.main(command(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3"):
        benchmark.main(command(tmp_path, mnist=tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "best"], r"expected some of ordered, .*got 'best'"),
        (["--seeds", "0,-1"], r"expected non-negative ints.*got '0,-1'"),
        (["--seeds", "0,"], r"expected non-negative ints"),
        (["--preset", "huge"], r"invalid choice: 'huge'"),
    ],
)
def test_words_that_are_not_understood(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit):
        benchmark.main(command(tmp_path, *words))
    assert re.search(message, capsys.readouterr().err)


def test_commands_are_imported_when_chosen():
    program = (
        "import runpy, sys\n"
        "sys.argv = ['benchmark', '--help']\n"
        "try: runpy.run_module('attention_sampling.benchmark', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'keras' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert "training" in done.stdout


def test_errors_are_one_line(tmp_path):
    words = command(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "attention_sampling.benchmark", *words],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: Training needs the digits.")
    assert "Traceback" not in done.stderr


# Methods


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step(method, mnist):
    images = make_images(TINY, training_data.read_digits(mnist), seed=0)
    model = build_model(TINY, method, seed=0)
    names = [weight.path for weight in model.trainable_weights]
    (views, pixels), labels = Batches(images["train"], 8)[0]
    logs = model.train_on_batch([views, pixels], labels, return_dict=True)
    assert np.isfinite(logs["loss"])
    assert any("digit" in name for name in names)
    # Two each of four convolutions and the classifier; of the attention three more.
    assert len(names) == 10 + (0 if method == "uniform" else 6)


def test_a_policy_is_that_of_the_model_alone():
    model = build_model({**TINY, "dtype_policy": "mixed_bfloat16"}, "proposal", seed=0)
    assert model.get_layer("feature").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


def test_the_full_mix_stays(mnist):
    model = build_model(TINY, "proposal-full", seed=0)
    layer = next(x for x in model.layers if isinstance(x, SamplePatches))
    images = make_images(TINY, training_data.read_digits(mnist), seed=0)
    (views, pixels), labels = Batches(images["train"], 8)[0]
    model.train_on_batch([views, pixels], labels)
    assert float(layer.mix.value) == 1.0
    assert "proposal-full" not in CALLBACKS


# Images


def test_batches_hold_every_image_once_in_a_new_order():
    images = Images(
        np.arange(10, dtype="int32"),
        np.arange(10, dtype="float32").reshape(10, 1, 1, 1),
        lambda indices: np.asarray(indices, "uint8").reshape(-1, 1, 1, 1),
    )
    batches = Batches(images, 4, shuffle_seed=0)
    orders = []
    for _ in range(3):
        assert len(batches) == 3
        parts = [batches[i] for i in range(3)]
        assert [len(labels) for _, labels in parts] == [4, 4, 2]
        for (views, pixels), labels in parts:
            np.testing.assert_array_equal(views[:, 0, 0, 0], labels)
            np.testing.assert_array_equal(pixels[:, 0, 0, 0], labels)
        orders.append(np.concatenate([labels for _, labels in parts]).tolist())
        batches.on_epoch_end()
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != list(range(10))
    in_order = Batches(images, 4)
    in_order.on_epoch_end()
    assert in_order[2][1].tolist() == [8, 9]


def test_keras_shuffles_between_epochs_and_loses_nothing():
    seen = []

    def read(indices):
        seen.append(np.asarray(indices))
        return np.zeros((len(indices), 1, 1, 1), "uint8")

    images = Images(np.zeros(9, "int32"), np.zeros((9, 1, 1, 1), "float32"), read)
    view, image = keras.Input((1, 1, 1)), keras.Input((1, 1, 1), dtype="uint8")
    output = keras.layers.Dense(1)(keras.layers.Flatten()(view))
    model = keras.Model([view, image], output)
    model.compile(loss="mse")
    model.fit(Batches(images, 3, shuffle_seed=1), epochs=4, shuffle=False, verbose=0)
    # Keras reads some batches more, to know their shapes, before the first epoch.
    epochs = np.reshape(seen[-12:], (4, 9))
    np.testing.assert_array_equal(
        np.sort(epochs, axis=1), np.tile(np.arange(9), (4, 1))
    )
    # Threads may read the batches of an epoch in any order: compare what is in them.
    batches = {frozenset(batch) for batch in np.reshape(seen[-12:], (12, 3)).tolist()}
    assert len(batches) > 6


@pytest.mark.parametrize("kept", [True, False])
def test_images_of_the_splits_and_seeds_differ(mnist, monkeypatch, kept):
    if not kept:
        monkeypatch.setattr(training_data, "_MOST_BYTES_KEPT", 0)
    digits = training_data.read_digits(mnist)
    sets = [
        images for seed in (0, 1) for images in make_images(TINY, digits, seed).values()
    ]
    assert [len(images.labels) for images in sets] == [24, 10, 24, 10]
    firsts = [images.read(np.arange(10)) for images in sets]
    for images, first in zip(sets, firsts, strict=True):
        assert first.shape == (10, 90, 90, 1)
        assert first.dtype == np.uint8
        assert images.views.shape == (len(images.labels), 18, 18, 1)
        means = first.reshape(10, 18, 5, 18, 5, 1).mean(axis=(2, 4))
        np.testing.assert_allclose(images.views[:10], means, rtol=1e-5)
    assert len(np.unique(np.concatenate(firsts).reshape(40, -1), axis=0)) == 40


# The report


def test_table_and_figure(tmp_path, capsys):
    # Three epochs, of which the first compiles.
    settings = {"epochs": 3}
    write_run(tmp_path, "ordered", 0, [0.1, 0.2, 0.3], seconds=4, **settings)
    write_run(tmp_path, "unordered", 1, [0.25, 0.45, 0.6], **settings)
    write_run(tmp_path, "unordered", 0, [0.1, 0.3, 0.41], **settings)
    write_run(tmp_path, "control", 0, [0.9, 0.9], **settings)
    write_run(tmp_path, "proposal-constant", 0, [0.51, 0.5, 0.5], **settings)
    benchmark.main(["training", "--output", str(tmp_path), "--report-only"])
    table = read_rows(tmp_path / "small.csv")
    assert [list(row.values()) for row in table] == [
        ["ordered", "1", "3", "-", "-", "0.300", "0.300", "0.300", "4.0"],
        [
            *("unordered", "2", "1.5 [2 1]", "2.5 [3 2]", "- [- 3]"),
            *("0.505", "0.410", "0.600", "2.0"),
        ],
        ["proposal-constant", "1", "1", "1", "1", "0.500", "0.500", "0.500", "2.0"],
    ]
    *lines, note = capsys.readouterr().out.splitlines()
    assert note == "Not finished, left out: small-control-0"
    assert [line.split()[0] for line in lines] == [
        "method",
        *(r["method"] for r in table),
    ]
    assert "1.5 [2 1]" in lines[2]
    with Image.open(tmp_path / "small.png") as figure:
        figure.load()
        assert figure.format == "PNG"
        assert figure.width > figure.height > 300
        assert len(figure.convert("RGB").getcolors(1 << 24)) > 10
    assert not list(tmp_path.glob(".*"))


def test_nothing_to_report(tmp_path):
    words = ["training", "--output", str(tmp_path), "--report-only"]
    with pytest.raises(ValueError, match=r"no finished run.*directory="):
        benchmark.main(words)
    write_run(tmp_path, "ordered", 0, [0.5])
    with pytest.raises(ValueError, match=r"no finished run"):
        benchmark.main(words)


def test_runs_that_do_not_compare_are_not_reported(tmp_path):
    write_run(tmp_path, "ordered", 0, [0.1, 0.2])
    write_run(tmp_path, "unordered", 0, [0.1], epochs=1)
    with pytest.raises(ValueError, match=r"unordered-0, epochs is 1, not 2"):
        benchmark.main(["training", "--output", str(tmp_path), "--report-only"])


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"method": "ordered"}'])
def test_files_of_something_else(tmp_path, text):
    (tmp_path / "small-other.json").write_text(text)
    with pytest.raises(ValueError, match=r"small-other.json .*not of a training run"):
        benchmark.main(["training", "--output", str(tmp_path), "--report-only"])
