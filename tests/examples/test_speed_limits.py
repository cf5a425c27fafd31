"""The example, with small settings, as a person runs it."""

import csv
import importlib.util
import json
import os
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

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "the example is written for the TensorFlow backend", allow_module_level=True
    )

EXAMPLE = Path(__file__).parents[2] / "examples" / "speed_limits.py"
SMALL = ["--n-patches=2", "--patch-size=32", "--first-stride=2", "--batch-size=8"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "scenes"
    write_road_scenes(directory, n_images=32, size=(240, 320), progress=False)
    return directory


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE.parent)  # as for a script
    spec = importlib.util.spec_from_file_location("speed_limits_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "error::UserWarning:keras", EXAMPLE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MPLBACKEND": "agg"},
    )


def run(*arguments, code=0):
    process = start(*arguments)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == code, output + errors
    return output if code == 0 else errors.strip().splitlines()[-1]


def small_run(scenes, output, *more):
    return [f"--dataset={scenes}", f"--output={output}", *SMALL, *more]


def read_log(output):
    with (output / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "finished"
    printed = run(*small_run(scenes, output, "--epochs=2", "--pictures=3"))
    return output, printed


def test_leaves_scores_log_model_tensorboard_and_pictures(finished):
    output, printed = finished
    assert "24 training and 8 test images of 320 x 240 pixels" in printed
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["epochs"] == 2
    assert metrics["test_error"] == pytest.approx(1 - metrics["test_accuracy"])
    assert metrics["most_frequent_class_error"] == 0.75
    assert metrics["classes"] == ["empty", "50", "70", "80"]
    assert metrics["settings"]["patch_size"] == 32
    rows = read_log(output)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert metrics["seconds"] == pytest.approx(sum(float(r["seconds"]) for r in rows))
    assert metrics["test_accuracy"] <= 1
    assert list((output / "tensorboard").glob("validation/events.*"))
    pictures = sorted((output / "pictures").iterdir())
    assert len(pictures) == 3
    for picture in [*pictures, output / "curve.png"]:
        with Image.open(picture) as image:
            assert min(image.size) > 300
    assert not list(output.rglob("*part*"))


def test_its_model_predicts_without_the_example(finished):
    model = keras.saving.load_model(finished[0] / "model.keras")
    _, view, image = model.input_shape[0], *(shape[1:] for shape in model.input_shape)
    answer = model.predict(
        [np.zeros((1, *view), "float32"), np.zeros((1, *image), "uint8")], verbose=0
    )
    np.testing.assert_allclose(answer.sum(), 1, rtol=1e-5)


def test_a_run_is_not_overwritten_by_accident(finished, scenes):
    output, _ = finished
    before = (output / "model.keras").read_bytes()
    line = run(*small_run(scenes, output, "--epochs=2"), code=1)
    assert line.startswith(f"error: {output} holds a run. Go on with it by --resume")
    line = run(*small_run(scenes, output, "--resume", "--seed=5"), code=1)
    assert "has other settings: --seed was 0, is 5" in line
    assert (output / "model.keras").read_bytes() == before


def test_a_killed_run_goes_on(scenes, tmp_path):
    output = tmp_path / "killed"
    arguments = small_run(scenes, output, "--epochs=4", "--pictures=1")
    process = start(*arguments)
    deadline = time.monotonic() + 240
    while not (output / "model.keras").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.2)  # into the next epoch
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(read_log(output))
    assert 1 <= done < 4
    # As if killed while a row was being written.
    with (output / "log.csv").open("a") as file:
        file.write("9,0.1")
    printed = run(*arguments, "--resume")
    assert "Going on after epoch" in printed
    assert [row["epoch"] for row in read_log(output)] == ["0", "1", "2", "3"]
    assert json.loads((output / "metrics.json").read_text())["epochs"] == 4
    model = keras.saving.load_model(output / "model.keras")
    assert int(model.optimizer.iterations) == 4 * 3
    # Once more, for longer: nothing is trained again.
    printed = run(*small_run(scenes, output, "--epochs=5", "--resume", "--pictures=0"))
    assert "Going on after epoch 4" in printed
    assert len(read_log(output)) == 5
    line = run(*small_run(scenes, output, "--epochs=2", "--resume"), code=1)
    assert f"{output} has 5 epochs already" in line
    assert len(read_log(output)) == 5


def test_starts_from_the_networks_of_another_run(finished, scenes, tmp_path):
    donor = finished[0] / "model.keras"
    arguments = small_run(scenes, tmp_path / "run", f"--start-from={donor}")
    run(*arguments, "--epochs=1", "--learning-rate=0", "--pictures=0")
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    donor = keras.saving.load_model(donor)
    for name in ("attention", "feature"):
        ours, theirs = (m.get_layer(name).trainable_variables for m in (model, donor))
        for our, their in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(our, their)


def test_networks_of_another_kind_are_refused(finished, scenes, tmp_path):
    other = tmp_path / "other.keras"
    view = keras.Input((None, None, 3))
    attention = keras.layers.Conv2D(2, 3, name="attention")(view)
    keras.Model(view, attention).save(other)
    arguments = small_run(scenes, tmp_path / "run", f"--start-from={other}")
    line = run(*arguments, code=1)
    assert not (tmp_path / "run").exists()
    assert "other.keras" in line or "first-stride" in line


