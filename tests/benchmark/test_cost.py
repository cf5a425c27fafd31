import csv
import dataclasses
import json
import os
from concurrent.futures.process import BrokenProcessPool

import keras
import numpy as np
import pytest
from PIL import Image

from attention_sampling.benchmark import __main__ as benchmark
from attention_sampling.benchmark import processes
from attention_sampling.benchmark.cost import command as cost
from attention_sampling.benchmark.cost import device as cost_device
from attention_sampling.benchmark.cost import measurement as cost_measurement
from attention_sampling.benchmark.cost import process as cost_process
from attention_sampling.benchmark.cost.figures import draw_costs
from attention_sampling.benchmark.cost.measurement import Effort, measure_batch
from attention_sampling.benchmark.cost.process import Memory, Step
from attention_sampling.benchmark.cost.rows import Cost, cost_row, format_costs
from attention_sampling.benchmark.report.files import read_measurements
from attention_sampling.benchmark.steps import BackwardPass, TrainingStep
from attention_sampling.experiments.tasks import TASKS, build_model, parse_method

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the steps are TensorFlow's"
)
SMALL = dataclasses.replace(
    TASKS["colon_cancer"],
    image_shape=(60, 64, 3),
    view_size=(20, 24),
    patch_size=(12, 13),
    grid_size=(2, 3),
)
# Where nothing is computed, sizes do not matter.
PAPER = TASKS["colon_cancer"]


