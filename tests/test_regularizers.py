"""The entropy regularizer."""

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradients
from keras import ops

from attention_sampling import MultinomialEntropy, multinomial_entropy


@pytest.mark.parametrize("shape", [(1, 4), (3, 4, 5)])
def test_value_is_the_reference(shape, rng):
    cells = int(np.prod(shape[1:]))
    attention = rng.dirichlet(np.ones(cells), size=shape[0]).reshape(shape)
    value = MultinomialEntropy(0.3, eps=1e-3)(ops.array(attention, "float32"))
    assert float(value) == pytest.approx(
        0.3 * reference.negative_entropy(attention, eps=1e-3), rel=1e-5
    )


def test_descent_flattens_the_attention():
    """A positive strength lowers the highest logit and raises the lowest."""
    logits = np.array([[2.0, 0.0, 0.0, -1.0]], "float32")
    _, (gradient,) = value_and_gradients(
        lambda x: MultinomialEntropy()(ops.softmax(x)), [logits]
    )
    assert gradient[0, 0] > 0
    assert gradient[0, 3] < 0


def test_zeros_give_finite_value_and_gradient():
    attention = np.array([[1.0, 0.0, 0.0]], "float32")
    value, (gradient,) = value_and_gradients(MultinomialEntropy(), [attention])
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_half_precision_is_computed_in_float32():
    """In float16 eps = 1e-6 and the sum of ten thousand terms would be lost."""
    value = MultinomialEntropy()(ops.full((1, 10_000), 2.0**-13, dtype="float16"))
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    expected = reference.negative_entropy(np.full((1, 10_000), 2.0**-13))
    assert float(value) == pytest.approx(expected, rel=1e-4)


def test_serialises_without_custom_objects():
    config = keras.regularizers.serialize(MultinomialEntropy(0.3, eps=1e-4))
    copy = keras.regularizers.deserialize(config)
    assert isinstance(copy, MultinomialEntropy)
    assert copy.get_config() == {"strength": 0.3, "eps": 1e-4}


def test_is_an_activity_regularizer_of_keras_layers():
    layer = keras.layers.Softmax(activity_regularizer=MultinomialEntropy(0.3))
    layer(ops.zeros((1, 4)))
    assert float(layer.losses[0]) == pytest.approx(-0.3 * np.log(4), rel=1e-4)


def test_goes_by_its_other_name():
    """`multinomial_entropy(strength)` makes a regularizer, as in the package ats."""
    regularizer = multinomial_entropy(0.3)
    assert isinstance(regularizer, MultinomialEntropy)
    assert regularizer.strength == 0.3


@pytest.mark.parametrize(
    ("name", "value"), [("eps", 0), ("eps", -1e-6), ("strength", float("nan"))]
)
def test_refuses_other_numbers(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}="):
        MultinomialEntropy(**{name: value})
