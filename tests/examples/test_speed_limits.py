"""The example of the speed limits, with small settings."""

import csv
import functools
import importlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from attention_sampling.datasets.road_scenes import write_road_scenes
from attention_sampling.experiments.tasks import TASKS, build_model

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "the examples are written for the TensorFlow backend", allow_module_level=True
    )

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ["--method=ats-2", "--patch-size=32", "--first-stride=2", "--batch-size=8"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "scenes"
    write_road_scenes(directory, n_images=32, size=(240, 320), progress=False)
    return directory


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)  # as for a script
        yield importlib.import_module("speed_limits")


def run(example, arguments):
    """Run without building graphs, which takes longer than a few small steps."""
    eagerly = functools.partialmethod(keras.Model.compile, run_eagerly=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "compile", eagerly)
        example.main(arguments)


def small_run(scenes, output, *more):
    return [f"--dataset={scenes}", f"--output={output}", *SMALL, *more]


def parse(example, arguments):
    return example.parse_arguments(example.__doc__, arguments)


def refuse(example, arguments):
    with pytest.raises((ValueError, OSError)) as caught:
        run(example, arguments)
    return str(caught.value)


def read_metrics(output):
    return json.loads((output / "metrics.json").read_text())


def read_log(output):
    with (output / "run-0" / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def load_model(output):
    return keras.saving.load_model(output / "run-0" / "model.keras", compile=False)


@pytest.fixture(scope="module")
def finished(example, scenes, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "finished"
    run(example, small_run(scenes, output, "--epochs=2", "--pictures=3"))
    return output


def test_leaves_scores_log_model_tensorboard_and_pictures(finished):
    metrics = read_metrics(finished)
    assert (metrics["kind"], metrics["task"]) == ("training", "speed_limits")
    assert metrics["method"] == metrics["settings"]["method"] == "ats-2"
    assert metrics["settings"]["patch_size"] == 32
    assert metrics["command"].startswith("python examples/speed_limits.py --dataset=/")
    assert not {"download", "output", "profile"} & set(metrics["settings"])
    assert metrics["image_shape"] == [240, 320, 3]
    assert metrics["settings"]["data"]["drawn"] is True
    assert metrics["settings"]["data"]["images"] == 32
    assert metrics["view_size"] == [72, 96]
    [fit] = metrics["fits"]
    assert (fit["epochs"], fit["n_train"], fit["n_test"]) == (2, 24, 8)
    assert fit["fold"] is None
    rows = read_log(finished)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    seconds = sum(float(row["seconds"]) for row in rows)
    assert fit["seconds"] == pytest.approx(seconds, abs=1e-2)
    assert metrics["mean"]["test_error"] == fit["test_error"] <= 1
    assert list(finished.glob("run-0/tensorboard/validation/events.*"))
    pictures = sorted(path.name for path in (finished / "pictures").iterdir())
    assert len(pictures) == 6
    for number in (0, 2, 4):
        assert pictures[number + 1] == pictures[number].replace(".", "_patches.")
    for path in [*(finished / "pictures").iterdir(), finished / "curve.png"]:
        with Image.open(path) as image:
            assert min(image.size) > 300
    assert not list(finished.rglob("*part*"))


def test_its_model_predicts_without_the_example(finished):
    model = keras.saving.load_model(finished / "run-0" / "model.keras")
    view, image = (shape[1:] for shape in model.input_shape)
    answer = model.predict(
        [np.zeros((1, *view), "float32"), np.zeros((1, *image), "uint8")], verbose=0
    )
    assert answer.shape == (1, 4)
    np.testing.assert_allclose(answer.sum(), 1, rtol=1e-5)


def test_a_run_is_not_overwritten_by_accident(example, finished, scenes):
    before = (finished / "run-0" / "model.keras").read_bytes()
    message = refuse(example, small_run(scenes, finished, "--epochs=2"))
    assert message.startswith(f"{finished} holds a run. Go on with it by --resume")
    message = refuse(example, small_run(scenes, finished, "--resume", "--seed=5"))
    assert "has other settings: --seed was 0, is 5" in message
    assert (finished / "run-0" / "model.keras").read_bytes() == before


def test_a_killed_run_goes_on(example, scenes, tmp_path, capsys):
    output = tmp_path / "killed"
    arguments = small_run(scenes, output, "--epochs=9", "--pictures=1")
    process = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error::UserWarning:keras",
            EXAMPLES / "speed_limits.py",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    deadline = time.monotonic() + 240
    while not (output / "run-0" / "model.keras").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 1 <= len(read_log(output)) < 9
    # As if killed while a row was being written.
    with (output / "run-0" / "log.csv").open("a") as file:
        file.write("9,0.1")
    run(example, [*arguments, "--resume"])
    assert "Going on after epoch" in capsys.readouterr().out
    assert [row["epoch"] for row in read_log(output)] == list(map(str, range(9)))
    assert read_metrics(output)["mean"]["epochs"] == 9
    model = keras.saving.load_model(output / "run-0" / "model.keras")
    assert int(model.optimizer.iterations) == 9 * 3
    # Neither longer nor shorter, and nothing is changed.
    before = (output / "settings.json").read_bytes()
    arguments = small_run(scenes, output, "--resume", "--pictures=0")
    message = refuse(example, [*arguments, "--epochs=10"])
    assert "has done 9 of 9 epochs, with a learning rate that falls over" in message
    message = refuse(example, [*arguments, "--epochs=2"])
    assert f"{output / 'run-0'} has 9 epochs already" in message
    assert len(read_log(output)) == 9
    assert (output / "settings.json").read_bytes() == before


def test_runs_have_splits_of_their_own(example, scenes, tmp_path, capsys):
    more = ["--epochs=1", "--pictures=0", "--runs=2", "--method=cnn-0.1"]
    run(example, small_run(scenes, tmp_path, *more))
    metrics = read_metrics(tmp_path)
    assert [fit["seed"] for fit in metrics["fits"]] == [0, 1]
    errors = [run["test_error"] for run in metrics["runs"]]
    assert metrics["mean"]["test_error"] == pytest.approx(np.mean(errors), abs=1e-5)
    assert metrics["standard_error"]["train_loss"] > 0
    printed = capsys.readouterr().out
    assert "24 training and 8 test images of 320 x 240 pixels; classes empty, 50" in (
        printed
    )
    last = printed.strip().splitlines()[-1]
    assert "(mean and standard error of 2 runs), after 1 epochs" in last
    assert "Always the most frequent class: test error 0.750." in last
    experiment = example.load_experiment(
        parse(example, small_run(scenes, tmp_path)), tmp_path
    )
    assert experiment.balanced
    [first], [second] = experiment.splits(0), experiment.splits(1)
    for split in (first, second):
        together = sorted([*split.train.numbers, *split.test.numbers])
        assert together == list(range(32))
    assert set(first.test.numbers) != set(second.test.numbers)


def test_starts_from_the_networks_of_another_run(example, finished, scenes, tmp_path):
    donor = finished / "run-0" / "model.keras"
    more = [f"--start-from={donor}", "--epochs=1", "--learning-rate=0", "--pictures=0"]
    run(example, small_run(scenes, tmp_path / "run", *more))
    model, donor = load_model(tmp_path / "run"), load_model(finished)
    for name in ("attention", "feature"):
        ours, theirs = (m.get_layer(name).trainable_variables for m in (model, donor))
        for our, their in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(our, their)


@pytest.mark.parametrize("name", ["attention", "nothing"])
def test_networks_of_another_kind_are_refused(example, scenes, tmp_path, name):
    other = tmp_path / "other.keras"
    view = keras.Input((None, None, 3))
    attention = keras.layers.Conv2D(2, 3, name=name)(view)
    keras.Model(view, attention).save(other)
    arguments = small_run(scenes, tmp_path / "run", f"--start-from={other}")
    message = refuse(example, arguments)
    assert "other.keras has no " in message
    assert "network like the one to be trained" in message
    assert not (tmp_path / "run").exists()


def test_networks_of_other_strides_are_refused(example, finished, scenes, tmp_path):
    donor = finished / "run-0" / "model.keras"
    arguments = small_run(scenes, tmp_path / "run", f"--start-from={donor}")
    message = refuse(example, [*arguments, "--block-strides=1,2,2,2"])
    assert "has no feature network like the one to be trained" in message
    assert not (tmp_path / "run").exists()


def test_profile_prints_time_and_memory(example, scenes, tmp_path, capsys):
    run(example, small_run(scenes, tmp_path, "--profile"))
    printed = capsys.readouterr().out
    assert " ms and " in printed
    assert " MB a sample, peak " in printed
    assert len(list(tmp_path.glob("profile/plugins/profile/*/*.pb"))) == 1
    assert not (tmp_path / "run-0").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method=ats-1000"], "Cannot draw 1000 different cells"),
        (["--dataset=nowhere"], "The data set is not there"),
        (["--scale=0.02"], "The view is too small for the attention network"),
        (["--on-demand", "--method=cnn-1"], "Expected: --method ats-N or u-N"),
    ],
)
def test_bad_settings_stop_before_training(example, scenes, tmp_path, more, message):
    assert message in refuse(example, small_run(scenes, tmp_path / "run", *more))
    assert not (tmp_path / "run" / "run-0").exists()


