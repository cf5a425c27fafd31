"""The example of Megapixel MNIST, as a person runs it, on a few small images."""

import re

import keras
import numpy as np
import pytest
from processes import (
    EXAMPLES,
    interrupt_training,
    names_in,
    read_epochs,
    refuse,
    refuse_to_overwrite,
    run,
    run_here,
)

from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.datasets.megapixel_mnist_files import write_megapixel_mnist

if keras.backend.backend() != "tensorflow":
    pytest.skip("the examples are for TensorFlow", allow_module_level=True)

EXAMPLE = EXAMPLES / "mnist.py"
MADE = [
    "attention",
    "log.csv",
    "model.keras",
    "pictures",
    "settings.json",
    "tensorboard",
]


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


def words_for(dataset, output, *options):
    small = "--batch-size=4", "--n-patches=2"
    return [EXAMPLE, f"--dataset={dataset}", f"--output={output}", *small, *options]


@pytest.mark.slow
def test_twice_at_once_interrupted_and_resumed(dataset, tmp_path):
    output = tmp_path / "a" / "run"
    words = words_for(dataset, output)
    # The first --resume finds nothing, and begins.
    interrupt_training([*words, "--epochs=10000", "--resume"], output)
    refuse_to_overwrite(words, output)
    epochs = len(read_epochs(output)) + 1
    code, printed, errors = run(*words, f"--epochs={epochs}", "--resume")
    assert (code, errors) == (0, "")  # no lines of CUDA, oneDNN or absl either
    assert "6 training and 3 test images of 120 x 90 pixels" in printed
    assert re.search(r"^Test accuracy [01]\.\d{3}\. ", printed, re.MULTILINE)
    assert names_in(output) == MADE
    assert read_epochs(output) == list(range(epochs))
    assert len(list((output / "pictures").glob("*.png"))) == 3
    for epoch in (0, 1, 2):
        for name in ("first", "second"):
            assert (output / "attention" / f"{name}-epoch-{epoch:03d}.png").exists()


@pytest.mark.slow
def test_on_demand_begins_goes_on_and_ends_at_once(dataset, tmp_path, capsys):
    words = words_for(dataset, tmp_path, "--on-demand", "--resume")
    for epochs, expected in ((1, [0]), (2, [0, 1]), (2, [0, 1])):
        run_here(*words, f"--epochs={epochs}")
        assert "Test accuracy" in capsys.readouterr().out
        assert read_epochs(tmp_path) == expected
    assert names_in(tmp_path) == MADE


def test_without_images_it_names_the_command_that_makes_them(tmp_path):
    words = [f"--dataset={tmp_path / 'none'}", f"--output={tmp_path / 'run'}"]
    refused = refuse(EXAMPLE, *words)
    assert refused.startswith("error: A file of Megapixel MNIST is missing.")
    assert f"python examples/make_mnist.py {tmp_path / 'none'}" in refused
