"""Estimators of the full model's feature from a few sampled cells.

The full model is ``F = sum_i a_i f_i`` over all cells of the attention map. From sampled
cells every estimator here is ``sum_s c_s a_s f_s`` with weights ``c_s`` that are
constants for the gradient, so that the gradients with respect to ``f_s`` and ``a_s``
are ``c_s a_s`` and ``c_s f_s``. Value and both gradients are unbiased if
``E[sum_s c_s h_s] = sum_i h_i`` for every ``h``.

The weights depend on the probabilities with which the cells were sampled: the attention
itself, or a proposal. In the gradient of ``a_s`` a control variate ``b_s`` may be taken
from ``f_s``. As ``sum_i a_i`` is constant, this changes no expectation if
``E[sum_{s = i} c_s b_s]`` is the same for every cell i. The estimates of F that take s as
given have it: the ``leave_one_out`` functions are their weights.
"""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from attention_sampling.ops import set_probabilities

# A probability below this counts as this in a quotient: 1 / p and its product with a
# feature and an upstream gradient stay inside float32.
_SMALLEST_PROBABILITY = 1e-30


def with_replacement_weights(probabilities: Any) -> Any:
    """Weights for cells sampled independently: ``c_s = 1 / (n p_s)``.

    Args:
        probabilities: (batch, n_patches) float tensor, the probability with which each
            cell was sampled: its attention, or its proposal.

    Returns:
        (batch, n_patches) tensor of weights, constant for the gradient.

    Example:

    >>> attention = keras.ops.array([[0.5, 0.25]])
    >>> keras.ops.convert_to_numpy(with_replacement_weights(attention))
    array([[1., 2.]], dtype=float32)

    Reference:
        Katharopoulos and Fleuret 2019, eq. 4 and 12.
    """
    probabilities = ops.stop_gradient(probabilities)
    n_patches = probabilities.shape[1]
    return 1.0 / (n_patches * ops.maximum(probabilities, _SMALLEST_PROBABILITY))


def ordered_weights(probabilities: Any) -> Any:
    """Weights for cells sampled without replacement, from their sampling order.

    After ``j - 1`` draws the mass ``m_j = 1 - sum_{l<j} p_l`` is left, and
    ``sum_{l<j} a_l f_l + m_j / p_j a_j f_j`` is an unbiased estimate. The mean of these
    over the n draws has ``c_j = ((n - j) + m_j / p_j) / n``.

    Args:
        probabilities: (batch, n_patches) float tensor, the probability of each sampled
            cell before the first draw, **in sampling order**.

    Returns:
        (batch, n_patches) tensor of weights, constant for the gradient.

    Example:

    >>> attention = keras.ops.array([[0.5, 0.25]])
    >>> keras.ops.convert_to_numpy(ordered_weights(attention))
    array([[1.5, 1. ]], dtype=float32)

    Reference:
        Katharopoulos and Fleuret 2019, eq. 14-17; Des Raj 1956, *Some estimators in
        sampling with varying probabilities without replacement*.
    """
    probabilities = ops.stop_gradient(probabilities)
    n_patches = probabilities.shape[1]
    mass_left = 1.0 - (ops.cumsum(probabilities, axis=1) - probabilities)
    # Exactly, the mass left holds at least the cell about to be sampled. Rounding may
    # say otherwise when nearly all mass has been sampled.
    mass_left = ops.maximum(mass_left, probabilities)
    draws_after = ops.arange(n_patches - 1, -1, -1, dtype=probabilities.dtype)
    quotient = mass_left / ops.maximum(probabilities, _SMALLEST_PROBABILITY)
    return (draws_after + quotient) / n_patches


def unordered_weights(probabilities: Any) -> Any:
    """Weights for cells sampled without replacement, whatever their order.

    The mean of the ordered estimator over all orders in which the same set S could have
    been sampled, so never of more variance:
    ``c_s = P(S without s is sampled, s taken away) / P(S is sampled)``.

    Args:
        probabilities: (batch, n_patches) float tensor, the probability of each sampled
            cell before the first draw.

    Returns:
        (batch, n_patches) tensor of weights, constant for the gradient.

    Example:

    >>> attention = keras.ops.array([[0.5, 0.25]])
    >>> keras.ops.convert_to_numpy(unordered_weights(attention)).round(3)
    array([[1.2, 1.6]], dtype=float32)

    Reference:
        Murthy 1957, *Ordered and unordered estimators in sampling without replacement*;
        Kool et al. 2020, *Estimating gradients for discrete random variables by
        sampling without replacement* (arXiv 2002.06043).
    """
    probabilities = ops.maximum(ops.stop_gradient(probabilities), _SMALLEST_PROBABILITY)
    if probabilities.shape[1] == 1:
        return 1.0 / probabilities
    # Every set is sampled with some cell first: P(S) = sum_s p_s P(S without s). So
    # sum_s c_s p_s = 1, which is all that is needed beyond the integrals' ratios.
    shares = ops.softmax(
        ops.log(probabilities) + set_probabilities.log_set_integrals(probabilities)
    )
    return shares / probabilities


