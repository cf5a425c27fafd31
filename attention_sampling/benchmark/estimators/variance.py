"""Squared errors of the estimators over many draws."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from attention_sampling import estimators
from attention_sampling.sampling import draw_cells

# Numbers in the largest array of a batch of trials.
_LARGEST_ARRAY = 2**22


class Problem(NamedTuple):
    """What is to be estimated, and from how many cells."""

    attention: np.ndarray  # (cells,)
    features: np.ndarray  # (cells, dim)
    n_patches: int


class Method(NamedTuple):
    """An estimator as its functions."""

    replace: bool
    weights: Callable[[Any], Any]
    leave_one_out: Callable[[Any], Any] | None = None


METHODS = {
    "with replacement": Method(True, estimators.with_replacement_weights),
    "with replacement, control variate": Method(
        True,
        estimators.with_replacement_weights,
        estimators.with_replacement_leave_one_out,
    ),
    "ordered": Method(False, estimators.ordered_weights),
    "unordered": Method(False, estimators.unordered_weights),
    "unordered, control variate": Method(
        False, estimators.unordered_weights, estimators.unordered_leave_one_out
    ),
}


def squared_errors(problem: Problem, trials: int, seed: int) -> dict[str, np.ndarray]:
    """Estimate again and again.

    Methods without replacement get the same draws, and those with replacement, too:
    their errors compare.

    Args:
        problem: what is estimated.
        trials: how often.
        seed: of the draws.

    Returns:
        For each of ``METHODS`` the squared errors, (2, trials): of the value, and of the
        gradient with respect to the logits of the attention.
    """
    cells = len(problem.attention)
    batch = max(1, _LARGEST_ARRAY // max(cells, problem.n_patches**2))
    generator = keras.random.SeedGenerator(seed)
    batches: dict[str, list[np.ndarray]] = {name: [] for name in METHODS}
    for start in range(0, trials, batch):
        attention = np.broadcast_to(
            problem.attention.astype("float32"), (min(batch, trials - start), cells)
        )
        drawn = {
            replace: ops.convert_to_numpy(
                draw_cells(attention, problem.n_patches, replace, seed=generator)
            )
            for replace in (True, False)
        }
        for name, method in METHODS.items():
            batches[name].append(errors_of(problem, method, drawn[method.replace]))
    return {name: np.concatenate(parts, axis=1) for name, parts in batches.items()}


def errors_of(problem: Problem, method: Method, drawn: np.ndarray) -> np.ndarray:
    """Return the squared errors of estimates from given draws.

    Weights and control variates are the package's, in float32. The gradient of the
    attention of a drawn cell is ``c_s (f_s - b_s)``, a row of the Jacobian of the
    estimate; through the softmax it becomes a gradient of logits. The squared norm of
    the error of the whole Jacobian is what the squared error of the gradient is on
    average over cotangents that are standard normal variates.

    Args:
        problem: what is estimated.
        method: how.
        drawn: (trials, n_patches) cells.

    Returns:
        (2, trials) squared errors of value and of logit gradient.
    """
    attention, features = problem.attention, problem.features
    exact = attention @ features
    sampled_features = features[drawn]
    sampled = ops.array(attention[drawn], "float32")
    weights = ops.convert_to_numpy(method.weights(sampled)).astype("float64")
    shares = (weights * attention[drawn])[..., None]
    values = np.sum(shares * sampled_features, axis=1)
    centred = sampled_features
    if method.leave_one_out is not None:
        variate = estimators.control_variate(
            ops.array(sampled_features, "float32"),
            sampled,
            method.leave_one_out(sampled),
        )
        centred = sampled_features - ops.convert_to_numpy(variate)
    # Through a softmax goes the difference of a row to the mean of all.
    mean_error = np.sum(shares * centred, axis=1) - exact
    # Draws of one cell add up, and count once.
    same = (drawn[:, :, None] == drawn[:, None, :]).astype("float64")
    rows = same @ (weights[..., None] * centred)
    squares = np.sum((rows - sampled_features - mean_error[:, None]) ** 2, axis=2)
    of_drawn = np.sum(attention[drawn] ** 2 * squares / same.sum(axis=2), axis=1)
    # The row of a cell not drawn is 0. Sums of |f_i + mean error|^2 over those cells:
    left = np.tile(attention**2, (len(drawn), 1))
    left[np.arange(len(drawn))[:, None], drawn] = 0.0
    of_left = (
        left @ np.sum(features**2, axis=1)
        + 2 * np.sum((left @ features) * mean_error, axis=1)
        + left.sum(axis=1) * np.sum(mean_error**2, axis=1)
    )
    return np.stack([np.sum((values - exact) ** 2, axis=1), of_drawn + of_left])
