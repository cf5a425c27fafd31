"""SamplingMetrics: three numbers, worked out by hand, and where they appear."""

import keras
import numpy as np
import pytest
import reference
from keras import ops

from attention_sampling import Expectation, SamplingMetrics

NAMES = ["attention_entropy", "sampled_mass", "effective_sample_size"]
needs_metrics = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="Keras on JAX keeps no metrics of layers while it trains",
)


def report(settings, attention, *drawn, training=None):
    """Return the three numbers for one batch."""
    layer = SamplingMetrics(Expectation(**settings))
    features = ops.zeros((len(attention), 2))
    inputs = [
        ops.convert_to_tensor(np.array(x, "float32")) for x in (attention, *drawn)
    ]
    layer([features, *inputs], training=training)
    metrics = {metric.name: float(metric.result()) for metric in layer.metrics}
    assert list(metrics) == NAMES
    return list(metrics.values())


def kish(shares):
    shares = np.asarray(shares)
    return shares.sum() ** 2 / (shares**2).sum()


@needs_metrics
class TestValues:
    def test_of_flat_attention(self):
        """Every cell is as good as another: all drawn patches count."""
        values = report({}, np.full((3, 4, 5), 0.05), np.full((3, 4), 0.05))
        np.testing.assert_allclose(values, [np.log(20), 0.2, 4], rtol=1e-5)

    def test_are_means_over_the_samples(self):
        """One sure cell, and four alike."""
        attention = [[[1.0, 0.0], [0.0, 0.0]], [[0.25, 0.25], [0.25, 0.25]]]
        values = report({}, attention, [[1.0, 0.0], [0.25, 0.25]])
        np.testing.assert_allclose(values, [np.log(4) / 2, 0.75, 1.5], rtol=1e-5)

    @pytest.mark.parametrize(
        "settings",
        [{}, {"estimator": "ordered"}, {"replace": True}, {"control_variate": False}],
    )
    @pytest.mark.parametrize("training", [True, False])
    def test_of_every_estimator(self, training, settings):
        attention = np.array([[[0.5, 0.3], [0.15, 0.05]]])
        drawn = np.array([0.5, 0.15, 0.3])
        if settings.get("replace"):
            weights = 1 / (3 * drawn)
        elif settings.get("estimator"):
            weights = np.array([2 + 1 / 0.5, 1 + 0.5 / 0.15, 0.35 / 0.3]) / 3
        else:
            weights = reference.unordered_weights(drawn)
        entropy = -np.sum(attention * np.log(attention))
        values = report(settings, attention, drawn[None], training=training)
        np.testing.assert_allclose(
            values, [entropy, 0.95, kish(weights * drawn)], rtol=1e-4
        )

    @pytest.mark.parametrize("self_normalize", [True, False])
    def test_of_a_proposal(self, self_normalize):
        attention = np.array([[[0.5, 0.3], [0.15, 0.05]]])
        drawn, proposed = np.array([0.05, 0.5]), np.array([0.6, 0.2])
        shares = reference.unordered_weights(proposed) * drawn
        entropy, mass, size = report(
            {"self_normalize": self_normalize},
            attention, drawn[None], proposed[None], training=True,
        )  # fmt: skip
        assert entropy == pytest.approx(
            -np.sum(attention * np.log(attention)), rel=1e-5
        )
        assert mass == pytest.approx(0.55)
        assert size == pytest.approx(kish(shares), rel=1e-4)

    def test_of_the_top_cells(self):
        drawn = np.array([0.5, 0.3])
        attention = [[[0.5, 0.3], [0.15, 0.05]]]
        for training, weights in [
            (False, 1 / drawn.sum()),
            (True, reference.unordered_weights(drawn)),
        ]:
            _, mass, size = report(
                {"prediction": "top_k"}, attention, drawn[None], training=training
            )
            assert mass == pytest.approx(0.8)
            assert size == pytest.approx(kish(weights * drawn), rel=1e-4)

    def test_hands_the_features_on(self, rng):
        features = ops.array(rng.normal(size=(2, 3, 4)), "float16")
        layer = SamplingMetrics()
        output = layer([features, ops.full((2, 2, 2), 0.25), ops.full((2, 3), 0.25)])
        assert keras.backend.standardize_dtype(output.dtype) == "float16"
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (output, features)))

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_are_kept_in_float32(self, policy):
        """Ten thousand cells: half precision could not add up their entropy."""
        keras.config.set_dtype_policy(policy)
        inputs = [keras.Input(shape) for shape in ((3,), (100, 100), (2,))]
        layer = SamplingMetrics()
        model = keras.Model(inputs, layer(inputs))
        model(
            [ops.zeros((1, 3)), ops.full((1, 100, 100), 1e-4), ops.full((1, 2), 1e-4)]
        )
        entropy, mass, size = (float(metric.result()) for metric in layer.metrics)
        assert entropy == pytest.approx(np.log(10_000), rel=1e-4)
        assert mass == pytest.approx(2e-4, rel=1e-4)
        assert size == pytest.approx(2, rel=1e-4)


