"""Estimators of the full model's feature from a few drawn cells.

The full model is ``F = sum_i a_i f_i`` over all cells of the attention map. From drawn
cells every estimator here is ``sum_s c_s a_s f_s`` with weights ``c_s`` that are
constants for the gradient, so that the gradients with respect to ``f_s`` and ``a_s``
are ``c_s a_s`` and ``c_s f_s``. Value and both gradients are unbiased if
``E[sum_s c_s h_s] = sum_i h_i`` for every ``h``.
"""

from typing import Any

from keras import ops

# Attention below this counts as this in a quotient: 1 / a and its product with a
# feature and an upstream gradient stay inside float32.
_SMALLEST_ATTENTION = 1e-30


def with_replacement_weights(sampled_attention: Any) -> Any:
    """Weights for cells drawn independently: ``c_s = 1 / (n a_s)``.

    Args:
        sampled_attention: (batch, n_patches) float tensor, the attention at each drawn
            cell.

    Returns:
        (batch, n_patches) tensor of weights, constant for the gradient.

    Example:

    >>> attention = keras.ops.array([[0.5, 0.25]])
    >>> keras.ops.convert_to_numpy(with_replacement_weights(attention))
    array([[1., 2.]], dtype=float32)

    Reference:
        Katharopoulos and Fleuret 2019, eq. 4 and 12.
    """
    attention = ops.stop_gradient(sampled_attention)
    n_patches = attention.shape[1]
    return 1.0 / (n_patches * ops.maximum(attention, _SMALLEST_ATTENTION))


def ordered_weights(sampled_attention: Any) -> Any:
    """Weights for cells drawn without replacement, from their drawing order.

    After ``j - 1`` draws the mass ``m_j = 1 - sum_{l<j} a_l`` is left, and
    ``sum_{l<j} a_l f_l + m_j f_j`` is an unbiased estimate. The mean of these over
    the n draws has ``c_j = ((n - j) + m_j / a_j) / n``.

    Args:
        sampled_attention: (batch, n_patches) float tensor, the attention at each drawn
            cell **in drawing order**.

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
    attention = ops.stop_gradient(sampled_attention)
    n_patches = attention.shape[1]
    mass_left = 1.0 - (ops.cumsum(attention, axis=1) - attention)
    # Exactly, the mass left holds at least the cell about to be drawn. Rounding may
    # say otherwise when nearly all mass has been drawn.
    mass_left = ops.maximum(mass_left, attention)
    draws_after = ops.arange(n_patches - 1, -1, -1, dtype=attention.dtype)
    quotient = mass_left / ops.maximum(attention, _SMALLEST_ATTENTION)
    return (draws_after + quotient) / n_patches


def weighted_sum(features: Any, sampled_attention: Any, weights: Any) -> Any:
    """Estimate the full model's feature, ``sum_s c_s a_s f_s``.

    Args:
        features: (batch, n_patches, ...) float tensor, one feature a drawn cell.
        sampled_attention: (batch, n_patches) float tensor.
        weights: (batch, n_patches) float tensor, ``c_s``; no gradient flows into it.

    Returns:
        (batch, ...) tensor. Its gradient with respect to ``features`` is ``c_s a_s``,
        with respect to ``sampled_attention`` ``c_s f_s``.

    Example:

    >>> features = keras.ops.array([[[1.0], [3.0]]])
    >>> attention = keras.ops.array([[0.5, 0.25]])
    >>> weights = with_replacement_weights(attention)
    >>> keras.ops.convert_to_numpy(weighted_sum(features, attention, weights))
    array([[2.]], dtype=float32)

    Reference:
        Katharopoulos and Fleuret 2019, eq. 12.
    """
    factors = ops.stop_gradient(weights) * sampled_attention
    trailing = [1] * (len(features.shape) - 2)
    factors = ops.reshape(factors, (-1, features.shape[1], *trailing))
    return ops.sum(factors * features, axis=1)
