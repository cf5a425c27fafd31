"""Images at a smaller scale."""

import math
from fractions import Fraction

import keras
import numpy as np
from keras import ops

from attention_sampling.checks import check_images


@keras.saving.register_keras_serializable(package="attention_sampling")
class AreaDownsampling(keras.layers.Layer):
    """Average images over the area of each pixel of a smaller image.

    Each new pixel is the mean of what it covers, counting pixels that it covers in part
    by their share; no detail is skipped, whatever the scale. Computed in float32.

    Args:
        scale: of the new height and width to the old, above 0 and at most 1. They are
            rounded to whole pixels.

    Input shape:
        (batch, height, width, channels) images of any dtype, height and width known.

    Output shape:
        (batch, round(scale height), round(scale width), channels) float32, each at least
        1 pixel.

    Raises:
        ValueError: ``scale`` outside its range; an input that is no batch of
            channels-last images, or whose height, width or channels are not known.

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
        # The shares repeat after a few pixels, 10 for a scale of 0.3: a small product a
        # block in place of a large, mostly empty one.
        shares = _block_shares(height, rows)
        x = ops.reshape(x, (-1, shares.shape[1], width * channels))
        x = ops.matmul(shares, x)
        shares = np.kron(_block_shares(width, columns).T, np.eye(channels, dtype="f"))
        x = ops.matmul(ops.reshape(x, (-1, shares.shape[0])), shares)
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


def _block_shares(old, new):
    """Return (new, old) shares of each old pixel in each new one, less what repeats.

    Both extents are divided by their greatest common divisor.
    """
    blocks = math.gcd(old, new)
    old, new = old // blocks, new // blocks
    covered = Fraction(old, new)
    pixel = np.arange(old)
    shares = [
        np.minimum((row + 1) * covered, pixel + 1) - np.maximum(row * covered, pixel)
        for row in range(new)
    ]
    return (np.maximum(np.array(shares, "float64"), 0) / float(covered)).astype("f")