def top_k_weights(probabilities: Any) -> Any:
    """Weights for the most probable cells: ``c_s = 1 / sum_t p_t``.

    What was not looked at counts as what was. For prediction: there is no randomness,
    and the estimate is biased.

    Args:
        probabilities: (batch, n_patches) float tensor.

    Returns:
        (batch, n_patches) tensor of weights, constant for the gradient.

    Example:

    >>> attention = keras.ops.array([[0.5, 0.25]])
    >>> keras.ops.convert_to_numpy(top_k_weights(attention)).round(3)
    array([[1.333, 1.333]], dtype=float32)
    """
    probabilities = ops.stop_gradient(probabilities)
    mass = ops.sum(probabilities, axis=1, keepdims=True)
    return ops.ones_like(probabilities) / ops.maximum(mass, _SMALLEST_PROBABILITY)


def with_replacement_leave_one_out(probabilities: Any) -> Any:
    """Weights of the estimates from the other draws, each sampled independently.

    Args:
        probabilities: (batch, n_patches) float tensor, at least two patches.

    Returns:
        (batch, n_patches, n_patches) tensor. ``sum_t R_st a_t f_t`` estimates F without
        a bias, whatever draw s was.

    Raises:
        ValueError: one patch only.

    Example:

    >>> attention = keras.ops.array([[0.5, 0.25]])
    >>> keras.ops.convert_to_numpy(with_replacement_leave_one_out(attention))
    array([[[0., 4.],
            [2., 0.]]], dtype=float32)
    """
    n_patches = _at_least_two(probabilities)
    others = 1.0 - ops.eye(n_patches, dtype=probabilities.dtype)
    weights = with_replacement_weights(probabilities) * (n_patches / (n_patches - 1))
    return others * weights[:, None, :]


def unordered_leave_one_out(probabilities: Any) -> Any:
    """Weights of the estimates that take one sampled cell as given.

    Cell s counts with its exact term and the others estimate the population without s:
    ``R_ss = 1``, ``R_st = P(S without s and t, both taken away) / P(S without s, s taken
    away)``.

    Args:
        probabilities: (batch, n_patches) float tensor, at least two patches.

    Returns:
        (batch, n_patches, n_patches) tensor. Given that s was sampled first,
        ``sum_t R_st a_t f_t`` estimates F without a bias.

    Raises:
        ValueError: one patch only.

    Example:

    >>> attention = keras.ops.array([[0.5, 0.25]])
    >>> keras.ops.convert_to_numpy(unordered_leave_one_out(attention)).round(3)
    array([[[1. , 2. ],
            [1.5, 1. ]]], dtype=float32)

    Reference:
        Kool et al. 2020, *Estimating gradients for discrete random variables by
        sampling without replacement* (arXiv 2002.06043).
    """
    n_patches = _at_least_two(probabilities)
    probabilities = ops.maximum(ops.stop_gradient(probabilities), _SMALLEST_PROBABILITY)
    own = ops.eye(n_patches, dtype=probabilities.dtype)
    logits = ops.log(probabilities)[:, None, :] + set_probabilities.log_pair_integrals(
        probabilities
    )
    shares = ops.softmax(ops.where(own > 0, -float("inf"), logits))
    # As for the whole set, of the mass that is left without s.
    mass = ops.maximum(1.0 - probabilities, 0.0)
    return own + mass[:, :, None] * shares / probabilities[:, None, :]


def control_variate(
    features: Any, sampled_attention: Any, leave_one_out: Any, normalize: bool = False
) -> Any:
    """Estimate F once for each sampled cell, taking that cell as given.

    Args:
        features: (batch, n_patches, ...) float tensor.
        sampled_attention: (batch, n_patches) float tensor.
        leave_one_out: (batch, n_patches, n_patches) tensor of weights.
        normalize: divide by the estimate of ``sum_i a_i``. It is 1 by itself for the
            unordered weights of the attention, and not where cells came from a proposal.

    Returns:
        (batch, n_patches, ...) tensor, ``b_s`` in ``weighted_sum``, constant for the
        gradient.

    Example:

    >>> features = keras.ops.array([[[1.0], [3.0]]])
    >>> attention = keras.ops.array([[0.5, 0.25]])
    >>> leave_one_out = unordered_leave_one_out(attention)
    >>> variate = control_variate(features, attention, leave_one_out)
    >>> keras.ops.convert_to_numpy(variate)[0, :, 0].round(3)
    array([2. , 1.5], dtype=float32)

    Reference:
        Kool et al. 2020 (arXiv 2002.06043), for the unordered weights.
    """
    factors = ops.stop_gradient(leave_one_out * sampled_attention[:, None, :])
    if normalize:
        factors = factors / _positive(ops.sum(factors, axis=2, keepdims=True))
    n_patches, *trailing = features.shape[1:]
    flat = ops.reshape(
        ops.stop_gradient(features), (-1, n_patches, math.prod(trailing))
    )
    return ops.reshape(ops.matmul(factors, flat), (-1, n_patches, *trailing))


