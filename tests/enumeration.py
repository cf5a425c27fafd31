"""Exact enumeration: an estimator averaged over every draw that can happen."""

import numpy as np
import reference
from gradients import value_and_gradients
from keras import ops

DIM = 3


def logits_of(name, cells):
    """Return logits whose attention is flat, uneven, or 0.95 at one cell."""
    if name == "flat":
        return np.zeros(cells, "float32")
    if name == "uneven":
        return np.linspace(-1.0, 1.0, cells).astype("float32")
    rest = 0.05 * reference.softmax(np.linspace(-1.0, 1.0, cells - 1))
    return np.log([0.95, *rest]).astype("float32")


def enumerate_draws(estimate, logits, n_patches, replace):
    """Average an estimate and its gradients over every ordered draw.

    Returns:
        What the estimator gives and what the full model gives, each the value, the
        gradient of the logits and the gradient of the features, all contracted with
        the same random cotangent.
    """
    rng = np.random.default_rng(1)
    cells = len(logits)
    features = rng.normal(size=(cells, DIM)).astype("float32")
    cotangent = rng.normal(size=DIM).astype("float32")
    draws, probabilities = reference.ordered_draws(
        reference.softmax(logits), n_patches, replace
    )
    np.testing.assert_allclose(probabilities.sum(), 1.0)
    # Draws of probability 0 on top make all shapes the same: JAX compiles once.
    padding = 6**4 - len(draws)
    draws = np.pad(draws, ((0, padding), (0, 0)))
    probabilities = ops.array(np.pad(probabilities, (0, padding)), "float32")[:, None]

    def average(logits, features):
        attention = ops.softmax(logits)
        estimated = estimate(
            ops.take(features, draws, axis=0), ops.take(attention, draws), replace
        )
        return ops.sum(probabilities * estimated, axis=0)

    value, gradients = value_and_gradients(average, [logits, features], cotangent)
    return [value, *gradients], reference.full_model(logits, features, cotangent)
