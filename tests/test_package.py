"""The package from outside: lazy import, public names, version."""

import pytest
from processes import run_code

import attention_sampling

LOADS_NO_FRAMEWORK = """
import sys
import attention_sampling
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
assert "attention_sampling.layers" in sys.modules
keras.saving.load_model({path!r})
"""


@pytest.mark.parametrize(
    "first", ["keras", "attention_sampling.backend", "attention_sampling.ops.sampling"]
)
def test_importing_the_package_is_enough_to_load_a_model(tmp_path, first):
    """Whatever is imported first; two modules import Keras, upon which the layers are."""
    import keras

    from attention_sampling.experiments.baselines import AttentionPooling

    attention = keras.Input((4, 4))
    regularizer = attention_sampling.MultinomialEntropy(0.1)
    regularized = attention_sampling.ActivityRegularizer(regularizer)(attention)
    pooled, _ = AttentionPooling()(regularized)
    path = tmp_path / "model.keras"
    keras.Model(attention, pooled).save(path)
    run_code(LOADS_A_MODEL.format(first=first, path=str(path)))