def test_an_error_is_one_line(example, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--dataset=nowhere"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(EXAMPLES / "speed_limits.py"), run_name="__main__")
    assert caught.value.code.startswith("error: The data set is not there")
    assert "\n" not in caught.value.code


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--patch-size=0"], "--patch-size must be positive"),
        (["--scale=2"], "--scale must be above 0 and at most 1"),
        (["--block-strides=2,0"], "whole numbers above 0, such as 2,2,2"),
        (["--entropy=nan"], "--entropy must be at least 0 and finite"),
        (["--resume", "--overwrite"], "not allowed with argument --resume"),
        (["--download"], "--download needs --dataset DIR"),
        (["--start-from=x", "--method=u-3"], "--start-from needs --method ats-N"),
        (["--start-from=nowhere"], "--start-from is no file: nowhere"),
        (["--test-fraction=0"], "--test-fraction must be above 0 and below 1"),
        (["--test-fraction=1"], "--test-fraction must be above 0 and below 1"),
        # Once meant: from the attention alone.
        (["--mix-epochs=0"], "--mix-epochs 0 needs --mix: 0 to draw from the"),
        (["--dataset=x", "--mix-epochs=3"], "--mix-epochs 3 needs --mix"),
    ],
)
def test_options_out_of_range_are_refused(example, capsys, more, message):
    with pytest.raises(SystemExit):
        parse(example, more)
    assert message in " ".join(capsys.readouterr().err.split())


