"""Runs that go on: their settings, models and logs."""

import importlib
import json
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from attention_sampling import SamplePatches
from attention_sampling.callbacks import save_model

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "the examples are written for the TensorFlow backend", allow_module_level=True
    )

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = {
    "seed": 0,
    "epochs": 4,
    "batch_size": 4,
    "learning_rate": 0.1,
    "pictures": 8,
    "backend": "tensorflow",
    "data": {"drawn": False, "images": 7, "noise_patches": 3, "digest": "a"},
}


@pytest.fixture(autouse=True)
def as_a_script(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.fixture
def progress(as_a_script):
    return importlib.import_module("run_progress")


@pytest.fixture
def trained(progress, tmp_path):
    """Return what makes a model, and a directory with one of two epochs and its log."""

    def make():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    model = make()
    log = progress.EpochLog(tmp_path / "log.csv", 2)
    x = np.ones((4, 3), "float32")
    model.fit(x, x[:, :1], 2, epochs=2, verbose=0, callbacks=[log])
    save_model(model, tmp_path / "model.keras")
    return make, tmp_path


def check_settings(output, free=(), **changed):
    module = importlib.import_module("run_settings")
    module.check_settings(output, SETTINGS | changed, free)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "--seed was 0, is 1"),
        ({"backend": "torch"}, "the backend was tensorflow, is torch; KERAS_BACKEND="),
        ({"data": SETTINGS["data"] | {"images": 9}}, "images of the data: was 7, is 9"),
        ({"data": SETTINGS["data"] | {"digest": "b"}}, "but not the same ones"),
        (
            {"data": SETTINGS["data"] | {"noise_patches": 0, "digest": "b"}},
            "noise patches of the data: was 3, is 0. Resume",
        ),
    ],
)
def test_other_settings_are_said_in_words(tmp_path, changed, message):
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    check_settings(tmp_path)
    check_settings(tmp_path, free=set(changed), **changed)
    with pytest.raises(ValueError, match="has other settings") as caught:
        check_settings(tmp_path, **changed)
    assert message in str(caught.value)


def test_what_earlier_versions_do_not_say_is_not_compared(tmp_path):
    earlier = {k: v for k, v in SETTINGS.items() if k not in ("backend", "data")}
    (tmp_path / "settings.json").write_text(json.dumps(earlier))
    check_settings(tmp_path, decay=0.25)
    with pytest.raises(ValueError, match=r"--decay was 0\.25, is 0"):
        check_settings(tmp_path, decay=0)
    with pytest.raises(ValueError, match="--folds was None, is 5"):
        check_settings(tmp_path, folds=5)


def test_a_model_goes_on_where_it_was(progress, trained, capsys):
    make, directory = trained
    model, saved = make(), keras.saving.load_model(directory / "model.keras")
    assert progress.restore_model(model, directory, 2, 3) == 2
    assert int(model.optimizer.iterations) == 4
    for one, other in ((model, saved), (model.optimizer, saved.optimizer)):
        for x, y in zip(one.variables, other.variables, strict=True):
            np.testing.assert_array_equal(x.numpy(), y.numpy(), x.path)
    assert "Going on after epoch 2." in capsys.readouterr().out
    with pytest.raises(ValueError, match="has 2 epochs already"):
        progress.restore_model(make(), directory, 2, 1)
    assert progress.restore_model(make(), directory / "none", 2, 1) == 0


def test_random_numbers_do_not_come_again(progress, tmp_path):
    """Keras saves no random state of its own layers: from where they began, again."""

    def make():
        model = keras.Sequential(
            [keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
        )
        model.compile("adam", "mse")
        return model

    def count(model):
        return int(model.layers[0].seed_generator.state.numpy()[1])

    model = make()
    log = progress.EpochLog(tmp_path / "log.csv", 2)
    x = np.ones((4, 3), "float32")
    model.fit(x, x[:, :1], 2, epochs=2, verbose=0, callbacks=[log])
    save_model(model, tmp_path / "model.keras")
    assert count(model) == 4
    restored = make()
    progress.restore_model(restored, tmp_path, 2, 2)
    assert count(restored) >= 4
    # What was loaded stays.
    images = keras.ops.zeros((1, 8, 8, 1))
    sample = SamplePatches(2, 3, seed=0)
    sample([images, images, keras.ops.full((1, 8, 8), 1 / 64)])
    before = sample.seed_generator.state.numpy()
    progress._advance_random_numbers(FakeModel(sample, steps=7))
    np.testing.assert_array_equal(sample.seed_generator.state.numpy(), before)


class FakeModel:
    def __init__(self, layer, steps):
        self.variables = layer.variables
        self.optimizer = types.SimpleNamespace(iterations=np.array(steps))


def test_damaged_files_are_named(progress, trained):
    make, directory = trained
    log, model = directory / "log.csv", directory / "model.keras"
    text, content = log.read_text(), model.read_bytes()
    log.write_text("\n".join(text.splitlines()[:2]))
    with pytest.raises(ValueError, match=rf"{log} lacks some of the 2 epochs"):
        progress.restore_model(make(), directory, 2, 2)
    log.write_bytes(b"\xff" * 9)
    with pytest.raises(ValueError, match=f"{log} is damaged, or no log"):
        progress.restore_model(make(), directory, 2, 2)
    model.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"{model} \(.*delete it, and --resume"):
        progress.restore_model(make(), directory, 2, 2)
    files = importlib.import_module("run_files")
    with pytest.raises(ValueError, match=rf"{model} is damaged, or no JSON"):
        files.read_json(model)


