"""attention_sampling(): the layers composed."""

import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradients
from keras import ops

from attention_sampling import (
    FullExpectation,
    LocalContrast,
    MultinomialEntropy,
    SamplePatches,
    SampleSoftmax,
    attention_sampling,
)
from attention_sampling.ops import sampling

PATCH = (2, 2)  # one tile of the tiny image below: windows do not overlap


def attention_network(**softmax):
    return keras.Sequential(
        [
            keras.layers.Conv2D(4, 3, padding="same", activation="tanh"),
            keras.layers.Conv2D(1, 1),
            SampleSoftmax(squeeze_channels=True, **softmax),
        ]
    )


def feature_network(patch_size=PATCH, channels=1):
    return keras.Sequential(
        [
            keras.Input((*patch_size, channels)),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="tanh"),
        ]
    )


def tiny_images(samples):
    """Return views and images of 2 x 2 cells, tiles of 2 x 2 pixels, all alike."""
    rng = np.random.default_rng(5)
    x_low, x_high = rng.normal(size=(1, 2, 2, 1)), rng.normal(size=(1, 4, 4, 1))
    return [
        np.repeat(x_low, samples, axis=0).astype("float32"),
        np.repeat(x_high, samples, axis=0).astype("float32"),
    ]


def tiles(x_high):
    """Return the patch of every cell of the tiny images."""
    cells = [x_high[:, r : r + 2, c : c + 2] for r in (0, 2) for c in (0, 2)]
    return ops.stack(cells, axis=1)


def model_of(**arguments):
    settings = {
        "attention": attention_network(),
        "feature": feature_network(),
        "n_patches": 3,
        "seed": 0,
    }
    sample = attention_sampling(**{**settings, **arguments})
    x_low, x_high = keras.Input((2, 2, 1)), keras.Input((4, 4, 1))
    features, attention, patches = sample([x_low, x_high])
    return keras.Model([x_low, x_high], [features, attention, patches])


def full_feature(attention, feature, x_low, x_high):
    """Return what the model would give that processes every cell."""
    attention_map = ops.reshape(attention(x_low), (-1, 4))
    patches = ops.reshape(tiles(x_high), (-1, *PATCH, 1))
    features = ops.reshape(feature(patches), (-1, 4, 3))
    return ops.sum(attention_map[..., None] * features, axis=1)


def test_shapes_and_values():
    model = model_of()
    x = tiny_images(5)
    features, attention, patches = model.predict(x, batch_size=2, verbose=0)
    assert features.shape == (5, 3)
    assert patches.shape == (5, 3, *PATCH, 1)
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, rtol=1e-5)
    every = ops.convert_to_numpy(tiles(x[1]))
    for patch, tile in itertools.product(patches[0], every[:1]):
        assert any(np.array_equal(patch, candidate) for candidate in tile)


def drawn_attention(x_high, attention, patches):
    """Return the attention of the cells the patches are of, for each sample."""
    every = ops.convert_to_numpy(tiles(x_high))
    cells = [
        [
            next(
                cell for cell in range(4) if np.array_equal(every[sample, cell], patch)
            )
            for patch in patches[sample]
        ]
        for sample in range(len(patches))
    ]
    return np.take_along_axis(attention.reshape(-1, 4), np.array(cells), axis=1)


ESTIMATES = {
    "default": ({}, reference.estimate_unordered),
    "unordered": ({"estimator": "unordered"}, reference.estimate_unordered),
    "ordered": (
        {"estimator": "ordered"},
        lambda f, a: reference.estimate(f, a, replace=False),
    ),
    "with replacement": (
        {"replace": True},
        lambda f, a: reference.estimate(f, a, replace=True),
    ),
    "with a proposal": ({"proposal": LocalContrast(2)}, reference.estimate_unordered),
    "from the top": (
        {"prediction": "top_k"},
        lambda f, a: np.average(f, axis=0, weights=a),
    ),
}


@pytest.mark.parametrize(
    ("arguments", "slowly"), ESTIMATES.values(), ids=ESTIMATES.keys()
)
def test_estimates_the_feature_of_the_patches_it_returns(arguments, slowly):
    """The output from the drawn patches alone, by the reference estimator."""
    feature = feature_network()
    model = model_of(feature=feature, **arguments)
    x = tiny_images(2)
    estimated, attention, patches = model.predict(x, verbose=0)
    sampled = drawn_attention(x[1], attention, patches)
    for sample in range(2):
        features = ops.convert_to_numpy(feature(patches[sample]))
        expected = slowly(features, sampled[sample])
        np.testing.assert_allclose(estimated[sample], expected, atol=1e-5)


