"""What every layer of the package must do, one list for all of them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from attention_sampling import (
    ActivityRegularizer,
    AttentionSampling,
    ColorContrast,
    Expectation,
    ExtractPatches,
    LocalContrast,
    MultinomialEntropy,
    SamplePatches,
    SampleSoftmax,
    SamplingMetrics,
    set_source,
)
from attention_sampling.data import ArraySource

BACKEND = keras.backend.backend()
SAMPLES = 5  # batches of 2: one sample is left at the end
# JAX takes long to compile each.
POLICIES = ["mixed_bfloat16", "mixed_float16"][: 1 if BACKEND == "jax" else 2]


@dataclasses.dataclass
class Case:
    """A layer, its inputs, and a small model around it.

    Attributes:
        make: returns the layer.
        inputs: name of each input -> (symbolic shape, shape of one sample, dtype).
        model: from the layer and symbolic inputs to an output (batch, any); it puts
            trainable layers in front and behind.
        source: what the layer reads from, to be bound again where a model was loaded.
    """

    make: Callable[[], keras.Layer]
    inputs: dict[str, tuple[tuple, tuple, str]]
    model: Callable[[keras.Layer, list[Any]], Any]
    source: Any = None


# One filter of 3 x 3 and a batch of one fail in PyTorch 2.13 on CPU ("slow_conv2d:
# grad_weight must be contiguous"), so the score networks here are 1 x 1.


def softmax_model(layer, inputs):
    (image,) = inputs
    attention = layer(keras.layers.Conv2D(1, 1)(image))
    attention = keras.layers.Reshape((-1, 1))(attention)
    pixels = keras.layers.Reshape((-1, 2))(image)
    weighted = keras.layers.Multiply()([attention, pixels])
    return keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(weighted))


def sample_patches_model(layer, inputs):
    x_low, x_high = inputs
    scores = keras.layers.Conv2D(1, 1)(x_low)
    attention = SampleSoftmax(squeeze_channels=True)(scores)
    patches, sampled_attention, *_ = layer([x_low, x_high, attention])
    patches = keras.layers.Rescaling(1 / 255)(patches)
    pixels = keras.layers.GlobalAveragePooling3D()(patches)
    return keras.layers.Concatenate()(
        [sampled_attention, keras.layers.Dense(2)(pixels)]
    )


def proposed_patches_model(layer, inputs):
    """Sample from a proposal in training."""
    x_low, x_high = inputs
    attention = SampleSoftmax(squeeze_channels=True)(keras.layers.Conv2D(1, 1)(x_low))
    patches, *sampled, _ = layer([x_low, x_high, attention, LocalContrast(3)(x_low)])
    patches = keras.layers.Rescaling(1 / 255)(patches)
    pixels = keras.layers.GlobalAveragePooling3D()(patches)
    return keras.layers.Dense(2)(keras.layers.Concatenate()([pixels, *sampled]))


def attention_sampling_model(layer, inputs):
    features, attention, patches = layer(inputs)
    means = [
        keras.layers.GlobalAveragePooling1D()(keras.layers.Reshape((-1, 1))(attention)),
        keras.layers.GlobalAveragePooling3D()(keras.layers.Rescaling(1 / 255)(patches)),
    ]
    return keras.layers.Dense(2)(keras.layers.Concatenate()([features, *means]))


def local_contrast_model(layer, inputs):
    (image,) = inputs
    contrast = keras.layers.Reshape((-1, 1))(layer(keras.layers.Conv2D(2, 1)(image)))
    return keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(contrast))


def color_contrast_model(layer, inputs):
    (image,) = inputs
    colors = keras.layers.Conv2D(3, 1, activation="sigmoid")(image)
    contrast = keras.layers.Reshape((-1, 1))(
        layer(keras.layers.Rescaling(255.0)(colors))
    )
    return keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(contrast))


def sampling_metrics_model(layer, inputs):
    features, scores = inputs
    attention = keras.layers.Softmax()(keras.layers.Dense(4)(scores))
    attention_map = keras.layers.Reshape((2, 2))(attention)
    features = Expectation()([keras.layers.Dense(3)(features), attention])
    return keras.layers.Dense(1)(layer([features, attention_map, attention]))


def extract_patches_model(layer, inputs):
    patches = keras.layers.Rescaling(1 / 255)(layer(inputs))
    return keras.layers.Dense(1)(keras.layers.GlobalAveragePooling3D()(patches))


def expectation_model(layer, inputs):
    features, scores = inputs
    attention = keras.layers.Softmax()(keras.layers.Dense(4)(scores))
    return keras.layers.Dense(1)(layer([keras.layers.Dense(3)(features), attention]))


def proposal_model(layer, inputs):
    features, scores = inputs
    attention = keras.layers.Softmax()(keras.layers.Dense(4)(scores))
    proposal = keras.layers.Softmax()(scores)
    features = keras.layers.Dense(3)(features)
    return keras.layers.Dense(1)(layer([features, attention, proposal]))


def regularizer_model(layer, inputs):
    (scores,) = inputs
    return layer(keras.layers.Dense(3, activation="softmax")(scores))


IMAGE = ((None, None, None, 2), (6, 5, 2), "float32")
VIEW = ((None, None, None, 3), (6, 5, 3), "float32")
FEATURES = {
    "features": ((None, 4, 3), (4, 3), "float32"),
    "scores": ((None, 4), (4,), "float32"),
}


INDEX = ((None,), (), "int32")
# Images of different sizes, for the indices below 9 that `arrays_of` makes.
SOURCE = ArraySource(
    [np.full((24 + size, 20 - size, 3), 25 * size, "uint8") for size in range(9)],
    threads=2,
)
FLOATS = ArraySource(np.random.default_rng(0).random((9, 24, 20, 3), "float32"))


def images(dtype):
    return ((None, None, None, 3), (24, 20, 3), dtype)


def attention_network():
    return keras.Sequential(
        [keras.layers.Conv2D(1, 1), SampleSoftmax(squeeze_channels=True)]
    )


def feature_network():
    return keras.Sequential(
        [
            keras.Input((5, 6, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )


CASES = {
    "SampleSoftmax": Case(
        lambda: SampleSoftmax(squeeze_channels=True, smooth=0.1),
        {"image": IMAGE},
        softmax_model,
    ),
    "SamplePatches": Case(
        lambda: SamplePatches(4, (5, 6), seed=0),
        {"x_low": VIEW, "x_high": images("float32")},
        sample_patches_model,
    ),
    "SamplePatches uint8 with replacement": Case(
        lambda: SamplePatches(4, 5, receptive_field=2, replace=True),
        {"x_low": VIEW, "x_high": images("uint8")},
        sample_patches_model,
    ),
    "SamplePatches of logits with origins, from the top": Case(
        lambda: SamplePatches(
            4, 5, use_logits=True, return_origins=True, prediction="top_k"
        ),
        {"x_low": VIEW, "x_high": images("float32")},
        sample_patches_model,
    ),
    "SamplePatches of a saliency": Case(
        lambda: SamplePatches(4, 5, return_origins=True),
        {"x_low": VIEW, "x_high": images("uint8")},
        proposed_patches_model,
    ),
    "LocalContrast": Case(
        lambda: LocalContrast((3, 2)), {"image": IMAGE}, local_contrast_model
    ),
    "ColorContrast": Case(ColorContrast, {"image": IMAGE}, color_contrast_model),
    "AttentionSampling": Case(
        lambda: AttentionSampling(
            attention_network(),
            feature_network(),
            n_patches=4,
            attention_regularizer=MultinomialEntropy(0.1),
            proposal=LocalContrast(3),
            metrics=BACKEND != "jax",
            seed=0,
        ),
        {"x_low": VIEW, "x_high": images("float32")},
        attention_sampling_model,
    ),
    "AttentionSampling, all cells from a source": Case(
        lambda: AttentionSampling(
            attention_network(),
            feature_network(),
            n_patches=4,
            replace=True,
            prediction="all",
            source=SOURCE,
        ),
        {"x_low": VIEW, "index": INDEX},
        attention_sampling_model,
        source=SOURCE,
    ),
    "ExtractPatches": Case(
        lambda: ExtractPatches((5, 6)),
        {"x_high": images("uint8"), "origins": ((None, 3, 2), (3, 2), "int32")},
        extract_patches_model,
    ),
    "SamplePatches from a source": Case(
        lambda: SamplePatches(4, (5, 6), receptive_field=2, seed=0, source=SOURCE),
        {"x_low": VIEW, "index": INDEX},
        sample_patches_model,
        source=SOURCE,
    ),
    "ExtractPatches of floats from a source": Case(
        lambda: ExtractPatches((5, 6), source=FLOATS),
        {"index": INDEX, "origins": ((None, 3, 2), (3, 2), "int32")},
        extract_patches_model,
        source=FLOATS,
    ),
    "Expectation": Case(
        lambda: Expectation(control_variate=True), FEATURES, expectation_model
    ),
    "Expectation with replacement": Case(
        lambda: Expectation(replace=True), FEATURES, expectation_model
    ),
    "Expectation ordered": Case(
        lambda: Expectation(estimator="ordered"), FEATURES, expectation_model
    ),
    "Expectation of a proposal": Case(Expectation, FEATURES, proposal_model),
    "ActivityRegularizer": Case(
        lambda: ActivityRegularizer(MultinomialEntropy(0.1)),
        {"scores": ((None, 4), (4,), "float32")},
        regularizer_model,
    ),
}
if BACKEND != "jax":  # it keeps no metrics of layers while it trains
    CASES["SamplingMetrics"] = Case(SamplingMetrics, FEATURES, sampling_metrics_model)


def arrays_of(case, samples=SAMPLES):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, (_, shape, dtype) in case.inputs.items():
        low = -4 if name == "origins" else 0
        high = 255 if dtype == "uint8" else 9 if "int" in dtype else 1
        values = rng.uniform(low, high, size=(samples, *shape))
        arrays[name] = values.astype(dtype)
    return arrays


def targets_of(model, samples=SAMPLES):
    return np.zeros((samples, model.output_shape[-1]), "float32")


def model_of(case, **compile_arguments):
    """Return a compiled model around a fresh layer of the case, and the layer."""
    layer = case.make()
    inputs = [
        keras.Input(shape[1:], dtype=dtype, name=name)
        for name, (shape, _, dtype) in case.inputs.items()
    ]
    model = keras.Model(inputs, case.model(layer, inputs))
    settings = {"optimizer": keras.optimizers.SGD(0.1), "loss": "mse"}
    model.compile(**{**settings, **compile_arguments})
    return model, layer


def layer_inputs(case, model, layer):
    """Return what the layer of a model is given: symbolic and eager tensors."""
    nodes = [node for node in layer._inbound_nodes if not node.is_input]
    symbolic = nodes[0].input_tensors
    symbolic = symbolic if len(symbolic) > 1 else symbolic[0]
    inner = keras.Model(model.inputs, symbolic)
    arrays = arrays_of(case)
    return symbolic, inner({k: ops.convert_to_tensor(v) for k, v in arrays.items()})


def as_list(outputs):
    return outputs if isinstance(outputs, list | tuple) else [outputs]


# Building graphs is what takes long. Every case runs eagerly each time, and its graphs
# with the slow tests; the graphs of the first two each time, of others never, as they
# differ from those of another case in their formulas alone.
OFTEN = {"AttentionSampling", "AttentionSampling, all cells from a source"}
NEVER = {
    "SamplePatches of logits with origins, from the top",
    "Expectation with replacement",
    "Expectation ordered",
}
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def in_graphs(cases):
    params = [
        pytest.param(case, id=name, marks=[] if name in OFTEN else pytest.mark.slow)
        for name, case in cases.items()
        if name not in NEVER
    ]
    return pytest.mark.parametrize("case", params)


@EVERY
class TestEveryLayer:
    def test_symbolic_and_eager_calls_agree(self, case):
        """With None batch and sizes; ranks, known extents and dtypes."""
        model, layer = model_of(case)
        symbolic_inputs, inputs = layer_inputs(case, model, layer)
        symbolic, eager = as_list(layer(symbolic_inputs)), as_list(layer(inputs))
        for spec, output in zip(symbolic, eager, strict=True):
            assert spec.dtype == keras.backend.standardize_dtype(output.dtype)
            assert spec.shape[0] is None
            for known, extent in zip(spec.shape, output.shape, strict=True):
                assert known in (None, extent)
        single = not isinstance(symbolic_inputs, list | tuple)
        shapes = symbolic_inputs.shape if single else [x.shape for x in symbolic_inputs]
        computed = layer.compute_output_shape(shapes)
        computed = computed if isinstance(computed, list) else [computed]
        assert [tuple(shape) for shape in computed] == [x.shape for x in symbolic]

        # Where sizes are known, they are told exactly, by a layer that was never called.
        specs = [keras.KerasTensor(x.shape, x.dtype) for x in as_list(inputs)]
        fresh = case.make()
        known = as_list(fresh(specs[0] if single else specs))
        assert [spec.shape for spec in known] == [tuple(x.shape) for x in eager]
        assert fresh.built

    def test_config_makes_the_same_layer(self, case):
        layer = case.make()
        copy = type(layer).from_config(layer.get_config())
        assert copy.get_config() == layer.get_config()
        again = keras.layers.deserialize(keras.layers.serialize(layer))
        assert type(again) is type(layer)

    @pytest.mark.skipif(BACKEND == "jax", reason="JAX compiles every operation anew")
    def test_trains_and_predicts_eagerly(self, case):
        model, _ = model_of(case, run_eagerly=True)
        x, y = arrays_of(case, samples=2), targets_of(model, samples=2)
        before = [np.array(w) for w in model.get_weights()]
        assert np.isfinite(model.train_on_batch(x, y)).all()
        after = model.get_weights()
        assert any(not np.array_equal(b, a) for b, a in zip(before, after, strict=True))
        predictions = model.predict_on_batch(x)
        assert predictions.shape == y.shape
        assert np.isfinite(predictions).all()

    @pytest.mark.parametrize("policy", POLICIES)
    def test_mixed_precision(self, case, policy):
        """Attention and expectation stay float32; images keep their dtype."""
        keras.config.set_dtype_policy(policy)
        model, layer = model_of(case, run_eagerly=True)
        symbolic_inputs, inputs = layer_inputs(case, model, layer)
        symbolic, eager = as_list(layer(symbolic_inputs)), as_list(layer(inputs))
        given = {x.dtype for x in as_list(symbolic_inputs)}
        if not isinstance(layer, ExtractPatches | SamplePatches | AttentionSampling):
            assert policy.removeprefix("mixed_") in given, (
                "the case must test something"
            )
        for spec, output in zip(symbolic, eager, strict=True):
            dtype = keras.backend.standardize_dtype(output.dtype)
            assert spec.dtype == dtype
            if isinstance(
                layer, SampleSoftmax | Expectation | LocalContrast | ColorContrast
            ):
                assert dtype == "float32"
            if isinstance(layer, SamplePatches | ExtractPatches | AttentionSampling):
                assert dtype in ("float32", "uint8", "int32")
            assert np.isfinite(ops.convert_to_numpy(ops.cast(output, "float32"))).all()
        x, y = arrays_of(case, samples=2), targets_of(model, samples=2)
        assert np.isfinite(model.train_on_batch(x, y)).all()


@in_graphs(CASES)
class TestInGraphs:
    def test_fits_evaluates_and_predicts(self, case):
        """The last batch holds one sample."""
        model, _ = model_of(case)
        x, y = arrays_of(case), targets_of(model)
        history = model.fit(x, y, batch_size=2, epochs=1, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
        assert np.isfinite(model.evaluate(x, y, verbose=0)).all()
        predictions = model.predict(x, batch_size=2, verbose=0)
        assert predictions.shape == y.shape
        assert np.isfinite(predictions).all()

    @pytest.mark.skipif(
        BACKEND == "torch",
        reason="torch.compile of PyTorch 2.13 fails on models of these layers",
    )
    def test_compiles(self, case):
        if case.source is not None and BACKEND == "tensorflow":
            # What Keras takes into account where it decides, jit_compile="auto".
            with pytest.warns(UserWarning, match="Model doesn't support `jit_compile"):
                model, _ = model_of(case, jit_compile=True)
            assert not model.jit_compile
        else:
            model, _ = model_of(case, jit_compile=True)
            assert model.jit_compile
        x, y = arrays_of(case, samples=2), targets_of(model, samples=2)
        assert np.isfinite(model.train_on_batch(x, y)).all()
        assert np.isfinite(model.predict_on_batch(x)).all()

    def test_is_saved_whole_or_by_its_weights(self, case, tmp_path):
        """What is loaded, without custom objects, predicts what would come next."""
        model, _ = model_of(case)
        x = arrays_of(case, samples=2)
        for _ in range(2):
            model.predict_on_batch(x)
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        clone = keras.models.clone_model(model)
        clone.load_weights(tmp_path / "model.weights.h5")
        expected = [model.predict_on_batch(x) for _ in range(2)]
        for other in (loaded, clone):
            if case.source is not None:
                set_source(other, case.source)
            for predictions in expected:
                np.testing.assert_allclose(
                    other.predict_on_batch(x), predictions, rtol=1e-6
                )


def grown(arrays, extra):
    """Return the arrays with every image larger by some pixels."""
    wider = ((0, 0), (0, extra), (0, extra), (0, 0))
    return {
        name: np.pad(array, wider, mode="edge") if array.ndim == 4 else array
        for name, array in arrays.items()
    }


ON_IMAGES = {
    name: case
    for name, case in CASES.items()
    if any(len(shape) == 4 for shape, _, _ in case.inputs.values())
}


@in_graphs(ON_IMAGES)
def test_takes_a_stream_of_images_of_other_sizes(case):
    model, _ = model_of(case)
    arrays = arrays_of(case, samples=2)

    def batches():
        for extra in (0, 3):
            yield grown(arrays, extra), targets_of(model, samples=2)

    history = model.fit(
        batches(), steps_per_epoch=2, epochs=1, verbose=0, shuffle=False
    )
    assert np.isfinite(history.history["loss"]).all()
    for extra in (0, 3):
        assert np.isfinite(model.predict_on_batch(grown(arrays, extra))).all()


def test_every_public_layer_has_a_case():
    import attention_sampling

    public = {
        value
        for name in attention_sampling.__all__
        if isinstance(value := getattr(attention_sampling, name), type)
        and issubclass(value, keras.Layer)
    }
    cases = {type(case.make()) for case in CASES.values()}
    assert cases == public - ({SamplingMetrics} if BACKEND == "jax" else set())
