"""The script that makes Megapixel MNIST, as a person runs it."""

import gzip
import json
import runpy

import keras
import numpy as np
import pytest
from processes import EXAMPLES, interrupt, names_in, refuse, run, start, wait_until

from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.datasets.megapixel_mnist_files import load_megapixel_mnist

EXAMPLE = EXAMPLES / "make_mnist.py"
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


def test_makes_a_data_set_and_leaves_it_when_run_again(digits, mnist, tmp_path):
    output = tmp_path / "a" / "b"
    command = [EXAMPLE, output, *SMALL, "--n_noise=2", "--seed=3", f"--mnist={mnist}"]
    code, out, err = run(*command)
    assert (code, err) == (0, "")
    assert f"7 of 7 images are in {output}" in out
    assert names_in(output) == ["parameters.json", "test.h5", "train.h5"]
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
    assert refuse(*command, "--seed=4") == (
        f"error: {output} holds a data set already: delete it, or choose another "
        "directory"
    )
    assert (output / "train.h5").read_bytes() == before


def test_a_second_process_ends_at_once_and_ctrl_c_leaves_nothing(mnist, tmp_path):
    output = tmp_path / "new"
    words = [EXAMPLE, output, f"--mnist={mnist}"]
    with start(*words, "--n_train=4000", "--width=400", "--height=400") as first:
        wait_until(lambda: list(output.glob(".train.*.part.h5")), first)
        code, out, err = run(*words, *SMALL)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"error: Another process is at work in {output}")
        code, _, err = interrupt(first)
    assert (code, err) == (1, "\ninterrupted: nothing is written\n")
    assert names_in(output) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--width=20", "--scale=0.4"], "`size` must leave room for 5 digits"),
        (["--n_train=0"], "`count` must be an int of at least 1"),
        (["--scale=1.1"], "view must not be larger than the image"),
        (["--mnist=nowhere"], "A file of MNIST is missing"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(mnist, tmp_path, options, message):
    words = [tmp_path / "new", *SMALL, f"--mnist={mnist}", *options]
    refused = refuse(EXAMPLE, *words)
    assert refused.startswith("error: ")
    assert message in refused
    assert names_in(tmp_path / "new") == []


def test_digits_are_downloaded_by_keras(monkeypatch):
    load_digits = runpy.run_path(str(EXAMPLE))["load_digits"]
    monkeypatch.setattr(keras.datasets.mnist, "load_data", lambda: "digits")
    assert load_digits(None) == "digits"

    def fail():
        raise Exception("URL fetch failure on https://storage: None -- unreachable")

    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with pytest.raises(OSError, match=r"not be downloaded \(URL.*name their.*--mnist"):
        load_digits(None)
