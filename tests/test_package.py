"""The package from outside: lazy import, public names, version."""

import keras
import numpy as np
import pytest
from processes import run_code

import attention_sampling
from attention_sampling import SampleSoftmax
from attention_sampling.experiments.baselines import AttentionPooling

LOADS_NO_FRAMEWORK = """
import os
import sys
before = dict(os.environ)
import attention_sampling
assert dict(os.environ) == before
assert attention_sampling.__version__
assert "attention_sampling" in dir(attention_sampling)
heavy = {"keras", "tensorflow", "jax", "torch"} & set(sys.modules)
assert not heavy | {"numpy"} & set(sys.modules), f"loaded: {heavy}"
from attention_sampling.data import convert, open_source, views
from attention_sampling.datasets import colon_cancer, megapixel_mnist_files, speed_limits
heavy |= {"keras", "tensorflow", "skimage", "openslide"} & set(sys.modules)
assert not heavy, f"loaded: {heavy}"
"""


def test_import_and_data_load_no_framework():
    run_code(LOADS_NO_FRAMEWORK)


@pytest.mark.parametrize("name", attention_sampling.__all__)
def test_every_public_name_is_there(name):
    assert getattr(attention_sampling, name) is not None
    assert name in dir(attention_sampling)


def test_public_name_survives_the_import_of_its_module():
    """`attention_sampling.attention_sampling` is the function, not a module."""
    import attention_sampling.pipeline as pipeline

    assert attention_sampling.attention_sampling is pipeline.attention_sampling


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'utils'"):
        attention_sampling.utils  # noqa: B018


LOADS_A_MODEL = """
import sys
# Keras does without them, as after a plain installation.
names = ("matplotlib", "pandas", "skimage", "tqdm")
sys.modules |= dict.fromkeys(names)
import {first}
import attention_sampling, keras
import numpy as np

model = keras.saving.load_model("model.keras")
arrays = np.load("arrays.npz")
outputs = model.predict([arrays["x_low"], arrays["x_high"]], verbose=0)
np.testing.assert_allclose(outputs[0], arrays["features"], rtol=1e-6)
np.testing.assert_array_equal(outputs[1], arrays["patches"])

from attention_sampling.experiments.__main__ import main
try:
    main(["run", "colon_cancer"])
except SystemExit as error:
    assert "pip install 'keras-attention-sampling[experiments]'" in error.code
else:
    raise AssertionError("it needs the extra")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a directory with a model, and what it predicts next."""
    inputs = [keras.Input((4, 4, 1)), keras.Input((8, 8, 1))]
    attention = [keras.layers.Conv2D(1, 1), SampleSoftmax(squeeze_channels=True)]
    features, _, patches = attention_sampling.attention_sampling(
        keras.Sequential(attention),
        keras.layers.Flatten(),
        patch_size=2,
        n_patches=3,
        attention_regularizer=attention_sampling.MultinomialEntropy(0.5),
        proposal=attention_sampling.LocalContrast(3),
    )(inputs)
    pooled, _ = AttentionPooling()(keras.layers.Reshape((3, 4))(patches))
    both = keras.layers.Concatenate()([features, pooled])
    model = keras.Model(inputs, [both, patches])
    rng = np.random.default_rng(0)
    x_low, x_high = (rng.normal(size=(6, size, size, 1)) for size in (4, 8))
    model.predict([x_low, x_high], verbose=0)
    directory = tmp_path_factory.mktemp("saved")
    model.save(directory / "model.keras")
    both, patches = model.predict([x_low, x_high], verbose=0)
    arrays = {"x_low": x_low, "x_high": x_high, "features": both, "patches": patches}
    np.savez(directory / "arrays.npz", **arrays)
    return directory


@pytest.mark.parametrize(
    "first", ["keras", "attention_sampling.backend", "attention_sampling.ops.sampling"]
)
def test_another_process_goes_on_with_the_samples_of_a_saved_model(saved, first):
    """Without custom_objects, whatever of the package and Keras is imported first."""
    environment = {"KERAS_BACKEND": keras.backend.backend()}
    run_code(LOADS_A_MODEL.format(first=first), cwd=saved, environment=environment)
