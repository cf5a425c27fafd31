"""Fixtures of all tests."""

import os
import tempfile

import numpy as np
import pytest

if os.environ.get("KERAS_BACKEND") == "jax":
    # Most of the time goes into compiling: do it fast, and the same program once.
    # JAX reads these when it is imported, which the import of keras does.
    _compiled = tempfile.TemporaryDirectory(prefix="jax-", ignore_cleanup_errors=True)
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compiled.name)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# TensorFlow logs while it is imported, whatever its level, and pytest would end with it.
_kept, _nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
try:
    import keras
finally:
    os.dup2(_kept, 2)


@pytest.fixture(autouse=True)
def fresh_keras():
    """Start every test from the same random state and from Keras' own settings."""
    policy = keras.config.dtype_policy()
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format("channels_last")


@pytest.fixture
def rng():
    """Return numpy's random numbers, the same for every run."""
    return np.random.default_rng(0)
