"""AttentionSampling: the whole method against slow references, and as part of models."""

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradients
from keras import ops

from attention_sampling import (
    AttentionSampling,
    LocalContrast,
    MultinomialEntropy,
    SampleSoftmax,
    attention_sampling,
)
from attention_sampling.ops import sampling

BACKEND = keras.backend.backend()
PATCH = (2, 2)  # one tile of the tiny image below: windows do not overlap


def attention_network():
    return keras.Sequential(
        [
            keras.layers.Conv2D(4, 3, padding="same", activation="tanh"),
            keras.layers.Conv2D(1, 1),
            SampleSoftmax(squeeze_channels=True),
        ]
    )


def feature_network(patch_size=PATCH, *layers):
    layers = layers or (
        keras.layers.Flatten(),
        keras.layers.Dense(3, activation="tanh"),
    )
    return keras.Sequential([keras.Input((*patch_size, 1)), *layers])


def of_every_cell(scale, offset):
    """Return a network without weights: scale x + offset for each pixel of the view."""
    return keras.Sequential(
        [keras.layers.Rescaling(scale, offset), keras.layers.Reshape((2, 2))]
    )


def saliency_network():
    """Return a saliency of the tiny views that knows nothing of the attention."""
    return keras.Sequential(
        [
            keras.layers.Rescaling(3.0),
            keras.layers.Activation("tanh"),
            of_every_cell(1.0, 1.0),
        ]
    )


def tiny_images(samples):
    """Return views and images of 2 x 2 cells, tiles of 2 x 2 pixels, all alike."""
    rng = np.random.default_rng(5)
    x_low, x_high = rng.normal(size=(1, 2, 2, 1)), rng.normal(size=(1, 4, 4, 1))
    return [
        np.repeat(x_low, samples, axis=0).astype("float32"),
        np.repeat(x_high, samples, axis=0).astype("float32"),
    ]


def tiles(x_high):
    """Return the patch of every cell of the tiny images."""
    cells = [x_high[:, r : r + 2, c : c + 2] for r in (0, 2) for c in (0, 2)]
    return ops.stack(cells, axis=1)


def layer_of(**arguments):
    settings = {"n_patches": 3, "seed": 0}
    settings |= {"attention": attention_network(), "feature": feature_network()}
    return attention_sampling(**{**settings, **arguments})


def model_of(**arguments):
    inputs = [keras.Input((2, 2, 1)), keras.Input((4, 4, 1))]
    return keras.Model(inputs, layer_of(**arguments)(inputs))


def feature_model_of(**arguments):
    """Return a compiled model of the feature alone."""
    model = model_of(**arguments)
    model = keras.Model(model.inputs, model.outputs[0])
    model.compile("sgd", "mse")
    return model


def sampled_attention(x_high, attention, patches):
    """Return the attention of the cells the patches are of, for each sample."""
    every = ops.convert_to_numpy(tiles(x_high))
    cells = [
        [
            next(c for c in range(4) if np.array_equal(every[sample, c], patch))
            for patch in patches[sample]
        ]
        for sample in range(len(patches))
    ]
    return np.take_along_axis(attention.reshape(-1, 4), np.array(cells), axis=1)


ESTIMATES = {
    "default": ({}, reference.estimate_unordered),
    "ordered": (
        {"estimator": "ordered"},
        lambda f, a: reference.estimate(f, a, replace=False),
    ),
    "with replacement": (
        {"replace": True},
        lambda f, a: reference.estimate(f, a, replace=True),
    ),
    "with a proposal": ({"proposal": LocalContrast(2)}, reference.estimate_unordered),
    "from the top": (
        {"prediction": "top_k"},
        lambda f, a: np.average(f, axis=0, weights=a),
    ),
}


