"""Slow, plain numpy in float64: what the package is compared with.

It imports nothing of the package, and is written from the definitions (design
sections 3 and 4) rather than from the package's formulas.
"""

import itertools
import math
from fractions import Fraction

import numpy as np


def softmax(logits):
    """Return the distribution over the last axis."""
    exponentials = np.exp(np.asarray(logits, "float64") - np.max(logits))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def ordered_draws(attention, n_patches, replace):
    """Return every ordered draw, (draws, n_patches), and its probability, (draws,)."""
    attention = [float(a) for a in attention]
    cells = range(len(attention))
    draws, probabilities = [], []
    orders = (
        itertools.product(cells, repeat=n_patches)
        if replace
        else itertools.permutations(cells, n_patches)
    )
    for draw in orders:
        probability = 1.0
        for position, cell in enumerate(draw):
            taken = [] if replace else draw[:position]
            left = math.fsum(attention[other] for other in cells if other not in taken)
            probability *= attention[cell] / left if attention[cell] else 0.0
        draws.append(draw)
        probabilities.append(probability)
    return np.array(draws, "int32"), np.array(probabilities)


def full_model(logits, features, cotangent):
    """Return F = sum_i a_i f_i and the gradients of F . cotangent.

    Args:
        logits: (cells,)
        features: (cells, dim)
        cotangent: (dim,)

    Returns:
        F (dim,), and the gradients with respect to logits and features.
    """
    attention = softmax(logits)
    features = np.asarray(features, "float64")
    value = attention @ features
    of_features = attention[:, None] * cotangent
    of_attention = features @ cotangent
    of_logits = attention * (of_attention - attention @ of_attention)
    return value, of_logits, of_features


def estimate(features, sampled_attention, replace):
    """Return the estimate of F from one draw, (n_patches, dim) -> (dim,).

    With replacement the mean of the drawn features (eq. 4); without, the mean over j
    of what the first j draws say: the mass drawn before with its features, and all of
    the mass left at the feature of draw j (eq. 14-17).
    """
    features = np.asarray(features, "float64")
    sampled_attention = np.asarray(sampled_attention, "float64")
    if replace:
        return features.mean(axis=0)
    estimates = []
    for j in range(len(features)):
        before = sum(
            (sampled_attention[i] * features[i] for i in range(j)),
            start=np.zeros(features.shape[1:]),
        )
        left = 1.0 - math.fsum(sampled_attention[:j])
        estimates.append(before + left * features[j])
    return np.mean(estimates, axis=0)


def window_origin(cell, attention, low, high, patch, receptive_field=0):
    """Return where the window of a cell starts along one axis, exactly."""
    scale = Fraction(high, low)
    step = (low - receptive_field) * scale / attention
    start = (
        Fraction(receptive_field, 2) * scale
        + cell * step
        + step / 2
        - Fraction(patch, 2)
    )
    return round(start)  # a Fraction rounds halves to even


def window(image, origin, patch_size):
    """Return the window of an image (height, width, channels), zero outside of it."""
    height, width, channels = image.shape
    patch = np.zeros((*patch_size, channels), image.dtype)
    for row in range(patch_size[0]):
        for column in range(patch_size[1]):
            y, x = int(origin[0]) + row, int(origin[1]) + column
            if 0 <= y < height and 0 <= x < width:
                patch[row, column] = image[y, x]
    return patch


def negative_entropy(attention, eps=1e-6):
    """Return sum(a log(a + eps)), averaged over the samples."""
    attention = np.asarray(attention, "float64")
    return float(np.sum(attention * np.log(attention + eps)) / len(attention))


def chi_square(observed, expected):
    """Return the chi-square statistic and a limit six deviations above its mean."""
    observed = np.asarray(observed, "float64")
    expected = np.asarray(expected, "float64")
    degrees = len(observed) - 1
    statistic = float(np.sum((observed - expected) ** 2 / expected))
    return statistic, degrees + 6 * math.sqrt(2 * degrees)
