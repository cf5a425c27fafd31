"""The estimators: exact enumeration of every draw, values, and extreme attention."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
from enumeration import enumerate_draws, enumerate_variance, logits_of, proposal_of
from gradients import value_and_gradients
from keras import ops

from attention_sampling.ops import estimators

DIM = 3


@dataclasses.dataclass
class Estimator:
    """One of the estimators: how cells are drawn for it, and its functions.

    Calling it estimates from features and sampled attention and, if the cells came
    from a proposal, from that.
    """

    replace: bool
    weights: Callable[[Any], Any]
    leave_one_out: Callable[[Any], Any] | None = None
    normalize: bool = False

    @property
    def fewest_patches(self):
        return 1 if self.leave_one_out is None else 2

    def __call__(self, features, sampled_attention, sampled_proposal=None):
        drawn_with = sampled_attention if sampled_proposal is None else sampled_proposal
        weights = self.weights(drawn_with)
        if self.normalize:
            weights = estimators.normalized_weights(weights, sampled_attention)
        control_variate = None
        if self.leave_one_out is not None:
            control_variate = estimators.control_variate(
                features,
                sampled_attention,
                self.leave_one_out(drawn_with),
                normalize=self.normalize,
            )
        return estimators.weighted_sum(
            features, sampled_attention, weights, control_variate
        )


WITH_REPLACEMENT = Estimator(True, estimators.with_replacement_weights)
WITH_REPLACEMENT_CV = dataclasses.replace(
    WITH_REPLACEMENT, leave_one_out=estimators.with_replacement_leave_one_out
)
ORDERED = Estimator(False, estimators.ordered_weights)
UNORDERED = Estimator(False, estimators.unordered_weights)
UNORDERED_CV = dataclasses.replace(
    UNORDERED, leave_one_out=estimators.unordered_leave_one_out
)
ESTIMATORS = {
    "with replacement": WITH_REPLACEMENT,
    "with replacement, control variate": WITH_REPLACEMENT_CV,
    "ordered": ORDERED,
    "unordered": UNORDERED,
    "unordered, control variate": UNORDERED_CV,
}
EVERY = pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS.keys())
WITH_CONTROL_VARIATE = pytest.mark.parametrize(
    "estimate", [WITH_REPLACEMENT_CV, UNORDERED_CV], ids=["replaced", "unordered"]
)
EVERY_WITH_ENOUGH_PATCHES = pytest.mark.parametrize(
    ("estimate", "n_patches"),
    [
        pytest.param(estimate, n_patches, id=f"{name}-{n_patches}")
        for name, estimate in ESTIMATORS.items()
        for n_patches in range(estimate.fewest_patches, 5)
    ],
)


def errors_of(estimate, logits, n_patches, proposal=None):
    """Return the largest bias of value, logit gradient and feature gradient."""
    estimated, exact = enumerate_draws(
        estimate, logits, n_patches, estimate.replace, proposal
    )
    return [
        np.abs(got - expected).max()
        for got, expected in zip(estimated, exact, strict=True)
    ]


class TestEveryDrawAveragesToTheFullModel:
    @pytest.mark.parametrize("attention", ["flat", "uneven", "peaked"])
    @pytest.mark.parametrize("cells", [4, 5, 6])
    @EVERY_WITH_ENOUGH_PATCHES
    def test_drawn_from_the_attention(self, estimate, n_patches, cells, attention):
        logits = logits_of(attention, cells)
        assert max(errors_of(estimate, logits, n_patches)) < 1e-5

    @pytest.mark.parametrize("attention", ["flat", "uneven", "peaked"])
    @EVERY_WITH_ENOUGH_PATCHES
    def test_drawn_from_a_proposal(self, estimate, n_patches, attention):
        logits = logits_of(attention, 5)
        errors = errors_of(estimate, logits, n_patches, proposal_of(logits))
        assert max(errors) < 1e-5


def published_reference(features, sampled_attention):
    """Do as the published code does: its attention gradient is at the wrong terms."""
    weights = estimators.ordered_weights(sampled_attention)
    value = estimators.weighted_sum(
        features, ops.stop_gradient(sampled_attention), weights
    )
    n_patches = features.shape[1]
    attention = ops.stop_gradient(sampled_attention)[..., None]
    constant = ops.stop_gradient(features)
    drawn = ops.cumsum(attention * constant, axis=1) - attention * constant
    left = 1.0 - (ops.cumsum(attention, axis=1) - attention)
    partial = drawn + left * constant
    before = ops.cumsum(constant, axis=1) - constant
    repeated = ops.arange(n_patches, dtype="float32")[:, None] * constant
    of_attention = (partial * left / attention + before - repeated) / n_patches
    change = (sampled_attention[..., None] - attention) * of_attention
    return value + ops.sum(change, axis=1)


class TestEnumerationSees:
    """The power of the tests above: what is known to be biased is found to be."""

    @pytest.mark.parametrize("attention", ["uneven", "peaked"])
    @pytest.mark.parametrize("n_patches", [2, 4])
    def test_the_published_attention_gradient(self, n_patches, attention):
        (value, of_logits, of_features), exact = enumerate_draws(
            published_reference, logits_of(attention, 5), n_patches, replace=False
        )
        np.testing.assert_allclose(value, exact[0], atol=1e-5)
        np.testing.assert_allclose(of_features, exact[2], atol=1e-5)
        assert np.abs(of_logits - exact[1]).max() > 1e-2

    @pytest.mark.parametrize("attention", ["uneven", "peaked"])
    def test_the_plain_mean_without_replacement(self, attention):
        plain_mean = dataclasses.replace(WITH_REPLACEMENT, replace=False)
        assert min(errors_of(plain_mean, logits_of(attention, 5), 3)) > 1e-2

    @pytest.mark.parametrize("attention", ["flat", "uneven"])
    @pytest.mark.parametrize("estimator", [WITH_REPLACEMENT, UNORDERED])
    def test_a_control_variate_that_leaves_nothing_out(self, estimator, attention):
        """The estimate itself as control variate: it knows the draw it is for."""

        def estimate(features, sampled_attention):
            weights = estimator.weights(sampled_attention)
            estimated = ops.einsum(
                "bn,bnd->bd", weights * sampled_attention, ops.array(features)
            )
            everywhere = ops.ones_like(sampled_attention)[..., None]
            control_variate = everywhere * estimated[:, None]
            return estimators.weighted_sum(
                features, sampled_attention, weights, control_variate
            )

        (value, of_logits, of_features), exact = enumerate_draws(
            estimate, logits_of(attention, 5), 3, estimator.replace
        )
        np.testing.assert_allclose(value, exact[0], atol=1e-5)
        np.testing.assert_allclose(of_features, exact[2], atol=1e-5)
        assert np.abs(of_logits - exact[1]).max() > 5e-3

    @pytest.mark.parametrize("n_patches", [2, 3])
    def test_the_control_variate_of_the_other_mode(self, n_patches):
        swapped = dataclasses.replace(
            UNORDERED, leave_one_out=estimators.with_replacement_leave_one_out
        )
        errors = errors_of(swapped, logits_of("uneven", 5), n_patches)
        assert errors[0] < 1e-5
        assert errors[1] > 5e-3
        assert errors[2] < 1e-5

    @EVERY
    @pytest.mark.parametrize("forgotten", ["proposal", "attention"])
    def test_one_of_two_probabilities_of_draws_of_a_proposal(self, forgotten, estimate):
        """Weights of the attention; or weights and values both of the proposal."""

        def mistaken(features, sampled_attention, sampled_proposal):
            of = {"proposal": sampled_attention, "attention": sampled_proposal}
            return estimate(features, of[forgotten])

        logits = logits_of("uneven", 5)
        estimated, exact = enumerate_draws(
            mistaken, logits, 3, estimate.replace, proposal_of(logits)
        )
        for got, expected in zip(estimated, exact, strict=True):
            assert np.abs(got - expected).max() > 1e-2


@WITH_CONTROL_VARIATE
def test_the_bias_of_self_normalized_weights_is_small_and_falls(estimate):
    """Of the order of 1 / n, and seen by the enumeration."""
    estimate = dataclasses.replace(estimate, normalize=True)
    logits = logits_of("uneven", 6)
    proposal = proposal_of(logits)
    two, four = (np.array(errors_of(estimate, logits, n, proposal)) for n in (2, 4))
    assert np.all(two > 1e-3)
    assert np.all(two < 0.3)
    assert np.all(four < 0.7 * two)


@EVERY
def test_self_normalized_draws_of_the_attention_are_as_without(estimate, rng):
    """Not only on average: draw by draw, value and gradients."""
    features = rng.normal(size=(20, 3, DIM)).astype("float32")
    attention = rng.dirichlet(np.ones(9), size=20)[:, :3].astype("float32")
    normalized = dataclasses.replace(estimate, normalize=True)
    plain, scaled = (
        value_and_gradients(lambda f, a, e=e: e(f, a), [features, attention])
        for e in (estimate, normalized)
    )
    np.testing.assert_allclose(scaled[0], plain[0], rtol=1e-4, atol=1e-5)
    for got, expected in zip(scaled[1], plain[1], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


class TestVariance:
    """Exact, over every draw: what the estimators are there for."""

    @pytest.mark.parametrize("n_patches", [2, 3, 4])
    @pytest.mark.parametrize("sample", range(4))
    def test_unordered_has_no_more_than_ordered(self, sample, n_patches):
        """In every direction: the difference of the covariances has no negative one."""
        rng = np.random.default_rng(sample)
        cells = 5
        attention = rng.dirichlet(np.full(cells, [0.3, 1.0, 3.0, 100.0][sample]))
        logits = np.log(np.maximum(attention, 1e-4)).astype("float32")
        features = rng.normal(size=(cells, DIM)).astype("float32")
        cotangent = rng.normal(size=DIM).astype("float32")
        ordered, unordered = (
            enumerate_variance(e, logits, features, n_patches, False, cotangent)
            for e in (ORDERED, UNORDERED)
        )
        for more, less in zip(ordered, unordered, strict=True):
            scale = np.trace(more)
            assert np.all(np.diag(less) <= np.diag(more) + 1e-5 * scale)
            assert np.linalg.eigvalsh(more - less).min() > -1e-5 * scale
            assert np.trace(less) < np.trace(more)

    @WITH_CONTROL_VARIATE
    @pytest.mark.parametrize("n_patches", [2, 3, 4])
    def test_the_control_variate_takes_noise_out_of_the_logit_gradient(
        self, estimate, n_patches
    ):
        """Flat attention and features as a network begins with: they share a mean."""
        rng = np.random.default_rng(0)
        features = np.maximum(rng.normal(size=(6, 8)) + 0.5, 0)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        cotangent = rng.normal(size=8).astype("float32") + 1
        without = dataclasses.replace(estimate, leave_one_out=None)
        noisy, quiet = (
            enumerate_variance(
                e,
                logits_of("flat", 6),
                features.astype("float32"),
                n_patches,
                estimate.replace,
                cotangent,
            )
            for e in (without, estimate)
        )
        np.testing.assert_allclose(quiet[0], noisy[0], rtol=1e-4, atol=1e-7)
        assert np.trace(quiet[1]) < 0.5 * np.trace(noisy[1])

    @pytest.mark.parametrize("estimate", [UNORDERED, UNORDERED_CV])
    def test_nothing_is_left_when_every_cell_is_drawn(self, estimate, rng):
        features = rng.normal(size=(4, DIM)).astype("float32")
        logits = logits_of("uneven", 4)
        cotangent = rng.normal(size=DIM).astype("float32")
        for covariance in enumerate_variance(
            estimate, logits, features, 4, False, cotangent
        ):
            assert np.trace(covariance) < 1e-10


@EVERY
@pytest.mark.parametrize("n_patches", [2, 7])
def test_value_is_the_reference(n_patches, estimate, rng):
    features = rng.normal(size=(5, n_patches, DIM)).astype("float32")
    attention = rng.dirichlet(np.ones(10), size=5)[:, :n_patches].astype("float32")
    value = estimate(ops.array(features), ops.array(attention))
    slowly = {
        estimators.with_replacement_weights: lambda f, a: f.mean(axis=0),
        estimators.ordered_weights: lambda f, a: reference.estimate(f, a, False),
        estimators.unordered_weights: reference.estimate_unordered,
    }[estimate.weights]
    expected = [slowly(f, a) for f, a in zip(features, attention, strict=True)]
    np.testing.assert_allclose(ops.convert_to_numpy(value), expected, atol=1e-5)


@EVERY
def test_features_may_have_more_axes(estimate, rng):
    features = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    attention = np.array([[0.2, 0.3, 0.1], [0.6, 0.1, 0.2]], "float32")
    value, gradients = value_and_gradients(estimate, [features, attention])
    flat_value, flat_gradients = value_and_gradients(
        estimate, [features.reshape(2, 3, 20), attention]
    )
    np.testing.assert_allclose(value.reshape(2, 20), flat_value, atol=1e-5)
    np.testing.assert_allclose(
        gradients[0].reshape(2, 3, 20), flat_gradients[0], atol=1e-5
    )
    np.testing.assert_allclose(gradients[1], flat_gradients[1], rtol=1e-4, atol=1e-4)


def slow_weights(attention, estimate):
    """Return c_s and R_st of one draw, from the definitions."""
    n_patches = len(attention)
    j = np.arange(1, n_patches + 1)
    left = 1.0 - (np.cumsum(attention) - attention)
    weights = {
        estimators.with_replacement_weights: lambda: 1 / (n_patches * attention),
        estimators.ordered_weights: lambda: (
            (n_patches - j + left / attention) / n_patches
        ),
        estimators.unordered_weights: lambda: reference.unordered_weights(attention),
    }[estimate.weights]()
    if estimate.leave_one_out is None:
        return weights, np.zeros((n_patches, n_patches))
    if estimate.replace:
        others = (1 - np.eye(n_patches)) / (n_patches - 1)
        return weights, others / attention
    return weights, reference.unordered_leave_one_out(attention)


@EVERY
def test_gradients_are_the_weights(estimate, rng):
    """The weights are constants: d/df = c a and d/da = c (f - b), nothing more."""
    features = rng.normal(size=(2, 3, DIM)).astype("float32")
    attention = np.array([[0.5, 0.2, 0.1], [0.1, 0.3, 0.05]], "float32")
    cotangent = rng.normal(size=(2, DIM)).astype("float32")
    _, (of_features, of_attention) = value_and_gradients(
        estimate, [features, attention], cotangent
    )
    for sample in range(2):
        f, a, y = (
            x[sample].astype("float64") for x in (features, attention, cotangent)
        )
        weights, leave_one_out = slow_weights(a, estimate)
        control_variate = leave_one_out @ (a[:, None] * f)
        np.testing.assert_allclose(
            of_features[sample], np.outer(weights * a, y), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(
            of_attention[sample],
            weights * ((f - control_variate) @ y),
            rtol=1e-4,
            atol=1e-4,
        )


@EVERY
@pytest.mark.parametrize("normalize", [False, True])
def test_a_proposal_is_a_constant(estimate, normalize, rng):
    """No gradient flows into the probabilities the cells were drawn with."""
    estimate = dataclasses.replace(estimate, normalize=normalize)
    features = rng.normal(size=(2, 3, DIM)).astype("float32")
    attention = rng.dirichlet(np.ones(6), size=2)[:, :3].astype("float32")
    proposal = rng.dirichlet(np.ones(6), size=2)[:, :3].astype("float32")
    _, gradients = value_and_gradients(estimate, [features, attention, proposal])
    assert np.abs(gradients[1]).max() > 0.1
    np.testing.assert_array_equal(gradients[2], 0)


class TestUnordered:
    @pytest.mark.parametrize("n_patches", [1, 2, 3, 5])
    def test_weights_are_ratios_of_the_probabilities_of_sets(self, n_patches, rng):
        attention = rng.dirichlet(np.ones(n_patches + 2), size=6)[:, :n_patches]
        weights = estimators.unordered_weights(ops.array(attention, "float32"))
        expected = [reference.unordered_weights(a) for a in attention]
        np.testing.assert_allclose(ops.convert_to_numpy(weights), expected, rtol=2e-5)

    @pytest.mark.parametrize("n_patches", [2, 3, 5])
    def test_leave_one_out_is_that_of_the_cells_without_s(self, n_patches, rng):
        attention = rng.dirichlet(np.ones(n_patches + 2), size=6)[:, :n_patches]
        weights = estimators.unordered_leave_one_out(ops.array(attention, "float32"))
        expected = [reference.unordered_leave_one_out(a) for a in attention]
        np.testing.assert_allclose(ops.convert_to_numpy(weights), expected, rtol=5e-5)

    @pytest.mark.parametrize("n_patches", [1, 2, 3])
    def test_is_the_mean_of_the_ordered_estimator_over_all_orders(self, n_patches, rng):
        """Each order by its probability, given that the set was drawn."""
        attention = rng.dirichlet(np.ones(5))
        features = rng.normal(size=(5, DIM))
        draws, probabilities = reference.ordered_draws(attention, n_patches, False)
        for drawn in itertools.combinations(range(5), n_patches):
            orders = [set(draw) == set(drawn) for draw in draws.tolist()]
            estimates = [
                reference.estimate(features[draw], attention[draw], False)
                for draw in draws[orders]
            ]
            mean = np.average(estimates, axis=0, weights=probabilities[orders])
            drawn = [list(drawn)]
            value = UNORDERED(
                ops.array(features[drawn], "float32"),
                ops.array(attention[drawn], "float32"),
            )
            np.testing.assert_allclose(ops.convert_to_numpy(value)[0], mean, atol=1e-5)

    @pytest.mark.parametrize("n_patches", [1, 2, 10, 100])
    def test_the_weights_of_the_attention_sum_to_one(self, n_patches, rng):
        attention = rng.dirichlet(np.ones(3 * n_patches), size=4)[:, :n_patches]
        attention = attention.astype("float32")
        weights = ops.convert_to_numpy(
            estimators.unordered_weights(ops.array(attention))
        )
        np.testing.assert_allclose((weights * attention).sum(axis=1), 1, atol=1e-5)
        if n_patches == 1:
            return
        weights = ops.convert_to_numpy(
            estimators.unordered_leave_one_out(ops.array(attention))
        )
        rows = np.sum(weights * attention[:, None], axis=2)
        np.testing.assert_allclose(rows, 1, atol=1e-5)


def test_control_variate_of_a_proposal_is_the_estimate_from_the_others(rng):
    """Normalised, it is a mean of features: the weights' scale goes out."""
    features = rng.normal(size=(2, 4, DIM)).astype("float32")
    attention = rng.dirichlet(np.ones(6), size=2)[:, :4].astype("float32")
    leave_one_out = rng.uniform(0.5, 2, size=(2, 4, 4)).astype("float32")
    for normalize in (False, True):
        control_variate = estimators.control_variate(
            *map(ops.array, (features, attention, leave_one_out)), normalize=normalize
        )
        factors = leave_one_out * attention[:, None]
        if normalize:
            factors /= factors.sum(axis=2, keepdims=True)
        expected = np.einsum("bst,btd->bsd", factors, features)
        np.testing.assert_allclose(
            ops.convert_to_numpy(control_variate), expected, atol=1e-5
        )


