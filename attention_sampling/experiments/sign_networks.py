"""Networks for photographs, where what is looked for is small, rare and legible."""

from typing import Any

import keras

from attention_sampling.experiments.networks import convolution
from attention_sampling.layers import SampleSoftmax


def sign_attention(channels: int = 3) -> keras.Model:
    """Build an attention network for small things in photographs.

    Batch-normalized convolutions, and a softmax over cells of 4 x 4 pixels of the view.
    One score sees 26 x 26 pixels.

    Args:
        channels: channels of the view, whose pixels are 0 to 255.

    Returns:
        Model from views (batch, height, width, channels) of any size to attention maps
        (batch, height // 4, width // 4).

    Example:

    >>> network = sign_attention()
    >>> tuple(network(keras.ops.zeros((1, 200, 340, 3))).shape)
    (1, 50, 85)
    """
    view = keras.Input((None, None, channels))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(view)
    x = _convolve(keras.layers.MaxPooling2D(2)(_convolve(x, 16)), 24)
    x = _convolve(_convolve(keras.layers.MaxPooling2D(2)(x), 32), 48)
    x = _convolve(x, 32, size=1)
    # Starts even. Under mixed precision too, the softmax is that of exact scores.
    x = keras.layers.Conv2D(1, 1, kernel_initializer="zeros", dtype="float32")(x)
    attention = SampleSoftmax(True, smooth=1e-4, dtype="float32")(x)
    return keras.Model(view, attention, name="attention")


def sign_features(
    patch_shape: tuple[int, int, int], n_classes: int = 5, center: bool = True
) -> keras.Model:
    """Build a feature network that reads small signs, wherever in the patch they are.

    A feature is the certainty of each class: its probability to the power of five. So what
    a patch may show counts little, and the average over many patches still shows the one
    that can be read.

    Five batch-normalized convolutions, and the largest response of each filter. They see
    patches of 48 to 95 pixels as they are, and larger ones at a half, a third and so on:
    weights for patches of 48 pixels fit those of 96 of images twice as large.

    Args:
        patch_shape: (height, width, channels) of the patches, pixels 0 to 255.
        n_classes: kinds of images to tell apart.
        center: batch-normalize the responses before they get unit norm.

    Returns:
        Model from patches (batch, height, width, channels) to features (batch,
        n_classes) from 0 to 1.

    Example:

    >>> network = sign_features((48, 48, 3))
    >>> tuple(network(keras.ops.zeros((2, 48, 48, 3))).shape)
    (2, 5)
    """
    patch = keras.Input(patch_shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(patch)
    if (shrink := min(patch_shape[:2]) // 48) > 1:
        x = keras.layers.AveragePooling2D(shrink)(x)
    x = keras.layers.MaxPooling2D(2)(_convolve(x, 32))
    x = keras.layers.MaxPooling2D(2)(_convolve(_convolve(x, 64), 64))
    x = keras.layers.GlobalMaxPooling2D()(_convolve(_convolve(x, 80), 80))
    if center:
        x = keras.layers.BatchNormalization(momentum=0.95)(x)
    x = keras.layers.UnitNormalization(dtype="float32")(x)
    x = keras.layers.Rescaling(4.0, dtype="float32")(x)
    classes = keras.layers.Dense(
        n_classes, activation="softmax", dtype="float32", name="classes"
    )
    certainties = keras.ops.power(classes(x), 5.0)
    return keras.Model(patch, certainties, name="feature")


def _convolve(x: Any, filters: int, size: int = 3) -> Any:
    x = convolution(x, filters, size)
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.95)(x))
