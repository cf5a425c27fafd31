import dataclasses
import json
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
from attention_sampling.tasks import TASKS, build_model, parse_method

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

    def pretend(step):
        turn = (len(calls)) // 2
        whole = len(step.model.inputs[1].shape) == 4  # an image, no patches
        calls.append(whole)
        step()
        ratio = (1.02, 1.04, 1.06, 1.08, 1.10)[turn] if whole else 1.0
        return Seconds(0.1 * ratio * noise[turn], 0.2 * (1.5 if whole else 1))

    monkeypatch.setattr(overhead_steps, "seconds_of", pretend)
    row = measure_overhead(SMALL, parse_method("ats-3"), 2, steps=5, warmup=1)
    assert row["ratio"] == pytest.approx(1.06)
    assert row["ratio_low"] == pytest.approx(1.04)
    assert row["ratio_high"] == pytest.approx(1.08)
    assert row["processor_ratio"] == pytest.approx(1.5)
    assert row["bare_ms"] == pytest.approx(100)
    assert row["step_ms"] == pytest.approx(108)
    assert row["limit"] == "<= 1.05 MISSED"
    assert (row["method"], row["batch_size"]) == ("ats-3", 2)
    assert calls == [False, True, True, False] * 2 + [False, True]


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
