"""What of an output directory is of a run, and what happens to the rest."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from attention_sampling.experiments.figures import draw_weighted_patches

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "the examples are written for the TensorFlow backend", allow_module_level=True
    )

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = {
    "method": "ats-10",
    "seed": 0,
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 0.1,
    "pictures": 8,
}
LEFT = [
    "metrics.json",
    "curve.png",
    "run-0/model.keras",
    "run-0/log.csv",
    "run-0/tensorboard/train/events.out.tfevents.1.v2",
    "run-0/tensorboard/validation/events.out.tfevents.2.v2",
    "run-10/fold-1/model.keras",
    "run-10/fold-1/.model.part.keras",
]
# Where a run would write, of the user.
IN_THE_WAY = [
    "model.keras",
    "log.csv",
    "metrics.json",
    "curve.png",
    "settings.json",
    "pictures/holiday.jpg",
    "run-0/thesis.txt",
    "run-2024/thesis.txt",
]
# Beside a run, of the user.
MINE = [
    "notes.txt",
    "pictures/holiday.jpg",
    "pictures/mine.png",
    "run-0/notes.txt",
    "run-01/model.keras",
    "run-2024-results/model.keras",
    "run-10/fold-1/tensorboard/notes.txt",
    "tissue/log.csv",
]


@pytest.fixture
def directory(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)  # as for a script
    return importlib.import_module("run_directory")


def write(output, *names):
    for name in names:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("something")


@pytest.fixture
def run(tmp_path):
    """Return the output of a run, as all versions leave it."""
    output = tmp_path / "output"
    write(output, *LEFT)
    (output / "settings.json").write_text(json.dumps(SETTINGS))
    image = np.zeros((40, 40, 1), "uint8")
    (output / "pictures").mkdir()
    draw_weighted_patches(output / "pictures/ours.png", image, {})
    return output


def names(output):
    return sorted(
        path.relative_to(output).as_posix()
        for path in output.rglob("*")
        if path.is_file()
    )


def test_a_run_is_known_by_its_settings(directory, run):
    assert directory.holds_run(run)
    assert directory.holds_model(run)
    for text in ("{", "[]", '{"editor": "vi"}', json.dumps({"seed": 1, "epochs": 2})):
        (run / "settings.json").write_text(text)
        assert not directory.holds_run(run)
    (run / "settings.json").unlink()
    assert not directory.holds_run(run)


@pytest.mark.skipif(os.name == "nt", reason="nothing is locked on Windows")
def test_a_directory_is_of_one_process_at_a_time(directory, run):
    lock = importlib.import_module("run_lock")
    words = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
    words += "from run_lock import one_process; output = Path(sys.argv[2])\n"
    words += "with one_process(output): print(1, flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", words, EXAMPLES, run],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"1\n"
    before = names(run)
    message = "Another process is at work in .*output. Wait for its end"
    with pytest.raises(ValueError, match=message), lock.one_process(run):
        pass
    # Made, or found, only when the run begins.
    with pytest.raises(ValueError, match=message):
        directory.begin_output(run, overwrite=True)
    assert names(run) == before
    process.kill()
    process.communicate()
    with lock.one_process(run), lock.one_process(run.parent):
        directory.begin_output(run, overwrite=True)
    assert names(run) == ["settings.json"]
    assert not lock._held


def test_overwriting_deletes_the_run_and_nothing_else(directory, run, capsys):
    write(run, *MINE[:2], *MINE[3:])
    Image.new("L", (9, 9)).save(run / "pictures/mine.png")
    directory.begin_output(run, overwrite=False)
    assert len(names(run)) == len(LEFT) + len(MINE) + 2
    directory.begin_output(run, overwrite=True)
    assert names(run) == sorted([*MINE, "settings.json"])
    assert not (run / "run-0/tensorboard").exists()
    printed = capsys.readouterr().out
    assert printed.startswith("Not of the run that is overwritten, and left: ")
    for name in ("run-0/notes.txt", "pictures/holiday.jpg", "pictures/mine.png"):
        assert str(run / name) in printed


def test_overwriting_leaves_no_empty_directories(directory, run, capsys):
    directory.begin_output(run, overwrite=True)
    assert [path.name for path in run.iterdir()] == ["settings.json"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("options", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_is_of_no_run_is_in_the_way(directory, tmp_path, name, options):
    write(tmp_path, name)
    in_the_way = tmp_path / name.split("/")[0]
    with pytest.raises(ValueError, match=f"^{in_the_way} would be written to"):
        directory.check_output(tmp_path, *options)
    if options[1]:  # not even where it was not checked
        directory.begin_output(tmp_path, overwrite=True)
    assert names(tmp_path) == [name]


def test_a_link_to_nowhere_is_in_the_way(directory, tmp_path):
    (tmp_path / "model.keras").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="would be written to"):
        directory.check_output(tmp_path, resume=False, overwrite=False)


def test_other_names_are_not_in_the_way(directory, tmp_path):
    write(tmp_path, "notes.txt", "run-01/x", "run-2024-results/x", "my-run-1/x")
    directory.check_output(tmp_path, resume=False, overwrite=False)
    directory.check_output(tmp_path / "new" / "one", resume=False, overwrite=True)


def test_a_run_is_resumed_or_overwritten_or_refused(directory, run):
    with pytest.raises(ValueError, match=r"holds a run\. Go on with it by --resume"):
        directory.check_output(run, resume=False, overwrite=False)
    directory.check_output(run, resume=True, overwrite=False)
    directory.check_output(run, resume=False, overwrite=True)


def test_a_run_that_was_killed_at_once_is_begun_again(directory, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    assert directory.holds_run(tmp_path)
    assert not directory.holds_model(tmp_path)
    directory.check_output(tmp_path, resume=False, overwrite=False)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_is_no_output(directory, tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"must be a directory.*/file is a file"):
        directory.check_output(tmp_path / name, resume=False, overwrite=False)
