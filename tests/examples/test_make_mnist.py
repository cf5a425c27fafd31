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
FILES = ["parameters.json", "test.h5", "train.h5"]


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("make_mnist_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def digits(rng):
    """Return digits and labels of each split; those of the test split are darker."""
    labels = np.arange(40, dtype="uint8") % 10
    return {
        "train": (rng.integers(128, 256, (40, 28, 28), dtype="uint8"), labels),
        "t10k": (rng.integers(1, 128, (40, 28, 28), dtype="uint8"), labels),
    }


@pytest.fixture
def mnist(digits, tmp_path):
    """Return a directory with the four files of MNIST, two of them gzipped."""
    directory = tmp_path / "mnist"
    directory.mkdir()
    for prefix, (images, labels) in digits.items():
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            shape = b"".join(extent.to_bytes(4, "big") for extent in array.shape)
            data = bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()
            path = directory / f"{prefix}-{name}-ubyte"
            if prefix == "train":
                path.write_bytes(data)
            else:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(data))
    return directory


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, EXAMPLE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_makes_a_data_set(example, digits, mnist, tmp_path, capsys):
    output = tmp_path / "a" / "b"
    settings = ["--n_noise=2", "--dataset_seed=3", f"--mnist={mnist}"]
    example.main([str(output), *SMALL, *settings])
    assert names(output) == FILES
    expected = {
        "n_train": 4,
        "n_test": 3,
        "width": 210,
        "height": 150,
        "scale": 0.2,
        "noise": True,
        "n_noise": 2,
        "seed": 3,
    }
    assert json.loads((output / "parameters.json").read_text()) == expected
    train, test = load_megapixel_mnist(output)
    assert train.settings == expected
    assert train.view_size == (30, 42)
    for data, prefix, count, seed in ((train, "train", 4, 6), (test, "t10k", 3, 7)):
        made = MegapixelMNIST(*digits[prefix], count, (150, 210), 2, seed)
        np.testing.assert_array_equal(data.labels, made.labels)
        np.testing.assert_array_equal(
            data.images(range(count)), made.images(range(count))
        )
    printed = capsys.readouterr()
    assert "4 training and 3 test images" in printed.out
    assert "MB" in printed.out
    assert "train.h5: 100%" in printed.err


def test_same_seed_same_files(example, mnist, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        example.main(
            [str(tmp_path / name), *SMALL, f"--mnist={mnist}", f"--dataset_seed={seed}"]
        )
    a, b, c = (
        [(tmp_path / name / file).read_bytes() for file in FILES] for name in "abc"
    )
    assert a == b
    assert all(one != other for one, other in zip(a, c, strict=True))


def test_defaults_are_those_of_the_paper(example):
    arguments = example.parse_arguments(["output"])
    assert example.run_settings(arguments) == {
        "n_train": 5000,
        "n_test": 1000,
        "width": 1500,
        "height": 1500,
        "scale": 0.12,
        "noise": True,
        "n_noise": 50,
        "seed": 0,
    }
    assert arguments.mnist is None
    assert not arguments.overwrite


def test_dashes_are_as_good_as_underscores(example):
    words = ["--n_train", "1", "--n_test", "2", "--n_noise", "3", "--dataset_seed", "4"]
    dashed = [word.replace("_", "-") for word in words]
    arguments = example.parse_arguments(["output", *words])
    assert arguments == example.parse_arguments(["output", *dashed])
    assert arguments.dataset_seed == 4
    for option in ("--no_noise", "--no-noise"):
        settings = example.run_settings(example.parse_arguments(["output", option]))
        assert settings["n_noise"] == 0
        assert settings["noise"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "required: OUTPUT_DIR"),
        (["--n_train=0"], "--n_train must be positive"),
        (["--n_test=0"], "--n_test must be positive"),
        (["--width=-1"], "--width must be positive"),
        (["--height=0"], "--height must be positive"),
        (["--scale=0"], "--scale must be above 0 and at most 1"),
        (["--scale=1.1"], "--scale must be above 0"),
        (["--scale=nan"], "--scale must be above 0"),
        (["--scale=1e-9"], "must leave views of 7 pixels or more each way, which here"),
        (["--n_noise=100000000"], "--n_noise must be at most 80357"),
        (["--dataset_seed=4611686018427387904"], "--dataset_seed must be at most"),
        (["--n_noise=-1"], "--n_noise must not be negative"),
        (["--dataset_seed=-1"], "--dataset_seed must not be negative"),
        (["--no_noise", "--n_noise=4"], "not allowed with"),
        (["--n_train=many"], "invalid int value"),
    ],
)
def test_options_that_are_none(example, capsys, tmp_path, options, message):
    output = [str(tmp_path / "new")] if options else []
    with pytest.raises(SystemExit) as caught:
        example.main([*output, *options])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert names(tmp_path) == []