class Fake:
    """A process that only says what it did."""

    def __init__(self, calls, script):
        self.calls, self.script = calls, script
        self.method = None
        self.turn = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.calls.append(("ended", self.method))

    def submit(self, function, *arguments):
        if function is cost_process.prepare:
            _, method, batch_size, _ = arguments
            self.method, self.batch_size = str(method), batch_size
        self.calls.append((function.__name__, self.method, self.batch_size))
        self.value = self.script(function, self.method, self.batch_size, self.turn)
        self.turn += function is cost_process.take_turn
        return self

    def result(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.fixture
def fake(monkeypatch):
    """Replace the processes, and return what they are called with."""

    def replace(script):
        calls = []
        monkeypatch.setattr(
            processes, "start_process", lambda limit=None: Fake(calls, script)
        )
        return calls

    monkeypatch.setattr(cost_device, "device", lambda: "CPU:0")
    return replace


def scripted(took, peaks=None, noise=(1, 40, 2)):
    """Return a script of steps that all suffer from the same noise."""
    peaks = peaks or dict.fromkeys(took, 8.0)

    def script(function, method, batch_size, turn):
        if function is cost_process.take_turn:
            seconds = took[method] * noise[turn % len(noise)]
            step = Step(seconds, 2 * took[method], peaks[method] * batch_size)
            # An interruption of one step of the turn.
            return [step, step._replace(wall=100.0), step]
        if function is cost_process.end:
            return Memory(3.0, 2 * peaks[method] * batch_size)
        return None

    return script


def measure(methods, batch_size=1, steps=9, **options):
    said = []
    rows = measure_batch(
        PAPER, methods, batch_size, Effort(steps), report=said.append, **options
    )
    return {row["method"]: row for row in rows}, said


# Measuring


def test_methods_are_compared_within_their_turns(fake):
    took = {"ats-10": 0.1, "u-10": 0.08, "cnn-1": 1.5}
    peaks = {"ats-10": 20.0, "u-10": 18.0, "cnn-1": 150.0}
    fake(scripted(took, peaks))
    rows, said = measure(["u-10", "cnn-1", "ats-10"], batch_size=4)
    assert list(rows) == ["u-10", "cnn-1", "ats-10"]
    for name, row in rows.items():
        ratio = took[name] / 0.1
        assert row["time_ratio"] == pytest.approx(ratio)
        assert row["time_ratio_low"] == pytest.approx(ratio)
        assert row["time_ratio_high"] == pytest.approx(ratio)
        assert row["processor_ratio"] == pytest.approx(ratio)
        assert row["allocator_ratio"] == pytest.approx(peaks[name] / 20)
        assert row["resident_ratio"] == pytest.approx(peaks[name] / 20)
        assert row["allocator_mb_per_sample"] == peaks[name]
        assert row["resident_mb_per_sample"] == 2 * peaks[name]
        assert row["allocator_held_mb"] == 3.0
        assert row["batch_size"] == 4
        assert row["processor_ms_per_sample"] == pytest.approx(500 * took[name])
        assert row["reason"] is None
    # By the clock: 1, 1, 2, 2, 40, 40 times what it takes, and 3 times 100 s.
    assert rows["u-10"]["ms_per_sample"] == pytest.approx(40 * 80 / 4)
    assert rows["u-10"]["ms_low"] == pytest.approx(2 * 80 / 4)
    assert rows["u-10"]["ms_high"] == pytest.approx(1e5 / 4)
    assert [row["steps"] for row in rows.values()] == [9, 9, 18]
    assert said[0] == "u-10, batch 4: 800 ms and 18 MB a sample"
    assert [line.split(",")[0] for line in said] == ["u-10", "cnn-1", "ats-10"]


def test_two_processes_take_turns(fake):
    calls = fake(scripted({"ats-10": 0.1, "u-10": 0.08, "cnn-1": 1.5}))
    measure(["u-10", "cnn-1"], steps=7)
    order = [call[:2] for call in calls]
    turns = [
        ("take_turn", name)
        for name in ("{0}", "ats-10", "ats-10", "{0}", "{0}", "ats-10")
    ]
    assert order == [
        ("prepare", "ats-10"),
        *[
            (what, name.format(method))
            for method in ("u-10", "cnn-1")
            for what, name in [
                ("prepare", "{0}"),
                *turns,
                ("end", "{0}"),
                ("ended", "{0}"),
            ]
        ],
        ("end", "ats-10"),
        ("ended", "ats-10"),
    ]


def test_method_of_reference_alone_takes_its_turns(fake):
    fake(scripted({"ats-10": 0.1}))
    rows, said = measure([])
    assert rows["ats-10"]["steps"] == 9
    assert rows["ats-10"]["time_ratio"] == rows["ats-10"]["allocator_ratio"] == 1
    assert len(said) == 1


def test_slow_methods_get_three_turns(fake, monkeypatch):
    clock = iter(range(0, 10**6, 50))
    monkeypatch.setattr(cost_measurement.time, "monotonic", lambda: next(clock))
    fake(scripted({"ats-10": 0.1, "cnn-1": 9.0}))
    rows, _ = measure(["cnn-1"], steps=300)
    assert rows["cnn-1"]["steps"] == 9


@pytest.mark.parametrize("where", ["prepare", "take_turn", "end"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("OOM when allocating"), "out of memory: OOM when allocating"),
        (BrokenProcessPool("terminated abruptly"), "its process died"),
    ],
)
def test_a_method_without_memory_is_left_out(fake, where, error, reason):
    took = {"ats-10": 0.1, "deep-mil": 3.0, "cnn-1": 1.5}
    script = scripted(took, noise=(1,))

    def failing(function, method, batch_size, turn):
        if method == "deep-mil" and function.__name__ == where:
            if turn or where == "prepare":
                return error
        return script(function, method, batch_size, turn)

    calls = fake(failing)
    rows, said = measure(["deep-mil", "cnn-1"])
    row = rows["deep-mil"]
    assert row["reason"].startswith(reason)
    assert row["steps"] == 0
    assert {x for key, x in row.items() if key.endswith(("sample", "ratio"))} == {None}
    assert said[0].startswith(f"deep-mil, batch 1: not measured: {reason}")
    assert rows["cnn-1"]["time_ratio"] == pytest.approx(15)
    # Once it failed, it was asked for nothing.
    asked = [call[0] for call in calls if call[1] == "deep-mil"]
    assert asked[-2:] == [where, "ended"]


def test_without_the_reference_there_are_no_ratios(fake):
    script = scripted({"ats-10": 0.1, "cnn-1": 1.5})

    def failing(function, method, batch_size, turn):
        if method == "ats-10":
            return MemoryError("none")
        return script(function, method, batch_size, turn)

    fake(failing)
    rows, _ = measure(["cnn-1"])
    assert rows["cnn-1"]["ms_per_sample"] is not None
    assert rows["cnn-1"]["time_ratio"] is rows["cnn-1"]["allocator_ratio"] is None
    assert rows["ats-10"]["time_ratio"] is None
    assert rows["ats-10"]["reason"] == "out of memory: none"


