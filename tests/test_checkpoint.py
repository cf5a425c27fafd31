import keras
import numpy as np
import pytest

from attention_sampling.checkpoint import (
    EpochCheckpoint,
    check_model_file,
    completed_epochs,
    save_model,
)


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def fit(model, **arguments):
    x, y = np.ones((10, 3), "float32"), np.zeros((10, 1), "float32")
    return model.fit(x, y, batch_size=4, verbose=0, **arguments)


def test_a_loaded_checkpoint_goes_on_where_the_run_was(model, tmp_path):
    path = tmp_path / "model.keras"
    fit(model, epochs=2, callbacks=[EpochCheckpoint(path)])
    loaded = keras.saving.load_model(path)
    assert completed_epochs(loaded, steps_per_epoch=3) == 2
    for ours, theirs in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


@pytest.mark.parametrize("broken", ["loss", "val_loss", "weights"])
def test_what_is_not_finite_replaces_nothing(model, tmp_path, broken):
    path = tmp_path / "model.keras"
    checkpoint = EpochCheckpoint(path)
    checkpoint.set_model(model)
    logs = {"loss": 0.5, "val_loss": 0.5, "accuracy": float("nan")}
    checkpoint.on_epoch_end(0, logs)
    before = path.read_bytes()
    if broken == "weights":
        model.set_weights([np.full((3, 1), np.inf), np.zeros(1)])
    else:
        model.set_weights([np.ones((3, 1)), np.ones(1)])
        logs[broken] = float("nan")
    checkpoint.on_epoch_end(1, logs)
    assert path.read_bytes() == before
    model.set_weights([np.ones((3, 1)), np.ones(1)])
    checkpoint.on_epoch_end(2, {"loss": 0.1})
    assert path.read_bytes() != before


def test_epochs_with_steps_left_out_are_not_told(model):
    model.optimizer = keras.optimizers.LossScaleOptimizer(model.optimizer)
    with pytest.raises(ValueError, match="left out under mixed_float16"):
        completed_epochs(model, steps_per_epoch=3)


def test_an_untrained_model_has_no_epochs(model):
    assert completed_epochs(model, steps_per_epoch=3) == 0


def test_another_number_of_steps_is_refused(model):
    fit(model, epochs=2)
    with pytest.raises(ValueError, match=r"saved after 6 steps.*steps_per_epoch=4"):
        completed_epochs(model, steps_per_epoch=4)


def test_a_failed_save_leaves_the_earlier_file(model, tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    save_model(model, path)
    before = path.read_bytes()

    def write_half(self, part):
        part.write_bytes(before[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(keras.Model, "save", write_half)
    with pytest.raises(OSError, match="No space"):
        save_model(model, path)
    assert path.read_bytes() == before


def test_only_keras_files():
    with pytest.raises(
        ValueError, match=r"must end in .keras. Received: path='model.h5'"
    ):
        EpochCheckpoint("model.h5")


def test_a_damaged_model_file_is_named(model, tmp_path):
    path = tmp_path / "model.keras"
    save_model(model, path)
    check_model_file(path)
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (
        content[:middle],
        b"",
        b"no model at all",
        content[:middle] + bytes(255 - byte for byte in content[middle:]),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"damaged, or none.*Received: {path} \("):
            check_model_file(path)
    with pytest.raises(FileNotFoundError):
        check_model_file(tmp_path / "nowhere.keras")
