"""The bias of the estimators, exactly: the mean over every draw that can happen."""

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from keras import ops

from attention_sampling.benchmark.gradients import pull_back
from attention_sampling.benchmark.tables import Row, at_most
from attention_sampling.layers import Expectation
from attention_sampling.sampling import mix_proposal, top_cells

LIMIT = 1e-5
DIM = 8
QUANTITIES = ("value", "feature gradient", "logit gradient")
FORMS = ("flat", "uneven", "peaked")

# Arguments of Expectation.
ESTIMATORS: dict[str, dict[str, Any]] = {
    "with replacement": {"replace": True, "control_variate": False},
    "with replacement, control variate": {"replace": True, "control_variate": True},
    "ordered": {"estimator": "ordered"},
    "unordered": {"estimator": "unordered", "control_variate": False},
    "unordered, control variate": {"estimator": "unordered", "control_variate": True},
}


def measure_exact(cells: Iterable[int], n_patches: Iterable[int]) -> list[Row]:
    """Return the largest errors of each estimator that has no bias.

    Args:
        cells: sizes of the population; every one with every number of patches and flat,
            uneven and peaked attention.
        n_patches: numbers of draws.

    Returns:
        A row for each estimator and what the cells are drawn from.
    """
    cases = list(itertools.product(cells, n_patches, FORMS))
    rows = []
    for source, (name, arguments) in itertools.product(
        ("attention", "proposal"), ESTIMATORS.items()
    ):
        expectation = Expectation(**arguments, self_normalize=False)
        errors = np.max(
            [
                bias(expectation, *case, from_proposal=source == "proposal")
                for case in cases
            ],
            axis=0,
        )
        rows.append(
            {
                "estimator": name,
                "cells from": source,
                **dict(zip(QUANTITIES, errors.tolist(), strict=True)),
                "limit": at_most(errors.max(), LIMIT),
            }
        )
    return rows


def measure_biased(cells: int, n_patches: Iterable[int]) -> list[Row]:
    """Return the errors of what has a bias: self-normalised proposals, and top-k.

    Top-k is for prediction: its gradients mean nothing.
    """
    proposed = ("with replacement", "unordered, control variate")
    expectations = {
        **{
            f"{name}, self-normalised": Expectation(**ESTIMATORS[name])
            for name in proposed
        },
        "top-k": Expectation(prediction="top_k"),
    }
    rows = []
    for (name, expectation), form, n in itertools.product(
        expectations.items(), FORMS, n_patches
    ):
        errors = bias(expectation, cells, n, form, from_proposal=name != "top-k")
        measured = dict(zip(QUANTITIES, errors.tolist(), strict=True))
        if name == "top-k":
            measured = dict.fromkeys(QUANTITIES, "") | {"value": measured["value"]}
        rows.append({"estimator": name, "attention": form, "n": n, **measured})
    return rows


def bias(
    expectation: Expectation,
    cells: int,
    n_patches: int,
    form: str,
    from_proposal: bool = False,
) -> np.ndarray:
    """Compare the mean over every ordered draw with the sum over all cells, in float32.

    Args:
        expectation: the layer.
        cells: size of the population.
        n_patches: cells drawn.
        form: one of ``FORMS``.
        from_proposal: draw from a mixture of the attention and a random saliency.

    Returns:
        The largest absolute errors of value, feature gradient and logit gradient.
    """
    rng = np.random.default_rng(0)
    features = rng.normal(size=(cells, DIM)).astype("float32")
    cotangent = rng.normal(size=DIM).astype("float32")
    saliency = ops.array(rng.uniform(size=(1, cells)), "float32")
    logits = _logits(form, cells)
    attention = np.exp(logits.astype("float64"))
    attention /= attention.sum()
    drawn_from = attention
    if from_proposal:
        drawn_from = ops.convert_to_numpy(
            mix_proposal(ops.array(attention[None], "float32"), saliency, 0.5)
        )[0].astype("float64")
        drawn_from /= drawn_from.sum()
    top_k = expectation.prediction == "top_k"
    if top_k:
        draws = ops.convert_to_numpy(top_cells(attention[None], n_patches))
        probabilities = np.ones(1)
    else:
        draws, probabilities = ordered_draws(drawn_from, n_patches, expectation.replace)

    def estimate(logits: Any, sampled_features: Any) -> Any:
        attention = ops.softmax(logits)
        inputs = [sampled_features, ops.take_along_axis(attention, draws, axis=1)]
        if from_proposal:
            proposal = mix_proposal(attention, saliency, 0.5)
            inputs.append(ops.take_along_axis(proposal, draws, axis=1))
        return expectation(inputs, training=not top_k)

    values, (of_logits, of_sampled) = pull_back(estimate)(
        [np.tile(logits, (len(draws), 1)), features[draws]],
        np.tile(cotangent, (len(draws), 1)),
    )
    # The means in float64: their rounding is none of the estimator's.
    value = probabilities @ values
    of_logits = probabilities @ of_logits
    of_features = np.zeros((cells, DIM))
    np.add.at(of_features, draws, probabilities[:, None, None] * of_sampled)
    exact = attention @ features
    responses = (features - exact) @ cotangent
    return np.array(
        [
            np.abs(value - exact).max(),
            np.abs(of_features - attention[:, None] * cotangent).max(),
            np.abs(of_logits - attention * responses).max(),
        ]
    )


def ordered_draws(
    probabilities: np.ndarray, n_patches: int, replace: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return every ordered draw, (draws, n_patches), and its probability, (draws,)."""
    cells = range(len(probabilities))
    if replace:
        draws = np.array(list(itertools.product(cells, repeat=n_patches)))
        return draws, probabilities[draws].prod(axis=1)
    draws = np.array(list(itertools.permutations(cells, n_patches)))
    drawn = probabilities[draws]
    left = 1.0 - (np.cumsum(drawn, axis=1) - drawn)
    return draws, (drawn / left).prod(axis=1)


def _logits(form: str, cells: int) -> np.ndarray:
    """Return logits whose attention is flat, uneven, or 0.95 at the first cell."""
    logits = np.zeros(cells)
    if form != "flat":
        logits[1:] = np.linspace(-1.0, 1.0, cells - 1)
    if form == "peaked":
        logits[0] = np.log(0.95 / 0.05 * np.exp(logits[1:]).sum())
    return logits.astype("float32")
