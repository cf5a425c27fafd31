"""A residual network on the whole image, made smaller or not."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from attention_sampling.checks import check_images
from attention_sampling.experiments import networks


def convolutional_network(
    image_shape: tuple[int, int, int],
    scale: float = 1.0,
    filters: Sequence[int] = (32, 32, 32),
    strides: Sequence[int] = (2, 2, 2),
    first_stride: int = 1,
) -> keras.Model:
    """Build a residual network that looks at a whole image: the baseline CNN.

    The defaults are the feature network of the speed-limit experiment, on the image in
    place of a patch and without unit norm.

    Args:
        image_shape: (height, width, channels) of the images, pixels 0 to 255.
        scale: of the image that the network sees, see ``AreaDownsampling``.
        filters: channels of each residual block.
        strides: stride of each residual block.
        first_stride: stride of the convolution before the blocks; 2 leaves a quarter of
            the pixels, and of the memory, to all that follows.

    Returns:
        Model from images (batch, height, width, channels) uint8 to features (batch,
        filters[-1]), their norm as it is.

    Example:

    >>> network = convolutional_network((60, 80, 3), scale=0.5)
    >>> tuple(network(keras.ops.zeros((2, 60, 80, 3), dtype="uint8")).shape)
    (2, 32)

    Reference:
        Katharopoulos and Fleuret 2019, section 4.1.1; He et al. 2016, *Identity mappings
        in deep residual networks*.
    """
    image = keras.Input(image_shape, dtype="uint8")
    x = image if scale == 1 else AreaDownsampling(scale)(image)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = networks.residual_stack(x, filters, strides, first_stride)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x), name="cnn")


@keras.saving.register_keras_serializable(package="attention_sampling")
class AreaDownsampling(keras.layers.Layer):
    """Make images smaller: each new pixel is the mean of the area it covers.

    Pixels that it covers in part count by the fraction covered; no detail is skipped,
    whatever the scale. Computed in float32.

    Args:
        scale: new height and width over the old, above 0 and at most 1. The new ones
            are rounded to whole pixels.

    Input shape:
        (batch, height, width, channels) images of any dtype, height and width known.

    Output shape:
        (batch, round(scale height), round(scale width), channels) float32, each at least
        1 pixel.

    Example:

    >>> images = keras.ops.reshape(keras.ops.arange(10), (1, 1, 10, 1))
    >>> keras.ops.convert_to_numpy(AreaDownsampling(0.2)(images)).ravel().tolist()
    [2.0, 7.0]
    """

    def __init__(self, scale, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not 0 < scale <= 1:
            raise ValueError(
                "`scale` must make images smaller. Expected: a number above 0 and at "
                f"most 1. Received: scale={scale!r}"
            )
        self.scale = float(scale)

    def call(self, inputs):
        _, rows, columns, channels = self.compute_output_shape(inputs.shape)
        height, width = inputs.shape[1:3]
        x = ops.cast(inputs, "float32")
        # The weights repeat after a few pixels, 10 for a scale of 0.3: a small product
        # for each block in place of a large, mostly empty one.
        weights = _block_weights(height, rows)
        x = ops.reshape(x, (-1, weights.shape[1], width * channels))
        x = ops.matmul(weights, x)
        weights = np.kron(_block_weights(width, columns).T, np.eye(channels, dtype="f"))
        x = ops.matmul(ops.reshape(x, (-1, weights.shape[0])), weights)
        return ops.reshape(x, (-1, rows, columns, channels))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), "float32")

    def compute_output_shape(self, input_shape):
        check_images("inputs", tuple(input_shape))
        if None in input_shape[1:]:
            raise ValueError(
                "Area means need images of a known size. Expected: inputs of shape "
                "(batch, height, width, channels), None for the batch alone. "
                f"Received: inputs.shape={tuple(input_shape)}"
            )
        batch, height, width, channels = input_shape
        rows, columns = (max(1, round(self.scale * size)) for size in (height, width))
        return (batch, rows, columns, channels)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def _block_weights(old, new):
    """Return (new, old) weights of each old pixel in each new one, less what repeats.

    Both extents are divided by their greatest common divisor.
    """
    blocks = math.gcd(old, new)
    old, new = old // blocks, new // blocks
    row, pixel = np.arange(new)[:, None], np.arange(old)
    # In whole numbers: a new pixel is `old` long, an old one `new`.
    ends = np.minimum((row + 1) * old, (pixel + 1) * new)
    covered = np.maximum(ends - np.maximum(row * old, pixel * new), 0)
    return (covered / old).astype("f")
