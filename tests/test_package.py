"""The package from outside: lazy import, public names, version."""

import pytest
from processes import run_code

import attention_sampling

LOADS_NO_FRAMEWORK = """
import sys
import attention_sampling
assert attention_sampling.__version__
heavy = {"keras", "tensorflow", "jax", "torch", "numpy"} & set(sys.modules)
assert not heavy, f"loaded: {heavy}"
assert "attention_sampling" in dir(attention_sampling)
attention_sampling.SampleSoftmax
assert "keras" in sys.modules  # or this test could not fail
"""


def test_import_loads_no_framework():
    run_code(LOADS_NO_FRAMEWORK)


@pytest.mark.parametrize("module", ["backend", "ops.sampling"])
def test_a_module_can_be_imported_first(module):
    """It imports Keras, upon which the layers that need it are imported."""
    run_code(f"import attention_sampling.{module}")


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
import {second}
assert "attention_sampling.layers" in sys.modules
keras.saving.load_model({path!r})
"""


@pytest.mark.parametrize("keras_first", [False, True])
def test_importing_the_package_is_enough_to_load_a_model(tmp_path, keras_first):
    import keras

    from attention_sampling.experiments.baselines import AttentionPooling

    attention = keras.Input((4, 4))
    regularizer = attention_sampling.MultinomialEntropy(0.1)
    regularized = attention_sampling.ActivityRegularizer(regularizer)(attention)
    pooled, _ = AttentionPooling()(regularized)
    path = tmp_path / "model.keras"
    keras.Model(attention, pooled).save(path)
    names = ["keras", "attention_sampling"]
    first, second = names if keras_first else reversed(names)
    run_code(LOADS_A_MODEL.format(first=first, second=second, path=str(path)))
