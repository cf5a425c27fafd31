"""set_source: models that are loaded or copied, and other images for a model."""

import json

import keras
import numpy as np
import pytest

from attention_sampling import (
    ExtractPatches,
    SampleSoftmax,
    attention_sampling,
    set_source,
)
from attention_sampling.data import ArraySource

UNBOUND = r"attention_sampling\.set_source\(model, source\)"


def source_of(value=1, dtype="float32", channels=1, count=3):
    return ArraySource(np.full((count, 8, 8, channels), value, dtype))


def model_of(source):
    """Return a model whose output is the mean of the patches."""
    index, origins = keras.Input((), dtype="int32"), keras.Input((2, 2), dtype="int32")
    patches = ExtractPatches(2, source=source)([index, origins])
    return keras.Model([index, origins], keras.layers.GlobalMaxPooling3D()(patches))


X = [np.arange(3, dtype="int32"), np.ones((3, 2, 2), "int32")]


def predict(model):
    (value,) = np.unique(model.predict(X, verbose=0))
    return value


def test_another_source_takes_effect_without_tracing_again():
    model = model_of(source_of(1))
    assert predict(model) == 1
    traced = model.predict_function
    set_source(model, source_of(2))
    assert predict(model) == 2
    assert model.predict_function is traced
    if keras.backend.backend() == "tensorflow":
        assert traced.experimental_get_tracing_count() == 1


def test_a_saved_model_holds_the_kind_of_its_source_and_no_images(tmp_path):
    model = model_of(source_of(1))
    layer = json.loads(model.to_json())["config"]["layers"][2]
    assert layer["config"]["source"] == {"channels": 1, "dtype": "float32"}
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    with pytest.raises(Exception, match=UNBOUND):
        loaded.predict(X, verbose=0)
    set_source(loaded, source_of(3, count=5))
    if keras.backend.backend() != "jax":  # an error takes the state of the model there
        assert predict(loaded) == 3
    again = keras.models.load_model(tmp_path / "model.keras")
    set_source(again, source_of(3, count=5))
    assert predict(again) == 3


def test_a_clone_is_bound_for_itself():
    model = model_of(source_of(1))
    clone = keras.models.clone_model(model)
    set_source(clone, source_of(2))
    assert (predict(model), predict(clone)) == (1, 2)


def full_model(source):
    attention = keras.Sequential(
        [keras.layers.Conv2D(1, 1), SampleSoftmax(squeeze_channels=True)]
    )
    feature = keras.Sequential(
        [keras.Input((2, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    sample = attention_sampling(
        attention, feature, n_patches=2, prediction="all", source=source
    )
    inputs = [keras.Input((4, 4, 1)), keras.Input((), dtype="int32")]
    model = keras.Model(inputs, sample(inputs)[0])
    model.compile("sgd", "mse")
    return model


def test_training_without_a_source_says_how_to_bind_one():
    model = keras.models.clone_model(full_model(source_of()))
    model.compile("sgd", "mse")
    x, y = [np.zeros((3, 4, 4, 1), "float32"), X[0]], np.zeros((3, 2), "float32")
    with pytest.raises(Exception, match=UNBOUND):
        model.fit(x, y, verbose=0)


def test_every_layer_of_a_model_in_a_model_is_bound():
    """One takes drawn patches, and one all of them."""
    inner = keras.models.clone_model(full_model(source_of()))
    model = keras.Sequential([inner])
    set_source(model, source_of(2))
    readers = [x for x in model._flatten_layers() if isinstance(x, ExtractPatches)]
    assert len(readers) == 2
    x = [np.zeros((3, 4, 4, 1), "float32"), X[0]]
    assert np.isfinite(inner.predict(x, verbose=0)).all()


def test_refuses_a_model_that_takes_no_source():
    inputs = [keras.Input((8, 8, 1)), keras.Input((2, 2), dtype="int32")]
    model = keras.Model(inputs, ExtractPatches(2)(inputs), name="of_tensors")
    with pytest.raises(ValueError, match=r"No layer of the model .*model='of_tensors'"):
        set_source(model, source_of())
    with pytest.raises(
        ValueError, match=r"to take patches from tensors.*source=\.\.\."
    ):
        model.layers[2].set_source(source_of())


def test_refuses_sources_of_another_kind():
    model = model_of(source_of(1))
    for other in (source_of(dtype="uint8"), source_of(channels=3)):
        with pytest.raises(ValueError, match="of the kind the model was built for"):
            set_source(model, other)
    with pytest.raises(TypeError, match="must be an image source"):
        set_source(model, "images/*.tif")
    assert predict(model) == 1
