"""attention_sampling(source=...) and set_source: as with tensors, and faults in reading."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import reference
from keras import ops
from processes import run_code

from attention_sampling import (
    ExtractPatches,
    LocalContrast,
    SampleSoftmax,
    attention_sampling,
    set_source,
)
from attention_sampling.backend import all_layers
from attention_sampling.data import ArraySource, SourceError
from attention_sampling.data.labels import label_images
from attention_sampling.layers.attention_sampling import sampling_layers
from attention_sampling.visualize import explain

BACKEND = keras.backend.backend()
PATCH = (5, 6)
SAMPLES = 5  # batches of 2: one sample is left at the end
UNBOUND = r"attention_sampling\.set_source\(model, source\)"


def images_of(dtype="uint8", size=(20, 19)):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, size=(SAMPLES, *size, 1)).astype(dtype)


VIEWS = np.random.default_rng(1).normal(size=(SAMPLES, 7, 6, 1)).astype("float32")
# Not in their order: an index means an image, wherever its view is in the batch.
INDEX = np.array([3, 0, 4, 2, 1], "int32")
Y = np.linspace(-1, 1, SAMPLES)[:, None].astype("float32")


def model_of(source=None, dtype="uint8", view=(7, 6), compiled=True, **arguments):
    """Return a model whose weights and samples are the same every time."""
    keras.utils.set_random_seed(0)
    attention = keras.Sequential(
        [keras.layers.Conv2D(1, 1), SampleSoftmax(squeeze_channels=True)]
    )
    feature = keras.Sequential(
        [
            keras.Input((*PATCH, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="tanh"),
        ]
    )
    sample = attention_sampling(
        attention, feature, source=source, **{"n_patches": 3, "seed": 0, **arguments}
    )
    size = (None, None, 1) if source is None else ()
    dtype = dtype if source is None else "int32"
    inputs = [keras.Input((*view, 1)), keras.Input(size, dtype=dtype)]
    features, attention, patches = sample(inputs)
    if not compiled:
        return keras.Model(inputs, [features, attention, patches])
    model = keras.Model(inputs, keras.layers.Dense(1)(features))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


WAYS = {
    "default": {},
    "all": {"prediction": "all"},
    "with replacement": {"replace": True, "receptive_field": 2},
    "top, proposal, metrics": {
        "prediction": "top_k",
        "proposal": LocalContrast(3),
        "metrics": BACKEND != "jax",
    },
}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(
            arguments, id=name, marks=[] if name == "all" else pytest.mark.slow
        )
        for name, arguments in WAYS.items()
    ],
)
def test_trains_and_predicts_as_with_tensors(arguments):
    """Loss, weights after training, and predictions: samples and gradients too then."""
    images = images_of()
    results = []
    for source in (None, ArraySource(images, threads=4)):
        model = model_of(source, **arguments)
        x = [VIEWS, images[INDEX] if source is None else INDEX]
        history = model.fit(x, Y, batch_size=2, shuffle=False, verbose=0).history
        results.append(
            [
                *history.values(),
                *model.get_weights(),
                model.predict(x, batch_size=2, verbose=0),
            ]
        )
    for in_memory, on_disk in zip(*results, strict=True):
        np.testing.assert_allclose(on_disk, in_memory, rtol=1e-5, atol=1e-6)


def test_training_changes_with_the_pixels():
    """So that equal results above mean that they were read."""
    weights = []
    for source in (ArraySource(images_of()), ArraySource(255 - images_of())):
        model = model_of(source)
        model.train_on_batch([VIEWS, INDEX], Y)
        weights.append(model.get_weights())
    assert not all(np.allclose(*pair) for pair in zip(*weights, strict=True))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_patches_are_those_of_tensors_in_every_dtype(dtype):
    images = images_of(dtype)
    outputs = []
    for source in (None, ArraySource(images)):
        model = model_of(source, dtype, compiled=False)
        x = [VIEWS, images[INDEX] if source is None else INDEX]
        outputs.append(model([ops.convert_to_tensor(array) for array in x]))
    for in_memory, on_disk in zip(*outputs, strict=True):
        assert in_memory.dtype == on_disk.dtype
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (in_memory, on_disk)))


@pytest.mark.parametrize("prediction", ["top_k", "all"])
def test_images_of_different_sizes_in_one_source(prediction):
    """A batch of them gives what each alone gives as a tensor."""
    rng = np.random.default_rng(3)
    sizes = [(20, 19), (33, 12), (7, 50)]
    images = [rng.integers(0, 256, (*size, 1)).astype("uint8") for size in sizes]
    on_disk = model_of(ArraySource(images), prediction=prediction)
    in_memory = model_of(prediction=prediction)
    together = ops.convert_to_numpy(on_disk([VIEWS[:3], np.arange(3, dtype="int32")]))
    for number, image in enumerate(images):
        alone = in_memory([VIEWS[number : number + 1], image[None]])
        np.testing.assert_allclose(
            together[number], ops.convert_to_numpy(alone)[0], rtol=1e-4, atol=1e-5
        )


def test_views_of_any_size():
    model = model_of(ArraySource(images_of()), view=(None, None))
    for size in (7, 9):
        x = [np.ones((2, size, size, 1), "float32"), INDEX[:2]]
        assert np.isfinite(model.train_on_batch(x, Y[:2]))
        assert np.isfinite(model.predict(x, verbose=0)).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_leaves_pixels_and_indices_alone(policy):
    """Numbers above 256 are none of bfloat16, and 2049 none of float16."""
    keras.config.set_dtype_policy(policy)
    images = np.zeros((2052, 7, 6, 1), "uint8")
    images[[257, 2049]] = 201
    model = model_of(ArraySource(images), compiled=False)
    x = [VIEWS[:2], np.array([257, 2049])]
    features, _, patches = model.predict(x, verbose=0)
    assert (patches.dtype, features.dtype) == ("uint8", "float32")
    assert set(np.unique(patches)) == {0, 201}
    assert (patches.max(axis=(1, 2, 3, 4)) == 201).all()


def test_indices_as_a_column_are_taken_too():
    model = model_of(ArraySource(images_of()))
    column = model.predict([VIEWS, INDEX[:, None]], verbose=0)
    flat = model_of(ArraySource(images_of())).predict([VIEWS, INDEX], verbose=0)
    np.testing.assert_array_equal(column, flat)


def test_what_is_explained_was_read():
    images = images_of()
    seen = explain(model_of(ArraySource(images)), [VIEWS, INDEX], batch_size=2)
    for sample, number in enumerate(INDEX):
        for origin, patch in zip(
            seen["origins"][sample], seen["patches"][sample], strict=True
        ):
            expected = reference.window(images[number], origin, PATCH)
            np.testing.assert_array_equal(patch, expected)


# set_source


def test_a_saved_model_holds_the_kind_of_its_source_and_no_images(tmp_path):
    source, x = ArraySource(images_of()), [VIEWS, INDEX]
    model = model_of(source, prediction="all")
    text = json.dumps(json.loads(model.to_json()))
    assert '"source": {"channels": 1, "dtype": "uint8"}' in text
    assert "ArraySource" not in text
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # In Python, while the graph is traced: the same model then works with a source.
    with pytest.raises(ValueError, match=UNBOUND):
        loaded.predict(x, verbose=0)
    with pytest.raises(ValueError, match=UNBOUND):
        loaded.fit(x, Y, verbose=0)
    with pytest.raises(ValueError, match=UNBOUND):
        loaded.evaluate(x, Y, verbose=0)
    set_source(loaded, source)
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6
    )
    loaded.evaluate(x, Y, verbose=0)
    loaded.fit(x, Y, verbose=0)


def test_another_source_takes_effect_without_tracing_again():
    """For this model alone, not for those made of it."""
    one, other = ArraySource(images_of()), ArraySource(255 - images_of())
    model, x = model_of(one, prediction="all"), [VIEWS, INDEX]
    clone = keras.Sequential([keras.models.clone_model(model)])  # a model in a model
    clone.set_weights(model.get_weights())
    set_source(clone, one)
    expected = model.predict(x, verbose=0)
    traced = model.predict_function
    set_source(model, other)
    assert not np.allclose(model.predict(x, verbose=0), expected, rtol=1e-3)
    assert model.predict_function is traced
    if BACKEND == "tensorflow":
        assert traced.experimental_get_tracing_count() == 1
    np.testing.assert_allclose(
        clone.layers[0].predict(x, verbose=0), expected, rtol=1e-6
    )


def test_set_source_refuses_what_does_not_fit():
    inputs = [keras.Input((8, 8, 1)), keras.Input((2, 2), dtype="int32")]
    model = keras.Model(inputs, ExtractPatches(2)(inputs), name="of_tensors")
    with pytest.raises(ValueError, match=r"No layer of the model .*model='of_tensors'"):
        set_source(model, ArraySource(images_of()))
    with pytest.raises(ValueError, match=r"to take patches from tensors.*source=\.\."):
        model.layers[2].set_source(ArraySource(images_of()))
    source = ArraySource(images_of())
    model = model_of(source)
    for other in (images_of("float32"), np.zeros((5, 20, 19, 3), "uint8")):
        with pytest.raises(ValueError, match="of the kind the model was built for"):
            set_source(model, ArraySource(other))
    with pytest.raises(TypeError, match="must be an image source"):
        set_source(model, "images/*.tif")
    [layer] = sampling_layers(model)
    assert layer.source is source  # it goes on with the one it had


def test_labels_of_another_source_must_count_the_same_classes():
    source, other = ArraySource(images_of()), ArraySource(images_of())
    label_images(source, ["cat", "dog"] + ["cat"] * (SAMPLES - 2))
    label_images(other, ["dog"] * SAMPLES)
    model = model_of(source)
    with pytest.raises(
        ValueError, match=r"class_names=\['cat', 'dog'\]\)\. Received: cl"
    ):
        set_source(model, other)
    label_images(other, ["dog"] * SAMPLES, class_names=["cat", "dog"])
    set_source(model, other)
    set_source(model, ArraySource(images_of()))  # of images to predict


# What goes wrong in a training step


class Fails(ArraySource):
    """Images of which one cannot be read."""

    def where(self, index):
        return f"scans/slide{index}.tif"

    def read(self, index, level, origin, size):
        if index == 2:
            raise RuntimeError("bad tile 17")
        return super().read(index, level, origin, size)


FAULT = (
    r"scans/slide2\.tif \(image 2\): rows \d+ to \d+, columns .* read: .*bad tile 17"
)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_fault_names_file_image_and_window(run_eagerly):
    model = model_of(Fails(images_of(), threads=4))
    model.compile("sgd", "mse", run_eagerly=run_eagerly)
    with pytest.raises(Exception, match=FAULT) as caught:
        model.fit([VIEWS, INDEX], Y, batch_size=2, verbose=0)
    if run_eagerly or BACKEND == "torch":
        assert caught.type is SourceError
    else:
        assert "SourceError" in str(caught.value)


@pytest.mark.parametrize("number", [-1, SAMPLES])
def test_an_index_of_no_image_is_named(number):
    model = model_of(ArraySource(images_of()))
    with pytest.raises(Exception, match=f"images 0 to 4. Received: index={number}"):
        model.fit([VIEWS[:1], np.array([number])], Y[:1], verbose=0)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_a_file_that_disappears_while_training_is_named(run_eagerly, tmp_path):
    """With what was learned kept, where the backend keeps it."""
    tifffile = pytest.importorskip("tifffile")
    from attention_sampling.data import TiffSource

    paths = [tmp_path / f"{number}.tif" for number in range(SAMPLES)]
    for path, image in zip(paths, images_of(), strict=True):
        tifffile.imwrite(path, image[..., 0])
    with TiffSource(paths) as source:
        model = model_of(source)
        model.compile("sgd", "mse", run_eagerly=run_eagerly)
        remove = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: epoch == 1 and paths[4].unlink()
        )
        with pytest.raises(Exception, match=r"4\.tif \(image 4\): rows \d+") as caught:
            model.fit([VIEWS, INDEX], Y, epochs=3, verbose=0, callbacks=[remove])
        assert str(paths[4]) in str(caught.value)
        if run_eagerly or BACKEND == "torch":
            assert caught.type is SourceError
        if BACKEND != "jax":  # Keras there loses the weights with the step
            x = [VIEWS[:2], INDEX[:2]]
            assert np.isfinite(model.predict(x, verbose=0)).all()


# What TensorFlow alone has

SETTINGS = """
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from test_pipeline_sources import INDEX, VIEWS, Y, ArraySource, images_of, model_of

