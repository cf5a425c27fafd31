"""Probabilities of drawn sets: against all orders, and against a fine grid."""

import keras
import numpy as np
import pytest
import reference
from keras import ops

from attention_sampling.ops.set_probabilities import (
    log_pair_integrals,
    log_set_integrals,
)


def log_without_one(drawn):
    return ops.convert_to_numpy(log_set_integrals(ops.array(drawn, "float32")))


def log_without_two(drawn):
    return ops.convert_to_numpy(log_pair_integrals(ops.array(drawn, "float32")))


def spread(difference, axis):
    """Return how far numbers are from being the same constant."""
    return np.ptp(difference, axis=axis).max()


@pytest.mark.parametrize("n_patches", [1, 2, 3, 5])
@pytest.mark.parametrize("concentration", [0.3, 1.0, 30.0])
def test_without_one_cell_is_the_sum_over_all_orders(concentration, n_patches, rng):
    """But for one constant a sample."""
    drawn = rng.dirichlet(np.full(n_patches + 2, concentration), size=5)[:, :n_patches]
    exact = [
        [
            np.log(reference.set_probability(np.delete(p, s), 1 - p[s]))
            for s in range(n_patches)
        ]
        for p in drawn
    ]
    assert spread(log_without_one(drawn) - exact, axis=1) < 1e-4


@pytest.mark.parametrize("n_patches", [3, 5])
@pytest.mark.parametrize("concentration", [0.3, 1.0, 30.0])
def test_without_two_cells_is_the_sum_over_all_orders(concentration, n_patches, rng):
    """But for one constant a row."""
    drawn = rng.dirichlet(np.full(n_patches + 2, concentration), size=5)[:, :n_patches]
    logarithms = log_without_two(drawn)
    for sample, p in enumerate(drawn):
        for s in range(n_patches):
            others = [t for t in range(n_patches) if t != s]
            exact = [
                np.log(reference.set_probability(np.delete(p, [s, t]), 1 - p[s] - p[t]))
                for t in others
            ]
            assert spread(logarithms[sample, s, others] - exact, axis=0) < 1e-4


def test_constants_differ_between_samples_only():
    """What one sample holds changes nothing for another."""
    rng = np.random.default_rng(1)
    drawn = rng.dirichlet(np.ones(6), size=4)[:, :3]
    for function in (log_without_one, log_without_two):
        together, alone = function(drawn), function(drawn[2:3])
        np.testing.assert_allclose(together[2:3], alone, rtol=1e-5, atol=1e-5)


SETS = {
    "alike": lambda n, rng: np.full(n, 1e-6),
    "dirichlet": lambda n, rng: rng.dirichlet(np.ones(4 * n))[:n],
    "over 17 orders": lambda n, rng: np.geomspace(1e-18, 0.3, n) / n,
    "hardly a rest": lambda n, rng: rng.dirichlet(np.ones(n)) * (1 - 1e-4),
}


@pytest.mark.parametrize("n_patches", [10, 100, 256])
@pytest.mark.parametrize("make", SETS.values(), ids=SETS.keys())
def test_of_hundreds_of_cells_is_the_integral_on_a_fine_grid(make, n_patches, rng):
    """Ratios to a part in a thousand, the rarest cell's as well.

    They are sums of hundreds of logarithms in float32.
    """
    drawn = make(n_patches, rng).astype("float32")
    cells = range(n_patches)
    exact = reference.log_set_probability(drawn, [(s,) for s in cells])
    assert spread(log_without_one(drawn[None])[0] - exact, axis=0) < 1e-3
    s = n_patches // 2
    others = [t for t in cells if t != s]
    exact = reference.log_set_probability(drawn, [(s, t) for t in others])
    logarithms = log_without_two(drawn[None])[0, s, others]
    assert spread(logarithms - exact, axis=0) < 2e-3


@pytest.mark.parametrize(
    "drawn",
    [
        [0.0, 0.0, 0.0],
        [1.0, 0.0, 0.0],
        [0.6, 0.4, 1e-7],
        [0.7, 0.5, 0.1],  # more than all there is
        [1e-45, 1e-38, 1e-30],
        [0.5, 0.25, 0.25],
    ],
)
def test_stays_finite(drawn):
    assert np.isfinite(log_without_one([drawn])).all()
    pairs = log_without_two([drawn])[0]
    assert np.isfinite(pairs[~np.eye(3, dtype=bool)]).all()


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX has no float64 unless told to"
)
def test_float64_is_as_exact_as_the_grid(rng):
    drawn = rng.dirichlet(np.ones(7), size=3)[:, :4]
    logarithms = log_set_integrals(ops.array(drawn, "float64"))
    assert keras.backend.standardize_dtype(logarithms.dtype) == "float64"
    exact = [reference.log_set_probability(p, [(s,) for s in range(4)]) for p in drawn]
    assert spread(ops.convert_to_numpy(logarithms) - exact, axis=1) < 1e-6
