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
    MultinomialEntropy,
    SampleSoftmax,
    attention_sampling,
)
from attention_sampling.layers import sample_patches

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


def test_estimates_the_feature_of_the_patches_it_returns():
    """The output from the drawn patches alone, by the reference estimator."""
    feature = feature_network()
    model = model_of(feature=feature)
    x = tiny_images(2)
    estimated, attention, patches = model.predict(x, verbose=0)
    every = ops.convert_to_numpy(tiles(x[1]))
    for sample in range(2):
        cells = [
            next(i for i in range(4) if np.array_equal(every[sample, i], patch))
            for patch in patches[sample]
        ]
        expected = reference.estimate(
            ops.convert_to_numpy(feature(patches[sample])),
            attention[sample].ravel()[cells],
            replace=False,
        )
        np.testing.assert_allclose(estimated[sample], expected, atol=1e-5)


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
    before = [np.array(weight) for weight in model.get_weights()]
    samples = len(x[0])
    y = np.repeat(np.reshape(loss_weights, (samples, 1)), 3, axis=1) * samples
    model.train_on_batch(x, y.astype("float32"))
    return [b - a for b, a in zip(before, model.get_weights(), strict=True)]


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("n_patches", [1, 2, 3])
def test_a_training_step_over_every_draw_is_that_of_the_full_model(
    n_patches, replace, monkeypatch
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

    draws, probabilities = reference.ordered_draws(probabilities, n_patches, replace)
    monkeypatch.setattr(
        sample_patches,
        "draw_cells",
        lambda attention, n_patches, replace, seed: ops.convert_to_tensor(draws),
    )
    sample = attention_sampling(
        attention, feature, n_patches=n_patches, replace=replace
    )
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
        ({"n_patches": 5}, "Cannot draw 5 different cells .* of 2 x 2"),
        ({"receptive_field": 2}, "larger than the receptive field"),
        (
            {"attention": keras.layers.Conv2D(1, 1)},
            r"`attention` must have shape \(batch, rows, columns\)",
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