source = ArraySource(images_of(), threads=2)
alone = model_of(source)
alone.train_on_batch([VIEWS[:4], INDEX[:4]], Y[:4])
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = model_of(source, prediction="all")
x = [VIEWS, INDEX]
assert np.isfinite(model.fit(x, Y, batch_size=4, verbose=0).history["loss"]).all()
with_all = model_of(source, prediction="all")
with_all.set_weights(model.get_weights())
np.testing.assert_allclose(
    model.predict(x, batch_size=4, verbose=0), with_all.predict(x, verbose=0), rtol=1e-4
)

tf.config.experimental.enable_op_determinism()
losses = [
    model_of(source).fit(x, Y, batch_size=2, shuffle=False, verbose=0).history["loss"]
    for _ in range(2)
]
assert losses[0] == losses[1]
"""


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="settings of TensorFlow")
def test_on_two_devices_and_with_deterministic_operations():
    """In a process of its own: neither can be taken back."""
    environment = {"KERAS_BACKEND": "tensorflow"}
    run_code(SETTINGS, environment=environment, path=[Path(__file__).parent])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA of TensorFlow alone cannot")
def test_keras_does_not_compile_it_by_xla(monkeypatch):
    """Where it decides by itself: on a machine with an accelerator."""
    import tensorflow as tf

    class Accelerator:
        device_type = "GPU"

    for source, compiled in ((None, True), (ArraySource(images_of()), False)):
        model = model_of(source)
        with monkeypatch.context() as patch:
            patch.setattr(tf.config, "list_physical_devices", lambda: [Accelerator()])
            model.compile("sgd", "mse", jit_compile="auto")
            assert model.jit_compile is compiled
    model.fit([VIEWS, INDEX], Y, verbose=0)
    readers = [x for x in all_layers(model) if isinstance(x, ExtractPatches)]
    assert [x.supports_jit for x in readers] == [False]
