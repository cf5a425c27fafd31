"""The paper's attention and feature networks."""

from collections.abc import Sequence
from typing import Any

import keras

from attention_sampling.layers import SampleSoftmax

# Pixels of the view that one score of the speed-limit attention network sees before
# pooling: four 3x3 convolutions without padding. The ``receptive_field`` argument of
# ``attention_sampling()``.
SPEED_LIMITS_RECEPTIVE_FIELD = 9


def speed_limits_attention(channels: int = 3) -> keras.Model:
    """Build the attention network of the paper's speed-limit experiment.

    Four 3x3 convolutions without padding, the largest score in every 8x8 block, and a
    softmax over the map.

    Args:
        channels: channels of the view, whose pixels are 0 to 255.

    Returns:
        Model from views (batch, height, width, channels) of any size to attention maps
        (batch, (height - 8) // 8, (width - 8) // 8).

    Example:

    >>> network = speed_limits_attention()
    >>> tuple(network(keras.ops.zeros((1, 240, 320, 3))).shape)
    (1, 29, 39)

    Reference:
        Katharopoulos and Fleuret 2019, section 4.4.
    """
    view = keras.Input((None, None, channels))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(view)
    for filters in (8, 16, 32):
        x = keras.layers.Conv2D(filters, 3, activation="relu")(x)
    x = keras.layers.Conv2D(1, 3)(x)
    x = keras.layers.MaxPooling2D(8)(x)
    attention = SampleSoftmax(True, smooth=1e-4)(x)
    return keras.Model(view, attention, name="attention")


def megapixel_mnist_attention(channels: int = 1) -> keras.Model:
    """Build the attention network of the paper's Megapixel MNIST experiment.

    Three 3x3 convolutions with padding and a softmax over the map, which is as large as
    the view: one cell for each pixel of it.

    Arguments as of ``speed_limits_attention``; maps are (batch, height, width).

    Example:

    >>> network = megapixel_mnist_attention()
    >>> tuple(network(keras.ops.zeros((1, 180, 180, 1))).shape)
    (1, 180, 180)

    Reference:
        Katharopoulos and Fleuret 2019, section 4.2.
    """
    return _three_convolutions(keras.layers.Rescaling(1 / 255), channels)


def colon_cancer_attention(channels: int = 3) -> keras.Model:
    """Build the attention network of the paper's colon cancer experiment.

    That of Megapixel MNIST on colour images, with pixels scaled to -1 to 1, as stained
    tissue is mostly bright.

    Example:

    >>> network = colon_cancer_attention()
    >>> tuple(network(keras.ops.zeros((1, 100, 100, 3))).shape)
    (1, 100, 100)

    Reference:
        Katharopoulos and Fleuret 2019, section 4.3.
    """
    rescaling = keras.layers.Rescaling(1 / 127.5, offset=-1)
    return _three_convolutions(rescaling, channels)


