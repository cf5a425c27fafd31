"""Expectation: unbiased in every mode, and its checks."""

import keras
import numpy as np
import pytest
import reference
from enumeration import enumerate_draws, enumerate_variance, logits_of, proposal_of
from gradients import value_and_gradients
from keras import ops

from attention_sampling import Expectation, LocalContrast, SamplePatches

SETTINGS = {
    "default": {},
    "unordered": {"estimator": "unordered", "control_variate": False},
    "control variate": {"control_variate": True},
    "ordered": {"estimator": "ordered"},
    "with replacement": {"replace": True},
    "with replacement, control variate": {"replace": True, "control_variate": True},
}
EVERY = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())


def estimator_of(**settings):
    layer = Expectation(**settings)
    return lambda *inputs: layer(list(inputs), training=True)


def errors_of(settings, attention, n_patches, proposal=None, replace=None):
    """Return the largest bias of value, logit gradient and feature gradient."""
    replace = settings.get("replace", False) if replace is None else replace
    estimated, exact = enumerate_draws(
        estimator_of(**settings), logits_of(attention, 5), n_patches, replace, proposal
    )
    return [
        np.abs(got - expected).max()
        for got, expected in zip(estimated, exact, strict=True)
    ]


@EVERY
@pytest.mark.parametrize("proposed", [False, True])
@pytest.mark.parametrize("n_patches", [1, 3])
def test_every_draw_averages_to_the_full_model(n_patches, proposed, settings):
    proposal = None
    if proposed:
        proposal = proposal_of(logits_of("uneven", 5))
        settings = {**settings, "self_normalize": False}
    assert max(errors_of(settings, "uneven", n_patches, proposal)) < 1e-5


@pytest.mark.parametrize("replace", [True, False])
def test_self_normalized_draws_of_a_proposal_are_nearly_unbiased(replace):
    """And by default: the enumeration sees that it is."""
    proposal = proposal_of(logits_of("uneven", 5))
    errors = errors_of({"replace": replace}, "uneven", 3, proposal)
    assert 1e-3 < max(errors) < 0.2


def test_enumeration_sees_the_other_mode():
    """The estimator for the other kind of draw is biased."""
    for replace in (True, False):
        errors = errors_of({"replace": not replace}, "uneven", 3, replace=replace)
        assert errors[0] > 1e-2
        assert errors[2] > 1e-2


def slow_value(features, attention, settings):
    if settings.get("replace"):
        return reference.estimate(features, attention, replace=True)
    if settings.get("estimator") == "ordered":
        return reference.estimate(features, attention, replace=False)
    return reference.estimate_unordered(features, attention)


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_value_is_the_reference(settings, training, rng):
    features = rng.normal(size=(4, 3, 6)).astype("float32")
    attention = rng.dirichlet(np.ones(9), size=4)[:, :3].astype("float32")
    value = Expectation(**settings)(
        [ops.array(features), ops.array(attention)], training=training
    )
    expected = [
        slow_value(f, a, settings) for f, a in zip(features, attention, strict=True)
    ]
    np.testing.assert_allclose(ops.convert_to_numpy(value), expected, atol=1e-5)


@pytest.mark.parametrize("control_variate", [None, False])
@pytest.mark.parametrize("self_normalize", [True, False])
@pytest.mark.parametrize("replace", [True, False])
def test_value_and_attention_gradient_of_a_proposal(
    replace, self_normalize, control_variate, rng
):
    """c_s (f_s - b_s), and where weights are normalised, b_s is a mean as well."""
    features = rng.normal(size=(1, 3, 6)).astype("float32")
    attention = rng.dirichlet(np.ones(9), size=1)[:, :3].astype("float32")
    proposal = rng.dirichlet(np.ones(9))[:3].astype("float32")
    estimate = estimator_of(
        replace=replace, self_normalize=self_normalize, control_variate=control_variate
    )
    value, (_, gradient, of_proposal) = value_and_gradients(
        estimate, [features, attention, proposal[None]]
    )
    if replace:
        weights = 1 / (3 * proposal)
        leave_one_out = (1 - np.eye(3)) / (2 * proposal)
    else:
        weights = reference.unordered_weights(proposal)
        leave_one_out = reference.unordered_leave_one_out(proposal)
    shares = leave_one_out * attention[0]
    if self_normalize:
        weights = weights / (weights @ attention[0])
        shares = shares / shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        value[0], (weights * attention[0]) @ features[0], rtol=1e-4, atol=1e-5
    )
    if control_variate is False:
        shares = np.zeros((3, 3))
    centred = features[0] - shares @ features[0]
    np.testing.assert_allclose(
        gradient[0], weights * centred.sum(axis=1), rtol=1e-3, atol=1e-3
    )
    np.testing.assert_array_equal(of_proposal, 0)