@pytest.mark.parametrize(("arguments", "slowly"), ESTIMATES.values(), ids=ESTIMATES)
def test_estimates_the_feature_of_the_patches_it_returns(arguments, slowly):
    """The output from the sampled patches alone, by the reference estimator."""
    feature = feature_network()
    x = tiny_images(3)
    outputs = model_of(feature=feature, **arguments)(x)
    estimated, attention, patches = map(ops.convert_to_numpy, outputs)
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, rtol=1e-5)
    sampled = sampled_attention(x[1], attention, patches)
    for sample in range(3):
        features = ops.convert_to_numpy(feature(patches[sample]))
        expected = slowly(features, sampled[sample])
        np.testing.assert_allclose(estimated[sample], expected, atol=1e-5)


# Training


def step(model, x, loss_weights):
    """Return how one step of SGD at rate 1 changes each weight."""
    cotangent = ops.array([0.3, -1.0, 2.0])
    model.compile(
        keras.optimizers.SGD(1.0),
        loss=lambda y, prediction: ops.sum(y * cotangent * prediction, axis=-1),
        run_eagerly=True,
    )

    def trained():
        return [np.array(ops.convert_to_numpy(w)) for w in model.trainable_weights]

    before = trained()
    samples = len(x[0])
    y = np.repeat(np.reshape(loss_weights, (samples, 1)), 3, axis=1) * samples
    model.train_on_batch(x, y.astype("float32"))
    return [b - a for b, a in zip(before, trained(), strict=True)]


