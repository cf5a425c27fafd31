"""Callbacks: the schedule of the proposal, and checkpoints."""

import csv
import zipfile

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
from attention_sampling.backend import all_layers
from attention_sampling.callbacks import (
    AttentionImages,
    EpochCheckpoint,
    check_model_file,
    resume_training,
    save_model,
)
from attention_sampling.data import ArraySource


class Record(keras.callbacks.Callback):
    """Write down the mix of every epoch, at its end."""

    def __init__(self):
        super().__init__()
        self.mixes = []

    def on_epoch_end(self, epoch, logs=None):
        (layer,) = (x for x in all_layers(self.model) if isinstance(x, SamplePatches))
        self.mixes.append(float(ops.convert_to_numpy(layer.mix)))


def salient_fraction_model():
    """Return a model whose loss is the fraction of sampled cells that are salient.

    One cell in sixteen is: white in the view and in the image. Attention is flat.
    """
    view, image = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    flat = keras.layers.Rescaling(0.0, 1 / 64)(keras.layers.Reshape((8, 8))(view))
    saliency = keras.layers.Reshape((8, 8))(view)
    patches, *_ = SamplePatches(20, 1, replace=True, proposal_mix=0.3, seed=0)(
        [view, image, flat, saliency]
    )
    fraction = keras.layers.GlobalAveragePooling3D()(patches)
    fraction = keras.layers.Dense(1, kernel_initializer="ones")(fraction)
    model = keras.Model([view, image], fraction)
    model.compile(keras.optimizers.SGD(0.0), loss=lambda y, fraction: fraction)
    views = np.zeros((50, 8, 8, 1), "float32")
    views[:, ::4, ::4] = 1
    return model, [views, views], np.zeros((50, 1), "float32")


@pytest.mark.parametrize(
    ("arguments", "mixes"),
    [
        ({"start": 0.8, "end": 0.0, "epochs": 4}, [0.8, 0.6, 0.4, 0.2, 0.0, 0.0]),
        ({"start": 0, "end": 1, "epochs": 1}, [0.0, 1.0, 1.0]),
    ],
)
def test_goes_from_one_to_the_other_in_equal_steps(arguments, mixes):
    callback = ProposalMix(**arguments)
    assert [callback.mix(epoch) for epoch in range(len(mixes))] == pytest.approx(mixes)


def test_the_samples_of_every_epoch_follow():
    """Not only a number that is set: cells are sampled from it in the very epoch."""
    model, x, y = salient_fraction_model()
    record = Record()
    history = model.fit(
        x, y, epochs=4, batch_size=10, verbose=0,
        callbacks=[ProposalMix(start=1.0, end=0.0, epochs=2), record],
    ).history  # fmt: skip
    assert record.mixes == pytest.approx([1.0, 0.5, 0.0, 0.0])
    expected = [1 - 0.01, 0.5 + 0.5 / 16, 1 / 16, 1 / 16]
    np.testing.assert_allclose(history["loss"], expected, atol=0.06)


def test_validation_and_prediction_keep_to_the_attention():
    model, x, y = salient_fraction_model()
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
    """Weights, momentum, random state, mix and log: killed in the fourth epoch of five."""
    x, y = stacked_data()
    path = tmp_path / "model.keras"

    def fit(model, log, **arguments):
        record = Record()
        model.fit(
            x, y, batch_size=4, shuffle=False, verbose=0,
            callbacks=[
                ProposalMix(0.9, 0.0, epochs=3),
                EpochCheckpoint(path),
                keras.callbacks.CSVLogger(tmp_path / log, append=True),
                record,
            ],
            **arguments,
        )  # fmt: skip
        return record.mixes

    whole = stacked_model()
    start = whole.get_weights()
    assert fit(whole, "whole.csv", epochs=5) == pytest.approx([0.9, 0.6, 0.3, 0, 0])
    first = stacked_model()
    first.set_weights(start)
    assert fit(first, "log.csv", epochs=3) == pytest.approx([0.9, 0.6, 0.3])
    with open(tmp_path / "log.csv", "a") as file:
        file.write("3,0.25,NA\n4,0.1")  # what no checkpoint knows of
    resumed, epoch = resume_training(path, 2, log=tmp_path / "log.csv")
    assert epoch == 3
    mixes = fit(resumed, "log.csv", initial_epoch=epoch, epochs=5)
    assert mixes == pytest.approx([0.0, 0.0])
    for one, other in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert not np.allclose(first.get_weights()[0], whole.get_weights()[0], atol=1e-5)
    logs = [
        list(csv.reader((tmp_path / name).read_text().splitlines()))
        for name in ("whole.csv", "log.csv")
    ]
    assert logs[0][0] == logs[1][0]
    values = [[[float(x) for x in row[:2]] for row in log[1:]] for log in logs]
    np.testing.assert_allclose(*values, rtol=1e-5)


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
        ({"epochs": 0}, "Received: epochs=0"),
    ],
)
def test_refuses_other_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProposalMix(**arguments)


