"""Fixtures of all tests."""

import keras
import numpy as np
import pytest


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