TRAINING = {
    "default": {},
    "control variate": {"control_variate": True},
    "ordered": {"estimator": "ordered"},
    "with replacement": {"replace": True, "control_variate": True},
    "proposal": {"proposal": saliency_network, "self_normalize": False},
    "proposal, with replacement": {
        "proposal": saliency_network, "self_normalize": False, "replace": True,
        "proposal_mix": 0.8,
    },
    "predicts from the top": {"prediction": "top_k"},
    "predicts from all, proposal": {
        "prediction": "all", "proposal": saliency_network, "self_normalize": False,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "n_patches"),
    [
        pytest.param(settings, n_patches, id=f"{name}-{n_patches}")
        for name, settings in TRAINING.items()
        for n_patches in ((1, 2, 3) if name == "default" else (2,))
    ],
)
def test_a_training_step_over_every_draw_is_that_of_the_full_model(
    n_patches, settings, monkeypatch
):
    """Each sample of the batch makes one of all possible draws.

    Sampling is replaced; windows, pixels, networks, gradients and the step are real.
    """
    attention, feature = attention_network(), feature_network()
    x_low, x_high = keras.Input((2, 2, 1)), keras.Input((4, 4, 1))
    features = ops.reshape(
        feature(ops.reshape(tiles(x_high), (-1, 2, 2, 1))), (-1, 4, 3)
    )
    attention_map = ops.reshape(attention(x_low), (-1, 4, 1))
    full = keras.Model([x_low, x_high], ops.sum(attention_map * features, axis=1))
    weights = [np.array(weight) for weight in full.get_weights()]
    view = ops.convert_to_tensor(tiny_images(1)[0])
    probabilities = ops.convert_to_numpy(attention(view)).ravel()
    exact = step(full, tiny_images(1), [1.0])
    full.set_weights(weights)

    settings = dict(settings)
    if "proposal" in settings:
        settings["proposal"] = settings["proposal"]()
        saliency = ops.convert_to_numpy(settings["proposal"](view))
        probabilities = reference.proposal(
            probabilities, saliency.ravel(), settings.get("proposal_mix", 0.5)
        )
    draws, probabilities = reference.ordered_draws(
        probabilities, n_patches, settings.get("replace", False)
    )
    monkeypatch.setattr(
        sampling,
        "sample_cells",
        lambda attention, n_patches, replace, seed: ops.convert_to_tensor(draws),
    )
    inputs = [keras.Input(batch_shape=(len(draws), s, s, 1)) for s in (2, 4)]
    sample = attention_sampling(attention, feature, n_patches=n_patches, **settings)
    model = keras.Model(inputs, sample(inputs)[0])
    estimated = step(model, tiny_images(len(draws)), probabilities)

    assert len(estimated) == len(exact) == 6
    for got, expected in zip(estimated, exact, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    # Every weight of both networks learns, but for the bias softmax takes away.
    assert [bool(np.abs(change).max() > 1e-4) for change in exact] == [
        True, True, True, False, True, True,
    ]  # fmt: skip


def test_enumeration_sees_self_normalized_proposals(monkeypatch):
    """The power of the test above: a small bias of the whole step is found."""
    settings = {"proposal": saliency_network, "self_normalize": True}
    with pytest.raises(AssertionError, match="Mismatched elements"):
        test_a_training_step_over_every_draw_is_that_of_the_full_model(
            2, settings, monkeypatch
        )


@pytest.mark.slow
@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("n_patches", [1, 3])
def test_real_draws_agree_with_the_full_model_on_average(n_patches, replace):
    """Value and logit gradient of 100,000 draws, within 5 standard errors."""
    samples = 100_000
    logits = np.array([1.0, 0.0, -1.0, 0.5], "float32")
    feature = feature_network()
    cotangent = np.array([0.3, -1.0, 2.0], "float32")
    x_high = ops.convert_to_tensor(tiny_images(samples)[1])
    every = ops.convert_to_numpy(tiles(x_high[:1]))[0]
    value, of_logits, _ = reference.full_model(
        logits, ops.convert_to_numpy(feature(every)), cotangent
    )
    sample = attention_sampling(
        SampleSoftmax(True), feature, n_patches=n_patches, replace=replace, seed=1
    )
    values, (gradients,) = value_and_gradients(
        lambda view: sample([view, x_high])[0],
        [np.tile(logits.reshape(2, 2, 1), (samples, 1, 1, 1))],
        np.tile(cotangent, (samples, 1)),
    )
    gradients = gradients.reshape(samples, 4)
    for drawn, expected in [(values, value), (gradients, of_logits)]:
        error = drawn.std(axis=0) / np.sqrt(samples)
        assert np.all(np.abs(drawn.mean(axis=0) - expected) < 5 * error + 1e-6)


@pytest.mark.parametrize("strength", [0.5, 0.0])
def test_the_regularizer_is_in_the_loss_exactly(strength):
    """Keras does not divide it by the batch a second time."""
    model = feature_model_of(attention_regularizer=MultinomialEntropy(strength))
    model.compile(
        "sgd", loss=lambda y, prediction: 0.0 * prediction[:, 0], run_eagerly=True
    )
    x = tiny_images(5)
    (layer,) = (x for x in model.layers if isinstance(x, AttentionSampling))
    attention = ops.convert_to_numpy(layer.attention(ops.convert_to_tensor(x[0])))
    expected = strength * reference.negative_entropy(attention)
    loss = model.test_on_batch(x, np.zeros((5, 3), "float32"))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    model([ops.convert_to_tensor(array) for array in x])
    assert len(model.losses) == 1
    assert float(ops.stop_gradient(model.losses[0])) == pytest.approx(
        expected, rel=1e-5
    )


NAMES = ("attention_entropy", "sampled_mass", "effective_sample_size")


@pytest.mark.skipif(BACKEND == "jax", reason="Keras on JAX keeps no metrics of layers")
@pytest.mark.parametrize(
    "arguments",
    [{}, {"prediction": "top_k", "proposal": LocalContrast(2)}, {"prediction": "all"}],
)
def test_metrics_are_reported_beside_the_loss(arguments):
    model = feature_model_of(
        attention=of_every_cell(0.0, 0.25), n_patches=2, metrics=True, **arguments
    )
    x, y = tiny_images(5), np.zeros((5, 3), "float32")
    history = model.fit(x, y, batch_size=2, verbose=0, validation_data=(x, y)).history
    assert set(history) == {p + n for n in ("loss", *NAMES) for p in ("", "val_")}
    for prefix in ("", "val_"):
        entropy, mass, size = (history[prefix + name][0] for name in NAMES)
        assert entropy == pytest.approx(np.log(4), rel=1e-5)
        assert mass == pytest.approx(0.5, rel=1e-5)
        if "proposal" in arguments and not prefix:
            # Flat attention, sampled where there is contrast: weights differ.
            assert 1 - 1e-4 <= size < 2 - 1e-3
        else:
            assert size == pytest.approx(2, rel=1e-5)
    assert len(model.evaluate(x, y, verbose=0)) == 4  # each of them once
    assert feature_model_of().metrics_names == ["loss"]


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX keeps none")
def test_metrics_are_refused_in_training_on_jax():
    model = feature_model_of(metrics=True)
    x = tiny_images(3)
    assert len(model.predict(x, verbose=0)) == 3
    with pytest.raises(ValueError, match="Keras on JAX keeps no metrics of layers"):
        model.fit(x, np.zeros((3, 3), "float32"), verbose=0)


# Prediction from every cell


def every_patch(x_low, x_high, attention_size, patch_size, receptive_field):
    """Return the patch of every cell, (samples, cells, height, width, channels)."""
    rows, columns = attention_size
    origins = [
        [
            reference.window_origin(
                cell, cells, x_low.shape[axis], x_high.shape[axis],
                patch_size[axis - 1], receptive_field,
            )
            for axis, cell, cells in ((1, row, rows), (2, column, columns))
        ]
        for row, column in np.ndindex(rows, columns)
    ]  # fmt: skip
    return np.stack(
        [
            np.stack([reference.window(image, o, patch_size) for o in origins])
            for image in x_high
        ]
    )


class TestPredictionFromAll:
    """Windows of 5 x 6 pixels reach over every border."""

    def layer(self, feature=None, receptive_field=0, **arguments):
        attention = keras.Sequential(
            [keras.layers.Conv2D(1, 1 + receptive_field), SampleSoftmax(True)]
        )
        return attention_sampling(
            attention,
            feature or feature_network((5, 6)),
            patch_size=(5, 6),
            receptive_field=receptive_field,
            **{"n_patches": 3, "prediction": "all", "seed": 0, **arguments},
        )

    def inputs(self, extra=0):
        rng = np.random.default_rng(0)
        return [
            rng.normal(size=(3, 7 + extra, 6 + extra, 1)).astype("float32"),
            rng.integers(0, 3, size=(3, 20 + extra, 19, 1)).astype("uint8"),
        ]

    def by_hand(self, feature, x, attention, receptive_field=0):
        attention = ops.convert_to_numpy(attention)
        patches = every_patch(*x, attention.shape[1:], (5, 6), receptive_field)
        samples, cells = patches.shape[:2]
        patches = patches.reshape(-1, *patches.shape[2:]).astype("float32")
        features = ops.convert_to_numpy(feature(patches, training=False))
        features = features.reshape(samples, cells, *features.shape[1:])
        return np.einsum("bi,bi...->b...", attention.reshape(samples, cells), features)

    @pytest.mark.parametrize(
        ("receptive_field", "chunk_size"), [(0, 1), (2, 5), (0, 42), (0, 64)]
    )
    def test_is_the_full_model(self, receptive_field, chunk_size):
        """Whether chunks divide the number of cells or not."""
        layer, x = self.layer(receptive_field=receptive_field), self.inputs()
        layer.chunk_size = chunk_size
        features, attention, _ = layer(x)
        expected = self.by_hand(layer.feature, x, attention, receptive_field)
        np.testing.assert_allclose(ops.convert_to_numpy(features), expected, atol=1e-5)

    @pytest.mark.parametrize(
        "layers",
        [
            (
                keras.layers.Flatten(),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5),
            ),
            (keras.layers.GlobalAveragePooling2D(),),
        ],
        ids=["layers that train in another way", "no weights"],
    )
    def test_of_other_features(self, layers):
        layer, x = self.layer(feature_network((5, 6), *layers)), self.inputs()
        features, attention, _ = layer(x)
        expected = self.by_hand(layer.feature, x, attention)
        np.testing.assert_allclose(ops.convert_to_numpy(features), expected, atol=1e-4)

    def test_shows_the_patches_of_the_top_cells(self):
        x = self.inputs()
        _, attention, patches = map(ops.convert_to_numpy, self.layer()(x))
        every = every_patch(*x, (7, 6), (5, 6), 0)
        for sample in range(3):
            best = np.argsort(-attention[sample].ravel())[:3]
            np.testing.assert_array_equal(patches[sample], every[sample, best])

    def test_the_gradient_is_that_of_the_full_model(self):
        """For maps of what a prediction depends on: the view gives the attention."""
        layer, x = self.layer(), self.inputs()
        attention = keras.Sequential([SampleSoftmax(True)])
        layer = AttentionSampling(attention, layer.feature, 3, 3, prediction="all")
        layer.chunk_size = 5
        patches = every_patch(*x, (7, 6), (3, 3), 0)
        features = np.stack(
            [patches.mean(axis=(2, 3))[..., 0], patches.max(axis=(2, 3))[..., 0]], -1
        )
        view = keras.Input((3, 3, 1))
        pooled = [
            keras.layers.GlobalAveragePooling2D()(view),
            keras.layers.GlobalMaxPooling2D()(view),
        ]
        layer.feature = keras.Model(view, keras.layers.Concatenate()(pooled))
        _, (gradient,) = value_and_gradients(lambda v: layer([v, x[1]])[0], [x[0]])
        for sample in range(3):
            _, expected, _ = reference.full_model(
                x[0][sample].ravel(), features[sample], np.ones(2)
            )
            np.testing.assert_allclose(gradient[sample].ravel(), expected, atol=1e-5)

    def test_trains_as_prediction_from_samples_does(self):
        """Same draws, same steps; only what is predicted differs."""
        trained, weights = [], None
        x = self.inputs()
        for prediction in ("sample", "all"):
            inputs = [keras.Input((7, 6, 1)), keras.Input((20, 19, 1), dtype="uint8")]
            layer = self.layer(prediction=prediction, proposal=LocalContrast(3))
            features, attention, _ = layer(inputs)
            model = keras.Model(inputs, [features, attention])
            weights = weights or model.get_weights()
            model.set_weights(weights)
            model.compile("sgd", ["mse", None], run_eagerly=True)
            y = np.ones((3, 3), "float32")
            model.fit(x, y, batch_size=3, epochs=2, shuffle=False, verbose=0)
            trained.append(model.get_weights())
        for one, other in zip(*trained, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
        assert not np.allclose(weights[0], trained[1][0], atol=1e-5)
        features, attention = model.predict(x, verbose=0)
        expected = self.by_hand(layer.feature, x, attention)
        np.testing.assert_allclose(features, expected, atol=1e-5)

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow has unknown sizes")
    def test_sizes_unknown_before_the_graph_runs(self):
        layer = self.layer()
        inputs = [
            keras.Input((None, None, 1)),
            keras.Input((None, None, 1), dtype="uint8"),
        ]
        model = keras.Model(inputs, layer(inputs)[:2])
        assert model.output_shape == [(None, 3), (None, None, None)]
        for extra in (0, 3):
            x = self.inputs(extra)
            features, attention = model.predict(x, batch_size=2, verbose=0)
            expected = self.by_hand(layer.feature, x, attention)
            np.testing.assert_allclose(features, expected, atol=1e-5)


# Inputs and arguments


@pytest.mark.parametrize(
    ("patch_size", "feature", "size"),
    [
        (None, feature_network((3, 4)), (3, 4)),
        ((3, 1), keras.layers.GlobalAveragePooling2D(), (3, 1)),
        (2, feature_network((None, None), keras.layers.GlobalMaxPooling2D()), (2, 2)),
    ],
)
def test_patch_size_may_be_given_or_come_from_the_feature_model(
    patch_size, feature, size
):
    model = model_of(feature=feature, patch_size=patch_size)
    assert model.output_shape[2] == (None, 3, *size, 1)


@pytest.mark.parametrize("prediction", ["sample", "all"])
def test_integer_pixels_reach_the_feature_network_as_floats_of_the_same_value(
    prediction,
):
    pool = keras.layers.GlobalAveragePooling2D()
    layer = layer_of(feature=pool, patch_size=2, prediction=prediction)
    x_high = ops.full((1, 4, 4, 1), 200, dtype="uint8")
    features, _, patches = layer([ops.array(tiny_images(1)[0]), x_high])
    assert keras.backend.standardize_dtype(patches.dtype) == "uint8"
    np.testing.assert_allclose(ops.convert_to_numpy(features), 200, rtol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(patches), 200)


def test_views_of_unknown_size_with_a_saliency_of_another():
    attention = keras.Sequential(
        [
            keras.layers.Conv2D(1, 3),
            keras.layers.AveragePooling2D(2),
            SampleSoftmax(squeeze_channels=True),
        ]
    )
    resized = keras.Sequential(
        [keras.layers.Resizing(5, 5), keras.layers.Reshape((5, 5))]
    )
    for proposal, sizes in ((LocalContrast(3), (12, 15)), (resized, (12,))):
        layer = layer_of(attention=attention, receptive_field=2, proposal=proposal)
        inputs = [keras.Input((None, None, 1)) for _ in range(2)]
        model = keras.Model(inputs, layer(inputs)[0])
        model.compile("sgd", "mse")
        for low in sizes:
            x = [np.ones((2, s, s, 1), "float32") for s in (low, 4 * low)]
            assert np.isfinite(model.train_on_batch(x, np.zeros((2, 3))))


@pytest.mark.parametrize("name", ["attention", "feature", "proposal"])
@pytest.mark.parametrize("network", [lambda x: x, keras.layers.Dense])
def test_refuses_what_is_no_keras_layer(name, network):
    message = rf"`{name}` must be a Keras layer or model.*keras\.Model\(inputs, outputs"
    with pytest.raises(TypeError, match=message):
        layer_of(**{name: network})


@pytest.mark.parametrize(
    "feature",
    [
        keras.layers.Flatten(),
        keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 1)]),
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]),
    ],
    ids=["layer not built", "no fixed size", "not images"],
)
def test_refuses_a_feature_network_without_an_image_size(feature):
    with pytest.raises(ValueError, match="Pass patch_size, or begin the model with"):
        layer_of(feature=feature)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_patches": 0}, "Received: n_patches=0"),
        ({"n_patches": 5}, "different cells .* larger view, or replace=True"),
        (
            {"n_patches": 5, "replace": True, "prediction": "all"},
            "at most 4 patches, or a larger view. Received",
        ),
        ({"metrics": 1}, "`metrics` must be True or False. .*metrics=1"),
        ({"receptive_field": 2}, "larger than the receptive field"),
        (
            {"attention": keras.layers.Conv2D(1, 1)},
            r"`attention` must have shape \(batch, rows, columns\)",
        ),
        ({"replace": True, "estimator": "ordered"}, "'ordered', replace=True"),
        ({"prediction": "best"}, "one of 'sample', 'top_k', 'all'. .*'best'"),
        (
            {"proposal": keras.layers.Conv2D(2, 1)},
            r"`saliency` must have shape \(batch, height, width\)",
        ),
    ],
)
def test_refuses_bad_arguments_before_training(arguments, message):
    with pytest.raises(ValueError, match=message):
        model_of(**arguments)