def test_settings_are_those_of_scenes_photographs_or_the_paper(example):
    drawn = parse(example, ["--mix-epochs=7"])
    assert (str(drawn.method), drawn.mix, drawn.mix_epochs) == ("ats-6", 1, 7)
    assert (drawn.patch_size, drawn.scale, drawn.batch_size) == (64, 0.25, 8)
    assert (drawn.first_stride, drawn.block_strides) == (2, "1,2,2,2")
    assert (drawn.epochs, drawn.learning_rate, drawn.entropy) == (28, 2e-3, 0.01)
    assert parse(example, ["--mix=1", "--mix-epochs=0"]).mix_epochs == 0
    photographs = parse(example, ["--dataset=x", "--mix-epochs=0"])
    assert (str(photographs.method), photographs.mix) == ("ats-5", 0)
    paper = parse(example, ["--dataset=x", "--paper"])
    assert (paper.mix, paper.estimator, paper.center) == (0, "ordered", False)
    assert (paper.clip, photographs.clip) == ("global", "weight")
    # Of the paper's images they make the task of the paper.
    task, published = example.build_task(paper, (960, 1280), 4), TASKS["speed_limits"]
    for name in ("image_shape", "view_size", "patch_size", "grid_size", "n_classes"):
        assert getattr(task, name) == getattr(published, name)
    networks = [
        made.feature(made.patch_shape, center=True) for made in (task, published)
    ]
    assert networks[0].count_params() == networks[1].count_params()
    assert task.feature(task.patch_shape).count_params() < networks[0].count_params()


