"""Time and memory a sample: the command as a process, and what is measured of a model."""

import argparse
import json
from pathlib import Path

import keras
import pytest
from processes import COMMANDS
from processes import run as run_process

import attention_sampling as ats
from attention_sampling.experiments.cost.command import add_arguments, run
from attention_sampling.experiments.cost.models import BARE, build, build_bare_networks
from attention_sampling.experiments.tasks import TASKS
from attention_sampling.files import one_process


def small_model(image_size=(40, 40), view_size=(10, 10)):
    """Return a functional model of attention sampling, whose attention is flat."""
    attention = keras.Sequential(
        [
            keras.layers.Conv2D(16, 3, padding="same"),
            keras.layers.Conv2D(1, 3, kernel_initializer="zeros"),
            ats.SampleSoftmax(squeeze_channels=True),
        ]
    )
    feature = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    view = keras.Input((*view_size, 3))
    image = keras.Input((*image_size, 3), dtype="uint8")
    layer = ats.attention_sampling(attention, feature, n_patches=4)
    label = keras.layers.Dense(2, activation="softmax")(layer([view, image])[0])
    return keras.Model([view, image], label)


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def measure(*words):
    """Run the command as a user does; return what it printed."""
    words = [*COMMANDS, "experiments", "cost", *words]
    code, printed, errors = run_process(*words, timeout=600)
    assert code == 0, errors
    return printed


def check_files(output, name, methods):
    """Check what the command wrote; return the rows by method."""
    record = json.loads((output / f"{name}.json").read_text())
    rows = {row["method"]: row for row in record["rows"]}
    assert list(rows) == methods
    for row in rows.values():
        assert row["reason"] is None
        assert row["steps"] >= 3
        assert 0 < row["ms_low"] <= row["ms_per_sample"] <= row["ms_high"]
        assert row["allocator_mb_per_sample"] > 0
        assert row["time_ratio"] > 0
    reference = rows[record["reference"]]
    assert reference["time_ratio"] == reference["allocator_ratio"] == 1
    lines = (output / f"{name}.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["method", *methods]
    assert (output / f"{name}.png").stat().st_size > 1000
    assert "experiments cost" in record["command"]
    assert record["versions"]["keras"] == keras.__version__
    return rows


@pytest.mark.slow
def test_a_model_of_ones_own_beside_its_two_networks(tmp_path):
    small_model((400, 400), (200, 200)).save(tmp_path / "my.keras")
    printed = measure(
        *("--model", tmp_path / "my.keras", "--batch-size", 2, "--steps", 1),
        *("--output", tmp_path / "out"),
    )
    check_files(tmp_path / "out", "cost-my", ["my.keras", BARE])
    assert "time ratio" in printed


@pytest.mark.slow
def test_the_methods_of_a_task(tmp_path):
    words = ("--task", "colon_cancer", "--methods", "u-10,cnn-0.5", "--steps", 6)
    (tmp_path / "cost-colon_cancer.json").write_text("an earlier measurement")
    measure(*words, "--output", tmp_path)
    methods = ["u-10", "cnn-0.5", "ats-10", BARE]
    rows = check_files(tmp_path, "cost-colon_cancer", methods)
    assert rows["cnn-0.5"]["allocator_ratio"] > 2
    assert rows["cnn-0.5"]["resident_mb_per_sample"] > 20


def test_memory_is_that_of_the_activations():
    from attention_sampling.experiments.cost.process import ForwardBackward, Measurement

    image = keras.Input((64, 64, 3))
    convolved = keras.layers.Conv2D(32, 3, padding="same")(image)
    model = keras.Model(image, keras.layers.GlobalMaxPooling2D()(convolved))
    measurement = Measurement.__new__(Measurement)
    measurement._step = ForwardBackward(model, 8)
    for _ in range(2):
        steps = measurement.take_turn()
    # The convolution's output is kept for its gradient: floats of 64 x 64 x 32.
    least = 8 * 64 * 64 * 32 * 4 / 1e6
    assert all(least <= step.peak < 10 * least for step in steps)
    assert all(step.seconds > 0 for step in steps)


@pytest.mark.slow
def test_too_little_memory_is_a_memory_error():
    from attention_sampling.experiments.cost import process

    with pytest.raises(MemoryError):
        process.prepare("ats-10", "colon_cancer", "ats-10", 10**8)


@pytest.mark.parametrize("task", list(TASKS))
def test_bare_networks_see_the_view_and_as_many_patches(task):
    reference = TASKS[task].reference
    bare = build(BARE, task, reference)
    view, patches = (tuple(x.shape[1:]) for x in bare.inputs)
    size, channels = TASKS[task].patch_size, TASKS[task].image_shape[-1]
    assert view == (*TASKS[task].view_size, channels)
    assert patches == (int(reference.split("-")[1]), *size, channels)
    full = build(reference, task, reference)
    of_classifier = full.layers[-1].count_params()
    assert bare.count_params() == full.count_params() - of_classifier


def test_bare_networks_train_both_networks():
    bare = build_bare_networks(small_model())
    view, patches = keras.ops.ones((2, 10, 10, 3)), keras.ops.ones((2, 4, 8, 8, 3))
    # Flat attention: 4 of 64 cells, features of ones.
    features = keras.ops.convert_to_numpy(bare([view, patches]))
    assert features == pytest.approx(4 / 64)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--task", "colon_cancer", "--batch-size", "0"],
            "--batch-size must be at least 1",
        ),
        (["--task", "colon_cancer", "--steps", "0"], "--steps must be at least 1"),
        (["--task", "colon_cancer", "--methods", "best"], "No such method"),
        (["--model", "small", "--methods", "ats-10"], "Received: --methods ats-10"),
        (["--model", "missing.keras"], "There is no file missing.keras"),
        (["--model", "unknown"], "keras.Input with known sizes"),
        (["--model", "subclassed"], "Expected: keras.Model"),
        (["--model", "text"], "text.keras"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "--model" in words and words[1] != "missing.keras":
        name, words[1] = words[1], f"{words[1]}.keras"
        if name == "text":
            Path(words[1]).write_text("no model")
        elif name == "subclassed":
            model = keras.saving.register_keras_serializable("test_cost")(Subclassed)()
            model(keras.ops.ones((1, 2)))
            model.save(words[1])
        else:
            size = {"small": (40, 40), "unknown": (None, None)}[name]
            small_model(size).save(words[1])
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises((ValueError, OSError), match=message):
        run(parser.parse_args(words))


def test_a_second_process_on_the_same_output_ends_at_once(tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["--task", "colon_cancer", "--output", str(tmp_path)]
    with one_process(tmp_path), pytest.raises(BlockingIOError):
        run(parser.parse_args(words))