def model_of(**settings):
    """Return a model whose attention is the softmax of its second input."""
    features, scores = keras.Input((4, 3)), keras.Input((4,))
    attention = keras.layers.Softmax()(scores)
    attention_map = keras.layers.Reshape((2, 2))(attention)
    expected = Expectation(**settings)([features, attention])
    layer = SamplingMetrics(Expectation(**settings))
    expected = layer([expected, attention_map, attention])
    model = keras.Model([features, scores], keras.layers.Dense(1)(expected))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def data_of(samples, sharpness):
    rng = np.random.default_rng(0)
    scores = sharpness * rng.normal(size=(samples, 4)).astype("float32")
    return [rng.normal(size=(samples, 4, 3)).astype("float32"), scores], np.zeros(
        (samples, 1), "float32"
    )


def entropy_of(data):
    attention = np.array([reference.softmax(s) for s in data[0][1]])
    return np.mean(-np.sum(attention * np.log(attention), axis=1))


@needs_metrics
class TestReported:
    def test_by_fit_for_training_and_validation_from_epoch_to_epoch(self):
        """Every epoch begins anew, and the last batch counts by its samples."""
        flat, sharp = data_of(5, 0.1), data_of(7, 3.0)
        history = (
            model_of()
            .fit(*flat, batch_size=2, epochs=3, verbose=0, validation_data=sharp)
            .history
        )
        for prefix, data in (("", flat), ("val_", sharp)):
            np.testing.assert_allclose(
                history[f"{prefix}attention_entropy"], [entropy_of(data)] * 3, rtol=1e-4
            )
            np.testing.assert_allclose(history[f"{prefix}sampled_mass"], 1, rtol=1e-4)
            assert len(history[f"{prefix}effective_sample_size"]) == 3
        assert abs(entropy_of(flat) - entropy_of(sharp)) > 0.3

    def test_by_a_loaded_model(self, tmp_path):
        model = model_of(estimator="ordered")
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        (layer,) = (x for x in loaded.layers if isinstance(x, SamplingMetrics))
        assert layer.expectation.estimator == "ordered"
        data = data_of(5, 2.0)
        ours, theirs = (
            m.evaluate(*data, verbose=0, return_dict=True) for m in (model, loaded)
        )
        assert ours == pytest.approx(theirs, rel=1e-5)


@needs_metrics
def test_refuses_another_number_of_inputs():
    with pytest.raises(
        ValueError, match=r"3 to 4 inputs, \[features, attention, sampled_attention, "
    ):
        SamplingMetrics()([keras.Input((3, 3))] * 2)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX keeps none")
def test_refuses_to_train_on_jax_which_would_report_nothing():
    inputs = [ops.ones((1, 3)), ops.full((1, 2, 2), 0.25), ops.full((1, 2), 0.25)]
    layer = SamplingMetrics()
    assert layer(inputs, training=False) is inputs[0]
    with pytest.raises(ValueError, match=r"no metrics of layers .*KERAS_BACKEND='jax'"):
        layer(inputs, training=True)
