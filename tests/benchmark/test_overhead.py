import dataclasses
import json
import os
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from attention_sampling.benchmark import __main__ as benchmark
from attention_sampling.benchmark import processes
from attention_sampling.benchmark.overhead import command as overhead
from attention_sampling.benchmark.overhead import steps as overhead_steps
from attention_sampling.benchmark.overhead.steps import bare_networks, measure_overhead
from attention_sampling.benchmark.processes import Seconds
from attention_sampling.benchmark.report.files import read_measurements
from attention_sampling.experiments.tasks import TASKS, build_model, parse_method

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the steps are TensorFlow's"
)
SMALL = dataclasses.replace(
    TASKS["colon_cancer"],
    image_shape=(60, 64, 3),
    view_size=(20, 24),
    patch_size=(12, 13),
)


@pytest.mark.parametrize("name", list(TASKS))
def test_bare_networks_have_the_same_weights(name):
    task = TASKS[name]
    whole = build_model(task, task.reference)
    bare = bare_networks(task, parse_method(task.reference))
    shapes = [
        sorted(tuple(weight.shape) for weight in model.trainable_weights)
        for model in (whole, bare)
    ]
    assert shapes[0] == shapes[1]
    assert bare.output_shape == whole.output_shape


@on_tensorflow
def test_in_order_the_patches_wait_for_the_attention():
    import tensorflow as tf

    values = [
        np.ones((2, *SMALL.view_shape), "float32"),
        np.ones((2, 3, *SMALL.patch_shape), "uint8"),
    ]
    answers = []
    for in_order in (False, True):
        keras.utils.set_random_seed(0)
        model = bare_networks(SMALL, parse_method("ats-3"), in_order)
        answers.append(model.predict(values, verbose=0))
        graph = tf.function(model).get_concrete_function(values).graph
        waiting = [node for node in graph.get_operations() if "wait" in node.name]
        waited_for = [source.name for node in waiting for source in node.control_inputs]
        assert len(waited_for) == in_order  # the map as a row
        assert all("Reshape" in name for name in waited_for)
    np.testing.assert_array_equal(*answers)


def test_bare_networks_are_trained_by_one_loss():
    model = bare_networks(SMALL, parse_method("ats-3"))
    assert not model.losses
    model.compile(keras.optimizers.SGD(1e3), "sparse_categorical_crossentropy")
    before = model.get_weights()
    rng = np.random.default_rng(0)
    view = rng.uniform(0, 255, (4, *SMALL.view_shape))
    patches = rng.integers(256, size=(4, 3, *SMALL.patch_shape), dtype="uint8")
    model.train_on_batch([view, patches], np.array([0, 1, 1, 1]))
    unchanged = [
        weight.path
        for weight, x, y in zip(model.weights, before, model.get_weights(), strict=True)
        if np.array_equal(x, y)
    ]
    # A softmax does not see a constant added to all scores.
    assert len(unchanged) <= 1, unchanged


@on_tensorflow
def test_ratio_is_of_pairs_of_steps(monkeypatch):
    calls = []
    noise = [1, 1, 30, 1, 2]
    ratios = (1.02, 1.04, 1.06, 1.08, 1.10)

    def pretend(step):
        turn = len(calls) // 3
        names = [type(layer).__name__ for layer in step.model.layers]
        whole = len(step.model.inputs[1].shape) == 4  # an image, no patches
        calls.append("whole" if whole else "in order" if "_Wait" in names else "bare")
        step()
        factor = {"whole": ratios[turn], "bare": 1.0, "in order": 1.06}[calls[-1]]
        return Seconds(0.1 * factor * noise[turn], 0.2 * (1.5 if whole else 1))

    monkeypatch.setattr(overhead_steps, "seconds_of", pretend)
    row = measure_overhead(SMALL, parse_method("ats-3"), 2, steps=5, warmup=1)
    assert row["ratio"] == pytest.approx(1.06)
    assert row["ratio_low"] == pytest.approx(1.04)
    assert row["ratio_high"] == pytest.approx(1.08)
    assert row["processor_ratio"] == pytest.approx(1.5)
    assert row["in_order_ratio"] == pytest.approx(1.0)
    assert row["bare_ms"] == pytest.approx(100)
    assert row["step_ms"] == pytest.approx(108)
    assert row["limit"] == "<= 1.05 MISSED"
    assert (row["method"], row["batch_size"]) == ("ats-3", 2)
    turns = [calls[at : at + 3] for at in range(0, 15, 3)]
    assert all(set(turn) == {"whole", "bare", "in order"} for turn in turns)
    assert len(set(map(tuple, turns))) > 2


