"""Expectation: unbiased in both modes, and its checks."""

import keras
import numpy as np
import pytest
import reference
from enumeration import enumerate_draws, logits_of
from keras import ops

from attention_sampling import Expectation


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("attention", ["flat", "uneven", "peaked"])
@pytest.mark.parametrize("n_patches", [1, 3])
def test_every_draw_averages_to_the_full_model(n_patches, attention, replace):
    def estimate(features, sampled_attention, replace):
        return Expectation(replace=replace)([features, sampled_attention])

    estimated, exact = enumerate_draws(
        estimate, logits_of(attention, 5), n_patches, replace
    )
    for got, expected in zip(estimated, exact, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_enumeration_sees_the_other_mode():
    """The estimator for the other kind of draw is biased."""

    def estimate(features, sampled_attention, replace):
        return Expectation(replace=not replace)([features, sampled_attention])

    for replace in (True, False):
        estimated, exact = enumerate_draws(estimate, logits_of("uneven", 5), 3, replace)
        for got, expected in zip(estimated, exact, strict=True):
            assert np.abs(got - expected).max() > 1e-2


@pytest.mark.parametrize("replace", [True, False])
def test_value_is_the_reference(replace, rng):
    features = rng.normal(size=(4, 3, 6)).astype("float32")
    attention = rng.dirichlet(np.ones(9), size=4)[:, :3].astype("float32")
    value = Expectation(replace=replace)([ops.array(features), ops.array(attention)])
    expected = [
        reference.estimate(f, a, replace)
        for f, a in zip(features, attention, strict=True)
    ]
    np.testing.assert_allclose(ops.convert_to_numpy(value), expected, atol=1e-5)


def test_order_of_the_draws_matters_without_replacement(rng):
    features = ops.array(rng.normal(size=(1, 2, 3)), "float32")
    attention = ops.array([[0.6, 0.1]])
    layer = Expectation()
    forward = layer([features, attention])
    backward = layer([ops.flip(features, axis=1), ops.flip(attention, axis=1)])
    assert not np.allclose(*map(ops.convert_to_numpy, (forward, backward)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_inputs_are_summed_in_float32(dtype):
    """Sixty-four terms of 1 / 64 plus a little: float16 would lose the little."""
    features = ops.cast(ops.full((1, 64, 1), 1.0), dtype)
    attention = ops.cast(ops.full((1, 64), 2.0**-20), dtype)
    value = Expectation()([features, attention])
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    np.testing.assert_allclose(
        ops.convert_to_numpy(value)[0],
        reference.estimate(np.ones((64, 1)), np.full(64, 2.0**-20), replace=False),
        rtol=1e-5,
    )


def test_trailing_axes_stay():
    features = keras.KerasTensor((None, 3, 4, 5))
    attention = keras.KerasTensor((None, 3))
    assert Expectation()([features, attention]).shape == (None, 4, 5)


@pytest.mark.parametrize(
    ("features", "attention"),
    [
        ((2, 3, 4), (2, 4)),  # another number of patches
        ((2, 3), (2, 3)),  # no feature axis
        ((2, 3, 4), (2, 3, 1)),  # attention of rank 3
        ((2, 3, 4), (2,)),
        ((2, None, 4), (2, None)),  # number of patches unknown
    ],
)
def test_refuses_shapes_that_do_not_match(features, attention):
    with pytest.raises(
        ValueError, match=r"features of shape \(batch, n_patches, dim\)"
    ):
        Expectation()([keras.KerasTensor(features), keras.KerasTensor(attention)])


def test_refuses_shapes_that_do_not_match_when_eager():
    with pytest.raises(ValueError, match="same n_patches"):
        Expectation()([ops.ones((2, 3, 4)), ops.ones((2, 5))])


def test_refuses_another_batch():
    with pytest.raises(
        ValueError, match="features and sampled_attention must hold the same number"
    ):
        Expectation()([keras.KerasTensor((2, 3, 4)), keras.KerasTensor((3, 3))])


def test_refuses_another_number_of_inputs():
    with pytest.raises(ValueError, match=r"2 inputs, \[features, sampled_attention\]"):
        Expectation()([keras.Input((3, 2))] * 3)