def test_errors_of_the_code_are_no_shortage(fake):
    fake(lambda *call: ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        measure([])


@pytest.mark.parametrize("known", [True, False])
def test_what_would_not_fit_is_not_tried(fake, known):
    peaks = {"ats-10": 23.0, "deep-mil": 653.0}
    calls = fake(scripted(dict.fromkeys(peaks, 0.1), peaks))
    smaller = list(measure(["deep-mil"])[0].values()) if known else []
    del calls[:]
    # 3 MB are held, 650 MB are for each image.
    rows, _ = measure(["deep-mil"], 4, smaller=smaller, memory_limit=2602.0)
    assert rows["deep-mil"]["reason"] == "needs about 2,603 MB of 2,602 MB allowed"
    assert rows["ats-10"]["reason"] is None
    tried = {call[2] for call in calls if call[:2] == ("prepare", "deep-mil")}
    assert tried == (set() if known else {1})
    rows, _ = measure(["deep-mil"], 4, smaller=smaller, memory_limit=2604.0)
    assert rows["deep-mil"]["reason"] is None


def test_a_larger_batch_than_one_that_did_not_fit_is_not_tried(fake):
    row = {"method": "deep-mil", "batch_size": 1, "reason": "out of memory: none"}
    calls = fake(scripted({"ats-10": 0.1, "deep-mil": 3.0}))
    rows, _ = measure(["deep-mil"], 4, smaller=[row], memory_limit=1e6)
    assert rows["deep-mil"]["reason"] == "batch 1: out of memory: none"
    assert ("prepare", "deep-mil", 4) not in calls


def test_unknown_numbers_are_empty_in_the_table(fake):
    fake(lambda *call: MemoryError("none"))
    rows, _ = measure([])
    lines = format_costs(list(rows.values())).splitlines()
    assert lines[1].split() == ["ats-10", "1", "out", "of", "memory:", "none"]


def test_figure_leaves_out_what_is_unknown(fake, tmp_path):
    script = scripted({"ats-10": 0.1, "cnn-1": 1.5})
    fake(
        lambda function, method, *call: (
            MemoryError("none")
            if method == "cnn-1"
            else script(function, method, *call)
        )
    )
    rows, _ = measure(["cnn-1"])
    draw_costs(tmp_path / "a.png", list(rows.values()), "ats-10")
    with Image.open(tmp_path / "a.png") as image:
        image.load()


# Processes


@pytest.mark.parametrize(
    ("limit", "why"),
    [(None, "run out of memory"), (9000.0, "need more than the 9,000 MB allowed")],
)
def test_a_process_that_dies_is_a_reason(monkeypatch, limit, why):
    monkeypatch.setattr(cost_device, "device", lambda: "CPU:0")
    measured = Cost()
    with cost_measurement._start(measured, limit) as training:
        training._ask(os._exit, 1)
        assert training._ask(os.getpid) is None
    assert measured.reason == f"its process died, as processes do that {why}"


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
def test_memory_of_a_process_is_limited():
    with processes.start_process(memory_limit=600) as executor:
        assert executor.submit(np.zeros, 10).result().shape == (10,)
        # Of address space alone, there is no limit.
        with pytest.raises(MemoryError):
            executor.submit(bytearray, 700_000_000).result()
        assert executor.submit(len, b"alive").result() == 5


def test_resident_memory_is_what_is_there_now():
    if np.isnan(processes.resident_megabytes()):
        pytest.skip("the system has no /proc")
    before = processes.resident_megabytes()
    array = np.ones(60_000_000, "uint8")
    assert processes.resident_megabytes() > before + 50
    assert processes.available_megabytes() > 0
    del array
    assert processes.resident_megabytes() < before + 10


# Steps


@on_tensorflow
def test_step_is_that_of_fit():
    rng = np.random.default_rng(0)
    view = rng.uniform(0, 255, (4, *SMALL.view_shape)).astype("float32")
    image = rng.integers(256, size=(4, *SMALL.image_shape), dtype="uint8")
    labels = np.array([0, 1, 1, 0])
    weights = []
    for way in ("step", "fit"):
        keras.utils.set_random_seed(0)
        model = build_model(SMALL, "ats-2", seed=0)
        before = model.get_weights()
        if way == "step":
            TrainingStep(model, [view, image], labels)()
        else:
            model.compile(
                keras.optimizers.Adam(1e-3, clipnorm=1.0),
                "sparse_categorical_crossentropy",
            )
            model.fit([view, image], labels, batch_size=4, shuffle=False, verbose=0)
        weights.append(model.get_weights())
        assert any(
            np.abs(x - y).max() > 1e-4 for x, y in zip(before, weights[-1], strict=True)
        )
    for x, y in zip(*weights, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


@on_tensorflow
@pytest.mark.parametrize("method", ["ats-2", "cnn-1"])
def test_passes_give_the_gradient_that_fit_follows(method):
    rng = np.random.default_rng(0)
    view = rng.uniform(0, 255, (4, *SMALL.view_shape)).astype("float32")
    image = rng.integers(256, size=(4, *SMALL.image_shape), dtype="uint8")
    inputs = [view, image] if method == "ats-2" else [image]
    labels = np.array([0, 1, 1, 0])
    keras.utils.set_random_seed(0)
    model = build_model(SMALL, method, seed=0)
    initial = model.get_weights()  # averages of batch normalization among them
    before = [weight.numpy() for weight in model.trainable_variables]
    gradients = BackwardPass(model, inputs, labels)()
    after = [weight.numpy() for weight in model.trainable_variables]
    for x, y in zip(before, after, strict=True):
        np.testing.assert_array_equal(x, y)
    model = build_model(SMALL, method, seed=0)  # with the same draws to come
    model.set_weights(initial)
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    model.fit(inputs, labels, batch_size=4, shuffle=False, verbose=0)
    moved = [weight.numpy() for weight in model.trainable_variables]
    for start, end, gradient in zip(before, moved, gradients, strict=True):
        np.testing.assert_allclose(start - end, gradient, rtol=1e-3, atol=1e-5)


@on_tensorflow
def test_memory_is_that_of_the_step(monkeypatch):
    import tensorflow as tf

    task = dataclasses.replace(SMALL, image_shape=(512, 512, 3))
    cost_process.prepare(task, parse_method("cnn-1"), batch_size=2, warmup=1)
    monkeypatch.setattr(cost_process, "_LONG_SECONDS", np.inf)
    # Held for a moment before the steps, this is none of theirs.
    tf.raw_ops.Empty(shape=[4, 10**9], dtype=tf.uint8)
    steps = cost_process.take_turn()
    memory = cost_process.end()
    assert len(steps) == cost_process.STEPS_A_TURN
    # Of 256 x 256 places and 32 channels, three are kept for the backward pass at least.
    activation = 2 * 256 * 256 * 32 * 4 / 1e6
    for step in steps:
        assert step.peak - memory.held > 3 * activation
        # About 25 of them were needed, in chunks of up to twice what is asked for.
        assert step.peak < 60 * activation < 4000 / 3
        assert 0 < step.wall < 100
    assert memory.held >= 2 * 512 * 512 * 3 / 1e6
    if not np.isnan(memory.resident):
        assert memory.resident > 3 * activation


@on_tensorflow
def test_a_slow_step_is_a_turn(monkeypatch):
    monkeypatch.setattr(cost_process._here, "step", lambda: None, raising=False)
    assert len(cost_process.take_turn()) == cost_process.STEPS_A_TURN
    monkeypatch.setattr(cost_process, "_LONG_SECONDS", 0.0)
    assert len(cost_process.take_turn()) == 1


@on_tensorflow
@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("OOM when\nallocating", "OOM when"),
        (
            "Graph execution error:\n\nDetected\nOOM when allocating\n Hint",
            "OOM when all.*",
        ),
        ("could not create\na memory object", "could not create"),
        ("", ""),
    ],
)
def test_shortages_of_tensorflow_have_one_name(monkeypatch, message, line):
    import tensorflow as tf

    def fail():
        raise tf.errors.ResourceExhaustedError(None, None, message)

    monkeypatch.setattr(cost_process._here, "step", fail, raising=False)
    with pytest.raises(MemoryError, match=f"^{line}$"):
        cost_process.take_turn()