@on_tensorflow
def test_command_writes_what_the_report_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, "start_process", lambda: ThreadPoolExecutor(1))
    ratios = {"megapixel_mnist": 1.01, "speed_limits": 1.2}

    def pretend(task, method, batch_size, steps, warmup):
        assert (batch_size, steps, warmup) == (16, 7, 5)
        return {
            "task": task.name,
            "method": str(method),
            "batch_size": batch_size,
            "step_ms": 10.0,
            "bare_ms": 9.0,
            "ratio": ratios[task.name],
            "ratio_low": 1.0,
            "ratio_high": 1.3,
            "processor_ratio": 1.1,
            "in_order_ratio": 1.0,
            "limit": overhead_steps.at_most(ratios[task.name], 1.05),
        }

    monkeypatch.setattr(overhead, "measure_overhead", pretend)
    words = ["--tasks", "megapixel_mnist,speed_limits", "--steps", "7"]
    benchmark.main(["overhead", *words, "--output", str(tmp_path / "made")])
    (measurement,) = read_measurements(tmp_path / "made")
    assert measurement.kind == "overhead"
    rows = measurement.content["rows"]
    assert [row["method"] for row in rows] == ["ats-10", "ats-5"]
    assert [row["limit"] for row in rows] == ["<= 1.05 PASS", "<= 1.05 MISSED"]
    assert "--tasks megapixel_mnist,speed_limits" in measurement.content["command"]
    assert str(tmp_path) not in json.dumps(measurement.content)
    assert (tmp_path / "made" / "overhead.csv").is_file()
    printed = capsys.readouterr().out
    assert "Limits met: 1 of 2" in printed
    assert "MISSED: overhead: speed_limits, ats-5, batch_size = 16" in printed
    before = (tmp_path / "made" / "overhead.json").read_bytes()
    with pytest.raises(
        ValueError, match=r"earlier measurement. Replace it by --overwrite"
    ):
        benchmark.main(["overhead", "--output", str(tmp_path / "made")])
    assert (tmp_path / "made" / "overhead.json").read_bytes() == before
    words = ["--tasks", "speed_limits", "--steps", "7", "--overwrite"]
    benchmark.main(["overhead", *words, "--output", str(tmp_path / "made")])
    (measurement,) = read_measurements(tmp_path / "made")
    assert [row["method"] for row in measurement.content["rows"]] == ["ats-5"]


def die(*arguments):
    os._exit(1)


def forget(*arguments):
    raise MemoryError


@on_tensorflow
@pytest.mark.parametrize("end", [die, forget])
def test_a_process_that_dies_is_named(monkeypatch, tmp_path, end):
    monkeypatch.setattr(overhead, "measure_overhead", end)
    with pytest.raises(
        ChildProcessError, match=r"colon_cancer: the process.*batch_size=3"
    ):
        benchmark.main(
            [
                "overhead",
                "--tasks=colon_cancer",
                "--batch-size=3",
                f"--output={tmp_path}",
            ]
        )
    assert not (tmp_path / "overhead.json").exists()


@on_tensorflow
@pytest.mark.parametrize("option", ["--steps", "--warmup", "--batch-size"])
def test_command_refuses_what_is_out_of_range(option, tmp_path):
    with pytest.raises(ValueError, match=f"{option} must be at least 1. Received: 0"):
        benchmark.main(["overhead", "--output", str(tmp_path / "none"), option, "0"])
    assert not (tmp_path / "none").exists()


def test_command_line_says_what_it_expects(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["overhead", "--tasks", "mnist"])
    assert "expected some of megapixel_mnist" in capsys.readouterr().err
