"""The patches of all samples as one batch, and back again."""

import keras
from keras import ops

from attention_sampling.checks import check_inputs

_INPUTS = ("features", "sampled_attention")


def fold_patches(patches):
    """Return the patches of all samples as one batch for a feature network.

    Args:
        patches: (batch, n_patches, patch_height, patch_width, channels) tensor.

    Returns:
        (batch x n_patches, patch_height, patch_width, channels) tensor of floats;
        integer pixels become floats of the same values.
    """
    folded = ops.reshape(patches, (-1, *patches.shape[2:]))
    if "int" in keras.backend.standardize_dtype(folded.dtype):
        folded = ops.cast(folded, keras.config.floatx())
    return folded


@keras.saving.register_keras_serializable(package="attention_sampling")
class UnfoldPatches(keras.layers.Layer):
    """Give features back the axis of patches they were computed without.

    A feature network takes the patches of all samples as one batch. Their number a
    sample may differ between training and prediction, so it is read off the attention.

    Input shape:
        ``[features, sampled_attention]``: (batch x n_patches, ...) and
        (batch, n_patches).

    Output shape:
        (batch, n_patches, ...).

    Example:

    >>> features, sampled_attention = keras.ops.zeros((6, 4)), keras.ops.zeros((2, 3))
    >>> tuple(UnfoldPatches()([features, sampled_attention]).shape)
    (2, 3, 4)
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs):
        features, sampled_attention = check_inputs(inputs, *_INPUTS)
        n_patches = ops.shape(sampled_attention)[1]
        return ops.reshape(features, (-1, n_patches, *features.shape[1:]))

    def compute_output_spec(self, inputs):
        features, sampled_attention = check_inputs(inputs, *_INPUTS)
        shape = self.compute_output_shape([features.shape, sampled_attention.shape])
        return keras.KerasTensor(shape, dtype=features.dtype)

    def compute_output_shape(self, input_shape):
        features, sampled_attention = check_inputs(input_shape, *_INPUTS)
        return (*sampled_attention, *features[1:])
