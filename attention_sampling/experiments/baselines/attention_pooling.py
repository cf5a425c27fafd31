"""Pooling by an attention that looks at the features themselves."""

import keras
from keras import ops

from attention_sampling.checks import check_count


@keras.saving.register_keras_serializable(package="attention_sampling")
class AttentionPooling(keras.layers.Layer):
    """Average the features of all patches, weighted by an attention on the features.

    The attention of Deep MIL. Unlike attention sampling it needs the features of every
    patch before it knows which of them count. Softmax and average are computed in
    float32 at least, also under mixed precision.

    Args:
        units: dimension of the hidden layer of the attention.
        gated: multiply the hidden layer by a sigmoid gate of the same size.

    Input shape:
        (batch, count, dim) features, any float dtype.

    Output shape:
        ``[pooled, attention]``: (batch, dim) and (batch, count), float32 at least. The
        attention of each sample sums to 1.

    Raises:
        ValueError: ``units`` is not positive; an input of another rank, or of unknown
            dimension.

    Example:

    >>> features = keras.ops.ones((2, 2500, 512))
    >>> pooled, attention = AttentionPooling()(features)
    >>> tuple(pooled.shape), tuple(attention.shape)
    ((2, 512), (2, 2500))

    Reference:
        Ilse et al. 2018, *Attention-based deep multiple instance learning*, eq. 7 to 9.
    """

    def __init__(self, units=128, gated=False, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.units = check_count("units", units, smallest=1)
        self.gated = bool(gated)

    def build(self, input_shape):
        self.compute_output_shape(input_shape)
        shape = (input_shape[-1], self.units)
        self.hidden_kernel = self.add_weight(shape, name="hidden_kernel")
        if self.gated:
            self.gate_kernel = self.add_weight(shape, name="gate_kernel")
        self.score_kernel = self.add_weight((self.units, 1), name="score_kernel")
        self.built = True

    def call(self, inputs):
        features = ops.cast(inputs, self.compute_dtype)
        hidden = ops.tanh(self._project(features, self.hidden_kernel))
        if self.gated:
            hidden = hidden * ops.sigmoid(self._project(features, self.gate_kernel))
        scores = self._project(hidden, self.score_kernel)[..., 0]
        dtype = self._dtype(inputs)
        attention = ops.softmax(ops.cast(scores, dtype), axis=-1)
        pooled = ops.matmul(attention[:, None], ops.cast(inputs, dtype))[:, 0]
        return [pooled, attention]

    def _project(self, x, kernel):
        return ops.matmul(x, ops.cast(kernel, self.compute_dtype))

    def _dtype(self, inputs):
        return keras.backend.result_type(inputs.dtype, "float32")

    def compute_output_spec(self, inputs):
        shapes = self.compute_output_shape(inputs.shape)
        return [keras.KerasTensor(shape, self._dtype(inputs)) for shape in shapes]

    def compute_output_shape(self, input_shape):
        if len(input_shape) != 3 or input_shape[-1] is None:
            raise ValueError(
                "Attention pooling needs one vector a patch. Expected: inputs of shape "
                "(batch, count, dim), dim known. "
                f"Received: inputs.shape={tuple(input_shape)}"
            )
        batch, count, dim = input_shape
        return [(batch, dim), (batch, count)]

    def get_config(self):
        return {**super().get_config(), "units": self.units, "gated": self.gated}