@pytest.mark.parametrize("replace", [False, True])
def test_several_sets_are_the_mean_of_single_estimates(replace):
    """Of the patches and the attention that come out with them."""
    feature = feature_network()
    model = model_of(feature=feature, n_patches=2, predict_samples=5, replace=replace)
    assert model.output_shape[2] == (None, None, *PATCH, 1)
    x = tiny_images(3)
    estimated, attention, patches = model.predict(x, batch_size=2, verbose=0)
    assert patches.shape == (3, 10, *PATCH, 1)
    sampled = drawn_attention(x[1], attention, patches)
    slowly = ESTIMATES["with replacement" if replace else "default"][1]
    for sample in range(3):
        features = ops.convert_to_numpy(feature(patches[sample]))
        single = [
            slowly(features[i : i + 2], sampled[sample, i : i + 2])
            for i in range(0, 10, 2)
        ]
        np.testing.assert_allclose(estimated[sample], np.mean(single, 0), atol=1e-5)
    # The sets are drawn, each for itself.
    sets = np.round(sampled.reshape(-1, 2), 6)
    assert len(np.unique(sets, axis=0)) > 3


def test_predicts_from_the_top_cells_every_time_and_trains_on_draws():
    model = model_of(n_patches=2, prediction="top_k")
    x = tiny_images(30)
    features, attention, patches = model.predict(x, verbose=0)
    again = model.predict(x, verbose=0)
    for one, other in zip((features, attention, patches), again, strict=True):
        np.testing.assert_array_equal(one, other)
    sampled = drawn_attention(x[1], attention, patches)
    best = -np.sort(-attention.reshape(30, 4), axis=1)[:, :2]
    np.testing.assert_array_equal(sampled, best)
    drawn = [model([ops.array(part) for part in x], training=True)[2] for _ in "ab"]
    drawn = [ops.convert_to_numpy(patches) for patches in drawn]
    assert not np.array_equal(*drawn)
    assert len(np.unique(drawn[0], axis=0)) > 2


def every_patch(x_low, x_high, attention_size, patch_size, receptive_field=0):
    """Return the patch of every cell, (samples, cells, height, width, channels)."""
    rows, columns = attention_size
    origins = [
        [
            reference.window_origin(
                cell, cells, x_low.shape[axis], x_high.shape[axis],
                patch_size[axis - 1], receptive_field,
            )
            for axis, cell, cells in ((1, row, rows), (2, column, columns))
        ]
        for row, column in np.ndindex(rows, columns)
    ]  # fmt: skip
    return np.stack(
        [
            np.stack([reference.window(image, o, patch_size) for o in origins])
            for image in x_high
        ]
    )


