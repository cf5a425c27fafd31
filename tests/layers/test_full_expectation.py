"""FullExpectation: the sum over every cell, and the estimate in training."""

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradients
from keras import ops

from attention_sampling import Expectation, FullExpectation, SamplePatches

PATCH = (5, 6)


def feature_network(*layers):
    layers = layers or (
        keras.layers.Flatten(),
        keras.layers.Dense(3, activation="tanh"),
    )
    return keras.Sequential([keras.Input((*PATCH, 2)), *layers])


def inputs_of(rows=5, columns=4, low=10, high=21, dtype="float32", samples=2):
    """Return views, images and attention: windows of 5 x 6 stand over every border."""
    rng = np.random.default_rng(3)
    attention = rng.dirichlet(np.ones(rows * columns), size=samples)
    return [
        np.zeros((samples, low, low, 2), "float32"),
        rng.integers(0, 9, size=(samples, high, high, 2)).astype(dtype),
        attention.reshape(samples, rows, columns).astype("float32"),
    ]


def drawn_of(inputs, **arguments):
    """Return what SamplePatches draws in training, and the inputs of the layer."""
    x_low, x_high, attention, *saliency = map(ops.convert_to_tensor, inputs)
    patches, *drawn = SamplePatches(3, PATCH, seed=0, **arguments)(
        [x_low, x_high, attention, *saliency], training=True
    )
    return [patches, drawn[0], x_low, x_high, attention, *drawn[1:]]


def sum_by_hand(feature, x_low, x_high, attention, receptive_field=0):
    """Return sum_i a_i f_i, patch by patch."""
    samples, rows, columns = attention.shape
    patches = [
        reference.window(
            x_high[sample],
            [
                reference.window_origin(
                    cell, cells, x_low.shape[axis], x_high.shape[axis], PATCH[axis - 1],
                    receptive_field,
                )
                for axis, cell, cells in ((1, row, rows), (2, column, columns))
            ],
            PATCH,
        )
        for sample, row, column in np.ndindex(samples, rows, columns)
    ]  # fmt: skip
    features = ops.convert_to_numpy(feature(np.stack(patches).astype("float32")))
    features = features.reshape(samples, rows * columns, *features.shape[1:])
    flat = attention.reshape(samples, -1)
    return np.stack(
        [np.tensordot(a, f, axes=1) for a, f in zip(flat, features, strict=True)]
    )


class TestOutsideTraining:
    @pytest.mark.parametrize("chunk_size", [1, 3, 7, 20, 64])
    @pytest.mark.parametrize("arguments", [{}, {"training": False}])
    def test_is_the_sum_over_every_cell(self, arguments, chunk_size):
        """Whether chunks divide the number of cells or not."""
        feature, inputs = feature_network(), inputs_of()
        layer = FullExpectation(feature, PATCH, chunk_size=chunk_size)
        value = layer(drawn_of(inputs), **arguments)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        np.testing.assert_allclose(
            ops.convert_to_numpy(value), sum_by_hand(feature, *inputs), atol=1e-5
        )

    @pytest.mark.parametrize("receptive_field", [2, 5])
    def test_leaves_out_the_border_of_the_receptive_field(self, receptive_field):
        feature, inputs = feature_network(), inputs_of(dtype="uint8")
        layer = FullExpectation(feature, PATCH, receptive_field=receptive_field)
        value = ops.convert_to_numpy(
            layer(drawn_of(inputs, receptive_field=receptive_field))
        )
        expected = sum_by_hand(feature, *inputs, receptive_field)
        np.testing.assert_allclose(value, expected, atol=1e-5)
        assert not np.allclose(value, sum_by_hand(feature, *inputs), atol=1e-3)

    def test_features_may_have_more_axes(self):
        feature, inputs = feature_network(keras.layers.Conv2D(2, 3)), inputs_of()
        layer = FullExpectation(feature, PATCH, chunk_size=7)
        value = ops.convert_to_numpy(layer(drawn_of(inputs)))
        assert value.shape == (2, 3, 4, 2)
        np.testing.assert_allclose(value, sum_by_hand(feature, *inputs), atol=1e-4)

    def test_the_feature_network_predicts(self):
        """No dropout, and the moving statistics of a batch normalization."""
        feature = feature_network(
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        )
        normalization = feature.layers[1]
        normalization.moving_mean.assign(np.linspace(0, 9, 60))
        inputs = inputs_of()
        layer = FullExpectation(feature, PATCH)
        value = ops.convert_to_numpy(layer(drawn_of(inputs)))
        expected = sum_by_hand(
            lambda patches: feature(patches, training=False), *inputs
        )
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            ops.convert_to_numpy(normalization.moving_mean), np.linspace(0, 9, 60)
        )

    def test_does_not_depend_on_what_was_drawn(self):
        inputs = drawn_of(inputs_of())
        layer = FullExpectation(feature_network(), PATCH)
        first = layer(inputs)
        second = layer([inputs[0] * 0, inputs[1] * 0, *inputs[2:]])
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (first, second)))

    def test_gradient_is_that_of_the_full_model(self):
        """For maps of what a prediction hangs on."""
        feature, inputs = feature_network(), inputs_of()
        patches, sampled, x_low, x_high, _ = drawn_of(inputs)
        layer = FullExpectation(feature, PATCH, chunk_size=7)
        _, (gradient,) = value_and_gradients(
            lambda a: layer([patches, sampled, x_low, x_high, a]),
            [inputs[2]],
            np.ones((2, 3)),
        )
        for row, column in [(0, 0), (4, 3), (2, 1)]:
            one = np.zeros_like(inputs[2])
            one[:, row, column] = 1
            of_cell = sum_by_hand(feature, *inputs[:2], one).sum(axis=1)
            np.testing.assert_allclose(gradient[:, row, column], of_cell, atol=1e-4)

    @pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="sizes unknown before the graph runs occur on TensorFlow only",
    )
    def test_sizes_unknown_before_the_graph_runs(self):
        feature = feature_network()
        layer = FullExpectation(feature, PATCH, chunk_size=7)
        symbolic = [
            keras.Input((3, *PATCH, 2)),
            keras.Input((3,)),
            keras.Input((None, None, 2)),
            keras.Input((None, None, 2)),
            keras.Input((None, None)),
        ]
        model = keras.Model(symbolic, layer(symbolic))
        assert model.output_shape == (None, 3)
        for sizes in ({}, {"rows": 3, "columns": 7, "low": 14, "high": 30}):
            inputs = inputs_of(**sizes)
            drawn = [np.array(x) for x in drawn_of(inputs)]
            np.testing.assert_allclose(
                model.predict(drawn, batch_size=2, verbose=0),
                sum_by_hand(feature, *inputs),
                atol=1e-5,
            )


