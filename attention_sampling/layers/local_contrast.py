"""Local contrast of a view: where there is something at all."""

import keras
from keras import ops

from attention_sampling.checks import check_images, check_pair
from attention_sampling.ops.geometry import means_around


@keras.saving.register_keras_serializable(package="attention_sampling")
class LocalContrast(keras.layers.Layer):
    """Standard deviation of a view over a window around each pixel.

    A saliency for ``attention_sampling(proposal=LocalContrast())``: it tells empty
    background from what holds something, costs next to nothing, and has no weights.
    Where images have several channels, it is the root of their mean variance.

    Args:
        window: height and width of the window in pixels of the view, one int or two.
            About the size of what is looked for.

    Input shape:
        (batch, height, width, channels), any float or integer dtype.

    Output shape:
        (batch, height, width), float32 at least. At the border, pixels outside count as
        the nearest inside.

    Raises:
        ValueError: ``window`` is not positive, or the input is no batch of images.

    Example:

    >>> views = keras.ops.zeros((1, 20, 30, 3))
    >>> tuple(LocalContrast(window=5)(views).shape)
    (1, 20, 30)
    """

    def __init__(self, window=5, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.window = check_pair("window", window)

    def call(self, inputs):
        self.compute_output_shape(inputs.shape)
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        x = ops.cast(inputs, dtype)
        # Differences from the mean of the image: squares of raw pixels would lose in
        # float32 what distinguishes them.
        x = x - ops.mean(x, axis=(1, 2), keepdims=True)
        x = ops.concatenate([x, x * x], axis=-1)
        mean, mean_square = ops.split(means_around(x, self.window), 2, axis=-1)
        variance = ops.mean(ops.maximum(mean_square - mean * mean, 0.0), axis=-1)
        # The gradient of the root is infinite at 0: of a constant view it is 0 instead.
        varies = variance > 0
        return ops.where(varies, ops.sqrt(ops.where(varies, variance, 1.0)), 0.0)

    def compute_output_spec(self, inputs):
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=dtype)

    def compute_output_shape(self, input_shape):
        check_images("inputs", tuple(input_shape))
        return tuple(input_shape[:3])

    def get_config(self):
        return {**super().get_config(), "window": self.window}
