"""Callbacks: the schedule of the proposal, and checkpoints."""

import keras
import numpy as np
import pytest
from keras import ops

from attention_sampling import (
    LocalContrast,
    ProposalMix,
    SamplePatches,
    SampleSoftmax,
    attention_sampling,
)
from attention_sampling.callbacks import (
    EpochCheckpoint,
    check_model_file,
    completed_epochs,
    save_model,
)


class Record(keras.callbacks.Callback):
    """Write down the mix of every epoch, at its end."""

    def __init__(self):
        super().__init__()
        self.mixes = []

    def on_epoch_end(self, epoch, logs=None):
        (layer,) = (
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, SamplePatches)
        )
        self.mixes.append(float(ops.convert_to_numpy(layer.mix)))


def salient_share_model():
    """Return a model whose loss is the share of drawn cells that are salient.

    One cell in sixteen is: white in the view and in the image. Attention is flat.
    """
    view, image = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    flat = keras.layers.Rescaling(0.0, 1 / 64)(keras.layers.Reshape((8, 8))(view))
    saliency = keras.layers.Reshape((8, 8))(view)
    patches, *_ = SamplePatches(20, 1, replace=True, proposal_mix=0.3, seed=0)(
        [view, image, flat, saliency]
    )
    share = keras.layers.GlobalAveragePooling3D()(patches)
    share = keras.layers.Dense(1, kernel_initializer="ones")(share)
    model = keras.Model([view, image], share)
    model.compile(keras.optimizers.SGD(0.0), loss=lambda y, share: share)
    views = np.zeros((50, 8, 8, 1), "float32")
    views[:, ::4, ::4] = 1
    return model, [views, views], np.zeros((50, 1), "float32")


@pytest.mark.parametrize(
    ("arguments", "mixes"),
    [
        ({"start": 0.8, "end": 0.0, "epochs": 4}, [0.8, 0.6, 0.4, 0.2, 0.0, 0.0]),
        ({"start": 0.5, "end": 0.5}, [0.5] * 5),
        ({"start": 0.0, "end": 1.0, "epochs": 2}, [0.0, 0.5, 1.0, 1.0]),
        ({"start": 1, "end": 0, "epochs": 1}, [1.0, 0.0, 0.0]),
    ],
)
def test_goes_from_one_to_the_other_in_equal_steps(arguments, mixes):
    callback = ProposalMix(**arguments)
    assert [callback.mix(epoch) for epoch in range(len(mixes))] == pytest.approx(mixes)


def test_the_draws_of_every_epoch_follow():
    """Not only a number that is set: cells are drawn from it in the very epoch."""
    model, x, y = salient_share_model()
    record = Record()
    history = model.fit(
        x, y, epochs=4, batch_size=10, verbose=0,
        callbacks=[ProposalMix(start=1.0, end=0.0, epochs=2), record],
    ).history  # fmt: skip
    assert record.mixes == pytest.approx([1.0, 0.5, 0.0, 0.0])
    expected = [1 - 0.01, 0.5 + 0.5 / 16, 1 / 16, 1 / 16]
    np.testing.assert_allclose(history["loss"], expected, atol=0.06)


def test_without_it_the_mix_stays_what_it_was():
    model, x, y = salient_share_model()
    record = Record()
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[record]).history
    assert record.mixes == pytest.approx([0.3, 0.3])
    np.testing.assert_allclose(history["loss"], 0.3 + 0.7 / 16, atol=0.06)


def test_counts_from_the_initial_epoch():
    model, x, y = salient_share_model()
    record = Record()
    callbacks = [ProposalMix(start=1.0, end=0.0, epochs=4), record]
    model.fit(x, y, initial_epoch=2, epochs=5, verbose=0, callbacks=callbacks)
    assert record.mixes == pytest.approx([0.5, 0.25, 0.0])


def test_validation_and_prediction_keep_to_the_attention():
    model, x, y = salient_share_model()
    history = model.fit(
        x, y, epochs=1, verbose=0, validation_data=(x, y),
        callbacks=[ProposalMix(start=1.0, end=1.0)],
    ).history  # fmt: skip
    np.testing.assert_allclose(history["val_loss"], 1 / 16, atol=0.06)
    np.testing.assert_allclose(model.predict(x, verbose=0).mean(), 1 / 16, atol=0.06)