def test_a_training_that_diverges_says_so_and_keeps_no_model(example, scenes, tmp_path):
    more = ["--learning-rate=1e38", "--epochs=1"]
    message = refuse(example, small_run(scenes, tmp_path, *more))
    assert message.startswith("The training diverged")
    assert not list(tmp_path.rglob("model.keras"))
    assert not (tmp_path / "metrics.json").exists()


def test_on_demand_trains_goes_on_and_draws(example, scenes, tmp_path, capsys):
    arguments = small_run(scenes, tmp_path, "--on-demand")
    arguments.append("--decay=0")
    run(example, [*arguments, "--epochs=1", "--pictures=0"])
    run(example, [*arguments, "--epochs=2", "--pictures=2", "--resume"])
    assert "Going on after epoch 1." in capsys.readouterr().out
    metrics = read_metrics(tmp_path)
    assert metrics["mean"]["epochs"] == 2
    assert metrics["settings"]["on_demand"] is True
    assert len(list(tmp_path.glob("pictures/*.png"))) == 4
    assert len(list(tmp_path.glob("views/*.npz"))) == 32
    assert load_model(tmp_path).input_shape == [(None, 72, 96, 3), (None,)]


def load(example, scenes, output, *more):
    experiment = example.load_experiment(
        parse(example, small_run(scenes, output, *more)), output
    )
    [split] = experiment.splits(0)
    return experiment, split


def test_on_demand_shows_the_same_scenes(example, scenes, tmp_path):
    both = []
    for more in ([], ["--on-demand"]):
        experiment, split = load(example, scenes, tmp_path, *more)
        images = split.test.choose(np.arange(8)[::-1])
        batches = images.batches(("view", "image"), 3)
        shown = [item for inputs, _ in batches for item in zip(*inputs, strict=True)]
        if more:
            shown = [
                (
                    view,
                    experiment.source.read_patches([number], [(0, 0)], (240, 320))[0],
                )
                for view, number in shown
            ]
        labels = [int(label) for _, batch in batches for label in batch]
        assert labels == list(images.labels) == list(split.test.labels)[::-1]
        both.append([(*item, images.picture(n)) for n, item in enumerate(shown)])
    for (view, pixels, picture), (other_view, other_pixels, other) in zip(
        *both, strict=True
    ):
        # Two decoders of JPEG, one of them coarse.
        assert np.abs(other_view - view).mean() < 2
        for image in (pixels.numpy(), other_pixels):
            assert image.shape == picture.image.shape
            assert np.abs(image.astype(int) - picture.image).mean() < 2
        assert picture.name == other.name
        assert picture.boxes == other.boxes


def test_pictures_have_the_boxes_of_the_signs(example, scenes, tmp_path):
    _, split = load(example, scenes, tmp_path)
    for number, label in enumerate(split.test.labels):
        picture = split.test.picture(number)
        assert len(picture.boxes) == (label != 0)
        for top, left, bottom, right in picture.boxes:
            assert 0 <= top < bottom <= 240
            assert 0 <= left < right <= 320
            # A sign is red around and bright inside.
            sign = picture.image[top:bottom, left:right].astype(int)
            assert (sign[..., 0] - sign[..., 2]).max() > 60


