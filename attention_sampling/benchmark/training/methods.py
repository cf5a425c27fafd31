"""The methods that the training benchmark compares."""

from collections.abc import Callable
from typing import Any

import keras

from attention_sampling import LocalContrast, MultinomialEntropy, attention_sampling
from attention_sampling.baselines import UniformAttention
from attention_sampling.networks import (
    megapixel_mnist_attention,
    megapixel_mnist_features,
)
from attention_sampling.schedules import ProposalMix


def _proposal(mix: float) -> dict[str, Any]:
    return {
        "estimator": "unordered",
        "control_variate": True,
        "proposal": LocalContrast(window=5),
        "proposal_mix": mix,
    }


# Keywords of attention_sampling(), anew for each run, as they may hold layers.
METHODS: dict[str, Callable[[], dict[str, Any]]] = {
    "ordered": lambda: {"estimator": "ordered", "control_variate": False},
    "unordered": lambda: {"estimator": "unordered", "control_variate": False},
    "control": lambda: {"estimator": "unordered", "control_variate": True},
    "uniform": lambda: {
        "estimator": "unordered",
        "control_variate": False,
        "attention": UniformAttention(),
        "attention_regularizer": None,
    },
    "proposal": lambda: _proposal(1.0),
    "proposal-0.8": lambda: _proposal(0.8),
    "proposal-constant": lambda: _proposal(0.5),
    "proposal-full": lambda: _proposal(1.0),
}

# Callbacks of the methods that have some.
CALLBACKS: dict[str, Callable[[], list[keras.callbacks.Callback]]] = {
    "proposal": lambda: [ProposalMix(1.0, 0.0, epochs=10)],
    "proposal-0.8": lambda: [ProposalMix(0.8, 0.0, epochs=8)],
}


def build_model(settings: dict[str, Any], method: str, seed: int) -> keras.Model:
    """Build the model of a method, compiled.

    Args:
        settings: of the benchmark.
        method: a key of ``METHODS``.
        seed: of the draws. That of the weights is Keras' own.

    Returns:
        Model from ``[views, images]`` to the probabilities of the ten digits.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settings["dtype_policy"])
    try:
        return _build_model(settings, method, seed)
    finally:
        keras.config.set_dtype_policy(policy)


def _build_model(settings: dict[str, Any], method: str, seed: int) -> keras.Model:
    view = keras.Input((settings["view_size"],) * 2 + (1,), name="view")
    image = keras.Input(
        (settings["image_size"],) * 2 + (1,), name="image", dtype="uint8"
    )
    keywords = {
        "attention": megapixel_mnist_attention(),
        "feature": megapixel_mnist_features((settings["patch_size"],) * 2 + (1,)),
        "n_patches": settings["n_patches"],
        "attention_regularizer": MultinomialEntropy(settings["entropy"]),
        "seed": seed,
        **METHODS[method](),
    }
    features, _, _ = attention_sampling(**keywords)([view, image])
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(features)
    model = keras.Model([view, image], digit, name="megapixel_mnist")
    model.compile(
        optimizer=keras.optimizers.Adam(settings["learning_rate"], clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model