def test_refuses_a_model_that_samples_from_its_attention_alone():
    view, image = keras.Input((4, 4, 1)), keras.Input((8, 8, 1))
    attention = keras.layers.Softmax(axis=(1, 2))(keras.layers.Reshape((4, 4))(view))
    patches, _ = SamplePatches(2, 2)([view, image, attention])
    label = keras.layers.Dense(1)(keras.layers.Flatten()(patches))
    model = keras.Model([view, image], label, name="plain")
    model.compile("sgd", "mse")
    message = "needs a model that samples from a proposal.*Received: model='plain'"
    with pytest.raises(ValueError, match=message):
        model.fit(
            [np.ones((2, 4, 4, 1)), np.ones((2, 8, 8, 1))], np.ones((2, 1)),
            verbose=0, callbacks=[ProposalMix()],
        )  # fmt: skip


def test_refuses_a_model_without_a_proposal_once_it_is_built():
    """Its first step builds the model on TensorFlow, after the first epoch began."""
    model = Subclassed(proposal=None)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    with pytest.raises(ValueError, match="samples from a proposal"):
        model.fit(*stacked_data(), epochs=2, verbose=0, callbacks=[ProposalMix()])


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def fit(model, **arguments):
    x, y = np.ones((10, 3), "float32"), np.zeros((10, 1), "float32")
    return model.fit(x, y, batch_size=4, verbose=0, **arguments)


def test_training_goes_on_where_the_checkpoint_was(model, tmp_path):
    path = tmp_path / "model.keras"
    fit(model, epochs=2, callbacks=[EpochCheckpoint(path)])
    loaded, epoch = resume_training(path, 3, log=tmp_path / "nowhere.csv")
    assert epoch == 2
    for ours, theirs in zip(loaded.variables, model.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]
    with pytest.raises(ValueError, match=r"saved after 6 steps.*steps_per_epoch=4"):
        resume_training(path, 4)


@pytest.mark.parametrize("content", ["", "epoch,loss\n", "epoch,loss\n0,1.0\nx"])
def test_a_log_of_any_length_is_cut(model, tmp_path, content):
    path, log = tmp_path / "model.keras", tmp_path / "log.csv"
    fit(model, callbacks=[EpochCheckpoint(path)])
    log.write_text(content)
    assert resume_training(path, 3, log)[1] == 1
    assert log.read_text().splitlines() == (content.splitlines()[:2] or [""])


def test_epochs_that_are_not_known_are_not_guessed(tmp_path):
    path = tmp_path / "model.keras"
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    save_model(model, path)
    with pytest.raises(ValueError, match="saved without its optimizer"):
        resume_training(path, 3)
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
    fit(model, callbacks=[EpochCheckpoint(path)])
    with pytest.raises(ValueError, match="left out under mixed_float16"):
        resume_training(path, 3)


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