@pytest.mark.parametrize("more", [[], ["--on-demand"]])
def test_training_scenes_alone_are_shuffled(example, scenes, tmp_path, more):
    _, split = load(example, scenes, tmp_path, *more)
    views = np.concatenate(
        [inputs[0] for inputs, _ in split.train.batches(("view", "image"), 8)]
    )

    def order(seed=None):
        """Return which view each is most like; augmentation does not hide it."""
        batches = split.train.batches(("view", "image"), 8, seed)
        shown = np.concatenate([inputs[0] for inputs, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        distances = np.abs(shown[:, None] - views).mean(axis=(2, 3, 4))
        return shown, labels, distances.argmin(axis=1)

    plain, labels, places = order()
    np.testing.assert_array_equal(places, np.arange(24))
    np.testing.assert_array_equal(labels, split.train.labels)
    shown, shuffled, places = order(3)
    np.testing.assert_array_equal(order(3)[1], shuffled)
    assert not np.array_equal(order(4)[1], shuffled)
    assert sorted(shuffled) == sorted(labels)
    if more:  # as they are
        np.testing.assert_array_equal(shown, plain[places])
        assert sorted(places) == list(range(24))
    else:
        assert not any((view == views).all(axis=(1, 2, 3)).any() for view in shown)


@pytest.mark.parametrize("method", [*TASKS["speed_limits"].methods, "deep-mil-gated"])
def test_every_method_takes_the_batches(example, scenes, tmp_path, method):
    training = importlib.import_module("experiment_training")
    experiment, split = load(example, scenes, tmp_path)
    arguments = parse(example, small_run(scenes, tmp_path, f"--method={method}"))
    model = training.build_compiled_model(arguments, experiment.task, None, 24, seed=0)
    inputs, labels = next(iter(split.train.batches(arguments.method.inputs, 2, 0)))
    np.testing.assert_allclose(np.sum(model(inputs), axis=1), [1, 1], rtol=1e-5)
    assert labels.dtype == "int32"


def test_patches_larger_than_the_images_are_refused(example):
    arguments = parse(example, ["--patch-size=241"])
    with pytest.raises(
        ValueError, match=r"at least as large as patch_size=\(241, 241\)"
    ):
        example.build_task(arguments, (240, 320), 4)


@pytest.mark.parametrize(
    "more", [[], ["--dataset=x"], ["--block-strides=1,2", "--first-stride=4"]]
)
def test_the_network_on_whole_images_is_that_on_patches(example, more):
    arguments = parse(example, more)
    task = example.build_task(arguments, (240, 320), 4)
    patches = build_model(task, "ats-5").get_layer("feature")
    whole = build_model(task, "cnn-0.5").get_layer("cnn")
    strides, kernels = zip(
        *(
            [
                [layer.strides for layer in network.layers if is_convolution(layer)],
                [
                    layer.kernel.shape
                    for layer in network.layers
                    if is_convolution(layer)
                ],
            ]
            for network in (patches, whole)
        ),
        strict=True,
    )
    assert strides[0] == strides[1]
    assert kernels[0] == kernels[1]
    assert strides[0][0] == (arguments.first_stride,) * 2


def is_convolution(layer):
    return isinstance(layer, keras.layers.Conv2D)


def test_augmentations_are_independent(example):
    augment = importlib.import_module("road_images").build_augmentation(0)
    grey = np.full((8, 8, 3), 100, "float32")
    grey[:4] = 140
    images = np.stack([np.asarray(augment(grey)) for _ in range(60)])
    contrast, light = images.std(axis=(1, 2, 3)), images.mean(axis=(1, 2, 3))
    stretch = contrast / 20  # grey levels from the mean
    assert 0.79 < stretch.min() < 0.87
    assert 1.13 < stretch.max() < 1.21
    shift = (light - 120) / 255
    assert -0.11 < shift.min() < -0.05
    assert 0.05 < shift.max() < 0.11
    assert abs(np.corrcoef(contrast, light)[0, 1]) < 0.5


def test_a_broken_image_is_named_before_training(example, scenes, tmp_path):
    broken = tmp_path / "scenes"
    shutil.copytree(scenes, broken)
    image = broken / "images" / "00003.jpg"
    image.write_bytes(image.read_bytes()[:3000])
    message = refuse(example, small_run(broken, tmp_path / "run"))
    assert "1 of 32 images cannot be decoded" in message
    assert str(image) in message


def test_an_annotation_that_does_not_parse_is_named(example, scenes, tmp_path):
    broken = tmp_path / "scenes"
    shutil.copytree(scenes, broken)
    lines = (broken / "gt.txt").read_text().splitlines()
    lines[4] = "00001.jpg;12;x;3"
    (broken / "gt.txt").write_text("\n".join(lines))
    message = refuse(example, small_run(broken, tmp_path / "run"))
    assert f"{broken / 'gt.txt'}, line 5 does not parse" in message
