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


def set_probability(drawn, mass=1.0):
    """Return the probability that the first cells drawn are these, in any order.

    Args:
        drawn: probability of each of the cells; a handful.
        mass: of all cells that are there to be drawn. Less than 1 where cells have been
            taken away.
    """
    orders = []
    for order in itertools.permutations([float(p) for p in drawn]):
        probability = 1.0
        for position, p in enumerate(order):
            probability *= p / (mass - math.fsum(order[:position]))
        orders.append(probability)
    return math.fsum(orders)


def unordered_weights(drawn):
    """Return c_s = P(S without s, s taken away) / P(S), (n_patches,)."""
    everything = set_probability(drawn)
    return np.array(
        [
            set_probability(np.delete(drawn, s), 1.0 - float(drawn[s])) / everything
            for s in range(len(drawn))
        ]
    )


def unordered_leave_one_out(drawn):
    """Return R_st = P(S without s and t, both away) / P(S without s, s away), R_ss = 1."""
    n_patches = len(drawn)
    drawn = np.asarray(drawn, "float64")
    weights = np.eye(n_patches)
    for s, t in itertools.permutations(range(n_patches), 2):
        fewer = set_probability(np.delete(drawn, [s, t]), 1.0 - drawn[s] - drawn[t])
        weights[s, t] = fewer / set_probability(np.delete(drawn, s), 1.0 - drawn[s])
    return weights


def estimate_unordered(features, sampled_attention):
    """Return the estimate of F from one drawn set, (n_patches, dim) -> (dim,)."""
    weights = unordered_weights(sampled_attention)
    features = np.asarray(features, "float64")
    return np.tensordot(weights * sampled_attention, features, axes=1)


def log_set_probability(drawn, without=()):
    """Return log P(drawn cells but some, these taken away), of up to hundreds of cells.

    Cell i rings after an exponential time of rate p_i. In units of the mass outside of
    all drawn cells, the first cell outside rings after T, a unit exponential, and every
    drawn cell has rung by then with probability 1 - exp(-p_i / rest T). Integrated over
    u = log T, on a grid much wider and finer than it takes.

    Args:
        drawn: probability of each drawn cell.
        without: which of them to leave out, as a list of sets of positions: an answer
            for each set.

    Returns:
        (len(without),) logarithms.
    """
    drawn = np.maximum(np.asarray(drawn, "float64"), 1e-30)
    rest = max(1.0 - math.fsum(drawn), 1e-30)
    u = np.linspace(-42.0, math.log(len(drawn)) + 5.0, 6001)
    advance = np.maximum(drawn[:, None] / rest * np.exp(u), 1e-300)
    log_rung = np.where(
        advance < 0.7,
        np.log(-np.expm1(-np.minimum(advance, 1.0))),
        np.log1p(-np.exp(-np.maximum(advance, 0.5))),
    )
    everything = log_rung.sum(axis=0) + u - np.exp(u)
    logarithms = []
    for left_out in without:
        integrand = everything - log_rung[list(left_out)].sum(axis=0)
        top = integrand.max()
        total = np.sum(np.exp(integrand - top)) * (u[1] - u[0])
        logarithms.append(top + math.log(total))
    return np.array(logarithms)


def cell_mean(values, attention, low, receptive_field=0):
    """Return the mean over each cell of values that cover the view, along one axis.

    Args:
        values: (extent,) one value a pixel.
        attention: number of cells.
        low: extent of the view.
        receptive_field: pixels of the view that lie outside of all cells.
    """
    scale = Fraction(len(values), low)
    step = (low - receptive_field) * scale / attention
    means = []
    for cell in range(attention):
        start = Fraction(receptive_field, 2) * scale + cell * step
        total = Fraction(0)
        for pixel in range(math.floor(start), math.ceil(start + step)):
            overlap = min(start + step, pixel + 1) - max(start, pixel)
            total += overlap * Fraction(float(values[pixel]))
        means.append(float(total / step))
    return means


def local_contrast(image, window):
    """Return the standard deviation around each pixel, (height, width, channels).

    Over several channels, the root of their mean variance. Outside of the image is the
    nearest pixel inside; an even window reaches further down and to the right.
    """
    padding = [((extent - 1) // 2, extent // 2) for extent in window]
    padded = np.pad(np.asarray(image, "float64"), [*padding, (0, 0)], mode="edge")
    contrast = np.zeros(image.shape[:2])
    for row, column in np.ndindex(*contrast.shape):
        pixels = padded[row : row + window[0], column : column + window[1]]
        contrast[row, column] = math.sqrt(pixels.var(axis=(0, 1)).mean())
    return contrast


def proposal(attention, saliency, mix):
    """Return (1 - mix) a + mix a (s + 1 %) / sum, s the saliency over its mean.

    Args:
        attention: (cells,) that sums to 1.
        saliency: (cells,), not negative.
        mix: number from 0 to 1.
    """
    attention = np.asarray(attention, "float64")
    saliency = np.asarray(saliency, "float64")
    if saliency.any():
        saliency = saliency / saliency.mean()
    salient = attention * (saliency + 0.01)
    return (1 - mix) * attention + mix * salient / salient.sum()


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
