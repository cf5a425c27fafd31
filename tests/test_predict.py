"""python -m attention_sampling predict, as a user runs it."""

import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from processes import COMMANDS, interrupt, read_table, run, start, wait_until

from attention_sampling import SampleSoftmax, attention_sampling
from attention_sampling.__main__ import main
from attention_sampling.data import open_source

if keras.backend.backend() != "tensorflow":
    pytest.skip("models are saved for TensorFlow here", allow_module_level=True)


@pytest.fixture
def trained(tmp_path, rng):
    """Return a directory with photographs of two classes, and a model of them."""
    for name in ("cat/a.png", "dog/a.png", "dog/b.jpg"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(80, 120, 3), dtype="uint8")
        Image.fromarray(pixels).save(tmp_path / "pets" / name)
    attention = keras.Sequential([keras.layers.Conv2D(1, 3), SampleSoftmax(True)])
    feature = keras.layers.GlobalAveragePooling2D()
    inputs = [keras.Input((8, 12, 3)), keras.Input((), dtype="int32")]
    source = open_source(tmp_path / "pets")
    features, _, _ = attention_sampling(attention, feature, 16, 3, source=source)(
        inputs
    )
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(features))
    model.save(tmp_path / "model.keras")
    return tmp_path


def predict(directory, *arguments):
    return run(*COMMANDS, "predict", *arguments, cwd=directory)


def test_predicts_a_directory(trained):
    (trained / "pets" / "dog" / "c.jpg").write_bytes(b"\xff\xd8\xff broken")
    (trained / "pets" / "dog" / "notes.txt").write_text("not an image")
    Image.new("RGB", (5, 5)).save(trained / "pets" / "dog" / "small.png")
    code, printed, errors = predict(trained, "model.keras", "pets", "--output", "out")
    assert code == 1
    broken, small = errors.splitlines()
    assert broken.startswith("left out: ")
    assert "c.jpg" in broken
    assert small.startswith("left out: pets/dog/small.png: The view must not be larger")
    assert len(printed.splitlines()) == 4
    rows = read_table(trained / "out" / "predictions.csv")
    assert [row["file"] for row in rows] == [
        "pets/cat/a.png",
        "pets/dog/a.png",
        "pets/dog/b.jpg",
    ]
    for row in rows:
        scores = {name: float(row[f"score of {name}"]) for name in ("cat", "dog")}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-3)
        assert scores[row["label"]] == max(scores.values())
        with Image.open(trained / "out" / row["picture"]) as picture:
            assert np.asarray(picture).std() > 0
    assert len({row["picture"] for row in rows}) == 3


def test_writes_beside_the_images_without_replacing_them(trained):
    folder = trained / "pets" / "dog"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    Image.fromarray(np.zeros((80, 120), "uint8")).save(
        folder / "grey.png"
    )  # becomes RGB
    code, _, errors = predict(trained, "model.keras", folder, "--output", folder)
    assert (code, errors) == (0, "")
    assert {path: path.read_bytes() for path in before} == before
    assert len(read_table(folder / "predictions.csv")) == 3


def test_interrupted_it_keeps_the_table_of_what_was_done(trained):
    pets, output = trained / "pets", trained / "out"
    for number in range(100):
        shutil.copy(pets / "cat" / "a.png", pets / "cat" / f"{number}.png")
    words = [*COMMANDS, "predict", trained / "model.keras", pets, "--output", output]
    with start(*words) as process:
        wait_until(lambda: len(list(output.glob("*.png"))) > 2, process)
        code, _, errors = interrupt(process)
    assert code == 130
    assert errors == "stopped\n"
    rows = read_table(output / "predictions.csv")
    assert 2 <= len(rows) < 103
    assert all((output / row["picture"]).exists() for row in rows)
    assert not list(output.glob("*.part*"))


def test_what_cannot_be_predicted_is_one_line(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    for arguments, message in [
        (("none.keras", "pets"), "none.keras"),
        (("pets/dog/b.jpg", "pets"), "damaged, or none"),
        (("pets", "pets"), "Expected: a .keras file"),
        (("model.keras", "nowhere.jpg"), "nowhere.jpg: there is no such file"),
    ]:
        assert main(["predict", *arguments]) == 2
        printed, errors = capsys.readouterr()
        assert printed == ""
        [line] = errors.splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert not (trained / "predictions").exists()