@pytest.mark.parametrize("replace", [False, True])
def test_the_control_variate_is_an_option_and_changes_the_gradient_alone(replace, rng):
    logits = logits_of("uneven", 5)
    features = rng.normal(size=(5, 3)).astype("float32") + 3
    cotangent = np.ones(3, "float32")
    default, on, off = (
        enumerate_variance(
            estimator_of(replace=replace, control_variate=control_variate),
            logits, features, 3, replace, cotangent,
        )
        for control_variate in (None, True, False)
    )  # fmt: skip
    for got, expected in zip(default, off, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose(on[0], off[0], rtol=1e-4, atol=1e-7)
    assert np.trace(on[1]) < 0.7 * np.trace(off[1])


def test_one_patch_has_no_control_variate_even_where_it_is_asked_for():
    inputs = [ops.ones((2, 1, 3)), ops.full((2, 1), 0.25)]
    for settings in ({}, {"replace": True}):
        layer = Expectation(control_variate=True, **settings)
        value = layer(inputs, training=True)
        np.testing.assert_allclose(ops.convert_to_numpy(value), 1, rtol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"estimator": "ordered"}])
def test_the_order_of_the_draws_matters_to_the_ordered_estimator_alone(settings, rng):
    features = ops.array(rng.normal(size=(1, 2, 3)), "float32")
    attention = ops.array([[0.6, 0.1]])
    layer = Expectation(**settings)
    forward = layer([features, attention])
    backward = layer([ops.flip(features, axis=1), ops.flip(attention, axis=1)])
    same = np.allclose(*map(ops.convert_to_numpy, (forward, backward)), atol=1e-6)
    assert same == (not settings)


class TestPredictionFromTheTop:
    def inputs(self, rng):
        features = rng.normal(size=(4, 3, 6)).astype("float32")
        attention = rng.dirichlet(np.ones(9), size=4)[:, :3].astype("float32")
        return [ops.array(features), ops.array(attention)]

    @pytest.mark.parametrize("replace", [True, False])
    def test_is_the_weighted_mean(self, replace, rng):
        features, attention = inputs = self.inputs(rng)
        layer = Expectation(replace=replace, prediction="top_k")
        expected = [
            np.average(f, axis=0, weights=a)
            for f, a in zip(
                *map(ops.convert_to_numpy, (features, attention)), strict=True
            )
        ]
        for arguments in ({}, {"training": False}):
            value = ops.convert_to_numpy(layer(inputs, **arguments))
            np.testing.assert_allclose(value, expected, atol=1e-5)

    @pytest.mark.parametrize("proposal", [False, True])
    def test_trains_as_ever(self, proposal, rng):
        inputs = self.inputs(rng)
        inputs += [0.5 * inputs[1] + 0.01] * proposal
        values = [
            Expectation(prediction=prediction)(inputs, training=True)
            for prediction in ("top_k", "sample")
        ]
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, values))

    def test_a_proposal_does_not_matter(self, rng):
        inputs = self.inputs(rng)
        layer = Expectation(prediction="top_k")
        with_it, without = layer([*inputs, inputs[1] * 0.5]), layer(inputs)
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (with_it, without)))


