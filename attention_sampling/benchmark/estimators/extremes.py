"""Whether the estimators stay finite, from flat attention to a single cell."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from attention_sampling.benchmark.estimators.bias import ESTIMATORS
from attention_sampling.benchmark.estimators.problems import (
    make_attention,
    make_features,
)
from attention_sampling.benchmark.gradients import pull_back
from attention_sampling.benchmark.tables import MISSED, PASS, Row
from attention_sampling.layers import Expectation, SampleSoftmax
from attention_sampling.sampling import draw_cells

ATTENTIONS = (
    "flat",
    "one cell 0.5",
    "one cell 0.999",
    "one cell 0.9999999",
    "spread 0.9999999",
)
POLICIES = ("float32", "mixed_float16")
BATCH = 2
DIM = 32
# A finite logarithm in every dtype, and 0 after a softmax in float32.
_SMALLEST_ATTENTION = 1e-300


def measure(cells: Iterable[int], n_patches: Iterable[int], seed: int) -> list[Row]:
    """Return the largest values and gradients of all estimators and numbers of patches.

    Args:
        cells: sizes of the population.
        n_patches: numbers of draws; those above the number of cells are left out.
        seed: of features and draws.

    Returns:
        A row for each attention map, number of cells and dtype policy.
    """
    n_patches = list(n_patches)
    rows = []
    for count in cells:
        for name in ATTENTIONS:
            attention = make_attention(name, count, np.random.default_rng(seed))
            logits = np.log(np.maximum(attention, _SMALLEST_ATTENTION))
            for policy in POLICIES:
                largest = np.max(
                    [
                        _largest(arguments, policy, logits, n, seed)
                        for arguments in ESTIMATORS.values()
                        for n in n_patches
                        if n <= count
                    ],
                    axis=0,
                )
                rows.append(_row(name, count, policy, largest))
    return rows


def _row(name: str, count: int, policy: str, largest: np.ndarray) -> Row:
    names = ("|value|", "|feature gradient|", "|logit gradient|")
    finite = bool(np.isfinite(largest).all())
    return {
        "attention": name,
        "cells": count,
        "policy": policy,
        **dict(zip(names, largest.tolist(), strict=True)),
        "limit": f"finite {PASS if finite else MISSED}",
    }


def _largest(
    arguments: dict[str, Any],
    policy: str,
    logits: np.ndarray,
    n_patches: int,
    seed: int,
) -> list[float]:
    """Return the largest |value| and |gradients|; NaN or infinity where there is one.

    Logits and features have the compute dtype of the policy, as what the networks
    give.
    """
    expectation = Expectation(**arguments, dtype=policy)
    softmax = SampleSoftmax(dtype=policy)
    dtype = expectation.compute_dtype
    logits = np.tile(logits.astype(dtype), (BATCH, 1))
    cells = draw_cells(
        softmax(ops.array(logits)),
        n_patches,
        expectation.replace,
        seed=keras.random.SeedGenerator(seed),
    )
    rng = np.random.default_rng(seed)
    features = make_features(BATCH * n_patches, DIM, places=16, rng=rng)
    features = features.reshape(BATCH, n_patches, DIM).astype(dtype)

    def estimate(logits: Any, features: Any) -> Any:
        sampled_attention = ops.take_along_axis(softmax(logits), cells, axis=1)
        return expectation([features, sampled_attention], training=True)

    cotangent = rng.normal(size=(BATCH, DIM))
    value, (of_logits, of_features) = pull_back(estimate)([logits, features], cotangent)
    return [float(np.abs(x).max()) for x in (value, of_features, of_logits)]