class TestPredictionFromAll:
    def model(self, patch_size=(5, 6), receptive_field=0, samples=3, **arguments):
        """Return a model, its parts, and images with windows over every border."""
        attention = keras.Sequential(
            [
                keras.layers.Conv2D(1, 1 + receptive_field),
                SampleSoftmax(squeeze_channels=True),
            ]
        )
        feature = feature_network(patch_size)
        x_low, x_high = keras.Input((7, 6, 1)), keras.Input((20, 19, 1), dtype="uint8")
        sample = attention_sampling(
            attention,
            feature,
            receptive_field=receptive_field,
            **{"n_patches": 3, "prediction": "all", "seed": 0, **arguments},
        )
        model = keras.Model([x_low, x_high], sample([x_low, x_high]))
        rng = np.random.default_rng(0)
        x = [
            rng.normal(size=(samples, 7, 6, 1)).astype("float32"),
            rng.integers(0, 3, size=(samples, 20, 19, 1)).astype("uint8"),
        ]
        return model, feature, x

    def by_hand(self, feature, x, attention, patch_size=(5, 6), receptive_field=0):
        patches = every_patch(*x, attention.shape[1:], patch_size, receptive_field)
        samples, cells = patches.shape[:2]
        features = feature(patches.reshape(-1, *patches.shape[2:]).astype("float32"))
        features = ops.convert_to_numpy(features).reshape(samples, cells, -1)
        return np.einsum("bi,bid->bd", attention.reshape(samples, cells), features)

    @pytest.mark.parametrize("chunk_size", [None, 5, 42])
    @pytest.mark.parametrize("receptive_field", [0, 2])
    def test_is_the_full_model(self, receptive_field, chunk_size):
        model, feature, x = self.model(receptive_field=receptive_field)
        (layer,) = (x for x in model.layers if isinstance(x, FullExpectation))
        layer.chunk_size = chunk_size or layer.chunk_size
        features, attention, _ = model.predict(x, batch_size=2, verbose=0)
        expected = self.by_hand(feature, x, attention, receptive_field=receptive_field)
        np.testing.assert_allclose(features, expected, atol=1e-5)

    def test_shows_the_patches_of_the_top_cells(self):
        model, _, x = self.model()
        _, attention, patches = model.predict(x, verbose=0)
        every = every_patch(*x, (7, 6), (5, 6))
        for sample in range(3):
            best = np.argsort(-attention[sample].ravel())[:3]
            np.testing.assert_array_equal(patches[sample], every[sample, best])

    @pytest.mark.parametrize("arguments", [{}, {"proposal": LocalContrast(3)}])
    def test_is_saved(self, arguments, tmp_path):
        """And loaded without custom objects, with one feature network in it."""
        model, _, x = self.model(**arguments)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert len(loaded.weights) == len(model.weights)
        for one, other in zip(
            loaded.predict(x, verbose=0), model.predict(x, verbose=0), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("proposal", [None, LocalContrast(3)])
    def test_trains_as_prediction_from_samples_does(self, proposal):
        """Same draws, same steps; only what is predicted differs."""
        trained = {}
        weights = None
        for prediction in ("sample", "all"):
            model, feature, x = self.model(prediction=prediction, proposal=proposal)
            model = keras.Model(model.inputs, model.outputs[:2])
            weights = weights or model.get_weights()
            model.set_weights(weights)
            model.compile("sgd", ["mse", None])
            y = np.ones((3, 3), "float32")
            model.fit(x, y, batch_size=2, epochs=3, shuffle=False, verbose=0)
            trained[prediction] = model.get_weights()
        for one, other in zip(*trained.values(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        kernels = [i for i, weight in enumerate(weights) if weight.ndim > 1]
        for i in kernels:
            assert not np.allclose(weights[i], trained["all"][i], atol=1e-5)
        features, attention = model.predict(x, verbose=0)
        np.testing.assert_allclose(
            features, self.by_hand(feature, x, attention), atol=1e-5
        )

    def test_draws_agree_with_it_on_average(self):
        """Prediction from many sets comes near, and that from few less."""
        errors = []
        weights = None
        for arguments in (
            {"prediction": "all"},
            {"prediction": "sample", "predict_samples": 500},
            {"prediction": "sample"},
        ):
            model, _, x = self.model(**arguments)
            weights = weights or model.get_weights()
            model.set_weights(weights)
            features = model.predict(x, verbose=0)[0]
            errors.append(features - errors[0] if errors else features)
        assert np.abs(errors[1]).max() < 0.1
        assert np.abs(errors[1]).mean() < 0.3 * np.abs(errors[2]).mean()

    def test_refuses_plain_callables(self):
        with pytest.raises(
            TypeError, match=r"`feature` must be a Keras layer or model"
        ):
            attention_sampling(
                attention_network(), lambda x: x, patch_size=4, prediction="all"
            )

    def test_takes_a_layer_without_weights(self):
        _, _, x = self.model()
        sample = attention_sampling(
            attention_network(),
            keras.layers.GlobalAveragePooling2D(),
            patch_size=(5, 6),
            prediction="all",
            n_patches=2,
        )
        features, attention, _ = sample([ops.array(part) for part in x])
        expected = self.by_hand(
            lambda patches: patches.mean(axis=(1, 2)),
            x,
            ops.convert_to_numpy(attention),
        )
        np.testing.assert_allclose(ops.convert_to_numpy(features), expected, atol=1e-5)


def test_patch_size_comes_from_the_feature_model():
    model = model_of(feature=feature_network((3, 5)))
    assert model.output_shape[2] == (None, 3, 3, 5, 1)


def test_patch_size_may_be_given():
    feature = keras.layers.GlobalAveragePooling2D()
    model = model_of(feature=feature, patch_size=(3, 1))
    assert model.output_shape == [(None, 1), (None, 2, 2), (None, 3, 3, 1, 1)]


def test_takes_plain_callables():
    """On Keras tensors, and on tensors."""

    def attention(x):
        return keras.ops.full_like(x[..., 0], 0.25)

    def feature(x):
        return keras.ops.mean(x, axis=(1, 2))

    model = model_of(attention=attention, feature=feature, patch_size=2, n_patches=4)
    assert model.output_shape[0] == (None, 1)
    sample = attention_sampling(attention, feature, patch_size=2, n_patches=2)
    x_low, x_high = map(ops.convert_to_tensor, tiny_images(3))
    features, attention_map, patches = sample([x_low, x_high])
    assert tuple(features.shape) == (3, 1)
    assert tuple(attention_map.shape) == (3, 2, 2)
    assert tuple(patches.shape) == (3, 2, 2, 2, 1)


def test_integer_pixels_reach_the_feature_network_as_floats_of_the_same_value():
    seen = []

    def feature(x):
        seen.append(keras.backend.standardize_dtype(x.dtype))
        return ops.mean(x, axis=(1, 2))

    def attention(x):
        return ops.full_like(x[..., 0], 0.25)

    sample = attention_sampling(attention, feature, patch_size=2, n_patches=2)
    x_low, _ = tiny_images(1)
    x_high = ops.full((1, 4, 4, 1), 200, dtype="uint8")
    features, _, patches = sample([ops.array(x_low), x_high])
    assert seen == ["float32"]
    assert keras.backend.standardize_dtype(patches.dtype) == "uint8"
    np.testing.assert_allclose(ops.convert_to_numpy(features), 200, rtol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(patches), 200)


def test_receptive_field_moves_the_windows():
    """An attention network without padding sees less than the view."""
    images = np.arange(1, 145, dtype="float32").reshape(1, 12, 12, 1)
    sample = attention_sampling(
        keras.Sequential(
            [keras.layers.Conv2D(1, 3), SampleSoftmax(squeeze_channels=True)]
        ),
        keras.layers.Flatten(),
        patch_size=1,
        n_patches=16,
        receptive_field=2,
    )
    x_low = np.zeros((1, 6, 6, 1), "float32")
    _, attention, patches = sample([ops.array(x_low), ops.array(images)])
    assert tuple(attention.shape) == (1, 4, 4)
    places = [reference.window_origin(cell, 4, 6, 12, 1, 2) for cell in range(4)]
    assert set(ops.convert_to_numpy(patches).ravel()) == {
        images[0, row, column, 0] for row in places for column in places
    }


@pytest.mark.parametrize("strength", [0.5, 0.0])
def test_regularizer_is_in_the_losses_exactly(strength):
    regularizer = MultinomialEntropy(strength)
    model = model_of(attention_regularizer=regularizer)
    x = [ops.convert_to_tensor(array) for array in tiny_images(5)]
    _, attention, _ = model(x)
    assert len(model.losses) == 1
    expected = strength * reference.negative_entropy(ops.convert_to_numpy(attention))
    loss = ops.stop_gradient(model.losses[0])
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_regularizer_is_in_the_training_loss_exactly():
    """Keras does not divide it by the batch a second time."""
    model = model_of(attention_regularizer=MultinomialEntropy(0.5))
    model = keras.Model(model.inputs, model.outputs[0])
    model.compile("sgd", loss=lambda y, prediction: 0.0 * prediction[:, 0])
    x = tiny_images(5)
    attention = model.layers[1](ops.convert_to_tensor(x[0]))
    loss = model.test_on_batch(x, np.zeros((5, 3), "float32"))
    expected = 0.5 * reference.negative_entropy(ops.convert_to_numpy(attention))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_no_regularizer_no_loss():
    model = model_of()
    model([ops.convert_to_tensor(array) for array in tiny_images(2)])
    assert model.losses == []


def step(model, x, loss_weights):
    """Return how one step of SGD at rate 1 changes each weight."""
    cotangent = ops.array([0.3, -1.0, 2.0])
    model.compile(
        keras.optimizers.SGD(1.0),
        loss=lambda y, prediction: ops.sum(y * cotangent * prediction, axis=-1),
    )

    def trained():
        return [np.array(ops.convert_to_numpy(w)) for w in model.trainable_weights]

    before = trained()
    samples = len(x[0])
    y = np.repeat(np.reshape(loss_weights, (samples, 1)), 3, axis=1) * samples
    model.train_on_batch(x, y.astype("float32"))
    return [b - a for b, a in zip(before, trained(), strict=True)]


def saliency_of(x_low):
    """Return a saliency of the tiny views that knows nothing of the attention."""
    return 1.0 + ops.tanh(3.0 * x_low[..., 0])


TRAINING = {
    "default": {},
    "control variate": {"control_variate": True},
    "ordered": {"estimator": "ordered"},
    "with replacement": {"replace": True, "control_variate": True},
    "proposal": {"proposal": saliency_of, "self_normalize": False},
    "proposal, with replacement": {
        "proposal": saliency_of, "self_normalize": False, "replace": True,
        "proposal_mix": 0.8,
    },
    "predicts from the top": {"prediction": "top_k"},
    "predicts from all, proposal": {
        "prediction": "all", "proposal": saliency_of, "self_normalize": False,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "n_patches"),
    [
        pytest.param(settings, n_patches, id=f"{name}-{n_patches}")
        for name, settings in TRAINING.items()
        for n_patches in ((1, 2, 3) if name in ("default", "proposal") else (2,))
    ],
)
def test_a_training_step_over_every_draw_is_that_of_the_full_model(
    n_patches, settings, monkeypatch
):
    """Each sample of the batch makes one of all possible draws.

    Drawing is replaced; places, pixels, networks, gradients and the step are real.
    """
    attention, feature = attention_network(), feature_network()
    x_low, x_high = keras.Input((2, 2, 1)), keras.Input((4, 4, 1))
    full = keras.Model([x_low, x_high], full_feature(attention, feature, x_low, x_high))
    weights = [np.array(weight) for weight in full.get_weights()]
    probabilities = ops.convert_to_numpy(
        attention(ops.convert_to_tensor(tiny_images(1)[0]))
    ).ravel()
    exact = step(full, tiny_images(1), [1.0])
    full.set_weights(weights)

    if "proposal" in settings:
        saliency = ops.convert_to_numpy(saliency_of(ops.array(tiny_images(1)[0])))
        probabilities = reference.proposal(
            probabilities, saliency.ravel(), settings.get("proposal_mix", 0.5)
        )
    draws, probabilities = reference.ordered_draws(
        probabilities, n_patches, settings.get("replace", False)
    )
    monkeypatch.setattr(
        sampling,
        "sample_cells",
        lambda attention, n_patches, replace, seed: ops.convert_to_tensor(draws),
    )
    sample = attention_sampling(attention, feature, n_patches=n_patches, **settings)
    x_low, x_high = (keras.Input(batch_shape=(len(draws), s, s, 1)) for s in (2, 4))
    model = keras.Model([x_low, x_high], sample([x_low, x_high])[0])
    estimated = step(model, tiny_images(len(draws)), probabilities)

    assert len(estimated) == len(exact) == 6
    for got, expected in zip(estimated, exact, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    # Every weight of both networks learns, but for the bias softmax takes away.
    assert [bool(np.abs(change).max() > 1e-4) for change in exact] == [
        True, True, True, False, True, True,
    ]  # fmt: skip


def test_enumeration_sees_self_normalized_proposals(monkeypatch):
    """The power of the test above: a small bias of the whole step is found."""
    settings = {"proposal": saliency_of, "self_normalize": True}
    with pytest.raises(AssertionError, match="Mismatched elements"):
        test_a_training_step_over_every_draw_is_that_of_the_full_model(
            2, settings, monkeypatch
        )


@pytest.mark.slow
@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("n_patches", [1, 3])
def test_real_draws_agree_with_the_full_model_on_average(n_patches, replace):
    """Value and logit gradient of 100,000 draws, within 5 standard errors."""
    samples = 100_000
    logits = np.array([1.0, 0.0, -1.0, 0.5], "float32")
    feature = feature_network()
    cotangent = np.array([0.3, -1.0, 2.0], "float32")
    x_low, x_high = map(ops.convert_to_tensor, tiny_images(samples))
    every = ops.convert_to_numpy(tiles(x_high[:1]))[0]
    value, of_logits, _ = reference.full_model(
        logits, ops.convert_to_numpy(feature(every)), cotangent
    )

    def estimate(logits):
        sample = attention_sampling(
            lambda x: ops.reshape(ops.softmax(logits), (-1, 2, 2)),
            feature,
            n_patches=n_patches,
            replace=replace,
            seed=1,
        )
        return sample([x_low, x_high])[0]

    values, (gradients,) = value_and_gradients(
        estimate,
        [np.tile(logits, (samples, 1))],
        np.tile(cotangent, (samples, 1)),
    )
    for drawn, expected in [(values, value), (gradients, of_logits)]:
        error = drawn.std(axis=0) / np.sqrt(samples)
        assert np.all(np.abs(drawn.mean(axis=0) - expected) < 5 * error + 1e-6)


def test_seed_repeats_the_draws():
    network = attention_network()
    first, second, other = (
        model_of(attention=network, n_patches=2, seed=seed).predict(
            tiny_images(20), verbose=0
        )[2]
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_several_calls_share_the_weights():
    sample = attention_sampling(attention_network(), feature_network(), n_patches=2)
    outputs = []
    inputs = [keras.Input((2, 2, 1)), keras.Input((4, 4, 1))]
    for _ in range(2):
        outputs.append(sample(inputs)[0])
    assert len(keras.Model(inputs, outputs).trainable_weights) == 6


LOADS = """
import sys
import numpy as np
import keras
import attention_sampling
model = keras.models.load_model(sys.argv[1])
x = dict(np.load(sys.argv[2]))
outputs = model.predict([x["x_low"], x["x_high"]], verbose=0)
np.testing.assert_allclose(outputs[0], x["features"], rtol=1e-6)
np.testing.assert_array_equal(outputs[2], x["patches"])
"""


def test_another_process_goes_on_with_the_draws_of_the_saved_model(tmp_path):
    """Without custom_objects, and in a process that drew nothing before."""
    model = model_of(attention_regularizer=MultinomialEntropy(0.5), seed=None)
    x_low, x_high = tiny_images(6)
    model.predict([x_low, x_high], verbose=0)
    model.save(tmp_path / "model.keras")
    features, _, patches = model.predict([x_low, x_high], verbose=0)
    np.savez(
        tmp_path / "arrays.npz",
        x_low=x_low, x_high=x_high, features=features, patches=patches,
    )  # fmt: skip
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            LOADS,
            str(tmp_path / "model.keras"),
            str(tmp_path / "arrays.npz"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    assert result.returncode == 0, result.stderr[-1500:]


def test_mixed_precision_estimates_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    model = model_of(attention=attention_network())
    assert [output.dtype for output in model.outputs] == ["float32"] * 3
    features, attention, _ = model.predict(tiny_images(5), verbose=0)
    assert np.isfinite(features).all()
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "feature",
    [
        lambda x: x,
        keras.layers.Flatten(),
        keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 1)]),
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]),
    ],
    ids=["callable", "layer not built", "no fixed size", "not images"],
)
def test_refuses_a_feature_network_without_an_image_size(feature):
    with pytest.raises(ValueError, match="Pass patch_size, or begin the model with"):
        attention_sampling(attention_network(), feature)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_patches": 0}, "Received: n_patches=0"),
        ({"patch_size": 0}, "Received: patch_size=0"),
        ({"receptive_field": -1}, "Received: receptive_field=-1"),
        (
            {"n_patches": 5},
            "Cannot draw 5 different cells .* of 2 x 2.* larger view, or replace=True",
        ),
        (
            {"n_patches": 5, "replace": True, "prediction": "all"},
            "Cannot draw 5 .* at most 4 patches, or a larger view. Received",
        ),
        (
            {"prediction": "all", "predict_samples": 3},
            "Received: prediction='all', predict_samples=3",
        ),
        ({"replace": "no"}, "`replace` must be one of True, False. .*'no'"),
        ({"receptive_field": 2}, "larger than the receptive field"),
        (
            {"attention": keras.layers.Conv2D(1, 1)},
            r"`attention` must have shape \(batch, rows, columns\)",
        ),
        ({"estimator": "murthy"}, "Received: estimator='murthy'"),
        (
            {"replace": True, "estimator": "ordered"},
            "estimator='ordered', replace=True",
        ),
        (
            {"estimator": "ordered", "control_variate": True},
            "ordered estimator has no control variate",
        ),
        (
            {"prediction": "best"},
            "one of 'sample', 'top_k', 'all'. Received: prediction='best'",
        ),
        ({"predict_samples": 0}, "Received: predict_samples=0"),
        ({"predict_samples": 2, "prediction": "top_k"}, "the same every time"),
        ({"proposal_mix": 2}, "Received: proposal_mix=2"),
        (
            {"proposal": keras.layers.Conv2D(2, 1)},
            r"`saliency` must have shape \(batch, height, width\)",
        ),
    ],
)
def test_refuses_bad_arguments_before_training(arguments, message):
    with pytest.raises(ValueError, match=message):
        model_of(**arguments)


