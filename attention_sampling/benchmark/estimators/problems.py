"""Attention maps and features to measure the estimators on."""

import numpy as np

# Names in order, from flat to peaked. "spread" is the softmax of normal logits at the
# temperature that gives the largest cell so much; in "one cell" the others share the
# rest equally.
ATTENTIONS = (
    "flat",
    "spread 0.19",
    "spread 0.58",
    "spread 0.95",
    "one cell 0.5",
    "one cell 0.95",
    "one cell 0.99",
)


def make_attention(name: str, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Return an attention map.

    Args:
        name: "flat", or "spread" or "one cell" and the attention of the largest cell.
        cells: how many.
        rng: for the logits, or for where the largest cell is.

    Returns:
        (cells,) float64 array that sums to 1.

    Example:

    >>> attention = make_attention("one cell 0.7", 4, np.random.default_rng(0))
    >>> attention.round(3).tolist()
    [0.1, 0.1, 0.1, 0.7]
    """
    if name == "flat":
        return np.full(cells, 1 / cells)
    form, _, largest = name.rpartition(" ")
    if form == "spread":
        return _softmax_with_largest(rng.normal(size=cells), float(largest))
    # As 1 - 1e-7 leaves 1e-7: not from a difference that has lost its digits.
    attention = np.full(cells, (1 - float(largest)) / (cells - 1))
    attention[rng.integers(cells)] = float(largest)
    return attention


def make_features(
    cells: int, dim: int, places: int, rng: np.random.Generator
) -> np.ndarray:
    """Return features of unit norm, one a cell, as a small network gives them.

    Every entry is the largest of the responses at some places of a patch, normal
    variates, after a ReLU: with more places, features have more in common. The feature
    network of Megapixel MNIST takes the largest response of each filter in this way.

    Args:
        cells: how many.
        dim: entries of a feature.
        places: places in a patch; 1 for a plain ReLU.
        rng: for the responses.

    Returns:
        (cells, dim) float64 array.

    Example:

    >>> features = make_features(1024, 32, 16, np.random.default_rng(0))
    >>> round(float(np.sum(features.mean(axis=0) ** 2)), 1)
    0.9
    """
    responses = rng.normal(size=(places, cells, dim)).max(axis=0)
    features = np.maximum(responses, 0.0)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def _softmax_with_largest(logits: np.ndarray, largest: float) -> np.ndarray:
    """Return the softmax at the temperature where its largest entry is as given."""
    logits = logits - logits.max()
    low, high = 0.0, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        if 1 / np.exp(middle * logits).sum() < largest:
            low = middle
        else:
            high = middle
    exponentials = np.exp(high * logits)
    return exponentials / exponentials.sum()