def normalized_weights(weights: Any, sampled_attention: Any) -> Any:
    """Scale weights such that ``sum_s c_s a_s = 1``.

    For cells sampled from a proposal: the mean of few features instead of a sum whose
    length varies from draw to draw. The bias is of the order of 1 / n_patches.

    Args:
        weights: (batch, n_patches) float tensor.
        sampled_attention: (batch, n_patches) float tensor.

    Returns:
        (batch, n_patches) tensor of weights, constant for the gradient.

    Example:

    >>> attention = keras.ops.array([[0.5, 0.25]])
    >>> weights = with_replacement_weights(keras.ops.array([[0.2, 0.2]]))
    >>> keras.ops.convert_to_numpy(normalized_weights(weights, attention)).round(3)
    array([[1.333, 1.333]], dtype=float32)
    """
    total = ops.sum(weights * sampled_attention, axis=1, keepdims=True)
    return ops.stop_gradient(weights / _positive(total))


def weighted_sum(
    features: Any,
    sampled_attention: Any,
    weights: Any,
    control_variate: Any | None = None,
) -> Any:
    """Estimate the full model's feature, ``sum_s c_s a_s f_s``.

    Args:
        features: (batch, n_patches, ...) float tensor, one feature a sampled cell.
        sampled_attention: (batch, n_patches) float tensor.
        weights: (batch, n_patches) float tensor, ``c_s``; no gradient flows into it.
        control_variate: (batch, n_patches, ...) float tensor, ``b_s``, or None for 0; no
            gradient flows into it.

    Returns:
        (batch, ...) tensor. Its gradient with respect to ``features`` is ``c_s a_s``,
        with respect to ``sampled_attention`` ``c_s (f_s - b_s)``.

    Example:

    >>> features = keras.ops.array([[[1.0], [3.0]]])
    >>> attention = keras.ops.array([[0.5, 0.25]])
    >>> weights = with_replacement_weights(attention)
    >>> keras.ops.convert_to_numpy(weighted_sum(features, attention, weights))
    array([[2.]], dtype=float32)

    Reference:
        Katharopoulos and Fleuret 2019, eq. 12.
    """
    n_patches, *trailing = features.shape[1:]

    def of_features(x: Any) -> Any:
        return ops.reshape(x, (-1, n_patches, *[1] * len(trailing)))

    weights = ops.stop_gradient(weights)
    attention = ops.stop_gradient(sampled_attention)
    centred = ops.stop_gradient(
        features if control_variate is None else features - control_variate
    )
    # Its value is that of the first term: the second is 0 and carries the gradient.
    terms = of_features(weights * attention) * features
    terms += of_features(weights * (sampled_attention - attention)) * centred
    return ops.sum(terms, axis=1)


def sum_over_all_cells(
    attention: Any,
    features_at: Callable[[Any], Any],
    feature_shape: tuple[int, ...],
    chunk_size: int = 64,
) -> Any:
    """Compute the full model's feature, ``sum_i a_i f_i``, a chunk of cells at a time.

    Memory grows with the size of a chunk and not with the number of cells.

    Args:
        attention: (batch, cells) float tensor.
        features_at: callable from cells, (batch, chunk_size) int32, to their features,
            (batch, chunk_size, ...).
        feature_shape: shape of one feature.
        chunk_size: cells of each image at a time.

    Returns:
        (batch, ...) tensor of the dtype of ``attention``.

    Example:

    >>> attention = keras.ops.array([[0.5, 0.25, 0.25]])
    >>> feature = sum_over_all_cells(
    ...     attention, lambda cells: keras.ops.cast(cells, "float32"), (), chunk_size=2
    ... )
    >>> float(feature[0])  # of features 0, 1 and 2
    0.75

    Reference:
        Katharopoulos and Fleuret 2019, eq. 19.
    """
    batch, n_cells = ops.shape(attention)

    def add_chunk(number: Any, total: Any) -> Any:
        cells = number * chunk_size + ops.arange(chunk_size, dtype="int32")
        inside = ops.cast(cells < n_cells, attention.dtype)
        cells = ops.minimum(cells, n_cells - 1)
        weights = inside * ops.take(attention, cells, axis=1)
        cells = ops.broadcast_to(cells[None], (batch, chunk_size))
        features = ops.cast(features_at(cells), attention.dtype)
        weights = ops.reshape(weights, (-1, chunk_size, *[1] * len(feature_shape)))
        return total + ops.sum(weights * features, axis=1)

    total = ops.zeros((batch, *feature_shape), dtype=attention.dtype)
    return ops.fori_loop(0, -(-n_cells // chunk_size), add_chunk, total)


def _at_least_two(probabilities: Any) -> int:
    n_patches = int(probabilities.shape[1])
    if n_patches < 2:
        raise ValueError(
            "An estimate that leaves one patch out needs at least two. "
            f"Received: probabilities.shape={tuple(probabilities.shape)}"
        )
    return n_patches


def _positive(total: Any) -> Any:
    return ops.maximum(total, _SMALLEST_PROBABILITY)