@pytest.mark.parametrize("estimator", ["ordered", "unordered"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_inputs_are_summed_in_float32(dtype, estimator):
    """Sixty-four terms of 1 / 64 plus a little: float16 would lose the little."""
    features = ops.cast(ops.full((1, 64, 1), 1.0), dtype)
    attention = ops.cast(ops.full((1, 64), 2.0**-20), dtype)
    value = Expectation(estimator=estimator)([features, attention])
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    np.testing.assert_allclose(
        ops.convert_to_numpy(value)[0],
        reference.estimate(np.ones((64, 1)), np.full(64, 2.0**-20), replace=False),
        rtol=1e-5,
    )


EXTREMES = {
    "uniform over a million": np.full(256, 1e-6),
    "one cell holds nearly all": np.r_[1 - 1e-7, np.full(255, 1e-7 / 1024)],
    "all there is": np.full(256, 1 / 256),
    "from sure to never": np.exp(-np.arange(256.0)) * (1 - np.exp(-1)),
}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("attention", EXTREMES.values(), ids=EXTREMES.keys())
@pytest.mark.parametrize("replace", [True, False])
def test_extreme_attention_stays_finite_under_mixed_precision(
    replace, attention, policy, rng
):
    """Features in half precision, attention in float32 as SampleSoftmax gives it."""
    keras.config.set_dtype_policy(policy)
    layer = Expectation(replace=replace, control_variate=True)
    compute_dtype = layer.compute_dtype
    assert compute_dtype == policy.removeprefix("mixed_")
    features = rng.normal(size=(1, 256, 4)).astype("float32")
    attention = attention[None].astype("float32")
    value, gradients = value_and_gradients(
        lambda f, a: layer([ops.cast(f, compute_dtype), a], training=True),
        [features, attention],
    )
    assert value.dtype == "float32"
    assert np.isfinite(value).all()
    for gradient in gradients:
        assert np.isfinite(gradient).all()


SHAPES = r"features of shape \(batch, n_patches, dim\)"


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 3, 4), (2, 4)], SHAPES),  # another number of patches
        ([(2, 3), (2, 3)], SHAPES),  # no feature axis
        ([(2, None, 4), (2, None)], SHAPES),  # number of patches unknown
        ([(2, 3, 4), (2, 3), (2, 4)], r"sampled_proposal\.shape=\(2, 4\)"),
        ([(2, 3, 4), (3, 3)], "features and sampled_attention must hold the same num"),
        ([(2, 3, 4)], r"2 to 3 inputs, \[features, sampled_attention, optional samp"),
    ],
)
def test_refuses_shapes_that_do_not_match(shapes, message):
    with pytest.raises(ValueError, match=message):
        Expectation()([keras.KerasTensor(shape) for shape in shapes])
    if all(None not in shape for shape in shapes):
        with pytest.raises(ValueError, match=message):
            Expectation()([ops.ones(shape) for shape in shapes])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"replace": True, "estimator": "unordered"},
            r"without replacement\. .*Received: estimator='unordered', replace=True",
        ),
        (
            {"estimator": "ordered", "control_variate": True},
            r"no control variate.*Received: control_variate=True, estimator='ordered'",
        ),
        ({"estimator": "murthy"}, r"one of None, 'ordered', .*estimator='murthy'"),
        ({"self_normalize": 0.0}, r"must be True or False.*self_normalize=0.0"),
        ({"prediction": "all"}, r"one of 'sample', 'top_k'.*prediction='all'"),
    ],
)
def test_refuses_other_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Expectation(**arguments)


def test_config_holds_every_argument():
    arguments = {
        "replace": False,
        "estimator": "ordered",
        "control_variate": False,
        "prediction": "sample",
        "self_normalize": False,
    }
    config = Expectation(**arguments).get_config()
    assert {name: config[name] for name in arguments} == arguments
    assert Expectation.from_config(config).get_config() == config
    arguments = {"replace": True, "prediction": "top_k", "control_variate": True}
    config = Expectation.from_config(Expectation(**arguments).get_config()).get_config()
    assert {name: config[name] for name in arguments} == arguments


class TestAgreesWithSamplePatches:
    """In a functional model, where the layer that drew the cells is known."""

    def stack(self, drawing, estimating, proposal=False, hand_on=True):
        x_low, x_high = keras.Input((6, 6, 1)), keras.Input((24, 24, 1))
        attention = keras.layers.Softmax(axis=(1, 2))(
            keras.layers.Reshape((6, 6))(x_low)
        )
        saliency = [LocalContrast(3)(x_low)] * proposal
        patches, *drawn = SamplePatches(2, 4, **drawing)(
            [x_low, x_high, attention, *saliency]
        )
        features = ops.mean(patches, axis=(2, 3))
        drawn = drawn if hand_on else drawn[:1]
        return Expectation(**estimating)([features, *drawn])

    @pytest.mark.parametrize(
        ("drawing", "estimating", "message"),
        [
            (
                {"replace": True},
                {},
                r"`replace`.*SamplePatches\(replace=True\), Expectation\(replace=False",
            ),
            ({}, {"replace": True}, r"`replace`.*Expectation\(replace=True\)"),
            (
                {"prediction": "top_k"},
                {},
                r"`prediction`.*SamplePatches\(prediction='top_k'\)",
            ),
            ({}, {"prediction": "top_k"}, r"Expectation\(prediction='top_k'\)"),
        ],
    )
    def test_refuses_other_settings(self, drawing, estimating, message):
        with pytest.raises(ValueError, match=message):
            self.stack(drawing, estimating)

    def test_refuses_to_lose_the_proposal(self):
        with pytest.raises(ValueError, match=r"Pass it on as a third input.*2 inputs"):
            self.stack({}, {}, proposal=True, hand_on=False)

    @pytest.mark.parametrize("proposal", [False, True])
    @pytest.mark.parametrize(
        "settings", [{}, {"replace": True}, {"prediction": "top_k"}]
    )
    def test_takes_the_same_settings(self, settings, proposal):
        assert self.stack(settings, settings, proposal).shape == (None, 1)
