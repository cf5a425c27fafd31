"""with_sampling: one trained model for any number of patches."""

import keras
import numpy as np
import pytest
from keras import ops

from attention_sampling import (
    LocalContrast,
    ProposalMix,
    SampleSoftmax,
    attention_sampling,
    set_source,
    with_sampling,
)
from attention_sampling.data import ArraySource
from attention_sampling.layers.attention_sampling import sampling_layers

CELLS = 36
X = [
    np.random.default_rng(0).normal(size=(5, 6, 6, 1)).astype("float32"),
    np.random.default_rng(1).normal(size=(5, 24, 24, 1)).astype("float32"),
]
Y = np.linspace(-1, 1, 5).astype("float32")[:, None]


def layer_of(**arguments):
    attention = keras.Sequential([keras.layers.Conv2D(1, 1), SampleSoftmax(True)])
    feature = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    settings = {"patch_size": 4, "n_patches": 3, "proposal": LocalContrast(3)}
    return attention_sampling(attention, feature, **{**settings, **arguments})


def inputs_of():
    return [keras.Input((6, 6, 1)), keras.Input((24, 24, 1))]


def functional(**arguments):
    inputs = inputs_of()
    features, _, _ = layer_of(**arguments)(inputs)
    features = ops.tanh(features)  # an operation that is no layer
    return keras.Model(inputs, keras.layers.Dense(1)(features), name="functional")


def nested():
    inputs = inputs_of()
    return keras.Model(inputs, keras.layers.Dense(1)(functional()(inputs)))


def sequential():
    return keras.Sequential([functional(), keras.layers.Dense(1)])


@keras.saving.register_keras_serializable(package="test_pipeline")
class Subclassed(keras.Model):
    def __init__(self, n_patches=3, source=None, **kwargs):
        super().__init__(**kwargs)
        self.sample = layer_of(n_patches=n_patches, source=source)
        self.classify = keras.layers.Dense(1)

    def call(self, inputs):
        return self.classify(self.sample(inputs)[0])


def trained(make):
    model = make()
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, "mse", metrics=["mae"], run_eagerly=True)
    model.fit(X, Y, verbose=0, callbacks=[ProposalMix(0.25, 0.25)])
    return model


def sampling_layer(model):
    (layer,) = sampling_layers(model)
    return layer


@pytest.mark.parametrize(
    "make",
    [
        functional,
        Subclassed,
        pytest.param(nested, marks=pytest.mark.slow),
        pytest.param(sequential, marks=pytest.mark.slow),
    ],
)
def test_the_same_trained_model_serves_any_budget(make):
    model = trained(make)
    weights = model.get_weights()
    exact = with_sampling(model, prediction="all")
    top = with_sampling(model, n_patches=CELLS, prediction="top_k")
    expected = exact.predict(X, verbose=0)
    np.testing.assert_allclose(top.predict(X, verbose=0), expected, atol=1e-5)
    few = with_sampling(exact, n_patches=2, prediction="sample")
    assert not np.allclose(few.predict(X, verbose=0), expected, atol=1e-3)
    # On average it is the full model, whatever the proposal was in training.
    assert few.evaluate(X, Y, verbose=0, return_dict=True).keys() == {"loss", "mae"}
    assert few.optimizer.momentum == 0.9

    layers = [sampling_layer(x) for x in (model, exact, top, few)]
    assert [layer.n_patches for layer in layers] == [3, 3, CELLS, 2]
    ways = [layer.prediction for layer in layers]
    assert ways == ["sample", "all", "top_k", "sample"]
    for layer in layers:
        assert float(ops.convert_to_numpy(layer.sample_patches.mix)) == 0.25
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("make", [functional, Subclassed])
def test_a_loss_that_keras_does_not_know_leaves_it_uncompiled(make):
    def my_loss(y, z):
        return ops.mean((y - z) ** 2)

    model = trained(make)
    model.compile("sgd", loss=my_loss)
    with pytest.warns(UserWarning, match="predicts, but is not compiled"):
        top = with_sampling(model, n_patches=CELLS, prediction="top_k")
    assert model.compiled
    assert not top.compiled
    assert np.isfinite(top.predict(X, verbose=0)).all()


