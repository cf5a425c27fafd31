"""Uniform sampling: an attention that looks everywhere alike."""

import keras
from keras import ops

from attention_sampling.checks import check_images, check_pair


@keras.saving.register_keras_serializable(package="attention_sampling")
class UniformAttention(keras.layers.Layer):
    """Look everywhere alike: the baseline U-XX of the paper.

    It stands in for the attention network, and shows whether a learned attention is
    better than random windows.

    Args:
        map_size: (rows, columns) of the attention map, one int or two: that of the
            attention network it stands for. None for the size of the view.

    Input shape:
        (batch, low_height, low_width, channels) view, any dtype.

    Output shape:
        (batch, rows, columns) float32, the uniform distribution.

    Example:

    >>> attention = UniformAttention()(keras.ops.zeros((1, 4, 5, 1)))
    >>> round(float(attention[0, 2, 3]), 3)
    0.05

    Reference:
        Katharopoulos and Fleuret 2019, section 4.1.1.
    """

    def __init__(self, map_size=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.map_size = None if map_size is None else check_pair("map_size", map_size)

    def call(self, inputs):
        shape = self.compute_output_shape(ops.shape(inputs))
        cells = ops.cast(shape[1] * shape[2], "float32")
        return ops.ones(shape, dtype="float32") / cells

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), "float32")

    def compute_output_shape(self, input_shape):
        check_images("inputs", tuple(input_shape))
        return (input_shape[0], *(self.map_size or input_shape[1:3]))

    def get_config(self):
        return {**super().get_config(), "map_size": self.map_size}