def test_profile_prints_time_and_memory(scenes, tmp_path):
    printed = run(*small_run(scenes, tmp_path / "profile", "--profile"))
    assert " ms and " in printed
    assert " MB a sample, peak " in printed
    assert len(list(tmp_path.glob("profile/profile/plugins/profile/*/*.pb"))) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--n-patches=1000"], "Cannot draw 1000 different cells"),
        (["--test-fraction=2"], "`test_fraction` is out of range"),
        (["--dataset=nowhere"], "The data set is not there"),
        (["--scale=0.02"], "The view is too small for the attention network"),
    ],
)
def test_bad_settings_stop_before_training(scenes, tmp_path, more, message):
    line = run(*small_run(scenes, tmp_path / "run", *more), code=1)
    assert message in line
    assert not (tmp_path / "run" / "log.csv").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--patch-size=0"], "--patch-size must be positive"),
        (["--entropy=nan"], "--entropy must be at least 0 and finite"),
        (["--resume", "--overwrite"], "not allowed with argument --resume"),
    ],
)
def test_options_out_of_range_are_refused(scenes, tmp_path, more, message):
    line = run(*small_run(scenes, tmp_path / "run", *more), code=2)
    assert line.endswith(message)


def test_a_training_that_diverges_says_so_and_keeps_no_model(scenes, tmp_path):
    arguments = small_run(scenes, tmp_path / "run", "--learning-rate=1e38")
    line = run(*arguments, "--epochs=1", code=1)
    assert line.startswith("error: The training diverged")
    assert not (tmp_path / "run" / "model.keras").exists()
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_on_demand_trains_goes_on_and_draws(scenes, tmp_path):
    arguments = small_run(scenes, tmp_path / "run", "--on-demand")
    run(*arguments, "--epochs=1", "--pictures=0")
    printed = run(*arguments, "--epochs=2", "--pictures=2", "--resume")
    assert "Going on after epoch 1." in printed
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["epochs"] == 2
    assert metrics["settings"]["on_demand"] is True
    assert len(list(tmp_path.glob("run/pictures/*.png"))) == 2
    assert len(list(tmp_path.glob("run/views/*.npz"))) == 32
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    assert model.input_shape == [(None, 72, 96, 3), (None,)]


def test_on_demand_shows_the_same_scenes(example, scenes, tmp_path):
    both = []
    for more in ([], ["--on-demand"]):
        arguments = example.parse_arguments(small_run(scenes, tmp_path, *more))
        data, size = example.load_data(arguments, tmp_path)
        images = example.Images(arguments, data, size, tmp_path)
        samples = data.test[::-1]
        batches = images.batches(samples).unbatch()
        both.append(
            [(view, images.pixels(image), label) for (view, image), label in batches]
        )
        labels = [int(label) for *_, label in both[-1]]
        assert labels == [sample.label for sample in samples]
    for (view, pixels, _), (other_view, other_pixels, _) in zip(*both, strict=True):
        # Two decoders of JPEG, one of them coarse.
        assert np.abs(other_view - view).mean() < 2
        assert pixels.shape == other_pixels.shape
        assert np.abs(pixels.astype(int) - other_pixels).mean() < 2


def test_on_demand_shuffles_the_training_scenes_only(example, scenes, tmp_path):
    arguments = example.parse_arguments(small_run(scenes, tmp_path, "--on-demand"))
    data, size = example.load_data(arguments, tmp_path)
    images = example.Images(arguments, data, size, tmp_path)

    def order(*seed):
        batches = images.batches(data.train, *seed)
        return [int(number) for (_, numbers), _ in batches for number in numbers]

    assert order() == list(range(len(data.train)))
    assert order(3) == order(3) != order(4)
    assert sorted(order(3)) == order()


def test_augmentations_are_independent(example):
    augment = example.build_augmentation(0)
    grey = np.full((8, 8, 3), 100, "float32")
    grey[:4] = 140
    images = np.stack([np.asarray(augment(grey)) for _ in range(60)])
    contrast, light = images.std(axis=(1, 2, 3)), images.mean(axis=(1, 2, 3))
    assert contrast.std() > 1
    assert light.std() > 5
    assert abs(np.corrcoef(contrast, light)[0, 1]) < 0.5


def test_a_broken_image_is_named_before_training(scenes, tmp_path):
    broken = tmp_path / "scenes"
    shutil.copytree(scenes, broken)
    image = broken / "images" / "00003.jpg"
    image.write_bytes(image.read_bytes()[:3000])
    line = run(*small_run(broken, tmp_path / "run"), code=1)
    assert "1 of 32 images cannot be decoded" in line
    assert str(image) in line


def test_an_annotation_that_does_not_parse_is_named(scenes, tmp_path):
    broken = tmp_path / "scenes"
    shutil.copytree(scenes, broken)
    lines = (broken / "gt.txt").read_text().splitlines()
    lines[4] = "00001.jpg;12;x;3"
    (broken / "gt.txt").write_text("\n".join(lines))
    line = run(*small_run(broken, tmp_path / "run"), code=1)
    assert f"{broken / 'gt.txt'}, line 5 does not parse" in line