@pytest.mark.parametrize("make", [nested, Subclassed])
def test_to_train_it_trains_the_functional_model_it_was_made_of(make):
    model = trained(make)
    before = model.get_weights()
    copy = with_sampling(model, n_patches=5)
    copy.fit(X, Y, verbose=0)
    changed = [
        not np.array_equal(one, other)
        for one, other in zip(before, model.get_weights(), strict=True)
    ]
    assert any(changed) == (make is nested)
    assert not np.array_equal(copy.get_weights()[0], before[0])


def test_a_loaded_one_predicts_the_same(tmp_path):
    model = with_sampling(trained(functional), n_patches=7, prediction="top_k")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert sampling_layer(loaded).n_patches == 7
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-5
    )


def test_the_source_stays():
    source = ArraySource(list(X[1]))
    inputs = [keras.Input((6, 6, 1)), keras.Input((), dtype="int32")]
    sample = layer_of(source=source)
    model = keras.Model(inputs, sample(inputs)[0])
    x = [X[0], np.arange(5)]
    exact = with_sampling(model, prediction="all")
    top = with_sampling(model, n_patches=CELLS, prediction="top_k")
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(m(x)) for m in (top, exact)), atol=1e-5
    )
    set_source(exact, ArraySource(list(-X[1])))
    assert sampling_layer(model).source is source
    # Without one, there is none to keep.
    without = with_sampling(keras.models.clone_model(model), n_patches=4)
    with pytest.raises(Exception, match=r"attention_sampling\.set_source\("):
        without.predict(x, verbose=0)


class TakesALambda(keras.Model):
    def __init__(self, activation):
        super().__init__()
        self.sample = layer_of()
        self.activation = activation

    def call(self, inputs):
        return self.activation(self.sample(inputs)[0])


class Wrapper(keras.Layer):
    def __init__(self):
        super().__init__()
        self.sample = layer_of()

    def build(self, input_shape):
        self.sample.build(input_shape)

    def call(self, inputs):
        return self.sample(inputs)[0]

    def compute_output_shape(self, input_shape):
        return self.sample.compute_output_shape(input_shape)[0]


def test_refuses_what_it_cannot_copy():
    model = TakesALambda(lambda x: 2 * x)
    model(X)
    message = r"take what get_config\(\) returns.*of class TakesALambda"
    with pytest.raises(ValueError, match=message):
        with_sampling(model, n_patches=4)
    inputs = inputs_of()
    with pytest.raises(ValueError, match="of class Wrapper"):
        with_sampling(keras.Model(inputs, Wrapper()(inputs)), n_patches=4)


@pytest.mark.filterwarnings("ignore:.*build")  # by Keras, of the same error
@pytest.mark.parametrize("make", [functional, Subclassed])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_patches": 0}, "Received: n_patches=0"),
        ({"prediction": "best"}, "Received: prediction='best'"),
        ({"n_patches": CELLS + 1}, "37 different cells from an attention map of 6 x 6"),
    ],
)
def test_refuses_other_sampling(make, arguments, message):
    model = make()
    model(X)
    with pytest.raises(ValueError, match=message):
        with_sampling(model, **arguments)


def test_refuses_a_model_without_attention_sampling():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="plain")
    with pytest.raises(ValueError, match=r"holds no layer .*Received: model='plain'"):
        with_sampling(model, n_patches=4)


def test_refuses_what_is_no_model():
    with pytest.raises(TypeError, match=r"load_model.*Received: model='model\.keras'"):
        with_sampling("model.keras", n_patches=4)


def test_a_layer_that_was_called_keeps_its_sampling():
    layer = sampling_layer(functional())
    with pytest.raises(ValueError, match=r"with_sampling\(model, \.\.\.\)"):
        layer.set_sampling(n_patches=4)
