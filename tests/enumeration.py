"""Exact enumeration: an estimator averaged over every draw that can happen."""

import numpy as np
import reference
from gradients import value_and_gradients
from keras import ops

DIM = 3
# Rounds of draws of probability 0 make all shapes the same: JAX compiles once.
MOST_DRAWS = {True: 6**4, False: 6 * 5 * 4 * 3}


def logits_of(name, cells):
    """Return logits whose attention is flat, uneven, or 0.95 at one cell."""
    if name == "flat":
        return np.zeros(cells, "float32")
    if name == "uneven":
        return np.linspace(-1.0, 1.0, cells).astype("float32")
    rest = 0.05 * reference.softmax(np.linspace(-1.0, 1.0, cells - 1))
    return np.log([0.95, *rest]).astype("float32")


def proposal_of(logits):
    """Return probabilities other than the attention: from 0.4 to above 2 of it."""
    rng = np.random.default_rng(3)
    salient = rng.dirichlet(np.ones(len(logits)))
    return 0.4 * reference.softmax(logits) + 0.6 * salient


def enumerate_draws(estimate, logits, n_patches, replace, proposal=None):
    """Average an estimate and its gradients over every ordered draw.

    Args:
        estimate: function of the features (draws, n_patches, dim) and the attention
            (draws, n_patches) of the drawn cells and, if there is a proposal, of their
            proposal, to (draws, dim).
        logits: (cells,) of the attention.
        n_patches: cells of a draw.
        replace: whether a cell may be drawn twice.
        proposal: (cells,) probabilities the cells are drawn with; None for the
            attention.

    Returns:
        What the estimator gives and what the full model gives, each the value, the
        gradient of the logits and the gradient of the features, all contracted with
        the same random cotangent.
    """
    rng = np.random.default_rng(1)
    cells = len(logits)
    features = rng.normal(size=(cells, DIM)).astype("float32")
    cotangent = rng.normal(size=DIM).astype("float32")
    drawn_with = reference.softmax(logits) if proposal is None else proposal
    draws, probabilities = reference.ordered_draws(drawn_with, n_patches, replace)
    np.testing.assert_allclose(probabilities.sum(), 1.0)
    padding = MOST_DRAWS[replace] - len(draws)
    draws = np.pad(draws, ((0, padding), (0, 0)), mode="edge")
    probabilities = ops.array(np.pad(probabilities, (0, padding)), "float32")[:, None]
    proposed = [] if proposal is None else [ops.array(proposal[draws], "float32")]

    def average(logits, features):
        attention = ops.softmax(logits)
        estimated = estimate(
            ops.take(features, draws, axis=0), ops.take(attention, draws), *proposed
        )
        return ops.sum(probabilities * estimated, axis=0)

    value, gradients = value_and_gradients(average, [logits, features], cotangent)
    return [value, *gradients], reference.full_model(logits, features, cotangent)


def enumerate_variance(estimate, logits, features, n_patches, replace, cotangent):
    """Return how an estimate and its gradient vary over every ordered draw.

    Returns:
        The covariance of the value, (dim, dim), and of the gradient of the logits,
        (cells, cells), contracted with the cotangent.
    """
    draws, probabilities = reference.ordered_draws(
        reference.softmax(logits), n_patches, replace
    )

    def of_every_draw(logits):
        attention = ops.softmax(logits)
        return estimate(
            ops.take(ops.array(features), draws, axis=0),
            ops.take_along_axis(attention, ops.array(draws), axis=1),
        )

    values, (gradients,) = value_and_gradients(
        of_every_draw,
        [np.tile(logits, (len(draws), 1))],
        np.tile(cotangent, (len(draws), 1)),
    )
    return [
        np.cov(x.astype("float64"), rowvar=False, aweights=probabilities, ddof=0)
        for x in (values, gradients)
    ]
