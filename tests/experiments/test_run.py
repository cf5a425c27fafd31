"""``python -m attention_sampling experiments run``, as a user runs it."""

import argparse
import json
import shutil
import signal

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from processes import COMMANDS, run, start, wait_until
from sign_files import write_benchmarks

if keras.backend.backend() != "tensorflow":
    pytest.skip("the images come from tf.data", allow_module_level=True)

import tensorflow as tf

from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.datasets.megapixel_mnist_files import write_megapixel_mnist
from attention_sampling.datasets.pasted_signs import write_pasted_signs
from attention_sampling.datasets.synthetic.tissue import write_tissue
from attention_sampling.experiments.__main__ import main
from attention_sampling.experiments.augmentation import AUGMENTATIONS, augment
from attention_sampling.experiments.data import load_images
from attention_sampling.experiments.pretraining import find_networks
from attention_sampling.experiments.run import add_arguments
from attention_sampling.experiments.settings import DEFAULTS, choose_settings
from attention_sampling.files import one_process

RUN = [*COMMANDS, "experiments", "run"]
SMALL = {
    "megapixel_mnist": ["--method=u-2", "--on-demand"],
    "colon_cancer": [
        *("--method=ats-2", "--folds=2", "--runs=2", "--dtype-policy=mixed_bfloat16"),
        "--budgets=1,3",
    ],
    "speed_limits": ["--method=ats-2", "--patch-size=40", "--pretrain=1"],
}


