"""The example of slides as a user runs it: a process, resumed, twice, interrupted."""

import csv
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
import tifffile
from PIL import Image

from attention_sampling.datasets.synthetic.slides import write_slides
from attention_sampling.files import one_process

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "the examples are written for the TensorFlow backend", allow_module_level=True
    )

EXAMPLE = Path(__file__).parents[2] / "examples" / "slides.py"
TIMEOUT = 300


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "slides"
    return write_slides(directory, 12, smallest=(512, 512), largest=(600, 700))


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


def read_table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_epochs(output):
    return [int(row["epoch"]) for row in read_table(output / "log.csv")]


@pytest.mark.slow
def test_a_run_is_kept_and_predicts(slides, tmp_path):
    data = shutil.copytree(slides, tmp_path / "data")
    (data / "slide_003.tif").write_bytes(b"II*\0cut off")
    output = tmp_path / "new" / "run"
    arguments = [f"--dataset={data}", f"--output={output}", "--n-patches=2"]
    code, printed, errors = run(*arguments, "--epochs=1")
    assert (code, errors) == (0, "")  # no lines of CUDA, oneDNN or absl either
    assert f"left out: {data / 'slide_003.tif'}: " in printed
    assert "8 slides to train on, 3 to test with" in printed
    assert len(re.findall("cross_entropy: .* val_cross_entropy: ", printed)) == 1
    assert read_epochs(output) == [0]
    assert re.search(r"^Test accuracy [01]\.\d+\. ", printed, re.MULTILINE)
    pictures = sorted((output / "pictures").iterdir())
    assert len(pictures) == 3
    for path in pictures:
        with Image.open(path) as image:
            assert min(image.size) > 300

    code, printed, errors = run(f"--predict={data}", f"--output={output}")
    assert (code, errors) == (0, "")
    rows = read_table(output / "predictions.csv")
    assert [Path(row["file"]).name for row in rows] == [
        f"slide_{n:03d}.tif" for n in range(12) if n != 3
    ]
    for row in rows:
        answer = {name: float(row[name]) for name in ("hollow", "long", "round")}
        assert sum(answer.values()) == pytest.approx(1, abs=2e-4)
        assert row["label"] == max(answer, key=answer.get)


@pytest.mark.slow
def test_a_typing_error_makes_no_directory(slides, tmp_path):
    output = tmp_path / "typo"
    code, printed, errors = run(f"--predict={slides}", f"--output={output}")
    assert (code, printed) == (1, "")
    assert errors == f"error: {output} holds no trained model: train one first\n"
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.parametrize("option", [(), ("--resume",), ("--predict=slides",)])
def test_a_second_process_ends_at_once(slides, tmp_path, option):
    with one_process(tmp_path):
        code, printed, errors = run(
            f"--dataset={slides}", f"--output={tmp_path}", *option
        )
    assert (code, printed) == (1, "")
    assert errors.startswith(f"error: Another process is at work in {tmp_path}")
    assert errors.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ((), "holds a trained model: go on with it (resume), or choose another output"),
        (("--resume",), "was trained with other labels. Received: ['hollow', 'long', "),
    ],
)
def test_a_trained_model_is_not_overwritten(slides, tmp_path, option, message):
    (tmp_path / "model.keras").write_text("a month of training")
    (tmp_path / "classes.json").write_text('["other", "labels"]')
    code, _, errors = run(f"--dataset={slides}", f"--output={tmp_path}", *option)
    assert code == 1
    assert errors.startswith(f"error: {tmp_path} {message}")
    assert errors.count("\n") == 1
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= {".lock", "model.keras", "classes.json"}
    assert (tmp_path / "model.keras").read_text() == "a month of training"
    assert (tmp_path / "classes.json").read_text() == '["other", "labels"]'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, r"labels\.csv"),
        (
            "file;label\nslide_000.tif;a",
            r"lacks the columns file and label: \['file;label'\]",
        ),
        ("file,label\nslide_000.tif,a\nslide_001.tif,b", "too few samples"),
        ("file,label\nnowhere.tif,a", r"nowhere\.tif: there is no such file"),
        ("file,label\ndeep.tif,a", "pixels of 8 bits. Received: .*uint16"),
    ],
)
def test_data_that_cannot_be_used_are_refused(slides, tmp_path, table, message):
    data = shutil.copytree(slides, tmp_path / "data")
    deep = np.zeros((64, 64, 3), "uint16")
    tifffile.imwrite(data / "deep.tif", deep, tile=(16, 16), photometric="rgb")
    (data / "labels.csv").unlink()
    if table:
        (data / "labels.csv").write_text(table)
    code, _, errors = run(f"--dataset={data}", f"--output={tmp_path / 'run'}")
    assert code == 1
    assert re.search(f"^error: .*{message}", errors)
    assert "Traceback" not in errors


@pytest.mark.slow
def test_interrupted_in_training_and_resumed(slides, tmp_path):
    arguments = [f"--dataset={slides}", f"--output={tmp_path}", "--n-patches=2"]
    process = start(*arguments, "--epochs=10000")
    code, _, errors = interrupt(process, (tmp_path / "model.keras").exists)
    assert code == 1
    assert "interrupted; --resume goes on after the last whole epoch" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("*.part*"))
    epochs = read_epochs(tmp_path)[-1] + 3
    for found in (True, False):  # the second finds nothing left to do
        code, printed, errors = run(*arguments, f"--epochs={epochs}", "--resume")
        assert (code, errors) == (0, "")
        assert (f"Epoch {epochs}/{epochs}" in printed) is found
        assert "Epoch 1/" not in printed
        assert "Test accuracy" in printed
        assert read_epochs(tmp_path) == list(range(epochs))


@pytest.mark.slow
def test_interrupted_while_slides_are_generated_and_resumed(tmp_path):
    process = start(f"--output={tmp_path}")
    code, _, errors = interrupt(
        process, lambda: any(tmp_path.rglob("*.part/slide_002.tif"))
    )
    assert code == 1
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "settings.json"}
    code, printed, errors = run(
        f"--output={tmp_path}", "--resume", "--epochs=1", timeout=900
    )
    assert (code, errors) == (0, "")
    assert "45 slides to train on, 15 to test with" in printed


@pytest.mark.slow
def test_the_default_run_learns(tmp_path):
    code, printed, errors = run(f"--output={tmp_path}", timeout=1500)
    assert (code, errors) == (0, "")
    [accuracy] = re.findall(r"^Test accuracy (\d\.\d+)\.", printed, re.MULTILINE)
    assert float(accuracy) >= 0.7