def residual_features(
    patch_shape: tuple[int, int, int],
    filters: Sequence[int] = (32, 32, 32, 32),
    strides: Sequence[int] = (1, 2, 2, 2),
    first_stride: int = 1,
    center: bool = True,
) -> keras.Model:
    """Build a pre-activation residual network with features of unit norm.

    The feature network of the paper's speed-limit experiment, which has three blocks, of
    stride 2. Features of equal norm make the attention the sampling distribution of
    least variance.

    Args:
        patch_shape: (height, width, channels) of the patches, pixels 0 to 255.
        filters: channels of each residual block.
        strides: stride of each residual block.
        first_stride: stride of the convolution before the blocks; 2 leaves a quarter of
            the pixels to the blocks, for patches whose detail allows it.
        center: batch-normalize the features before the norm, so that they differ in
            direction instead of having one in common. Not in the paper.

    Returns:
        Model from patches (batch, height, width, channels) to features
        (batch, filters[-1]) of unit L2 norm.

    Example:

    >>> network = residual_features((100, 100, 3))
    >>> tuple(network(keras.ops.zeros((2, 100, 100, 3))).shape)
    (2, 32)

    Reference:
        Katharopoulos and Fleuret 2019, sections 3.2.1 and 4.4; He et al. 2016, *Identity
        mappings in deep residual networks*.
    """
    patch = keras.Input(patch_shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(patch)
    x = residual_stack(x, filters, strides, first_stride)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(patch, _unit_norm(x, center), name="feature")


def residual_stack(
    x: Any, filters: Sequence[int], strides: Sequence[int], first_stride: int
) -> Any:
    """Apply a convolution and pre-activation residual blocks, as ``residual_features``."""
    x = convolution(x, filters[0], stride=first_stride)
    for width, stride in zip(filters, strides, strict=True):
        activated = _activation(x)
        if stride > 1 or x.shape[-1] != width:
            x = convolution(activated, width, size=1, stride=stride)
        residual = convolution(activated, width, stride=stride)
        residual = convolution(_activation(residual), width)
        x = keras.layers.Add()([x, residual])
    return _activation(x)


def megapixel_mnist_features(
    patch_shape: tuple[int, int, int], center: bool = False
) -> keras.Model:
    """Build the feature network of the paper's Megapixel MNIST experiment.

    Four convolutions without padding, the largest response of each filter anywhere in
    the patch, and unit norm: small, and indifferent to where in the patch the digit is.

    Args:
        patch_shape: (height, width, channels) of the patches, at least 13 pixels each
            way, pixels 0 to 255.
        center: as in ``residual_features``.

    Returns:
        Model from patches (batch, height, width, channels) to features (batch, 32) of
        unit L2 norm.

    Example:

    >>> network = megapixel_mnist_features((50, 50, 1))
    >>> tuple(network(keras.ops.zeros((2, 50, 50, 1))).shape)
    (2, 32)

    Reference:
        Katharopoulos and Fleuret 2019, section 4.2; LeCun et al. 1995, *Comparison of
        learning algorithms for handwritten digit recognition*, LeNet-1.
    """
    patch = keras.Input(patch_shape)
    x = keras.layers.Rescaling(1 / 255)(patch)
    for size in (7, 3, 3, 3):
        x = keras.layers.Conv2D(32, size, activation="relu")(x)
    # `MaxPooling2D` is faster, but of windows of 256 pixels and more TensorFlow 2.21 on
    # CPUs loses half of the gradient in bfloat16.
    x = keras.layers.GlobalMaxPooling2D()(x)
    return keras.Model(patch, _unit_norm(x, center), name="feature")


def colon_cancer_features(
    patch_shape: tuple[int, int, int], center: bool = False
) -> keras.Model:
    """Build the feature network of the paper's colon cancer experiment.

    That of Ilse et al. for the same images: two convolutions with pooling, two dense
    layers, and unit norm.

    Args:
        patch_shape: (height, width, channels) of the patches, at least 11 pixels each
            way, pixels 0 to 255.
        center: as in ``residual_features``.

    Returns:
        Model from patches (batch, height, width, channels) to features (batch, 512) of
        unit L2 norm.

    Example:

    >>> network = colon_cancer_features((27, 27, 3))
    >>> tuple(network(keras.ops.zeros((2, 27, 27, 3))).shape)
    (2, 512)

    Reference:
        Katharopoulos and Fleuret 2019, section 4.3; Ilse et al. 2018, *Attention-based
        deep multiple instance learning*, appendix.
    """
    patch = keras.Input(patch_shape)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(patch)
    for filters, size in ((36, 4), (48, 3)):
        x = keras.layers.Conv2D(filters, size, activation="relu")(x)
        x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    for _ in range(2):
        x = keras.layers.Dense(512, activation="relu")(x)
    return keras.Model(patch, _unit_norm(x, center), name="feature")


def _three_convolutions(rescaling, channels):
    view = keras.Input((None, None, channels))
    x = rescaling(view)
    for _ in range(2):
        x = keras.layers.Conv2D(8, 3, padding="same", activation="tanh")(x)
    x = keras.layers.Conv2D(1, 3, padding="same")(x)
    attention = SampleSoftmax(True, smooth=1e-5)(x)
    return keras.Model(view, attention, name="attention")


def _unit_norm(x, center):
    if center:
        x = _normalization(x)
    # Under mixed precision too: rounded norms are no longer equal.
    return keras.layers.UnitNormalization(dtype="float32")(x)


def _activation(x):
    return keras.layers.ReLU()(_normalization(x))


def _normalization(x):
    # Patches change with the attention: statistics must follow within tens of steps.
    return keras.layers.BatchNormalization(momentum=0.9)(x)


def convolution(x: Any, filters: int, size: int = 3, stride: int = 1) -> Any:
    """Apply a convolution without bias, for what is normalized before or after it."""
    return keras.layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)
