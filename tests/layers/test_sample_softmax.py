"""SampleSoftmax: one distribution over all cells."""

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradients
from keras import ops

from attention_sampling import SampleSoftmax


@pytest.mark.parametrize("shape", [(2, 6), (2, 4, 5), (1, 2, 3, 4)])
def test_is_the_softmax_over_all_cells(shape, rng):
    scores = rng.normal(scale=3, size=shape).astype("float32")
    attention = ops.convert_to_numpy(SampleSoftmax()(ops.array(scores)))
    expected = reference.softmax(scores.reshape(shape[0], -1)).reshape(shape)
    np.testing.assert_allclose(attention, expected, rtol=1e-5, atol=1e-7)


def test_squeezes_the_channel_only(rng):
    scores = rng.normal(size=(1, 1, 5, 1)).astype("float32")
    attention = SampleSoftmax(squeeze_channels=True)(ops.array(scores))
    assert tuple(attention.shape) == (1, 1, 5)
    np.testing.assert_allclose(
        ops.convert_to_numpy(attention)[0, 0],
        reference.softmax(scores[0, 0, :, 0]),
        rtol=1e-5,
    )


@pytest.mark.parametrize("smooth", [0.1, 0.5, 1])
def test_smooth_mixes_in_the_uniform_distribution(smooth):
    scores = np.array([[[10.0, 0.0], [-10.0, 0.0]]], "float32")
    attention = ops.convert_to_numpy(SampleSoftmax(smooth=smooth)(ops.array(scores)))
    expected = (1 - smooth) * reference.softmax(scores.reshape(1, 4)) + smooth / 4
    np.testing.assert_allclose(attention.reshape(1, 4), expected, rtol=1e-5)
    assert attention.min() >= smooth / 4 * (1 - 1e-6)


def test_large_scores_do_not_overflow():
    scores = ops.array([[3e38, -3e38, 3e38, 0.0]])
    attention = ops.convert_to_numpy(SampleSoftmax()(scores))
    np.testing.assert_allclose(attention, [[0.5, 0.0, 0.5, 0.0]])


def test_half_precision_scores_give_float32():
    """In float16 ten thousand cells would not sum to 1."""
    scores = ops.zeros((1, 100, 100), dtype="float16")
    attention = SampleSoftmax()(scores)
    assert keras.backend.standardize_dtype(attention.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(attention), 1e-4, rtol=1e-5)


def test_gradient_is_that_of_a_softmax(rng):
    scores = rng.normal(size=(1, 4)).astype("float32")
    cotangent = rng.normal(size=(1, 4)).astype("float32")
    _, (gradient,) = value_and_gradients(
        lambda x: SampleSoftmax(smooth=0.2)(x), [scores], cotangent
    )
    _, expected, _ = reference.full_model(scores[0], np.eye(4), cotangent[0])
    np.testing.assert_allclose(gradient[0], 0.8 * expected, atol=1e-6)


def test_refuses_other_arguments_and_inputs():
    with pytest.raises(ValueError, match=r"from 0 to 1. Received: smooth=1.5"):
        SampleSoftmax(smooth=1.5)
    with pytest.raises(ValueError, match="Received: squeeze_channels=1"):
        SampleSoftmax(squeeze_channels=1)
    for scores in (keras.KerasTensor((None, None, None, 2)), ops.zeros((1, 2, 2, 3))):
        with pytest.raises(ValueError, match="one filter"):
            SampleSoftmax(squeeze_channels=True)(scores)
    for squeeze, shape in ((False, (3,)), (True, (3, 1))):
        with pytest.raises(ValueError, match="at least one axis of cells"):
            SampleSoftmax(squeeze_channels=squeeze)(keras.KerasTensor(shape))
