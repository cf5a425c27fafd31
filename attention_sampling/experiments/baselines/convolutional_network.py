"""A residual network on the whole image."""

from collections.abc import Sequence

import keras

from attention_sampling.experiments import networks
from attention_sampling.experiments.baselines.area_downsampling import AreaDownsampling


def convolutional_network(
    image_shape: tuple[int, int, int],
    scale: float = 1.0,
    filters: Sequence[int] = (32, 32, 32),
    strides: Sequence[int] = (2, 2, 2),
    first_stride: int = 1,
    dtype: str = "uint8",
    name: str = "cnn",
) -> keras.Model:
    """Build a residual network that looks at a whole image, made smaller or not.

    The baseline CNN of the paper. The defaults are the feature network of its
    speed-limit experiment, on the image in place of a patch and without unit norm.

    Args:
        image_shape: (height, width, channels) of the images, pixels 0 to 255.
        scale: of the image that the network sees to the one it is given, above 0 and at
            most 1. See ``AreaDownsampling``.
        filters: channels of each residual block.
        strides: stride of each residual block.
        first_stride: stride of the convolution before the blocks; 2 leaves a quarter of
            the pixels, and of the memory, to all that follows.
        dtype: of the images. Keras converts those of another one to it: floats to uint8
            lose their fractions.
        name: name of the model.

    Returns:
        Model from images (batch, height, width, channels) of that dtype to features
        (batch, filters[-1]), their norm as it is.

    Raises:
        ValueError: ``scale`` out of range, or other numbers of filters and of strides.

    Example:

    >>> network = convolutional_network((60, 80, 3), scale=0.5)
    >>> tuple(network(keras.ops.zeros((2, 60, 80, 3), dtype="uint8")).shape)
    (2, 32)

    Reference:
        Katharopoulos and Fleuret 2019, section 4.1.1; He et al. 2016, *Identity mappings
        in deep residual networks*.
    """
    image = keras.Input(image_shape, dtype=dtype)
    x = image if scale == 1 else AreaDownsampling(scale)(image)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = networks.residual_stack(x, filters, strides, first_stride)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x), name=name)