def write_log(path, planned):
    rows = [{"epoch": n, "loss": 1, **plan} for n, plan in enumerate(planned)]
    importlib.import_module("run_files").write_rows(path, rows)


@pytest.mark.parametrize(
    ("planned", "epochs", "fits"),
    [
        ([8] * 3, 8, True),  # interrupted
        ([8] * 8, 8, True),
        ([8] * 6, 12, True),  # the rate had not fallen, and would not have
        ([8] * 7, 12, False),
        ([8] * 8, 12, False),
        ([12] * 7, 8, False),  # it would have fallen sooner
        ([12] * 6, 8, True),
        ([8] * 6 + [12] * 3, 12, True),
        ([None] * 6, 12, True),
        ([None] * 7, 12, False),  # a log of an earlier version
    ],
)
def test_epochs_that_would_have_been_others_are_refused(
    progress, tmp_path, planned, epochs, fits
):
    plans = [{} if n is None else {progress.PLANNED: n} for n in planned]
    write_log(tmp_path / "log.csv", plans)
    arguments = (tmp_path, len(planned), epochs, 8, 0.25, lambda n: n * 3 // 4)
    if fits:
        progress.check_extension(*arguments)
    else:
        with pytest.raises(ValueError, match=r"falls over the last 25% .*--overwrite"):
            progress.check_extension(*arguments)
    # Without a decay all of them are the same.
    progress.check_extension(*arguments[:5], lambda n: n)


def test_extensions_are_those_of_finished_trainings(progress):
    def rows(*planned):
        return [{progress.PLANNED: str(n)} for n in planned]

    assert progress.extensions(rows(2, 2)) is None
    assert progress.extensions(rows(3, 3, 5, 5)) is None  # as it was interrupted
    # The third epoch was the last, then the fifth.
    assert progress.extensions(rows(3, 3, 3, 5, 5, 6)) == [3, 5]
    assert progress.extensions([{}, {}]) is None


def test_logs_of_earlier_versions_learn_what_was_planned(progress, tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    mine = "run-2024-results/log.csv"
    for name in ("run-0/log.csv", "run-1/fold-2/log.csv", mine):
        (tmp_path / name).parent.mkdir(parents=True)
        write_log(tmp_path / name, [{}, {}])
    before = (tmp_path / mine).read_bytes()
    progress.note_planned_epochs(tmp_path, 2)
    progress.note_planned_epochs(tmp_path, 9)  # they say already
    for name in ("run-0/log.csv", "run-1/fold-2/log.csv"):
        rows = importlib.import_module("run_files").read_log(tmp_path / name, None)
        assert [row[progress.PLANNED] for row in rows] == ["2", "2"]
    assert (tmp_path / mine).read_bytes() == before


def interrupt(output):
    script = importlib.import_module("script")

    def main():
        with script.explained(output):
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        script.run_script(main)
    assert caught.value.code == 130


def test_an_interrupt_says_how_to_go_on(tmp_path, capsys):
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    interrupt(tmp_path)
    assert "there is nothing" in capsys.readouterr().err
    (tmp_path / "model.keras").touch()
    interrupt(tmp_path)
    assert capsys.readouterr().err == (
        f"Interrupted: go on with the run in {tmp_path} by the same command with "
        "--resume.\n"
    )


def test_a_full_disk_is_named(tmp_path):
    script = importlib.import_module("script")

    def main():
        with script.explained(tmp_path):
            raise OSError(28, "No space left on device")

    with pytest.raises(SystemExit) as caught:
        script.run_script(main)
    assert str(tmp_path) in caught.value.code
    assert "No space left on device; writing stopped. Make room" in caught.value.code


def test_images_are_told_apart():
    describe = importlib.import_module("data_identity").describe_data
    first = describe(True, 3, [np.arange(3), ["a", 1]], seed=None)
    assert first == describe(True, 3, [np.arange(3), ("a", 1)], seed=None)
    assert (first["drawn"], first["images"], first["seed"]) == (True, 3, None)
    others = [
        [np.arange(1, 4), ["a", 1]],
        [np.arange(3), ["b", 1]],
        [np.arange(3).astype("int32"), ["a", 1]],
    ]
    digests = {describe(True, 3, parts)["digest"] for parts in others}
    assert len(digests | {first["digest"]}) == 4
    json.dumps(first)
