"""Print the squared errors of the estimators and write estimator_variance.png.

For docs/estimators.rst. Run ``python docs/figures/estimator_variance.py docs/_static``.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import brentq

from attention_sampling.ops import estimators, sampling

CELLS, DIM = 1024, 32
N_PATCHES = (2, 5, 10, 50)
SPREAD = ("flat", "spread 0.19", "spread 0.58", "spread 0.95")
PEAKED = ("one cell 0.5", "one cell 0.95", "one cell 0.99")
# The estimators, and their styles in the plot.
METHODS = {
    "with replacement": "k-",
    "with replacement, control variate": "k:",
    "ordered": "C0-",
    "unordered": "C1-",
    "unordered, control variate": "C2:",
}


def make_attention(name, rng):
    """Return the softmax of normal logits, or one cell above others that are alike."""
    largest = 1 / CELLS if name == "flat" else float(name.split()[-1])
    attention = np.full(CELLS, (1 - largest) / (CELLS - 1))
    attention[0] = largest
    if name.startswith("spread"):
        logits = rng.normal(size=CELLS)
        logits -= logits.max()
        scale = brentq(lambda x: 1 / np.exp(x * logits).sum() - largest, 0, 1e3)
        attention = np.exp(scale * logits)
    return attention / attention.sum()


def make_features(responses, rng):
    """Return features of unit norm, each entry the largest of some responses."""
    features = rng.normal(size=(responses, CELLS, DIM)).max(axis=0).clip(0)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def squared_errors(attention, features, n_patches, trials, rng):
    """Return the mean squared errors of value and logit gradient, (methods, 2)."""
    full = attention @ features
    direction = rng.normal(size=(trials, DIM))  # the gradient is of value @ direction
    exact = attention * (direction @ (features - full).T)
    maps = np.broadcast_to(attention.astype("float32"), (trials, CELLS))
    seed = int(rng.integers(2**31))
    errors = []
    for name in METHODS:
        replace = name.startswith("with replacement")
        kind = name.split(",")[0].replace(" ", "_")
        cells = np.asarray(sampling.sample_cells(maps, n_patches, replace, seed=seed))
        sampled, of_cells = attention[cells].astype("float32"), features[cells]
        weights = np.asarray(getattr(estimators, f"{kind}_weights")(sampled))
        value = np.sum((weights * sampled)[..., None] * of_cells, axis=1)
        if name.endswith("control variate"):
            factors = getattr(estimators, f"{kind}_leave_one_out")(sampled)
            of_cells = of_cells - np.asarray(
                estimators.control_variate(of_cells.astype("float32"), sampled, factors)
            )
        gradient = np.zeros((trials, CELLS))
        responses = np.einsum("tnd,td->tn", of_cells, direction)
        np.add.at(gradient, (np.arange(trials)[:, None], cells), weights * responses)
        gradient = attention * (gradient - (gradient @ attention)[:, None])
        pair = (value - full, gradient - exact)
        errors.append([np.sum(x**2, axis=1).mean() for x in pair])
    return np.array(errors)


def plot(path, errors):
    """Plot the errors over those with replacement, from flat to peaked attention."""
    figure = Figure((11, 6.5), layout="constrained")
    panels = figure.subplots(2, len(N_PATCHES), sharex=True, sharey="row")
    for (row, column), axes in np.ndenumerate(panels):
        for number, (method, style) in enumerate(METHODS.items()):
            for names, label in ((SPREAD, method), (PEAKED, None)):
                of_n = np.array([errors[name, N_PATCHES[column]] for name in names])
                ratios = of_n[:, number, row] / of_n[:, 0, row]
                axes.plot(names, ratios, style, marker=".", label=label)
        title = ("value", "logit gradient")[row]
        axes.set(yscale="log", title=f"{title}, n = {N_PATCHES[column]}")
        axes.tick_params(axis="x", rotation=90)
        axes.grid(alpha=0.3)
    figure.supylabel("squared error over that with replacement")
    labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--trials", type=int, default=250)
    parser.add_argument("--responses", type=int, default=16)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    errors = {}
    for name in (*SPREAD, *PEAKED):
        for n_patches in N_PATCHES:
            errors[name, n_patches] = total = np.zeros((len(METHODS), 2))
            for number in range(arguments.problems):
                rng = np.random.default_rng(number)
                attention = make_attention(name, rng)
                features = make_features(arguments.responses, rng)
                total += squared_errors(
                    attention, features, n_patches, arguments.trials, rng
                )
            value, gradient = total[3] / total[2]
            print(
                f"{name:13} n = {n_patches:2}: unordered over ordered {value:.3f}, of the "
                f"gradient {gradient:.3f}; without control variate over with it, of the "
                f"gradient {total[3, 1] / total[4, 1]:.2f}",
                flush=True,
            )
    plot(arguments.output / "estimator_variance.png", errors)