def test_refuses_a_regularizer_that_is_not_callable():
    with pytest.raises((TypeError, ValueError), match="regularizer"):
        model_of(attention_regularizer=0.01)


def test_refuses_one_input():
    sample = attention_sampling(None, None, patch_size=4)
    with pytest.raises(ValueError, match=r"2 inputs, \[x_low, x_high\]"):
        sample(keras.Input((9, 9, 3)))


class Subclassed(keras.Model):
    """A model written as a class, which makes its tensors when it is called."""

    def __init__(self):
        super().__init__()
        attention = keras.Sequential(
            [keras.layers.Conv2D(1, 1), SampleSoftmax(squeeze_channels=True)]
        )
        feature = keras.Sequential(
            [keras.layers.Flatten(), keras.layers.Dense(3, activation="relu")]
        )
        self.sample = attention_sampling(
            attention,
            feature,
            patch_size=4,
            n_patches=2,
            attention_regularizer=MultinomialEntropy(0.1),
            seed=0,
        )
        self.classify = keras.layers.Dense(1)

    def call(self, inputs):
        features, _, _ = self.sample(inputs)
        return self.classify(features)


def test_a_subclassed_model_keeps_losses_weights_and_random_state(rng, tmp_path):
    inputs = [
        rng.normal(size=(4, 6, 6, 1)).astype("float32"),
        rng.normal(size=(4, 24, 24, 1)).astype("float32"),
    ]
    model = Subclassed()
    model.compile("sgd", "mse")
    first = model.predict(inputs, verbose=0)
    assert not np.allclose(first, model.predict(inputs, verbose=0))
    assert len(model.trainable_variables) == 6
    model(inputs)
    assert len(model.losses) == 1
    assert float(ops.convert_to_numpy(model.losses[0])) < -0.1
    kernels = [v for v in model.trainable_variables if len(v.shape) > 1]
    before = [ops.convert_to_numpy(kernel) for kernel in kernels]
    model.fit(inputs, np.ones((4, 1)), verbose=0)
    for variable, value in zip(kernels, before, strict=True):
        assert not np.allclose(ops.convert_to_numpy(variable), value)
    model.save_weights(tmp_path / "model.weights.h5")
    other = Subclassed()
    other.predict(inputs, verbose=0)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(
        other.predict(inputs, verbose=0), model.predict(inputs, verbose=0), rtol=1e-5
    )


