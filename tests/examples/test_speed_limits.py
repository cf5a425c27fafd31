"""examples/speed_limits.py, as a user runs it: as a process."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from colored_spots import COLORS, photograph, probability, save_model
from PIL import Image
from processes import (
    EXAMPLES,
    interrupt_example,
    interrupt_training,
    names_in,
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
    assert (code, errors) == (0, "")
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

    scene = next(scenes.rglob("*.jpg"))
    run_here(EXAMPLE, "--predict", scene, "--model", output / "model.keras")
    answer = r": (no limit|50 km/h) \(0\.\d\d\)\n"
    assert re.fullmatch(re.escape(str(scene)) + answer, capsys.readouterr().out)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Go to a directory with ``model.keras``, and photographs of some sizes and kinds."""
    monkeypatch.chdir(tmp_path)
    save_model("model.keras")
    photograph("empty").save("road.jpg")
    photograph("50", size=(2720, 1601)).save("large.png")
    photograph("80", size=(680, 400)).convert("L").save("small.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    Path("phone").mkdir()
    photograph("70", size=(2000, 1500)).save("phone/road.jpg", exif=turned)
    return tmp_path


def test_predicts_photographs(photographs, rng):
    answers = {
        "road.jpg": ("no limit", probability("empty")),
        "large.png": ("50 km/h", probability("50")),
        "small.jpg": ("80 km/h", probability("80")),
        "phone/road.jpg": ("70 km/h", probability("70")),
    }
    # Where each pixel counts, the answer tells the scale.
    reds = rng.integers([55, 0, 0], [256, 120, 120], size=(20, 34, 3), dtype="uint8")
    blocks = Image.fromarray(reds)
    blocks.resize((2720, 1600), Image.Resampling.NEAREST).save("blocks.png")
    image = np.asarray(blocks.resize((1360, 800), Image.Resampling.NEAREST))
    view = image.reshape(200, 4, 340, 4, 3).mean(axis=(1, 3))
    model = keras.saving.load_model("model.keras")
    [found] = model.predict([view[None], image[None]], verbose=0)
    assert found.argmax() == [*COLORS].index("30")
    answers["blocks.png"] = ("30 km/h", found.max())

    code, printed, errors = run(EXAMPLE, "--predict", *answers, "--model=model.keras")
    assert (code, errors) == (0, "")
    assert printed == "".join(
        f"{path}: {answer} ({value:.2f})\n" for path, (answer, value) in answers.items()
    )
    output = photographs / "runs" / "speed_limits"
    stems = ["0-road", "1-large", "2-small", "3-road", "4-blocks"]
    assert names_in(output) == [f"{stem}.attention.png" for stem in stems]
    with Image.open(output / "3-road.attention.png") as picture:
        assert picture.height > picture.width


def test_evaluates_a_folder(photographs):
    """On 13 photographs, none of them of 70 km/h, the model is wrong four times."""
    pairs = [
        *[("empty", "empty")] * 4,
        *[("30", "30"), ("30", "50"), ("30", "empty")],
        *[("50", "50")] * 3,
        *[("80", "80"), ("80", "70"), ("80", "50")],
    ]
    numbers = {"empty": 13, "30": 1, "50": 2, "80": 5}  # 13: another sign, no limit
    lines, folder = [], photographs / "signs"
    folder.mkdir()
    for number, (true, answer) in enumerate(pairs):
        size = [(1360, 800), (1000, 750)][number % 2]
        photograph(answer, size).save(folder / f"{number:05}.png")
        lines.append(f"{number:05}.ppm;10;20;30;40;{numbers[true]}\n")
    lines.append("00000.ppm;30;20;50;40;17\n")
    for number, signs in ((90, (1, 2)), (91, (7,))):  # two limits; another limit
        photograph("30").save(folder / f"{number:05}.png")
        lines += [f"{number:05}.ppm;10;20;30;40;{sign}\n" for sign in signs]
    (folder / "gt.txt").write_text("".join(lines))
    code, printed, errors = run(EXAMPLE, "--evaluate", folder, "--model=model.keras")
    assert (code, errors) == (0, "")

    confusion = np.zeros((5, 5), int)
    names = [*COLORS]
    np.add.at(
        confusion, tuple(np.transpose([[*map(names.index, p)] for p in pairs])), 1
    )
    counts = confusion.sum(axis=1)
    recall = confusion.diagonal()[counts > 0] / counts[counts > 0]
    first, second, third, *table = printed.splitlines()
    assert first == "13 photographs"
    error, balanced = 1 - confusion.trace() / 13, 1 - recall.mean()
    assert second == f"Error {error:.3f}, balanced error {balanced:.3f}"
    assert (error, balanced) == pytest.approx((4 / 13, 1 / 3))
    assert third == f"Always 'empty': error {9 / 13:.3f}"
    assert table[0].split() == ["predicted", *names]
    rows = {name: [*map(int, row)] for name, *row in map(str.split, table[2:])}
    assert rows == dict(zip(names, confusion.tolist(), strict=True))


def test_what_cannot_be_read_is_one_line(photographs, capsys):
    model = ["--model", "model.keras"]
    whole = Path("road.jpg").read_bytes()
    Path("cut.jpg").write_bytes(whole[: len(whole) // 2])
    Path("flat.png").mkdir()
    for path in ("cut.jpg", "flat.png", "nowhere.jpg", "model.keras"):
        refused = refuse(EXAMPLE, "--predict", "small.jpg", path, *model)
        assert refused.startswith(f"error: {path} cannot be read: ")
        assert capsys.readouterr().out.startswith("small.jpg: 80 km/h")
    refused = refuse(EXAMPLE, "--predict", "road.jpg", "--model", "cut.jpg")
    assert refused.startswith("error: A model file is damaged, or none.")
    view = keras.Input((4, 4, 3))
    keras.Model(view, keras.layers.Flatten()(view)).save("other.keras")
    refused = refuse(EXAMPLE, "--predict", "road.jpg", "--model", "other.keras")
    assert refused == "error: other.keras is no model that this example has trained"
    refused = refuse(EXAMPLE, "--evaluate", "phone", *model)
    assert "gt.txt" in refused


@pytest.mark.slow
def test_profile_leaves_a_training_as_it_is(scenes, tmp_path):
    output = tmp_path / "runs" / "speed_limits"
    output.mkdir(parents=True)
    (output / "log.csv").write_text("epoch\n0\n")
    words = [EXAMPLE, "--dataset", scenes, "--profile"]
    code, printed, errors = run(*words, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert read_epochs(output) == [0]
    line = r"A training step on [CG]PU:0: \d+ ms, peak [1-9]\d* MiB\n"
    assert re.search(line, printed)
    assert len(list(output.glob("profile/train/plugins/profile/*/*.xplane.pb"))) == 1
    assert not (output / "model.keras").exists()


def test_it_trains_or_reads_and_not_both(capsys):
    with pytest.raises(SystemExit, match="2"):
        run_here(EXAMPLE, "--dataset", "scenes", "--predict", "photo.jpg")
    assert "--predict: not allowed with argument --dataset" in capsys.readouterr().err


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
    assert (code, errors) == (0, "")
    assert f"Going on after epoch {epochs}\n" in printed
    assert read_epochs(output) == list(range(epochs + 1))


@pytest.mark.slow
def test_without_arguments_interrupted_while_it_generates(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = Path("runs/speed_limits")
    interrupt_example([EXAMPLE], output, lambda: list(output.rglob("00005.jpg")))
    assert not (output / "scenes").exists()
    code, printed, errors = run(EXAMPLE, timeout=1800)
    assert (code, errors) == (0, "")
    accuracy = float(re.search(r"Test accuracy (\d\.\d+)\.", printed)[1])
    assert accuracy >= 0.95
    assert read_epochs(output) == list(range(len(read_epochs(output))))
    assert len(list(output.glob("pictures/*.png"))) == 8