def stacked_model():
    view, image = keras.Input((6, 6, 1)), keras.Input((12, 12, 1))
    sample = attention_sampling(
        keras.Sequential([keras.layers.Conv2D(1, 1), SampleSoftmax(True)]),
        keras.Sequential(
            [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
        ),
        n_patches=3,
        proposal=LocalContrast(3),
        seed=0,
    )
    model = keras.Model([view, image], keras.layers.Dense(1)(sample([view, image])[0]))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


def stacked_data():
    rng = np.random.default_rng(0)
    return (
        [
            rng.normal(size=(8, 6, 6, 1)).astype("float32"),
            rng.normal(size=(8, 12, 12, 1)).astype("float32"),
        ],
        rng.normal(size=(8, 1)).astype("float32"),
    )


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    """Weights, momentum, random state and mix: two epochs and two, or four."""
    x, y = stacked_data()

    def fit(model, **arguments):
        record = Record()
        model.fit(
            x, y, batch_size=4, shuffle=False, verbose=0,
            callbacks=[
                ProposalMix(0.9, 0.0, epochs=3),
                EpochCheckpoint(tmp_path / "model.keras"),
                record,
            ],
            **arguments,
        )  # fmt: skip
        return record.mixes

    whole = stacked_model()
    start = whole.get_weights()
    assert fit(whole, epochs=4) == pytest.approx([0.9, 0.6, 0.3, 0.0])
    first = stacked_model()
    first.set_weights(start)
    assert fit(first, epochs=2) == pytest.approx([0.9, 0.6])
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    assert fit(resumed, initial_epoch=2, epochs=4) == pytest.approx([0.3, 0.0])
    for one, other in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert not np.allclose(first.get_weights()[0], whole.get_weights()[0], atol=1e-5)


class Subclassed(keras.Model):
    """A model written as a class: built when it is first called."""

    def __init__(self, proposal):
        super().__init__()
        self.sample = attention_sampling(
            keras.Sequential([keras.layers.Conv2D(1, 1), SampleSoftmax(True)]),
            keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)]),
            patch_size=4,
            n_patches=3,
            proposal=proposal,
        )
        self.classify = keras.layers.Dense(1)

    def call(self, inputs):
        return self.classify(self.sample(inputs)[0])


def test_finds_the_layer_in_a_subclassed_model():
    """TensorFlow builds the model in its first step, after the first epoch began."""
    model, record = Subclassed(LocalContrast(3)), Record()
    model.compile("sgd", "mse")
    model.fit(
        *stacked_data(),
        epochs=2,
        verbose=0,
        callbacks=[ProposalMix(0.8, 0.0, 4), record],
    )
    assert record.mixes == pytest.approx([0.8, 0.6])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 1.5}, "Received: start=1.5"),
        ({"end": -1}, "Received: end=-1"),
        ({"start": True}, "Received: start=True"),
        ({"epochs": 0}, "Received: epochs=0"),
        ({"epochs": 2.5}, "Received: epochs=2.5"),
    ],
)
def test_refuses_other_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProposalMix(**arguments)


def test_refuses_a_model_without_a_proposal():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="plain")
    model.compile("sgd", "mse")
    with pytest.raises(
        ValueError, match=r"draws from a proposal.*Received: model='plain'"
    ):
        model.fit(
            np.ones((2, 2)), np.ones((2, 1)), verbose=0, callbacks=[ProposalMix()]
        )


def test_refuses_a_model_that_draws_from_its_attention_alone():
    view, image = keras.Input((4, 4, 1)), keras.Input((8, 8, 1))
    attention = keras.layers.Softmax(axis=(1, 2))(keras.layers.Reshape((4, 4))(view))
    patches, _ = SamplePatches(2, 2)([view, image, attention])
    model = keras.Model(
        [view, image], keras.layers.Dense(1)(keras.layers.Flatten()(patches))
    )
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="needs a model that draws from a proposal"):
        model.fit(
            [np.ones((2, 4, 4, 1)), np.ones((2, 8, 8, 1))], np.ones((2, 1)),
            verbose=0, callbacks=[ProposalMix()],
        )  # fmt: skip


def test_refuses_a_model_without_a_proposal_once_it_is_built():
    """Its first step builds the model on TensorFlow, after the first epoch began."""
    model = Subclassed(proposal=None)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    with pytest.raises(ValueError, match="draws from a proposal"):
        model.fit(*stacked_data(), epochs=2, verbose=0, callbacks=[ProposalMix()])


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
