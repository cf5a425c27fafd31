"""The estimators: exact enumeration of every draw, values, and extreme attention."""

import keras
import numpy as np
import pytest
import reference
from enumeration import enumerate_draws, logits_of
from gradients import value_and_gradients
from keras import ops

from attention_sampling import estimators

DIM = 3

MODES = [
    pytest.param(True, id="with replacement"),
    pytest.param(False, id="without replacement"),
]


def estimate(features, sampled_attention, replace):
    weights = (
        estimators.with_replacement_weights if replace else estimators.ordered_weights
    )(sampled_attention)
    return estimators.weighted_sum(features, sampled_attention, weights)


def plain_mean(features, sampled_attention, replace):
    """Take the mean of the drawn features, whatever the mode."""
    return estimate(features, sampled_attention, replace=True)


def published_reference(features, sampled_attention, replace):
    """Do as the published code does: its attention gradient is at the wrong terms."""
    weights = estimators.ordered_weights(sampled_attention)
    value = estimators.weighted_sum(
        features, ops.stop_gradient(sampled_attention), weights
    )
    n_patches = features.shape[1]
    attention = ops.stop_gradient(sampled_attention)[..., None]
    constant = ops.stop_gradient(features)
    drawn = ops.cumsum(attention * constant, axis=1) - attention * constant
    left = 1.0 - (ops.cumsum(attention, axis=1) - attention)
    partial = drawn + left * constant
    before = ops.cumsum(constant, axis=1) - constant
    repeated = ops.arange(n_patches, dtype="float32")[:, None] * constant
    of_attention = (partial * left / attention + before - repeated) / n_patches
    change = (sampled_attention[..., None] - attention) * of_attention
    return value + ops.sum(change, axis=1)