def test_downloads_by_keras(example, digits, mnist, tmp_path, monkeypatch):
    loaded = digits["train"], digits["t10k"]
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: loaded)
    example.main([str(tmp_path / "a"), *SMALL])
    example.main([str(tmp_path / "b"), *SMALL, f"--mnist={mnist}"])
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (
            tmp_path / "b" / name
        ).read_bytes()


def test_no_network(example, tmp_path, monkeypatch):
    def fail():
        raise Exception("URL fetch failure on https://storage: None -- unreachable")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with pytest.raises(
        OSError, match=r"not be downloaded \(URL fetch failure.*idx files.*--mnist DIR"
    ):
        example.main([str(tmp_path / "new"), *SMALL])
    assert names(tmp_path) == []


def test_refuses_a_data_set_before_it_loads_digits(example, mnist, tmp_path):
    output = tmp_path / "data"
    example.main([str(output), *SMALL, f"--mnist={mnist}"])
    before = [(output / name).read_bytes() for name in FILES]
    with pytest.raises(FileExistsError, match=r"must not hold a data set.*--overwrite"):
        example.main([str(output), "--mnist=none"])
    assert [(output / name).read_bytes() for name in FILES] == before
    # Whatever goes wrong, the old one stays.
    with pytest.raises(FileNotFoundError, match="MNIST is missing"):
        example.main([str(output), "--mnist=none", "--overwrite"])
    assert [(output / name).read_bytes() for name in FILES] == before
    example.main([str(output), *SMALL, f"--mnist={mnist}", "--no_noise", "--overwrite"])
    assert load_megapixel_mnist(output).train.noise_patches == 0
    assert names(output) == FILES


def test_digits_of_a_file_are_refused(example, tmp_path):
    (tmp_path / "mnist").touch()
    with pytest.raises(NotADirectoryError, match="--mnist must be a directory"):
        example.main([str(tmp_path / "new"), *SMALL, f"--mnist={tmp_path / 'mnist'}"])


def test_the_largest_seed_is_kept(example, mnist, tmp_path):
    seed = 2**62 - 1
    more = [f"--mnist={mnist}", f"--dataset_seed={seed}"]
    example.main([str(tmp_path / "new"), *SMALL, *more])
    assert load_megapixel_mnist(tmp_path / "new").test.seed == 2 * seed + 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), r"Expected: t10k-images-idx3-ubyte.gz or"),
        (lambda path: path.write_bytes(path.read_bytes()[:99]), r"no whole gzip file"),
        (lambda path: path.write_bytes(gzip.compress(b"PK")), r"no idx file.*50 4b"),
    ],
)
def test_broken_files_of_mnist(example, mnist, tmp_path, spoil, message):
    spoil(mnist / "t10k-images-idx3-ubyte.gz")
    with pytest.raises((ValueError, OSError), match=message):
        example.main([str(tmp_path / "new"), *SMALL, f"--mnist={mnist}"])
    assert names(tmp_path) == ["mnist"]


def test_no_room_for_digits_is_one_line_and_leaves_nothing(mnist, tmp_path):
    small = [*SMALL, "--width=20", "--scale=0.4", f"--mnist={mnist}"]
    process = start(tmp_path / "new", *small)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert err.startswith("error: `size` must leave room for 5 digits")
    assert err.count("\n") == 1
    assert out == ""
    assert names(tmp_path) == ["mnist"]


def test_interrupted(mnist, tmp_path):
    output = tmp_path / "new"
    # A shell's background job ignores the signal, and so would what it starts.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(
        output, "--n_train=4000", "--width=400", "--height=400", f"--mnist={mnist}"
    )
    signal.signal(signal.SIGINT, ours)
    deadline = time.monotonic() + 100
    while not list(output.glob(".*.part/.train.h5.*")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "Interrupted: nothing is written."
    assert "Traceback" not in err
    assert names(tmp_path) == ["mnist"]
