"""The colon cancer example as a user runs it: a process, resumed, twice, interrupted."""

import csv
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from attention_sampling.datasets.synthetic.tissue import write_tissue
from attention_sampling.files import one_process

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "the examples are written for the TensorFlow backend", allow_module_level=True
    )

EXAMPLE = Path(__file__).parents[2] / "examples" / "colon_cancer.py"
TIMEOUT = 300


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    return write_tissue(tmp_path_factory.mktemp("data") / "tissue", 10, size=80)


def start(*arguments):
    # TensorFlow, imported here, has set how much it logs.
    kept = {key: os.environ[key] for key in os.environ if key != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.Popen(
        [sys.executable, EXAMPLE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=kept,
    )


def run(*arguments, timeout=TIMEOUT):
    """Return exit code, and what was printed to stdout and stderr."""
    process = start(*arguments)
    try:
        output, errors = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, output, errors


def interrupt(process, condition):
    """Press Ctrl-C when a condition holds; return as `run` does."""
    try:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    return process.returncode, output, errors


def read_epochs(output):
    with (output / "log.csv").open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_run_is_kept_and_resumed(tissue, tmp_path):
    output = tmp_path / "new" / "run"
    arguments = [f"--dataset={tissue}", f"--output={output}", "--n-patches=3"]
    code, printed, errors = run(*arguments, "--epochs=2")
    assert code == 0, errors
    assert errors == ""  # no lines of CUDA, oneDNN or absl either
    assert "10 images (1-10), 5 with epithelial nuclei" in printed
    assert "8 to train on, 2 to test with" in printed
    assert len(re.findall("cross_entropy: .* val_cross_entropy: ", printed)) == 2
    assert re.search(r"^Test accuracy [01]\.\d+\. ", printed, re.MULTILINE)
    assert read_epochs(output) == [0, 1]
    pictures = sorted((output / "pictures").iterdir())
    assert len(pictures) == 2
    for path in pictures:
        with Image.open(path) as image:
            assert min(image.size) > 300

    code, printed, errors = run(*arguments, "--epochs=3", "--resume")
    assert code == 0, errors
    assert "Epoch 3/3" in printed
    assert "Epoch 2/3" not in printed
    assert read_epochs(output) == [0, 1, 2]


@pytest.mark.slow
def test_a_run_that_is_finished_is_evaluated_again(tissue, tmp_path):
    # The first --resume finds nothing, and begins.
    arguments = [f"--dataset={tissue}", f"--output={tmp_path}", "--epochs=2"]
    for found in (["Epoch 1/2", "Epoch 2/2"], []):
        code, printed, errors = run(*arguments, "--resume")
        assert code == 0, errors
        assert re.findall("Epoch .*", printed) == found
        assert "Test accuracy" in printed
        assert read_epochs(tmp_path) == [0, 1]
        assert any((tmp_path / "pictures").iterdir())
        shutil.rmtree(tmp_path / "pictures")


@pytest.mark.slow
@pytest.mark.parametrize("option", [(), ("--resume",)])
def test_a_second_process_ends_at_once(tissue, tmp_path, option):
    with one_process(tmp_path):
        code, printed, errors = run(
            f"--dataset={tissue}", f"--output={tmp_path}", *option
        )
    assert code == 1
    assert errors.startswith(f"error: Another process is at work in {tmp_path}")
    assert errors.count("\n") == 1
    assert printed == ""
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


@pytest.mark.slow
def test_a_trained_model_is_not_overwritten(tissue, tmp_path):
    (tmp_path / "model.keras").write_text("a month of training")
    code, printed, errors = run(f"--dataset={tissue}", f"--output={tmp_path}")
    assert code == 1
    assert errors.startswith(
        f"error: {tmp_path} holds a trained model: go on with it (resume), or choose"
    )
    assert errors.count("\n") == 1
    assert printed == ""
    assert {path.name for path in tmp_path.iterdir()} <= {".lock", "model.keras"}
    assert (tmp_path / "model.keras").read_text() == "a month of training"


@pytest.mark.slow
def test_interrupted_in_training_and_resumed(tissue, tmp_path):
    arguments = [f"--dataset={tissue}", f"--output={tmp_path}", "--n-patches=3"]
    process = start(*arguments, "--epochs=10000")
    code, _, errors = interrupt(process, (tmp_path / "model.keras").exists)
    assert code == 1
    assert "interrupted; --resume goes on after the last whole epoch" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("*.part*"))
    epochs = read_epochs(tmp_path)[-1] + 3
    code, printed, errors = run(*arguments, f"--epochs={epochs}", "--resume")
    assert code == 0, errors
    assert f"Epoch {epochs}/{epochs}" in printed
    assert "Epoch 1/" not in printed
    assert read_epochs(tmp_path) == list(range(epochs))


@pytest.mark.slow
def test_interrupted_while_tissue_is_generated_and_resumed(tmp_path):
    process = start(f"--output={tmp_path}")
    code, _, errors = interrupt(process, lambda: any(tmp_path.rglob("*.part/*/img3")))
    assert code == 1
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "settings.json"}
    code, printed, errors = run(f"--output={tmp_path}", "--resume", "--epochs=1")
    assert code == 0, errors
    assert "100 images (1-100), 50 with epithelial nuclei" in printed


@pytest.mark.slow
def test_the_default_run_learns(tmp_path):
    code, printed, errors = run(f"--output={tmp_path}", timeout=1500)
    assert code == 0, errors
    [accuracy] = re.findall(r"^Test accuracy (\d\.\d+)\.", printed, re.MULTILINE)
    assert float(accuracy) >= 0.8


@pytest.mark.slow
def test_a_data_set_that_is_not_there(tmp_path):
    code, _, errors = run(f"--dataset={tmp_path / 'x'}", f"--output={tmp_path}")
    assert code == 1
    assert re.search("^error: The data set is not there.*/x'$", errors, re.MULTILINE)
    assert "Traceback" not in errors


def import_example():
    specification = importlib.util.spec_from_file_location("example", EXAMPLE)
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    return example


@pytest.mark.slow
def test_a_training_that_diverged_is_not_evaluated(tissue, tmp_path, monkeypatch):
    example = import_example()
    monkeypatch.setattr(example, "LEARNING_RATE", 1e36)
    with pytest.raises(ValueError, match=r"loss is NaN; .* keeps the last good epoch"):
        example.train(tmp_path, tissue, 3, 5, 3, seed=0, resume=False)
    assert not (tmp_path / "model.keras").exists()
    assert not (tmp_path / "pictures").exists()


def test_training_images_are_changed_together_with_their_views():
    example = import_example()
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), "uint8")
    labels = np.arange(4, dtype="int32")
    plain = example.make_batches(images, labels, batch_size=4)
    [((_, pixels), order)] = list(plain)
    np.testing.assert_array_equal(pixels, images)
    np.testing.assert_array_equal(order, labels)
    changed = example.make_batches(images, labels, batch_size=4, seed=0)
    epochs = [next(iter(changed)) for _ in range(2)]
    for (views, pixels), order in epochs:
        assert sorted(order) == [0, 1, 2, 3]
        assert (pixels.numpy() != images[order]).any(axis=(1, 2, 3)).all()
        means = pixels.numpy().reshape(4, 4, 5, 4, 5, 3).mean(axis=(2, 4))
        np.testing.assert_allclose(views, means, atol=0.01)
    (_, first), _ = epochs[0]
    (_, second), _ = epochs[1]
    assert not np.array_equal(np.sort(first, axis=0), np.sort(second, axis=0))