def write_digits(directory, size, view_size):
    """Write a few images of Megapixel MNIST, of made-up digits."""
    digits = np.random.default_rng(0).integers(256, size=(20, 28, 28), dtype="uint8")
    train, test = (
        MegapixelMNIST(digits, np.arange(20) % 10, count, size, 1, seed)
        for seed, count in enumerate((6, 5))
    )
    directory.mkdir()
    write_megapixel_mnist(directory, train, test, view_size)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A few images of each task, in a folder of its name."""
    directory = tmp_path_factory.mktemp("data")
    write_tissue(directory / "colon_cancer", count=8, size=80)
    write_digits(directory / "megapixel_mnist", (90, 120), (18, 24))
    rng = np.random.default_rng(0)
    scenes = directory / "speed_limits"
    scenes.mkdir()
    for number in range(8):
        pixels = rng.integers(256, size=(80, 120, 3), dtype="uint8")
        pixels[-1, -1] = 0  # a file that ends in zeros
        Image.fromarray(pixels).save(scenes / f"{number:05d}.ppm")
    signs = [1] * 4 + [13] * 4  # a limit of 30, and a sign that is none
    lines = [f"{number:05d}.ppm;5;6;25;26;{sign}" for number, sign in enumerate(signs)]
    (scenes / "gt.txt").write_text("\n".join(lines))
    return directory


def words_for(data, task, output, *more):
    words = [task, str(data / task), f"--output={output}", "--epochs=1", "--pictures=2"]
    return [*words, *SMALL[task], *more]


def read_metrics(output):
    return json.loads((output / "metrics.json").read_text())


def refuse(*words):
    """Return the one line that a run in this process ends with."""
    with pytest.raises(SystemExit) as ended:
        main(["run", *words])
    return ended.value.code


@pytest.mark.parametrize(
    "task",
    [
        "megapixel_mnist",
        *(pytest.param(x, marks=pytest.mark.slow) for x in [*SMALL][1:]),
    ],
)
def test_a_task_is_trained_and_gone_on_with(data, task, tmp_path):
    output = tmp_path / "output"
    words = words_for(data, task, output)
    main(["run", *words])
    metrics = read_metrics(output)
    assert (metrics["kind"], metrics["task"]) == ("training", task)
    assert str(tmp_path) not in metrics["command"]
    assert f"run {task} DATA --epochs=1" in metrics["command"]
    runs, folds = (2, 2) if task == "colon_cancer" else (1, 1)
    assert len(metrics["fits"]) == runs * folds
    assert {fit["seed"] for fit in metrics["fits"]} == {*range(runs)}
    for fit in metrics["fits"]:
        assert (fit["fold"] is None) == (folds == 1)
        assert fit["test_error"] == fit["curve"]["test_error"][-1] <= 1
        assert {len(values) for values in fit["curve"].values()} == {1}
    budgets = {tuple(fit.get("budgets", ())) for fit in metrics["fits"]}
    assert budgets == {("1", "3") if task == "colon_cancer" else ()}
    pictures = list((output / "pictures").glob("*.png"))
    assert len(pictures) == {"ats-2": 4, "u-2": 0}[metrics["method"]]
    watched = [path.name[-13:] for path in output.glob("run-0/**/attention/*.png")]
    names = ["epoch-000.png", "epoch-001.png"] if metrics["method"] == "ats-2" else []
    assert sorted(watched) == sorted(2 * names)
    if task == "speed_limits":
        # What the networks learned from boxes about patches and views stays.
        models = [
            keras.saving.load_model(output / "run-0" / f"{name}.keras", compile=False)
            for name in ("pretrained", "model")
        ]
        for name in ("feature", "attention"):
            before, after = (find_networks(model)[name] for model in models)
            assert before.non_trainable_weights
            for weight in before.non_trainable_weights:
                [same] = [w for w in after.weights if w.path == weight.path]
                np.testing.assert_array_equal(same, weight)
    # Not again by mistake, not with other settings, and at once where all is done.
    assert "holds trained models: go on with --resume" in refuse(*words)
    refused = refuse(*words, "--resume", "--learning-rate=0.5")
    rate = metrics["settings"]["learning_rate"]
    assert f"learning_rate was {rate}, is 0.5" in refused
    main(["run", *words, "--resume"])
    assert read_metrics(output)["fits"] == metrics["fits"]


def test_large_images_begin_with_the_networks_of_small_ones(data, tmp_path):
    more = ["--method=ats-2", "--pictures=0"]
    main(["run", *words_for(data, "megapixel_mnist", tmp_path / "small", *more)])
    trained = tmp_path / "small/run-0/model.keras"
    write_digits(tmp_path / "megapixel_mnist", (120, 150), (24, 30))
    more += [f"--start={trained}", "--learning-rate=0"]
    main(["run", *words_for(tmp_path, "megapixel_mnist", tmp_path / "large", *more)])
    with pytest.raises(ValueError, match="--start leaves out the pooling of deep-mil"):
        settings_of("megapixel_mnist", "data", "--method=deep-mil", "--start=a.keras")
    before, after = (
        find_networks(keras.saving.load_model(path, compile=False))
        for path in (trained, tmp_path / "large/run-0/model.keras")
    )
    for name in ("attention", "feature", "label"):
        pairs = zip(
            before[name].trainable_weights, after[name].trainable_weights, strict=True
        )
        for pair in pairs:
            np.testing.assert_array_equal(*pair)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [["--method=deep-mil", "--patch-size=40"], ["--method=cnn-0.5"]]
)
def test_methods_without_a_view_are_trained(data, words, tmp_path):
    scenes = str(data / "speed_limits")
    more = ["--epochs=1", "--pictures=1", f"--output={tmp_path}"]
    main(["run", "speed_limits", scenes, *words, *more])
    [fit] = read_metrics(tmp_path)["fits"]
    assert fit["n_train"] + fit["n_test"] == 8


@pytest.mark.slow
def test_a_killed_run_goes_on_after_the_last_epoch(data, tmp_path):
    words = ["colon_cancer", str(data / "colon_cancer"), f"--output={tmp_path}"]
    words += ["--method=ats-2", "--train-on=1-4", "--epochs=30", "--pictures=0"]
    model, log = tmp_path / "run-0/model.keras", tmp_path / "run-0/log.csv"
    with start(*RUN, *words) as process:
        wait_until(model.exists, process)
        code, _, errors = run(*RUN, *words, "--resume")
        assert code == 1
        assert "Another process is at work" in errors.splitlines()[-1]
        process.send_signal(signal.SIGKILL)
        assert process.wait(60) == -signal.SIGKILL
    done = len(pd.read_csv(log))
    assert 1 <= done < 30
    code, _, errors = run(*RUN, *words, "--resume")
    assert code == 0, errors
    assert pd.read_csv(log)["epoch"].tolist() == [*range(30)]
    [fit] = read_metrics(tmp_path)["fits"]
    assert (fit["epochs"], len(fit["curve"]["test_loss"])) == (30, 30)
    assert not list(tmp_path.rglob(".*part*"))


def test_a_second_process_ends_with_one_line(data, tmp_path):
    with one_process(tmp_path):
        refused = refuse(*words_for(data, "colon_cancer", tmp_path))
    assert refused.startswith(f"error: Another process is at work in {tmp_path}")
    assert "\n" not in refused
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def settings_of(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return choose_settings(parser.parse_args(words))


def test_settings_are_the_defaults_and_what_is_given(tmp_path):
    data = str(tmp_path)
    settings = settings_of("colon_cancer", data, "--epochs=9", "--no-center")
    expected = {**DEFAULTS["colon_cancer"], "epochs": 9, "center": False}
    assert settings == {**expected, "paper": False, "seed": 0}
    settings = settings_of("speed_limits", data, "--paper", "--entropy=0.5")
    assert (settings["estimator"], settings["entropy"]) == ("ordered", 0.5)
    assert settings_of("speed_limits")["mix"] == 1  # of generated scenes
    # Pasted signs are in photographs.
    benchmarks = write_benchmarks(tmp_path / "benchmarks")
    write_pasted_signs(*benchmarks, tmp_path / "pasted", n_train=1, n_test=1)
    assert settings_of("speed_limits", str(tmp_path / "pasted"))["pretrain"] == 10
    assert settings_of("speed_limits", data, "--start=a.keras")["pretrain"] == 0
    residual = settings_of("speed_limits", data, "--networks=paper")
    assert (residual["pretrain"], residual["feature_scale"]) == (0, 4)
    assert settings_of("speed_limits", "--networks=signs")["feature_scale"] == 30
    assert settings_of("speed_limits", data, "--paper")["feature_scale"] == 1
    assert "mix" not in settings_of("megapixel_mnist", data, "--method=u-3")
    ordered = settings_of("colon_cancer", data, "--estimator=ordered")
    assert ordered["control_variate"] is False
    assert settings_of("colon_cancer", data, "--test-on=1-3")["folds"] is None
    assert settings_of("colon_cancer", data, "--folds=blocks")["folds"] == "blocks"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method=ats"], "No such method"),
        (["--strides=2,2"], "--strides is of another task than colon_cancer"),
        (["--method=cnn-0.5", "--entropy=1"], "--entropy does nothing for cnn-0.5"),
        (["--method=u-3", "--mix=0"], "--mix does nothing for u-3"),
        (["--method=cnn-1", "--center"], "--center does nothing for cnn-1"),
        (["--mix-epochs=4"], "--mix-epochs needs --mix above 0"),
        (["--epochs=0"], "--epochs must be 1 to inf. Received: 0"),
        (["--decay=1.5"], "--decay must be 0 to 1. Received: 1.5"),
        (["--learning-rate=nan"], "--learning-rate must be 0 to inf. Received: nan"),
        (["--folds=3", "--train-on=1"], "--folds does not go with"),
    ],
)
def test_options_that_mean_nothing_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        settings_of("colon_cancer", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strides=2,2"], "--strides does nothing for ats-5 with --networks signs"),
        (["--start=a.keras", "--pretrain=1"], "--pretrain does nothing after --start"),
        (["--networks=paper", "--pretrain=1"], "--pretrain is for --networks signs"),
        (["--method=cnn-1", "--pretrain=1"], "--pretrain does nothing for cnn-1"),
        (["--method=cnn-1", "--patch-size=9"], "--patch-size does nothing for cnn-1"),
        (["--augmentation=strong"], "--augmentation strong mirrors images"),
        (["--start="], "--start needs a model file"),
    ],
)
def test_options_that_mean_nothing_for_photographs_are_refused(
    words, message, tmp_path
):
    with pytest.raises(ValueError, match=message):
        settings_of("speed_limits", str(tmp_path), *words)


@pytest.mark.parametrize("task", SMALL)
def test_views_and_images_show_the_same(data, task):
    settings = settings_of(task, str(data / task))
    if task == "speed_limits":
        settings |= {"patch_size": 40}
    images = load_images(task, data / task, settings)
    [train_on, test_on], *_ = images.splits(0)
    assert {*train_on, *test_on} == {*range(len(images.labels))}
    for seed in (None, 5):
        dataset = images.batches(train_on, ("view", "image"), 3, seed)
        batches = list(dataset)
        labels = np.concatenate([label for _, label in batches])
        assert sorted(labels) == sorted(images.labels[train_on])
        (view, image), _ = batches[0]
        assert view.shape[1:] == images.task.view_shape
        expected = tf.image.resize(image, images.task.view_size, "area")
        np.testing.assert_allclose(view, expected, atol=0.01)
    truth = images.truth(int(test_on[0]))
    assert truth.image.shape == images.task.image_shape
    [inputs, _] = next(iter(images.batches(test_on[:1], ("image",), 1)))
    np.testing.assert_array_equal(inputs[0][0], truth.image)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
def test_an_augmentation_changes_images_by_its_seed(name, rng):
    image = tf.constant(rng.integers(256, size=(20, 20, 3), dtype="uint8"))
    first, again, other = (
        augment(image, [seed, 1], **AUGMENTATIONS[name]).numpy() for seed in (0, 0, 3)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def test_other_scenes_of_the_same_names_are_another_data_set(data, tmp_path):
    def samples_of(directory):
        settings = settings_of("speed_limits", str(directory), "--patch-size=40")
        return load_images("speed_limits", directory, settings).about["samples"]

    one = samples_of(data / "speed_limits")
    assert samples_of(shutil.copytree(data / "speed_limits", tmp_path / "a")) == one
    annotations = tmp_path / "a" / "gt.txt"
    annotations.write_text(annotations.read_text().replace(";5;6;", ";4;6;"))
    assert samples_of(tmp_path / "a") != one


def test_a_model_to_begin_with_is_looked_at_first(data, tmp_path):
    scenes = str(data / "speed_limits")
    words = ["speed_limits", scenes, "--patch-size=40", f"--output={tmp_path / 'runs'}"]
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes(b"none")
    assert "model file is damaged" in refuse(*words, f"--start={damaged}")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.save(whole := tmp_path / "whole.keras")
    refused = refuse(*words, f"--start={whole}", "--runs=2")
    assert "Each run tests with other images" in refused