class TestInTraining:
    @pytest.mark.parametrize(
        "settings",
        [{}, {"estimator": "ordered"}, {"self_normalize": False}],
        ids=["default", "ordered", "not normalized"],
    )
    @pytest.mark.parametrize("proposal", [False, True])
    def test_is_the_estimate_from_what_was_drawn(self, proposal, settings):
        """Value, and gradient of the sampled attention."""
        feature, inputs = feature_network(), inputs_of()
        if proposal:
            inputs.append(np.random.default_rng(0).uniform(size=(2, 9, 9)))
        patches, sampled, x_low, x_high, attention, *proposed = drawn_of(inputs)
        expectation = Expectation(**settings)
        layer = FullExpectation(feature, PATCH, expectation)
        features = ops.reshape(
            feature(ops.reshape(patches, (-1, *PATCH, 2))), (2, 3, 3)
        )
        expected, (of_sampled,) = value_and_gradients(
            lambda a: expectation([features, a, *proposed], training=True),
            [ops.convert_to_numpy(sampled)],
        )
        value, (gradient,) = value_and_gradients(
            lambda a: layer(
                [patches, a, x_low, x_high, attention, *proposed], training=True
            ),
            [ops.convert_to_numpy(sampled)],
        )
        np.testing.assert_allclose(value, expected, atol=1e-6)
        np.testing.assert_allclose(gradient, of_sampled, rtol=1e-5, atol=1e-5)

    def test_the_feature_network_trains(self):
        """A batch normalization gathers statistics of the drawn patches."""
        normalization = keras.layers.BatchNormalization(momentum=0.0)
        feature = feature_network(normalization, keras.layers.Flatten())
        inputs = drawn_of(inputs_of())
        FullExpectation(feature, PATCH)(inputs, training=True)
        np.testing.assert_allclose(
            ops.convert_to_numpy(normalization.moving_mean),
            ops.convert_to_numpy(inputs[0]).mean(axis=(0, 1, 2, 3)),
            rtol=1e-4,
        )


def test_the_feature_network_may_be_built_later():
    """And its weights are those of the layer."""
    feature = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    layer = FullExpectation(feature, PATCH)
    layer(drawn_of(inputs_of()))
    assert [tuple(weight.shape) for weight in layer.trainable_weights] == [
        (60, 3),
        (3,),
    ]


def test_half_precision_features_are_summed_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    feature, inputs = feature_network(), inputs_of(dtype="uint8")
    layer = FullExpectation(feature, PATCH)
    value = layer(drawn_of(inputs))
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    expected = sum_by_hand(feature, *inputs)
    np.testing.assert_allclose(ops.convert_to_numpy(value), expected, atol=1e-2)


def test_config_makes_the_same_layer():
    layer = FullExpectation(
        feature_network(),
        PATCH,
        Expectation(estimator="ordered", self_normalize=False),
        receptive_field=2,
        chunk_size=7,
    )
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert isinstance(copy, FullExpectation)
    assert copy.get_config() == layer.get_config()
    assert (copy.patch_size, copy.receptive_field, copy.chunk_size) == (PATCH, 2, 7)
    assert copy.expectation.estimator == "ordered"
    assert not copy.expectation.self_normalize


@pytest.mark.parametrize("feature", [lambda x: x, None, "dense"])
def test_refuses_a_feature_that_cannot_be_saved(feature):
    with pytest.raises(TypeError, match=r"`feature` must be a Keras layer or model"):
        FullExpectation(feature, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 0}, "Received: patch_size=0"),
        ({"patch_size": 5, "receptive_field": -1}, "Received: receptive_field=-1"),
        ({"patch_size": 5, "chunk_size": 0}, "Received: chunk_size=0"),
        ({"patch_size": 5, "chunk_size": 2.5}, "Received: chunk_size=2.5"),
    ],
)
def test_refuses_numbers_that_are_not_positive(arguments, message):
    with pytest.raises(ValueError, match=message):
        FullExpectation(feature_network(), **arguments)


@pytest.mark.parametrize("inputs", [4, 7])
def test_refuses_another_number_of_inputs(inputs):
    layer = FullExpectation(feature_network(), PATCH)
    with pytest.raises(ValueError, match=r"5 to 6 inputs, \[patches, sampled_att"):
        layer([keras.Input((9, 9, 2))] * inputs)
