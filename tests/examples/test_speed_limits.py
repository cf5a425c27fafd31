"""examples/speed_limits.py, as a user runs it: as a process."""

import re
from pathlib import Path

import keras
import pytest
from processes import (
    EXAMPLES,
    interrupt_example,
    interrupt_training,
    read_epochs,
    refuse,
    refuse_to_overwrite,
    run,
    run_here,
)

from attention_sampling.datasets.synthetic.scenes import write_scenes
from attention_sampling.files import one_process

if keras.backend.backend() != "tensorflow":
    pytest.skip("the examples are for TensorFlow", allow_module_level=True)

EXAMPLE = EXAMPLES / "speed_limits.py"


def without_bars(errors):
    """Return the lines that are of no progress bar: none of CUDA, oneDNN or absl."""
    bars = ("Road scenes: ", "Checking images: ")
    lines = re.split(r"[\r\n]+", errors)
    return [line for line in lines if line.strip() and not line.startswith(bars)]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(directory, n_images=20, size=(160, 240), progress=False)
    return directory


def test_trains_and_goes_on(scenes, tmp_path, monkeypatch, capsys):
    output = tmp_path / "runs" / "mine"
    monkeypatch.chdir(tmp_path)
    words = [EXAMPLE, "--dataset", scenes, "--output", "runs/mine"]
    # An empty output: from the beginning.
    code, printed, errors = run(*words, "--epochs", 1, "--resume")
    assert (code, without_bars(errors)) == (0, [])
    assert (
        "16 training and 4 test images of 240 x 160 pixels; classes empty, 50"
        in printed
    )
    assert re.search(r"Test accuracy \d\.\d+\. Everything is in runs/mine", printed)
    assert read_epochs(output) == [0]
    pictures = sorted(output.glob("pictures/*.png"))
    assert len(pictures) == 4
    assert list(output.glob("tensorboard/validation/events.*"))

    refuse_to_overwrite(words, Path("runs/mine"))
    refused = refuse(*words, "--n-patches", 3, "--resume")
    assert "other settings: n_patches was 5, is 3. Resume it with its own" in refused

    for path in pictures:
        path.unlink()
    run_here(*words, "--epochs", 2, "--resume")
    assert "Going on after epoch 1\n" in capsys.readouterr().out
    assert read_epochs(output) == [0, 1]
    assert sorted(output.glob("pictures/*.png")) == pictures
    assert not list(output.rglob("*.part*"))
    assert keras.saving.load_model(output / "model.keras").optimizer.iterations == 4


@pytest.mark.slow
def test_profile_leaves_a_training_as_it_is(scenes, tmp_path):
    output = tmp_path / "runs" / "speed_limits"
    output.mkdir(parents=True)
    (output / "log.csv").write_text("epoch\n0\n")
    words = [EXAMPLE, "--dataset", scenes, "--profile"]
    code, printed, errors = run(*words, cwd=tmp_path)
    assert (code, without_bars(errors)) == (0, [])
    assert read_epochs(output) == [0]
    line = r"A training step on [CG]PU:0: \d+ ms, peak [1-9]\d* MiB\n"
    assert re.search(line, printed)
    assert len(list(output.glob("profile/train/plugins/profile/*/*.xplane.pb"))) == 1
    assert not (output / "model.keras").exists()


def test_what_cannot_be_done_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with one_process("taken"):
        refused = refuse(EXAMPLE, "--output", "taken")
    assert refused.startswith("error: Another process is at work in taken")
    refused = refuse(EXAMPLE, "--dataset", "nowhere")
    assert re.fullmatch("error: The data set is not there. .*nowhere'", refused)


@pytest.mark.slow
def test_twice_at_once_interrupted_while_it_trains_and_resumed(scenes, tmp_path):
    output = tmp_path / "run"
    words = [EXAMPLE, "--dataset", scenes, "--output", output]
    interrupt_training([*words, "--epochs=500"], output)
    model = keras.saving.load_model(output / "model.keras")
    iterations = int(model.optimizer.iterations)
    epochs = iterations // 2
    assert 1 <= epochs < 500
    assert iterations == 2 * epochs
    code, printed, errors = run(*words, "--epochs", epochs + 1, "--resume")
    assert (code, without_bars(errors)) == (0, [])
    assert f"Going on after epoch {epochs}\n" in printed
    assert read_epochs(output) == list(range(epochs + 1))


@pytest.mark.slow
def test_without_arguments_interrupted_while_it_generates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = Path("runs/speed_limits")
    interrupt_example([EXAMPLE], output, lambda: list(output.rglob("00005.jpg")))
    assert not (output / "scenes").exists()
    code, printed, errors = run(EXAMPLE, timeout=1800)
    assert (code, without_bars(errors)) == (0, [])
    accuracy = float(re.search(r"Test accuracy (\d\.\d+)\.", printed)[1])
    assert accuracy >= 0.95
    assert read_epochs(output) == list(range(len(read_epochs(output))))
    assert len(list(output.glob("pictures/*.png"))) == 8