def test_top_k_is_the_mean_of_what_was_looked_at(rng):
    features = rng.normal(size=(3, 4, DIM)).astype("float32")
    attention = rng.dirichlet(np.ones(6), size=3)[:, :4].astype("float32")
    weights = estimators.top_k_weights(ops.array(attention))
    value = estimators.weighted_sum(ops.array(features), ops.array(attention), weights)
    expected = [
        np.average(f, axis=0, weights=a)
        for f, a in zip(features, attention, strict=True)
    ]
    np.testing.assert_allclose(ops.convert_to_numpy(value), expected, atol=1e-5)


@pytest.mark.parametrize(
    "leave_one_out",
    [estimators.with_replacement_leave_one_out, estimators.unordered_leave_one_out],
)
def test_one_patch_leaves_nothing_to_estimate_from(leave_one_out):
    with pytest.raises(
        ValueError, match=r"at least two. Received: probabilities.shape=\(3, 1\)"
    ):
        leave_one_out(ops.full((3, 1), 0.5))


def large_sets():
    """Return probabilities of drawn cells, from few to many and flat to sure."""
    rng = np.random.default_rng(0)
    sets = {}
    for n in (2, 10, 256):
        steep = np.exp(-rng.uniform(0, 40, 4 * n))
        sets |= {
            f"{n} of a million alike": np.full(n, 1e-6),
            f"{n} of dirichlet": rng.dirichlet(np.ones(4 * n))[:n],
            f"{n} of steep": np.sort(steep / steep.sum())[::-1][:n],
            f"{n}, top holds 0.95": np.r_[0.95, np.full(n - 1, 0.05 / (4 * n))],
            f"{n}, top holds 1 - 1e-7": np.r_[1 - 1e-7, np.full(n - 1, 1e-7 / (4 * n))],
            f"{n}, hardly a rest": rng.dirichlet(np.ones(n)) * (1 - 1e-6),
            f"{n}, half of it tiny": np.r_[
                np.full(n // 2, 0.4 / (n // 2)), np.full(n - n // 2, 1e-7)
            ],
        }
    return {name: p.astype("float32") for name, p in sets.items()}


LARGE_SETS = pytest.mark.parametrize(
    "drawn", large_sets().values(), ids=large_sets().keys()
)


@LARGE_SETS
def test_unordered_weights_of_large_sets(drawn):
    """c_s a_s against the integrals in float64 on a fine grid."""
    weights = ops.convert_to_numpy(estimators.unordered_weights(ops.array(drawn[None])))
    logarithms = reference.log_set_probability(
        drawn, [(), *((s,) for s in range(len(drawn)))]
    )
    exact = np.exp(logarithms[1:] - logarithms[0]) * drawn
    assert exact.sum() == pytest.approx(1, abs=1e-6)  # or the reference is wrong
    np.testing.assert_allclose(weights[0] * drawn, exact, rtol=0, atol=5e-6)


@LARGE_SETS
def test_unordered_leave_one_out_of_large_sets(drawn):
    """R_st a_t for the first and the last cell of the set."""
    weights = ops.convert_to_numpy(
        estimators.unordered_leave_one_out(ops.array(drawn[None]))
    )[0]
    cells = range(len(drawn))
    for s in (0, len(drawn) - 1):
        others = [t for t in cells if t != s]
        logarithms = reference.log_set_probability(
            drawn, [(s,), *((s, t) for t in others)]
        )
        exact = np.exp(logarithms[1:] - logarithms[0]) * drawn[others]
        np.testing.assert_allclose(weights[s, others] * drawn[others], exact, atol=5e-6)
        assert weights[s, s] == 1


EXTREMES = {
    "one cell holds nearly all": [1 - 1e-7, 5e-8, 3e-8, 1e-8],
    "uniform over a million": [1e-6] * 4,
    "zeros drawn last": [0.7, 0.3, 0.0, 0.0],
    "zeros beside a rest": [0.4, 0.3, 0.0, 0.0],
    "only zeros": [0.0] * 4,
    "rounds above one": [0.6, 0.4, 1e-7, 1e-7],
    "denormal": [0.5, 1e-39, 1e-42, 1e-45],
    "two that are nearly all": [0.5, 0.5 - 1e-7, 1e-12, 1e-25],
    "256 of a million": [1e-6] * 256,
    "256 and one that is nearly all": [1 - 1e-7, *[1e-7 / 1024] * 255],
    "256 that are all": [1 / 256] * 256,
    "256 from sure to never": list(np.exp(-np.arange(256.0)) * (1 - np.exp(-1))),
}
EXTREME = pytest.mark.parametrize("attention", EXTREMES.values(), ids=EXTREMES.keys())


@EVERY
@EXTREME
@pytest.mark.parametrize("proposed", [False, True])
def test_extreme_attention_gives_finite_values_and_gradients(
    attention, estimate, proposed, rng
):
    attention = np.array([attention], "float32")
    features = rng.normal(size=(1, attention.size, DIM)).astype("float32")
    estimate = dataclasses.replace(estimate, normalize=proposed)
    value, gradients = value_and_gradients(
        lambda f, a: estimate(f, a, *[0.5 * a + 1e-7] * proposed), [features, attention]
    )
    assert np.isfinite(value).all()
    for gradient in gradients:
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "attention",
    [
        EXTREMES["one cell holds nearly all"],
        EXTREMES["uniform over a million"],
        EXTREMES["zeros drawn last"],
    ],
)
def test_extreme_attention_keeps_its_value(attention, rng):
    features = rng.normal(size=(1, 4, DIM)).astype("float32")
    attention = np.array([attention], "float32")
    value = ORDERED(ops.array(features), ops.array(attention))
    expected = reference.estimate(features[0], attention[0], replace=False)
    np.testing.assert_allclose(ops.convert_to_numpy(value)[0], expected, atol=1e-5)


@EVERY
def test_saturated_softmax_gives_finite_gradients(estimate, rng):
    """Logits so far apart that all cells but one are zero in float32."""
    logits = np.array([[300.0, 0.0, -300.0, 90.0]], "float32")
    features = rng.normal(size=(1, 4, DIM)).astype("float32")
    value, gradients = value_and_gradients(
        lambda f, x: estimate(f, ops.softmax(x)), [features, logits]
    )
    assert np.isfinite(value).all()
    for gradient in gradients:
        assert np.isfinite(gradient).all()
