"""Probabilities of sampling a set without replacement, whatever the order.

Cells ring at exponential times of rate ``p_i``, and the first n to ring are the draws.
Of a sampled set S let ``rest = 1 - sum_S p`` and measure time in units of ``1 / rest``:
the first cell outside S rings at an exponential time T of rate 1, and cell t of S has
rung by then with probability ``1 - exp(-lambda_t T)``, ``lambda_t = p_t / rest``. So

    P(S) = int_0^inf exp(-T) prod_{t in S} (1 - exp(-lambda_t T)) dT .

Taking cells away from the population leaves the other lambdas as they are: the same
integral over fewer factors is the probability of the smaller set then. All of it is
computed in logarithms, by the trapezoidal rule over ``u = log T``, where the integrand
is smooth and vanishes at both ends.
"""

import math
from typing import Any

import numpy as np
from keras import ops

# Smaller probabilities, and rests, count as this.
_SMALLEST_PROBABILITY = 1e-30
# Smaller products of rate and time are not told apart from this: their logarithm is
# finite in float32, subnormal numbers flushed to zero or not.
_SMALLEST_ADVANCE = 1e-35
# exp(-17) = 4e-8 of the mass of T lies below.
_FIRST_LOG_TIME = -17.0


def log_set_integrals(probabilities: Any) -> Any:
    """Integrate over the sets that lack one of the sampled cells.

    Args:
        probabilities: (batch, n) float tensor, the probability of each sampled cell
            before anything was sampled.

    Returns:
        (batch, n) tensor: entry s is ``log P(S without s, s taken away)``, but for a
        constant that each sample has of its own.

    Example:

    >>> p = keras.ops.array([[0.5, 0.25]])  # and 0.25 for the rest
    >>> log_integrals = log_set_integrals(p)  # log(0.25 / 0.5), log(0.5 / 0.75)
    >>> round(float(keras.ops.exp(log_integrals[0, 1] - log_integrals[0, 0])), 4)
    1.3333
    """
    log_factors, log_weights = _integrand(probabilities)
    log_product = log_weights + ops.sum(log_factors, axis=1, keepdims=True)
    return ops.logsumexp(log_product - log_factors, axis=2)


def log_pair_integrals(probabilities: Any) -> Any:
    """Integrate over the sets that lack two of the sampled cells.

    The n x n integrals are one product of two matrices (n, times): the integrand
    without s and t is split in two halves, one for each.

    Args:
        probabilities: (batch, n) float tensor, n at least 2.

    Returns:
        (batch, n, n) tensor: entry (s, t) is ``log P(S without s and t, both taken
        away)``, but for a constant that each row (., s) has of its own. The diagonal
        holds nothing of use.
    """
    log_factors, log_weights = _integrand(probabilities)
    log_product = log_weights + ops.sum(log_factors, axis=1, keepdims=True)
    log_halves = 0.5 * log_product - log_factors
    scales = ops.max(log_halves, axis=2)
    halves = ops.exp(log_halves - scales[..., None])
    integrals = ops.matmul(halves, ops.transpose(halves, (0, 2, 1)))
    return scales[:, None, :] + ops.log(ops.maximum(integrals, 1e-37))


def _integrand(probabilities: Any) -> tuple[Any, Any]:
    """Return log(1 - exp(-lambda T)), (batch, n, times), and log(T exp(-T)), (times,).

    The latter are the weights of the times in the trapezoidal rule over log T.
    """
    log_times = ops.array(_log_times(probabilities.shape[1]), probabilities.dtype)
    probabilities = ops.maximum(probabilities, _SMALLEST_PROBABILITY)
    rest = 1.0 - ops.sum(probabilities, axis=1, keepdims=True)
    rates = probabilities / ops.maximum(rest, _SMALLEST_PROBABILITY)
    advance = ops.maximum(rates[..., None] * ops.exp(log_times), _SMALLEST_ADVANCE)
    # Close to 0 the logarithm has no relative accuracy, and needs none: it is only added
    # to others.
    log_factors = ops.log(-ops.expm1(-advance))
    return log_factors, log_times - ops.exp(log_times)


def _log_times(n: int) -> np.ndarray:
    """Return the grid of log T.

    For n equal cells of many, the integrand is T^n exp(-T): around ``T = n``, with
    width ``1 / sqrt(n)`` in log T. Steps of that width leave a relative error below 1e-6,
    most of which is common to all integrals, and steps of 1/4 suffice for ``exp(-T)``
    itself. 3.5 above the peak it is below 1e-12.
    """
    step = min(0.25, 1.0 / math.sqrt(n))
    last = math.log(n) + 3.5
    points = math.ceil((last - _FIRST_LOG_TIME) / step) + 1
    return np.linspace(_FIRST_LOG_TIME, last, points)