@pytest.mark.parametrize("replace", MODES)
@pytest.mark.parametrize("attention", ["flat", "uneven", "peaked"])
@pytest.mark.parametrize("n_patches", [1, 2, 3, 4])
@pytest.mark.parametrize("cells", [4, 5, 6])
def test_every_draw_averages_to_the_full_model(cells, n_patches, attention, replace):
    estimated, exact = enumerate_draws(
        estimate, logits_of(attention, cells), n_patches, replace
    )
    for got, expected in zip(estimated, exact, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("attention", ["uneven", "peaked"])
@pytest.mark.parametrize("n_patches", [2, 4])
def test_enumeration_sees_the_published_attention_gradient(n_patches, attention):
    (value, of_logits, of_features), exact = enumerate_draws(
        published_reference, logits_of(attention, 5), n_patches, replace=False
    )
    np.testing.assert_allclose(value, exact[0], atol=1e-5)
    np.testing.assert_allclose(of_features, exact[2], atol=1e-5)
    assert np.abs(of_logits - exact[1]).max() > 1e-2


@pytest.mark.parametrize("attention", ["uneven", "peaked"])
def test_enumeration_sees_the_plain_mean_without_replacement(attention):
    estimated, exact = enumerate_draws(
        plain_mean, logits_of(attention, 5), n_patches=3, replace=False
    )
    for got, expected in zip(estimated, exact, strict=True):
        assert np.abs(got - expected).max() > 1e-2


@pytest.mark.parametrize("replace", MODES)
@pytest.mark.parametrize("n_patches", [1, 2, 7])
def test_value_is_the_reference(n_patches, replace, rng):
    features = rng.normal(size=(5, n_patches, DIM)).astype("float32")
    attention = rng.dirichlet(np.ones(10), size=5)[:, :n_patches].astype("float32")
    value = estimate(ops.array(features), ops.array(attention), replace)
    expected = [
        reference.estimate(f, a, replace)
        for f, a in zip(features, attention, strict=True)
    ]
    np.testing.assert_allclose(ops.convert_to_numpy(value), expected, atol=1e-5)


@pytest.mark.parametrize("replace", MODES)
def test_features_may_have_more_axes(replace, rng):
    features = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    attention = np.full((2, 3), 0.2, "float32")
    value = estimate(ops.array(features), ops.array(attention), replace)
    expected = [
        reference.estimate(f, a, replace)
        for f, a in zip(features, attention, strict=True)
    ]
    np.testing.assert_allclose(ops.convert_to_numpy(value), expected, atol=1e-5)


@pytest.mark.parametrize("replace", MODES)
def test_gradients_are_the_weights(replace, rng):
    """The weights are constants: d/df = c a and d/da = c f, nothing more."""
    features = rng.normal(size=(2, 3, DIM)).astype("float32")
    attention = np.array([[0.5, 0.2, 0.1], [0.1, 0.3, 0.05]], "float32")
    cotangent = rng.normal(size=(2, DIM)).astype("float32")
    j = np.arange(1, 4)
    left = 1.0 - (np.cumsum(attention, axis=1) - attention)
    weights = 1 / (3 * attention) if replace else ((3 - j) + left / attention) / 3
    _, (of_features, of_attention) = value_and_gradients(
        lambda f, a: estimate(f, a, replace), [features, attention], cotangent
    )
    np.testing.assert_allclose(
        of_features, (weights * attention)[..., None] * cotangent[:, None], rtol=1e-5
    )
    np.testing.assert_allclose(
        of_attention,
        weights * np.sum(features * cotangent[:, None], axis=-1),
        rtol=1e-4,
        atol=1e-5,
    )


def test_all_cells_without_replacement_leave_no_noise(rng):
    """Every order of the last two cells gives the full sum but for the last draw."""
    attention = rng.dirichlet(np.ones(4), size=1).astype("float32")
    weights = estimators.ordered_weights(ops.array(attention))
    factors = ops.convert_to_numpy(weights) * attention
    assert factors.sum() == pytest.approx(1.0, abs=1e-6)


EXTREMES = {
    "one cell holds nearly all": [1 - 1e-7, 5e-8, 3e-8, 1e-8],
    "uniform over a million": [1e-6] * 4,
    "zeros drawn last": [0.7, 0.3, 0.0, 0.0],
    "only zeros": [0.0] * 4,
    "rounds above one": [0.6, 0.4, 1e-7, 1e-7],
    "denormal": [0.5, 1e-39, 1e-42, 1e-45],
}


@pytest.mark.parametrize("replace", MODES)
@pytest.mark.parametrize("attention", EXTREMES.values(), ids=EXTREMES.keys())
def test_extreme_attention_gives_finite_values_and_gradients(attention, replace, rng):
    features = rng.normal(size=(1, 4, DIM)).astype("float32")
    attention = np.array([attention], "float32")
    value, gradients = value_and_gradients(
        lambda f, a: estimate(f, a, replace), [features, attention]
    )
    assert np.isfinite(value).all()
    for gradient in gradients:
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "attention",
    [
        EXTREMES["one cell holds nearly all"],
        EXTREMES["uniform over a million"],
        EXTREMES["zeros drawn last"],
    ],
)
def test_extreme_attention_keeps_its_value(attention, rng):
    features = rng.normal(size=(1, 4, DIM)).astype("float32")
    attention = np.array([attention], "float32")
    value = estimate(ops.array(features), ops.array(attention), replace=False)
    expected = reference.estimate(features[0], attention[0], replace=False)
    np.testing.assert_allclose(ops.convert_to_numpy(value)[0], expected, atol=1e-5)


@pytest.mark.parametrize("replace", MODES)
def test_saturated_softmax_gives_finite_gradients(replace, rng):
    """Logits so far apart that all cells but one are zero in float32."""
    logits = np.array([[300.0, 0.0, -300.0, 90.0]], "float32")
    features = rng.normal(size=(1, 4, DIM)).astype("float32")
    value, gradients = value_and_gradients(
        lambda f, x: estimate(f, ops.softmax(x), replace), [features, logits]
    )
    assert np.isfinite(value).all()
    for gradient in gradients:
        assert np.isfinite(gradient).all()


def test_weights_keep_the_dtype():
    attention = ops.cast(ops.array([[0.5, 0.25]]), "float32")
    for weights in (
        estimators.with_replacement_weights(attention),
        estimators.ordered_weights(attention),
    ):
        assert keras.backend.standardize_dtype(weights.dtype) == "float32"