def contents(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_every_flipped_bit_is_harmless_or_named(model, tmp_path):
    """Most of them of the headers, where zipfile is not prepared for it."""
    path = tmp_path / "model.keras"
    save_model(model, path)
    whole, expected = path.read_bytes(), contents(path)
    with zipfile.ZipFile(path) as file:
        headers = [info.header_offset for info in file.infolist()]
        headers = [at + i for at in [*headers, file.start_dir] for i in range(48)]
    bits = [8 * at + bit for at in headers for bit in range(8)]
    rng = np.random.default_rng(0)
    bits = [*rng.choice(bits, 400), *rng.integers(0, 8 * len(whole), 100)]
    refused = []
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            check_model_file(path)
        except ValueError as error:
            refused.append(str(error))
        else:  # as of the time of day
            assert contents(path) == expected
    assert len(refused) > 100
    assert all(f"Received: {path} (" in message for message in refused)


def test_what_is_no_model_file_is_named(model, tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(FileNotFoundError):
        check_model_file(path)
    save_model(model, path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"no model at all"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"damaged, or none.*Received: {path} \("):
            resume_training(path, 3)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("photographs.txt", "none")
    with pytest.raises(ValueError, match=r"no item named .config\.json"):
        check_model_file(path)


def test_an_epoch_has_a_step_at_least(tmp_path):
    with pytest.raises(
        ValueError, match="`steps_per_epoch` must be an int of at least 1"
    ):
        resume_training(tmp_path / "model.keras", steps_per_epoch=0)


class TestAttentionImages:
    def train(self, callbacks, source=None):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, size=(6, 40, 60, 1), dtype="uint8")
        views = images.reshape(6, 10, 4, 15, 4, 1).mean(axis=(2, 4), dtype="float32")
        view, image = keras.Input((10, 15, 1)), keras.Input((40, 60, 1), dtype="uint8")
        x = [views, images]
        if source is not None:
            source, image = source(images), keras.Input((), dtype="int32")
            x = [views, np.arange(6)]
        attention = keras.Sequential(
            [keras.layers.Conv2D(1, 3), SampleSoftmax(squeeze_channels=True)]
        )
        feature = keras.layers.GlobalAveragePooling2D()
        sample = attention_sampling(attention, feature, 8, 3, seed=0, source=source)
        features, _, _ = sample([view, image])
        model = keras.Model([view, image], keras.layers.Dense(1)(features))
        model.compile(keras.optimizers.SGD(1e-6), "mse")
        callbacks = [callback(x) for callback in callbacks]
        model.fit(
            x, np.ones(6), epochs=4, verbose=0, callbacks=callbacks, shuffle=False
        )
        return [np.array(w) for w in model.get_weights()]

    @pytest.mark.parametrize("source", [None, ArraySource])
    def test_plots_in_chosen_epochs_and_changes_no_training(self, source, tmp_path):
        weights = self.train(
            [
                lambda x: AttentionImages(
                    tmp_path, [array[:2] for array in x], (0, 1, 3), ["a", "b"]
                )
            ],
            source,
        )
        names = {f"{name}-epoch-{n:03d}.png" for name in "ab" for n in (0, 1, 3)}
        assert {path.name for path in tmp_path.glob("*.png")} == names
        for expected, weight in zip(self.train([], source), weights, strict=True):
            np.testing.assert_array_equal(weight, expected)

    def test_boxes_are_marked(self, tmp_path):
        boxes = [[(5, 10, 25, 30)], []]
        for name, given in (("with", boxes), ("without", None)):
            self.train(
                [
                    lambda x, name=name, given=given: AttentionImages(
                        tmp_path / name, [array[:2] for array in x], (0,), boxes=given
                    )
                ]
            )
        for number, differ in ((0, True), (1, False)):
            of_both = [
                (tmp_path / name / f"{number}-epoch-000.png").read_bytes()
                for name in ("with", "without")
            ]
            assert (of_both[0] != of_both[1]) == differ

    def test_tensorboard_has_the_same_pictures(self, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import (
            EventAccumulator,
        )

        self.train([lambda x: AttentionImages(tmp_path, [a[:1] for a in x], 2)])
        events = EventAccumulator(str(tmp_path), {"images": 0}).Reload()
        assert events.Tags()["images"] == ["attention/0"]
        for event in events.Images("attention/0"):
            picture = tmp_path / f"0-epoch-{event.step:03d}.png"
            assert event.encoded_image_string == picture.read_bytes()
        assert [event.step for event in events.Images("attention/0")] == [0, 2, 4]

    def test_refuses_what_it_cannot_plot(self):
        for keywords in (
            {"epochs": 0},
            {"epochs": (1, -1)},
            {"names": ["a", "b"]},
            {"boxes": [[], []]},
        ):
            with pytest.raises(ValueError, match=f"`{next(iter(keywords))}`"):
                AttentionImages("runs", [np.zeros((1, 4, 4, 1))] * 2, **keywords)
