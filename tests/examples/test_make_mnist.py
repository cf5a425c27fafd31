"""The script that makes Megapixel MNIST, as a person runs it."""

import gzip
import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.datasets.megapixel_mnist_files import load_megapixel_mnist

EXAMPLE = Path(__file__).parents[2] / "examples" / "make_mnist.py"
SMALL = ["--n_train=4", "--n_test=3", "--width=210", "--height=150", "--scale=0.2"]


@pytest.fixture
def digits(rng):
    """Return digits and labels of each split."""
    labels = np.arange(40, dtype="uint8") % 10
    return {
        split: (rng.integers(1, 256, (40, 28, 28), dtype="uint8"), labels)
        for split in ("train", "t10k")
    }


@pytest.fixture
def mnist(digits, tmp_path):
    """Return a directory with the four files of MNIST."""
    directory = tmp_path / "mnist"
    directory.mkdir()
    for prefix, (images, labels) in digits.items():
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            shape = b"".join(extent.to_bytes(4, "big") for extent in array.shape)
            data = bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()
            path = directory / f"{prefix}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(data))
    return directory


@pytest.fixture
def start():
    """Return a function that starts the script; what still runs is killed in the end."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, EXAMPLE, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
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
        out, err = process.communicate(timeout=100)
        return process.returncode, out, err

    return run


def visible(directory):
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


def test_makes_a_data_set_and_leaves_it_when_run_again(run, digits, mnist, tmp_path):
    output = tmp_path / "a" / "b"
    command = [output, *SMALL, "--n_noise=2", "--seed=3", f"--mnist={mnist}"]
    code, out, err = run(*command)
    assert (code, err) == (0, "")
    assert f"7 of 7 images are in {output}" in out
    assert visible(output) == ["parameters.json", "test.h5", "train.h5"]
    parameters = json.loads((output / "parameters.json").read_text())
    assert parameters == {
        "n_train": 4,
        "n_test": 3,
        "width": 210,
        "height": 150,
        "n_noise": 2,
        "scale": 0.2,
        "seed": 3,
    }
    files = load_megapixel_mnist(output)
    for data, prefix, count, seed in zip(
        files, ("train", "t10k"), (4, 3), (6, 7), strict=True
    ):
        made = MegapixelMNIST(*digits[prefix], count, (150, 210), 2, seed)
        assert data.view_size == (30, 42)
        np.testing.assert_array_equal(data.labels, made.labels)
        for index, image in enumerate(data.images(range(count))):
            np.testing.assert_array_equal(image, made.image(index))
    before = (output / "train.h5").read_bytes()
    code, out, err = run(*command, "--seed=4")
    assert (code, out) == (1, "")
    assert err == (
        f"error: {output} holds a data set already: delete it, or choose another "
        "directory\n"
    )
    assert (output / "train.h5").read_bytes() == before


def test_a_second_process_ends_at_once_and_ctrl_c_leaves_nothing(
    start, run, mnist, tmp_path
):
    output = tmp_path / "new"
    more = ["--width=400", "--height=400", f"--mnist={mnist}"]
    first = start(output, "--n_train=4000", *more)
    deadline = time.monotonic() + 100
    while not list(output.glob(".train.*.part.h5")):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    code, out, err = run(output, *SMALL, f"--mnist={mnist}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: Another process is at work in {output}")
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=100)
    assert first.returncode == 1
    assert err == "\ninterrupted: nothing is written\n"
    assert visible(output) == []
    code, _, err = run(output, *SMALL, f"--mnist={mnist}")
    assert (code, err) == (0, "")
    assert len(load_megapixel_mnist(output)[1]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width=20", "--scale=0.4"], "`size` must leave room for 5 digits"),
        (["--n_train=0"], "`count` must be an int of at least 1"),
        (["--scale=1.1"], "view must not be larger than the image"),
        (["--mnist=nowhere"], "A file of MNIST is missing"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    run, mnist, tmp_path, options, message
):
    code, _, err = run(tmp_path / "new", *SMALL, f"--mnist={mnist}", *options)
    assert code == 1
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert visible(tmp_path / "new") == []


def test_digits_are_downloaded_by_keras(monkeypatch):
    spec = importlib.util.spec_from_file_location("make_mnist_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: "digits")
    assert example.load_digits(None) == "digits"

    def fail():
        raise Exception("URL fetch failure on https://storage: None -- unreachable")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with pytest.raises(OSError, match=r"not be downloaded \(URL.*name their.*--mnist"):
        example.load_digits(None)
