"""The example of Megapixel MNIST, with small settings."""

import functools
import importlib
import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.datasets.megapixel_mnist_files import (
    write_megapixel_mnist_splits,
)
from attention_sampling.experiments.tasks import TASKS

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "the examples are written for the TensorFlow backend", allow_module_level=True
    )

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ["--method=ats-2", "--batch-size=4", "--epochs=1"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "digits"
    make_digits(directory)
    return directory


def make_digits(directory, seed=0, noise=1, overwrite=False):
    drawn = np.random.default_rng(0).integers(256, size=(20, 28, 28), dtype="uint8")
    train, test = (
        MegapixelMNIST(drawn, np.arange(20) % 10, count, (90, 120), noise, seed + split)
        for split, count in enumerate((6, 5))
    )
    write_megapixel_mnist_splits(
        directory, train, test, view_size=(18, 24), overwrite=overwrite
    )


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)  # as for a script
        yield importlib.import_module("mnist")


@pytest.fixture
def eager(monkeypatch):
    """Train without building graphs, which takes longer than a few small steps."""
    compile_model = keras.Model.compile
    monkeypatch.setattr(
        keras.Model,
        "compile",
        functools.partialmethod(compile_model, run_eagerly=True),
    )


def train(example, digits, output, *more):
    example.main([str(digits), *SMALL, f"--output={output}", *more])
    return json.loads((output / "metrics.json").read_text())


def test_trains_runs_and_says_mean_and_standard_error(
    example, eager, digits, tmp_path, capsys
):
    metrics = train(
        example,
        digits,
        tmp_path,
        "--runs=2",
        "--seed=3",
        "--pictures=1",
        "--dtype-policy=mixed_bfloat16",
        "--mix-epochs=2",
    )
    assert keras.config.dtype_policy().name == "float32"
    for run in ("run-0", "run-1"):
        model = keras.saving.load_model(tmp_path / run / "model.keras", compile=False)
        convolutions = [
            layer
            for layer in model._flatten_layers()
            if isinstance(layer, keras.layers.Conv2D)
        ]
        assert convolutions
        assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
    assert metrics["task"] == "megapixel_mnist"
    assert not any("/" in str(value) for value in metrics["settings"].values())
    assert [(fit["run"], fit["seed"], fit["fold"]) for fit in metrics["fits"]] == [
        (0, 3, None),
        (1, 4, None),
    ]
    assert (metrics["fits"][0]["n_train"], metrics["fits"][0]["n_test"]) == (6, 5)
    errors = [run["test_error"] for run in metrics["runs"]]
    assert metrics["mean"]["test_error"] == pytest.approx(np.mean(errors), abs=1e-5)
    assert metrics["standard_error"]["train_loss"] > 0
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names[0].startswith("test_0000")
    assert names[1] == names[0].replace(".png", "_patches.png")
    assert (tmp_path / "run-1" / "model.keras").exists()
    printed = capsys.readouterr().out
    assert "6 training and 5 test images of 120 x 90 pixels" in printed
    assert "(mean and standard error of 2 runs)" in printed.splitlines()[-1]
    assert f"Everything is in {tmp_path}." in printed.splitlines()[-1]
    # A third run beside them; the others are not trained again.
    before = metrics["fits"]
    metrics = train(
        example,
        digits,
        tmp_path,
        "--runs=3",
        "--seed=3",
        "--pictures=0",
        "--dtype-policy=mixed_bfloat16",
        "--mix-epochs=2",
        "--resume",
    )
    assert metrics["fits"][:2] == before
    assert len(metrics["runs"]) == 3


def test_on_demand_trains_goes_on_and_draws(example, eager, digits, tmp_path, capsys):
    train(example, digits, tmp_path, "--on-demand", "--pictures=0", "--decay=0")
    more = ["--on-demand", "--pictures=1", "--epochs=2", "--decay=0", "--resume"]
    metrics = train(example, digits, tmp_path, *more)
    assert "Going on after epoch 1." in capsys.readouterr().out
    [fit] = metrics["fits"]
    assert fit["epochs"] == len(fit["curve"]["test_error"]) == 2
    assert fit["extended_from"] == [1]
    assert metrics["settings"]["on_demand"] is True
    assert len(list((tmp_path / "pictures").iterdir())) == 2
    model = keras.saving.load_model(tmp_path / "run-0" / "model.keras", compile=False)
    assert model.input_shape == [(None, 18, 24, 1), (None,)]


def load(example, digits, *more):
    experiment = example.load_experiment(example.parse_arguments([str(digits), *more]))
    [split] = experiment.splits(0)
    return experiment, split