# The command


@on_tensorflow
def test_command_writes_what_the_report_reads(tmp_path, monkeypatch, capsys):
    """In processes of their own: the only test that starts any with TensorFlow."""
    monkeypatch.setitem(cost.TASKS, "colon_cancer", SMALL)
    words = ["--task", "colon_cancer", "--methods", "deep-mil", "--batch-sizes", "2"]
    words += ["--image-size", "70,80", "--view-size", "21", "--output", str(tmp_path)]
    # On a GPU too, the limit is above what the driver needs.
    words += ["--steps", "3", "--warmup", "1", "--memory-limit", "64"]
    monkeypatch.setattr(cost_measurement, "_measure_one", _small_row)
    benchmark.main(["cost", *words])
    assert {path.name for path in tmp_path.iterdir()} == {
        f"cost-colon_cancer.{suffix}" for suffix in ("json", "csv", "png")
    }
    (measurement,) = read_measurements(tmp_path)
    assert measurement.kind == "cost"
    assert measurement.content["image_shape"] == [70, 80, 3]
    content = measurement.content
    assert content["view_size"] == [21, 21]
    assert content["command"].startswith(
        "python -m attention_sampling.benchmark cost --task colon_cancer --methods "
        "deep-mil --batch-sizes 2 --image-size 70,80 --view-size 21,21 --steps 3 "
    )
    assert str(tmp_path) not in json.dumps(content)
    reference, deep_mil = content["rows"]
    assert (reference["method"], deep_mil["method"]) == ("ats-10", "deep-mil")
    for row in content["rows"]:
        assert row["reason"] is None
        assert row["steps"] >= 1
        assert row["batch_size"] == 2
        assert row["ms_low"] <= row["ms_per_sample"] <= row["ms_high"]
        assert row["allocator_mb_per_sample"] > 0
    with Image.open(tmp_path / "cost-colon_cancer.png") as image:
        image.load()
    with (tmp_path / "cost-colon_cancer.csv").open(newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["ats-10", "deep-mil"]
    printed = capsys.readouterr().out
    assert "deep-mil, batch 2: " in printed
    assert "ratios to ats-10" in printed
    with pytest.raises(ValueError, match=r"cost-colon_cancer\.json holds an earlier"):
        benchmark.main(["cost", "--task", "colon_cancer", "--output", str(tmp_path)])


def _small_row(task, name, memory_limit):
    return {
        "method": name,
        "batch_size": 1,
        "allocator_held_mb": 1.0,
        "allocator_mb_per_sample": 2.0,
        "reason": None,
    }


@on_tensorflow
def test_defaults_are_the_methods_of_the_paper(tmp_path, monkeypatch):
    asked = []

    def note(task, methods, batch_size, effort, limit, smaller):
        asked.append((task, methods, batch_size, len(smaller)))
        assert limit is None or limit > 0
        return [cost_row("ats-5", batch_size, Cost([Step(1.0, 1.0, 1.0)]), Cost())]

    monkeypatch.setattr(cost, "measure_batch", note)
    benchmark.main(["cost", "--task", "speed_limits", "--output", str(tmp_path)])
    task = TASKS["speed_limits"]
    assert asked == [
        (task, list(task.methods), 1, 0),
        (task, list(task.methods), 16, 1),
    ]


@on_tensorflow
@pytest.mark.parametrize("option", ["--steps", "--warmup", "--memory-limit"])
def test_command_refuses_what_is_out_of_range(option, tmp_path):
    words = ["--task", "colon_cancer", "--output", str(tmp_path / "none")]
    with pytest.raises(ValueError, match=f"{option} must be at least 1. Received: 0"):
        benchmark.main(["cost", *words, option, "0"])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "ats"], "Expected: ats-N"),
        (["--batch-sizes", "1,0"], "numbers of at least 1 or 'train'"),
        (["--batch-sizes", "test"], "numbers of at least 1 or 'train'"),
        (["--image-size", "1,2,3"], "expected height and width in pixels"),
        (["--view-size", "0"], "expected height and width in pixels"),
        (["--task", "mnist"], "invalid choice"),
    ],
)
def test_command_line_says_what_it_expects(words, message, capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["cost", "--task", "colon_cancer", *words])
    assert message in " ".join(capsys.readouterr().err.split())


def test_other_backends_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(cost_device.keras.backend, "backend", lambda: "jax")
    for words in (["cost", "--task", "colon_cancer"], ["overhead"]):
        with pytest.raises(ValueError, match="Expected: KERAS_BACKEND=tensorflow"):
            benchmark.main([*words, "--output", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()
