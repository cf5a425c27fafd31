"""examples/speed_limits.py, as a user runs it: as a process."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest

from attention_sampling.datasets.synthetic.scenes import write_scenes
from attention_sampling.files import one_process

if keras.backend.backend() != "tensorflow":
    pytest.skip("the examples are for TensorFlow", allow_module_level=True)

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = [sys.executable, str(REPOSITORY / "examples" / "speed_limits.py")]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY)}
ENVIRONMENT.pop("TF_CPP_MIN_LOG_LEVEL", None)  # which TensorFlow sets here


def run(directory, *arguments, timeout=300):
    """Run to the end; return the exit code, and what was printed."""
    process = subprocess.run(
        [*EXAMPLE, *map(str, arguments)],
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    # Progress bars aside, nothing of CUDA, oneDNN or absl.
    lines = re.split(r"[\r\n]+", process.stderr)
    bars = ("Road scenes: ", "Checking images: ")
    errors = "\n".join(li for li in lines if li.strip() and not li.startswith(bars))
    return process.returncode, process.stdout, errors


def interrupt(directory, *arguments, when, timeout=300):
    """Run until something is there, and press Ctrl-C; return code and error."""
    process = subprocess.Popen(
        [*EXAMPLE, *map(str, arguments)],
        cwd=directory,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # Also where the tests run in the background, which ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + timeout
        while not when():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, error


def read_log(output):
    with (output / "log.csv").open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def parts_in(directory):
    return [path for path in directory.rglob("*") if ".part" in path.name]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(directory, n_images=20, size=(160, 240), progress=False)
    return directory


def test_trains_and_goes_on(scenes, tmp_path):
    output = tmp_path / "runs" / "mine"
    options = ["--dataset", scenes, "--output", "runs/mine"]
    # An empty output: from the beginning.
    code, printed, errors = run(tmp_path, *options, "--epochs", 1, "--resume")
    assert (code, errors) == (0, "")
    assert (
        "16 training and 4 test images of 240 x 160 pixels; classes empty, 50"
        in printed
    )
    assert re.search(r"Test accuracy \d\.\d+\. Everything is in runs/mine", printed)
    assert read_log(output) == [0]
    pictures = sorted(output.glob("pictures/*.png"))
    assert len(pictures) == 4
    assert list(output.glob("tensorboard/validation/events.*"))

    model = (output / "model.keras").read_bytes()
    code, printed, errors = run(tmp_path, *options)
    assert (code, printed) == (1, "")
    assert errors.startswith("error: runs/mine holds a trained model: go on with it ")
    assert "\n" not in errors
    assert (output / "model.keras").read_bytes() == model

    code, printed, errors = run(tmp_path, *options, "--n-patches", 3, "--resume")
    assert (code, printed) == (1, "")
    assert "other settings: n_patches was 5, is 3. Resume it with its own" in errors

    for path in pictures:
        path.unlink()
    code, printed, errors = run(tmp_path, *options, "--epochs", 2, "--resume")
    assert (code, errors) == (0, "")
    assert "Going on after epoch 1\n" in printed
    assert read_log(output) == [0, 1]
    assert sorted(output.glob("pictures/*.png")) == pictures
    assert parts_in(output) == []
    assert keras.saving.load_model(output / "model.keras").optimizer.iterations == 4


@pytest.mark.slow
def test_profile_leaves_a_training_as_it_is(scenes, tmp_path):
    output = tmp_path / "runs" / "speed_limits"
    output.mkdir(parents=True)
    (output / "log.csv").write_text("epoch\n0\n")
    code, printed, errors = run(tmp_path, "--dataset", scenes, "--profile")
    assert (code, errors) == (0, "")
    assert read_log(output) == [0]
    line = r"A training step on [CG]PU:0: \d+ ms, peak [1-9]\d* MiB\n"
    assert re.search(line, printed)
    assert len(list(output.glob("profile/train/plugins/profile/*/*.xplane.pb"))) == 1
    assert not (output / "model.keras").exists()


@pytest.mark.slow
def test_second_process_on_one_output(scenes, tmp_path):
    with one_process(tmp_path / "taken"):
        code, printed, errors = run(tmp_path, "--output", "taken")
    assert (code, printed) == (1, "")
    assert re.fullmatch("error: Another process is at work in taken.*", errors)


@pytest.mark.slow
def test_an_error_is_one_line(tmp_path):
    code, printed, errors = run(tmp_path, "--dataset", "nowhere")
    assert (code, printed) == (1, "")
    assert re.fullmatch("error: The data set is not there. .*nowhere'", errors)


@pytest.mark.slow
def test_interrupted_while_it_trains(scenes, tmp_path):
    options = ["--dataset", scenes, "--output", tmp_path / "run"]
    model = tmp_path / "run" / "model.keras"
    code, errors = interrupt(tmp_path, *options, "--epochs", 500, when=model.exists)
    assert code == 1
    assert errors.endswith("interrupted; --resume goes on after the last whole epoch\n")
    assert "Traceback" not in errors
    iterations = int(keras.saving.load_model(model).optimizer.iterations)
    epochs = iterations // 2
    assert 1 <= epochs < 500
    assert iterations == 2 * epochs
    code, printed, errors = run(tmp_path, *options, "--epochs", epochs + 1, "--resume")
    assert (code, errors) == (0, "")
    assert f"Going on after epoch {epochs}\n" in printed
    assert read_log(tmp_path / "run") == list(range(epochs + 1))


@pytest.mark.slow
def test_without_arguments_interrupted_while_it_generates(tmp_path):
    output = tmp_path / "runs" / "speed_limits"
    code, errors = interrupt(tmp_path, when=lambda: list(output.rglob("00005.jpg")))
    assert code == 1
    assert errors.endswith("interrupted; --resume goes on after the last whole epoch\n")
    assert "Traceback" not in errors
    assert not (output / "scenes").exists()
    assert parts_in(output) == []
    code, printed, errors = run(tmp_path, timeout=1800)
    assert (code, errors) == (0, "")
    accuracy = float(re.search(r"Test accuracy (\d\.\d+)\.", printed)[1])
    assert accuracy >= 0.95
    assert read_log(output) == list(range(len(read_log(output))))
    assert len(list(output.glob("pictures/*.png"))) == 8
