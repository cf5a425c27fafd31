"""ActivityRegularizer: the loss of its regularizer, and the inputs unchanged."""

import numpy as np
import pytest
import reference
from keras import ops

from attention_sampling import ActivityRegularizer, MultinomialEntropy


def test_adds_the_loss_and_keeps_the_inputs(rng):
    attention = rng.dirichlet(np.ones(6), size=4).astype("float32").reshape(4, 2, 3)
    layer = ActivityRegularizer(MultinomialEntropy(strength=0.5))
    outputs = layer(ops.array(attention))
    np.testing.assert_array_equal(ops.convert_to_numpy(outputs), attention)
    assert len(layer.losses) == 1
    # Averaged over the batch once, by the regularizer alone.
    assert float(layer.losses[0]) == pytest.approx(
        0.5 * reference.negative_entropy(attention), rel=1e-5
    )


def test_takes_the_names_of_keras_regularizers():
    layer = ActivityRegularizer("l2")
    layer(ops.full((2, 3), 2.0))
    assert float(layer.losses[0]) == pytest.approx(0.01 * 6 * 4)


def test_config_keeps_the_regularizer():
    layer = ActivityRegularizer(MultinomialEntropy(strength=0.5, eps=1e-3))
    copy = ActivityRegularizer.from_config(layer.get_config())
    assert isinstance(copy.regularizer, MultinomialEntropy)
    assert (copy.regularizer.strength, copy.regularizer.eps) == (0.5, 1e-3)


@pytest.mark.parametrize("regularizer", [None, 0.01])
def test_refuses_what_is_not_callable(regularizer):
    with pytest.raises((TypeError, ValueError), match="regularizer"):
        ActivityRegularizer(regularizer)
