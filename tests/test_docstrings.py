"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest

import attention_sampling

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(
        attention_sampling.__path__, "attention_sampling."
    )
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name, monkeypatch, tmp_path):
    if name.endswith("sampling_metrics") and keras.backend.backend() == "jax":
        pytest.skip("Keras on JAX keeps no metrics of layers")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    names = {"keras": keras, "np": np}
    names |= {public: getattr(attention_sampling, public) for public in public_names()}
    names |= vars(module)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder().find(module, extraglobs=names):
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def public_names():
    return [name for name in attention_sampling.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_has_an_example(name):
    assert ">>> " in getattr(attention_sampling, name).__doc__
