"""Softmax over all cells of a map."""

import math

import keras
from keras import ops

from attention_sampling.checks import check_flag, check_fraction


@keras.saving.register_keras_serializable(package="attention_sampling")
class SampleSoftmax(keras.layers.Layer):
    """Turn scores into one distribution over all non-batch axes: an attention map.

    Use it as the last layer of an attention network. It computes in float32 at least,
    also under mixed precision.

    Args:
        squeeze_channels: drop a last axis of size 1, so that the scores of a
            convolution with one filter become a (batch, rows, columns) map.
        smooth: fraction of the uniform distribution mixed in, from 0 to 1:
            ``(1 - smooth) * softmax + smooth / cells``. It keeps every cell possible,
            so that training does not stop looking too early.

    Input shape:
        (batch, ...); with ``squeeze_channels`` (batch, ..., 1).

    Output shape:
        That of the input, less the last axis if ``squeeze_channels``; float32, and
        the values of each sample sum to 1.

    Raises:
        ValueError: ``smooth`` outside 0 to 1; an input without non-batch axes; a last
            axis that is not 1 where ``squeeze_channels`` is set.

    Example:

    >>> scores = keras.ops.zeros((2, 4, 5, 1))
    >>> attention = SampleSoftmax(squeeze_channels=True)(scores)
    >>> tuple(attention.shape)
    (2, 4, 5)
    >>> round(float(attention[0, 0, 0]), 4)
    0.05

    Reference:
        Katharopoulos and Fleuret 2019, section 3.1.
    """

    def __init__(self, squeeze_channels=False, smooth=0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.squeeze_channels = check_flag("squeeze_channels", squeeze_channels)
        self.smooth = check_fraction("smooth", smooth)

    def call(self, inputs):
        shape = self._map_shape(ops.shape(inputs))
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        logits = ops.reshape(ops.cast(inputs, dtype), (-1, math.prod(shape[1:])))
        attention = ops.softmax(logits, axis=-1)
        if self.smooth:
            cells = ops.cast(ops.shape(attention)[1], dtype)
            attention = (1 - self.smooth) * attention + self.smooth / cells
        return ops.reshape(attention, (-1, *shape[1:]))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(
            self._map_shape(inputs.shape),
            dtype=keras.backend.result_type(inputs.dtype, "float32"),
        )

    def compute_output_shape(self, input_shape):
        return self._map_shape(input_shape)

    def _map_shape(self, shape):
        if len(shape) < 2 + self.squeeze_channels:
            expected = "(batch, ..., 1)" if self.squeeze_channels else "(batch, ...)"
            raise ValueError(
                f"{type(self).__name__} needs scores of shape {expected}, with at least "
                f"one axis of cells. Received: inputs.shape={tuple(shape)}"
            )
        if not self.squeeze_channels:
            return tuple(shape)
        if isinstance(shape[-1], int) and shape[-1] != 1:
            raise ValueError(
                "`squeeze_channels=True` needs scores with one channel; end the attention "
                f"network in a layer with one filter. Received: inputs.shape="
                f"{tuple(shape)}"
            )
        return tuple(shape[:-1])

    def get_config(self):
        return {
            **super().get_config(),
            "squeeze_channels": self.squeeze_channels,
            "smooth": self.smooth,
        }