def test_refuses_a_regularizer_that_is_not_callable():
    with pytest.raises((TypeError, ValueError), match="regularizer"):
        layer_of(attention_regularizer=0.01)


# In models


def test_summary_shows_the_networks_with_their_shapes():
    lines = []
    model_of(attention_regularizer=MultinomialEntropy(0.1)).summary(
        expand_nested=True, line_length=120, print_fn=lines.append
    )
    text = "\n".join(map(str, lines))
    for word in ("Conv2D", "(None, 2, 2, 4)", "Dense", "(None, 3)", "SamplePatches"):
        assert word in text
    assert "?" not in text
    assert "Total params: 60 " in text


def test_the_config_holds_every_argument():
    arguments = {
        "n_patches": 2, "patch_size": (2, 1), "replace": False, "receptive_field": 1,
        "seed": 7, "estimator": "unordered", "control_variate": False,
        "prediction": "all", "proposal_mix": 0.25, "self_normalize": False,
        "metrics": True, "source": None,
    }  # fmt: skip
    layer = layer_of(
        proposal=LocalContrast(3),
        attention_regularizer=MultinomialEntropy(0.5, eps=1e-3),
        **arguments,
    )
    config = layer.get_config()
    assert {name: config[name] for name in arguments} == arguments
    copy = AttentionSampling.from_config(config)
    assert copy.get_config() == config
    assert copy.proposal.window == (3, 3)
    assert copy.regularize.regularizer.eps == 1e-3


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A model written as a class, which makes its tensors when it is called."""

    def __init__(self, n_patches=2, **kwargs):
        super().__init__(**kwargs)
        self.sample = layer_of(
            feature=keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)]),
            patch_size=4,
            n_patches=n_patches,
            attention_regularizer=MultinomialEntropy(0.1),
        )
        self.classify = keras.layers.Dense(1)

    def call(self, inputs):
        features, _, _ = self.sample(inputs)
        return self.classify(features)


def test_a_subclassed_model_keeps_losses_weights_and_random_state(rng, tmp_path):
    inputs = [
        rng.normal(size=(4, 6, 6, 1)).astype("float32"),
        rng.normal(size=(4, 24, 24, 1)).astype("float32"),
    ]
    model = Subclassed()
    model.compile("sgd", "mse", run_eagerly=True)
    first = model.predict(inputs, verbose=0)
    assert not np.allclose(first, model.predict(inputs, verbose=0))
    assert len(model.trainable_variables) == 8
    model(inputs)
    assert len(model.losses) == 1
    before = [np.array(ops.convert_to_numpy(v)) for v in model.trainable_variables]
    model.fit(inputs, np.ones((4, 1)), verbose=0)
    after = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    changed = [not np.allclose(b, a) for b, a in zip(before, after, strict=True)]
    assert sum(changed) >= 7  # but for the bias softmax takes away
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    other = Subclassed()
    other(inputs)
    other.load_weights(tmp_path / "model.weights.h5")
    expected = ops.convert_to_numpy(model(inputs))
    for again in (loaded, other):
        np.testing.assert_allclose(
            ops.convert_to_numpy(again(inputs)), expected, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("feature", "shapes", "message"),
    [
        (
            feature_network(),
            [(8, 8, 1), (4, 4, 1)],
            r"inputs are \[x_low, x_high\], in",
        ),
        (feature_network((5, 3)), [(2, 2, 1), (4, 4, 1)], "Patches must not be larger"),
        (
            feature_network(PATCH, keras.layers.Conv2D(2, 1)),
            [(2, 2, 1), (4, 4, 1)],
            r"must end in one vector a patch.*output shape \(None, 2, 2, 2\)",
        ),
        (
            feature_network(),
            [(2, 2, 3), (4, 4, 3)],
            r"Begin it with keras\.Input\(\(2, 2, 3",
        ),
    ],
    ids=["swapped", "small image", "no vector", "channels"],
)
def test_mistakes_are_told_when_the_layer_is_called(feature, shapes, message):
    layer = attention_sampling(attention_network(), feature, n_patches=2)
    with pytest.raises(ValueError, match=message):
        layer([keras.Input(shape) for shape in shapes])


def test_class_names_are_saved():
    layer = layer_of(class_names=["cat", "dog"])
    assert AttentionSampling.from_config(layer.get_config()).class_names == (
        "cat",
        "dog",
    )
    assert layer.copy().class_names == ("cat", "dog")
    assert layer_of().class_names is None