def test_batches_hold_views_images_and_labels_in_order(example, digits):
    experiment, split = load(example, digits)
    assert experiment.task.image_shape == (90, 120, 1)
    batches = split.test.batches(("view", "image"), 2)
    assert len(batches) == 3
    (views, images), labels = batches[2]
    np.testing.assert_array_equal(labels, split.test.labels[4:])
    picture = split.test.picture(4)
    np.testing.assert_array_equal(images[0], picture.image)
    means = picture.image.reshape(18, 5, 24, 5, 1).mean(axis=(1, 3))
    np.testing.assert_allclose(views[0], means, atol=0.01)
    assert images.dtype == np.uint8
    assert (len(picture.boxes), len(picture.other_boxes)) == (3, 2)
    chosen = split.test.choose([4, 1])
    np.testing.assert_array_equal(chosen.picture(0).image, picture.image)
    np.testing.assert_array_equal(chosen.labels, split.test.labels[[4, 1]])


def test_on_demand_the_numbers_are_those_of_the_same_images(example, digits):
    experiment, split = load(example, digits, "--on-demand")
    for images in (split.train, split.test):
        (_, numbers), _ = images.batches(("view", "image"), 3)[0]
        for place, number in enumerate(numbers):
            [pixels] = experiment.source.read_patches([number], [(0, 0)], (90, 120))
            np.testing.assert_array_equal(pixels, images.picture(place).image)


def test_training_images_are_shuffled_anew_in_every_epoch(example, digits):
    _, split = load(example, digits, "--on-demand")

    def orders(seed):
        batches = split.train.batches(("view", "image"), 6, seed)
        found = []
        for _ in range(3):
            found.append(batches[0][0][1].tolist())
            batches.on_epoch_end()
        return found

    first = orders(1)
    assert first == orders(1)
    assert first != orders(2)
    assert len(set(map(tuple, first))) == 3
    assert {tuple(sorted(order)) for order in first} == {tuple(range(6))}


@pytest.mark.parametrize("method", [*TASKS["megapixel_mnist"].methods[:2], "deep-mil"])
def test_every_method_takes_the_batches(example, digits, method):
    training = importlib.import_module("experiment_training")
    arguments = example.parse_arguments([str(digits), f"--method={method}"])
    experiment, split = load(example, digits)
    model = training.build_compiled_model(arguments, experiment.task, None, 6, seed=0)
    inputs, _ = split.train.batches(arguments.method.inputs, 2, 0)[0]
    np.testing.assert_allclose(np.sum(model(inputs), axis=1), [1, 1], rtol=1e-5)


def refuse(example, *arguments):
    with pytest.raises((ValueError, OSError)) as caught:
        example.main(list(map(str, arguments)))
    return str(caught.value)


def test_data_that_do_not_fit_are_refused(example, digits, tmp_path):
    output = f"--output={tmp_path / 'run'}"
    nowhere = tmp_path / "nowhere"
    message = refuse(example, nowhere, output)
    assert f"Make the images first: python examples/make_mnist.py {nowhere}" in message
    message = refuse(example, digits, output, "--on-demand", "--method=cnn-1")
    assert "Expected: --method ats-N or u-N. Received: --method cnn-1" in message
    assert not (tmp_path / "run").exists()


def test_settings_of_the_paper(example):
    arguments = example.parse_arguments(["x", "--paper", "--learning-rate=0.5"])
    assert arguments.learning_rate == 0.5
    assert (arguments.mix, arguments.estimator, arguments.center) == (
        0,
        "ordered",
        False,
    )
    assert arguments.feature_scale == 1
    assert not arguments.control_variate
    assert arguments.clip == "global"


def test_a_run_goes_on_with_the_same_images_alone(example, eager, digits, tmp_path):
    data, output = tmp_path / "data", tmp_path / "run"
    shutil.copytree(digits, data)
    metrics = train(example, data, output, "--pictures=0")
    assert metrics["settings"]["data"]["images"] == 11
    assert metrics["settings"]["data"]["noise_patches"] == 1
    assert metrics["settings"]["data"]["drawn"] is False
    before = contents(output)
    more = [*SMALL, f"--output={output}", "--pictures=0", "--runs=2", "--resume"]
    for seed, noise, words in (
        (0, 0, "noise patches of the data: was 1, is 0"),
        (2, 1, "as many images, but not the same ones"),
    ):
        make_digits(data, seed, noise, overwrite=True)
        assert words in refuse(example, data, *more)
        assert contents(output) == before
    make_digits(data, overwrite=True)
    train(example, data, output, "--pictures=0", "--runs=2", "--resume")


def test_labels_that_are_no_digits_are_refused(example, digits, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(digits, data)
    with h5py.File(data / "test.h5", "r+") as file:
        file["labels"][0] = 10
    message = refuse(example, data, f"--output={tmp_path / 'run'}")
    assert "labels must be digits, 0 to 9" in message
    assert f"label 10 in {data / 'test.h5'}" in message
    assert not (tmp_path / "run").exists()


def test_files_of_a_user_are_never_lost(example, eager, digits, tmp_path):
    for name in ("pictures/holiday.jpg", "run-2024-results/thesis.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    arguments = [digits, *SMALL, f"--output={tmp_path}"]
    for more in ([], ["--overwrite"], ["--resume"]):
        message = refuse(example, *arguments, *more)
        assert message.startswith(f"{tmp_path / 'pictures'} would be written to")
        assert contents(tmp_path) == before


def contents(directory):
    """Return the bytes of each file below a directory."""
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