class TestMetrics:
    pytestmark = pytest.mark.skipif(
        keras.backend.backend() == "jax",
        reason="Keras on JAX keeps no metrics of layers while it trains",
    )

    @pytest.mark.parametrize(
        "arguments",
        [
            {},
            {"predict_samples": 2},
            {"prediction": "top_k", "proposal": LocalContrast(2)},
            {"prediction": "all"},
        ],
    )
    def test_are_reported_beside_the_loss(self, arguments):
        def flat(x_low):
            return ops.full_like(x_low[..., 0], 0.25)

        model = model_of(attention=flat, n_patches=2, metrics=True, **arguments)
        model = keras.Model(model.inputs, model.outputs[0])
        model.compile("sgd", "mse")
        x, y = tiny_images(5), np.zeros((5, 3), "float32")
        history = model.fit(
            x, y, batch_size=2, epochs=2, verbose=0, validation_data=(x, y)
        ).history
        for prefix in ("", "val_"):
            of = {name: history[prefix + name] for name in (
                "attention_entropy", "drawn_mass", "effective_sample_size"
            )}  # fmt: skip
            np.testing.assert_allclose(of["attention_entropy"], np.log(4), rtol=1e-5)
            np.testing.assert_allclose(of["drawn_mass"], 0.5, rtol=1e-5)
            sizes = np.array(of["effective_sample_size"])
            if "proposal" in arguments and not prefix:
                # Flat attention, drawn where there is contrast: weights differ.
                assert np.all((sizes >= 1 - 1e-4) & (sizes < 2 - 1e-3))
            else:
                np.testing.assert_allclose(sizes, 2, rtol=1e-5)

    def test_are_off_by_default(self):
        assert model_of().metrics == []

    def test_hand_on_the_feature(self):
        network, feature = attention_network(), feature_network()
        with_them, without = (
            model_of(attention=network, feature=feature, metrics=metrics)
            for metrics in (True, False)
        )
        x = tiny_images(3)
        for one, other in zip(
            with_them.predict(x, verbose=0), without.predict(x, verbose=0), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX keeps none")
def test_metrics_are_refused_in_training_on_jax():
    model = model_of(metrics=True)
    x = tiny_images(3)
    assert len(model.predict(x, verbose=0)[0]) == 3
    model = keras.Model(model.inputs, model.outputs[0])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Keras on JAX keeps no metrics of layers"):
        model.fit(x, np.zeros((3, 3), "float32"), verbose=0)


@pytest.mark.parametrize("proposal", ["contrast", True, LocalContrast])
def test_refuses_a_proposal_that_cannot_be_called(proposal):
    with pytest.raises(TypeError, match=r"such as LocalContrast\(\)\. Received: prop"):
        model_of(proposal=proposal)


class TestProposal:
    def test_draws_in_training_where_there_is_something(self):
        """Images with one bright cell of sixteen: it is nearly always looked at."""
        x_low, x_high = keras.Input((4, 4, 1)), keras.Input((8, 8, 1))

        def flat(x_low):
            return ops.full_like(x_low[..., 0], 1 / 16)

        def bright(x_low):
            return x_low[..., 0]

        sample = attention_sampling(
            flat, keras.layers.Flatten(), patch_size=2, n_patches=2,
            proposal=bright, proposal_mix=1.0, seed=0,
        )  # fmt: skip
        model = keras.Model([x_low, x_high], sample([x_low, x_high])[2])
        views = np.zeros((200, 4, 4, 1), "float32")
        views[:, 1, 2] = 1
        x = [ops.array(views), ops.array(views.repeat(2, axis=1).repeat(2, axis=2))]
        seen = {
            training: ops.convert_to_numpy(model(x, training=training)).max(
                axis=(1, 2, 3, 4)
            )
            for training in (True, False)
        }
        assert seen[True].mean() > 0.98
        assert seen[False].mean() == pytest.approx(2 / 16, abs=0.1)

    def test_its_parts_are_told_apart_in_the_model(self):
        """The layer has the mix that was asked for, and hands on the proposal."""
        model = model_of(proposal=LocalContrast(2), proposal_mix=0.25)
        (layer,) = (x for x in model.layers if isinstance(x, SamplePatches))
        assert float(ops.convert_to_numpy(layer.mix)) == 0.25
        assert len(layer.output) == 4
        assert any(isinstance(x, LocalContrast) for x in model.layers)

    def test_of_views_of_unknown_size(self):
        """A saliency of the view, one of its own size, and a map that is smaller."""
        attention = keras.Sequential(
            [
                keras.layers.Conv2D(1, 3),
                keras.layers.AveragePooling2D(2),
                SampleSoftmax(squeeze_channels=True),
            ]
        )
        feature = feature_network()
        for proposal in (
            LocalContrast(3),
            keras.Sequential(
                [keras.layers.Resizing(5, 5), keras.layers.Reshape((5, 5))]
            ),
        ):
            sample = attention_sampling(
                attention, feature, n_patches=2, receptive_field=2, proposal=proposal
            )
            x_low, x_high = (keras.Input((None, None, 1)) for _ in range(2))
            features, _, _ = sample([x_low, x_high])
            model = keras.Model([x_low, x_high], features)
            model.compile("sgd", "mse")
            for low in (12, 15):
                x = [
                    np.random.default_rng(0).normal(size=(2, size, size, 1))
                    for size in (low, 4 * low)
                ]
                x = [part.astype("float32") for part in x]
                assert np.isfinite(model.train_on_batch(x, np.zeros((2, 3))))


def test_mixed_precision_trains_with_every_part():
    keras.config.set_dtype_policy("mixed_float16")
    model = model_of(
        attention=attention_network(),
        feature=feature_network(),
        proposal=LocalContrast(2),
        prediction="all",
    )
    model = keras.Model(model.inputs, model.outputs[0])
    model.compile("sgd", "mse")
    x, y = tiny_images(4), np.zeros((4, 3), "float32")
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()
    assert np.isfinite(model.predict(x, verbose=0)).all()
