"""The methods that the training benchmark compares."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from attention_sampling import LocalContrast, MultinomialEntropy, attention_sampling
from attention_sampling.networks import (
    megapixel_mnist_attention,
    megapixel_mnist_features,
)
from attention_sampling.schedules import ProposalMix


@keras.saving.register_keras_serializable(package="attention_sampling")
class UniformAttention(keras.layers.Layer):
    """Look everywhere alike: the baseline U-XX of the paper.

    Input shape:
        (batch, low_height, low_width, channels) view.

    Output shape:
        (batch, low_height, low_width), attention map.

    Example:

    >>> attention = UniformAttention()(keras.ops.zeros((1, 4, 5, 1)))
    >>> round(float(attention[0, 2, 3]), 3)
    0.05

    Reference:
        Katharopoulos and Fleuret 2019, section 4.1.1.
    """

    def call(self, inputs: Any) -> Any:
        """Return the uniform distribution over the pixels of the view."""
        attention = ops.ones_like(inputs[..., 0], "float32")
        return attention / ops.sum(attention, axis=(1, 2), keepdims=True)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        """Return the shape of the map."""
        return input_shape[:-1]


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
