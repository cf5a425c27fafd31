"""The slides example as a user runs it: a process, resumed, twice, interrupted."""

import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tifffile
from PIL import Image
from processes import (
    EXAMPLES,
    interrupt_example,
    interrupt_training,
    names_in,
    read_epochs,
    read_table,
    refuse,
    refuse_to_overwrite,
    run,
    run_here,
)

from attention_sampling.datasets.synthetic.slides import write_slides
from attention_sampling.files import one_process

if keras.backend.backend() != "tensorflow":
    pytest.skip("the examples are for TensorFlow", allow_module_level=True)

EXAMPLE = EXAMPLES / "slides.py"


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "slides"
    return write_slides(directory, 12, smallest=(512, 512), largest=(600, 700))


@pytest.mark.slow
def test_twice_at_once_interrupted_resumed_and_asked_for_more(slides, tmp_path, capsys):
    data = shutil.copytree(slides, tmp_path / "data")
    (data / "slide_003.tif").write_bytes(b"II*\0cut off")
    output = tmp_path / "new" / "run"
    words = [EXAMPLE, f"--dataset={data}", f"--output={output}", "--n-patches=2"]
    interrupt_training([*words, "--epochs=10000"], output)
    refuse_to_overwrite(words, output)
    epochs = read_epochs(output)[-1] + 3
    code, printed, errors = run(*words, f"--epochs={epochs}", "--resume")
    assert (code, errors) == (0, "")  # no lines of CUDA, oneDNN or absl either
    assert f"left out: {data / 'slide_003.tif'}: " in printed
    assert "8 slides to train on, 3 to test with" in printed
    assert re.search("cross_entropy: .* val_cross_entropy: ", printed)
    assert f"Epoch {epochs}/{epochs}" in printed
    assert "Epoch 1/" not in printed
    assert re.search(r"^Test accuracy [01]\.\d+\. ", printed, re.MULTILINE)
    assert read_epochs(output) == list(range(epochs))
    pictures = names_in(output / "pictures")
    assert len(pictures) == 3
    for name in pictures:
        with Image.open(output / "pictures" / name) as image:
            assert min(image.size) > 300

    # What is finished is evaluated again.
    run_here(*words, f"--epochs={epochs}", "--resume")
    printed = capsys.readouterr().out
    assert "Epoch" not in printed
    assert "Test accuracy" in printed

    code, printed, errors = run(EXAMPLE, f"--predict={data}", f"--output={output}")
    assert (code, errors) == (0, "")
    rows = read_table(output / "predictions" / "predictions.csv")
    assert [Path(row["file"]).name for row in rows] == [
        f"slide_{n:03d}.tif" for n in range(12) if n != 3
    ]
    for row in rows:
        names = ("hollow", "long", "round")
        answer = {name: float(row[f"score of {name}"]) for name in names}
        assert sum(answer.values()) == pytest.approx(1, abs=2e-4)
        assert row["label"] == max(answer, key=answer.get)


@pytest.mark.slow
def test_interrupted_while_it_generates_and_the_default_run_learns(tmp_path):
    words = [EXAMPLE, f"--output={tmp_path}"]
    half = "*.part/slide_002.tif"
    interrupt_example(words, tmp_path, lambda: any(tmp_path.rglob(half)))
    assert names_in(tmp_path) == ["settings.json"]
    code, printed, errors = run(*words, timeout=1500)
    assert (code, errors) == (0, "")
    assert "45 slides to train on, 15 to test with" in printed
    [accuracy] = re.findall(r"^Test accuracy (\d\.\d+)\.", printed, re.MULTILINE)
    assert float(accuracy) >= 0.7


def test_predictions_are_no_second_process_either(tmp_path):
    (tmp_path / "model.keras").write_text("a month of training")
    with one_process(tmp_path):
        refused = refuse(EXAMPLE, "--predict=slides", f"--output={tmp_path}")
    assert refused.startswith(f"error: Another process is at work in {tmp_path}")
    assert names_in(tmp_path) == ["model.keras"]


def test_a_typing_error_makes_no_directory(slides, tmp_path):
    output = tmp_path / "typo"
    refused = refuse(EXAMPLE, f"--predict={slides}", f"--output={output}")
    assert refused == f"error: {output} holds no trained model: train one first"
    assert not output.exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, r"labels\.csv"),
        ("name,label\nslide_000.tif,a", "needs the columns file and label"),
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
    refused = refuse(EXAMPLE, f"--dataset={data}", f"--output={tmp_path / 'run'}")
    assert re.search(f"^error: .*{message}", refused)
