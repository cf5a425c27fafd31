"""The example of Megapixel MNIST, as a person runs it, on a few small images."""

import csv
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.datasets.megapixel_mnist_files import write_megapixel_mnist

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "the examples are written for the TensorFlow backend", allow_module_level=True
    )

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist.py"
MADE = ["log.csv", "model.keras", "pictures", "settings.json", "tensorboard"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    directory = tmp_path_factory.mktemp("digits")
    digits = np.random.default_rng(0).integers(256, size=(20, 28, 28), dtype="uint8")
    train, test = (
        MegapixelMNIST(digits, np.arange(20) % 10, count, (90, 120), 1, seed)
        for seed, count in enumerate((6, 3))
    )
    write_megapixel_mnist(directory, train, test, view_size=(18, 24))
    return directory


@pytest.fixture
def start():
    """Return a function that starts the example; what still runs is killed in the end."""
    started = []

    def start(dataset, output, *options):
        small = f"--dataset={dataset}", "--batch-size=4", "--n-patches=2"
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # which TensorFlow sets here
        process = subprocess.Popen(
            [sys.executable, EXAMPLE, f"--output={output}", *small, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    # A shell's background job ignores the signal, and so would what it starts.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield start
    signal.signal(signal.SIGINT, ours)
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start):
    """Return a function to the exit code, and what was printed and complained of."""

    def run(*arguments):
        process = start(*arguments)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    return run


def logged_epochs(output):
    with open(output / "log.csv", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def visible(output):
    return sorted(path.name for path in output.iterdir() if path.name != ".lock")


@pytest.mark.slow
def test_trains_evaluates_and_plots(run, dataset, tmp_path):
    output = tmp_path / "a" / "run"
    code, out, err = run(dataset, output, "--epochs=1")
    assert (code, err) == (0, "")  # no lines of CUDA, oneDNN or absl either
    assert "6 training and 3 test images of 120 x 90 pixels" in out
    assert re.search(r"^Test accuracy [01]\.\d{3}\. ", out, re.MULTILINE)
    assert visible(output) == MADE
    assert logged_epochs(output) == [0]
    assert len(list((output / "pictures").glob("*.png"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--on-demand"]])
def test_resume_begins_goes_on_and_ends_at_once(run, dataset, tmp_path, options):
    output = tmp_path / "run"
    for epochs, expected in ((1, [0]), (3, [0, 1, 2]), (3, [0, 1, 2])):
        code, _, err = run(dataset, output, f"--epochs={epochs}", "--resume", *options)
        assert (code, err) == (0, "")
        assert logged_epochs(output) == expected
        assert visible(output) == MADE
    before = (output / "model.keras").read_bytes()
    code, out, err = run(dataset, output, *options)
    assert (code, out) == (1, "")
    assert err == (
        f"error: {output} holds a trained model: go on with it (resume), or choose "
        "another output\n"
    )
    assert (output / "model.keras").read_bytes() == before


@pytest.mark.slow
def test_a_second_process_ends_at_once_and_ctrl_c_is_resumed(
    start, run, dataset, tmp_path
):
    output = tmp_path / "run"
    first = start(dataset, output, "--epochs=10000")
    watchdog = threading.Timer(300, first.kill)
    watchdog.start()
    for line in first.stdout:
        if line.startswith("Epoch 3/"):
            break
    code, out, err = run(dataset, output, "--resume")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: Another process is at work in {output}")
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=100)
    watchdog.cancel()
    assert first.returncode == 1
    assert "interrupted; --resume goes on after the last whole epoch" in err
    assert "Traceback" not in err
    done = len(logged_epochs(output))
    assert done >= 2
    code, out, err = run(dataset, output, f"--epochs={done + 1}", "--resume")
    assert code == 0, err
    assert logged_epochs(output) == list(range(done + 1))
    assert not list(output.glob(".*.part*"))


@pytest.mark.slow
def test_without_images_it_names_the_command_that_makes_them(run, tmp_path):
    code, _, err = run(tmp_path / "none", tmp_path / "run")
    assert code == 1
    assert err.startswith("error: A file of Megapixel MNIST is missing.")
    assert f"python examples/make_mnist.py {tmp_path / 'none'}" in err
