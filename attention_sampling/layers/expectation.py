"""The expected feature under the attention distribution, from a few drawn cells."""

import keras
from keras import ops

from attention_sampling.checks import check_inputs, common_batch
from attention_sampling.estimators import (
    ordered_weights,
    weighted_sum,
    with_replacement_weights,
)

_INPUTS = ("features", "sampled_attention")


@keras.saving.register_keras_serializable(package="attention_sampling")
class Expectation(keras.layers.Layer):
    """Estimate the attention-weighted sum of all features from the drawn ones.

    Value, gradient with respect to the features and gradient with respect to the
    attention are all unbiased: on average over the draws they equal those of the full
    model, which would process every cell. It computes in float32 at least, also under
    mixed precision.

    Args:
        replace: whether the cells were drawn with replacement. Must be that of
            ``SamplePatches``. If False, the estimator of the paper for draws without
            replacement is used, and the attention must be in drawing order, as
            ``SamplePatches`` gives it.

    Input shape:
        ``[features, sampled_attention]``: (batch, n_patches, ...) and
        (batch, n_patches). ``n_patches`` must be known.

    Output shape:
        (batch, ...), float32.

    Raises:
        ValueError: ranks or number of patches that do not match; different batch.

    Example:

    >>> features = keras.ops.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> sampled_attention = keras.ops.array([[0.6, 0.2]])
    >>> expected = Expectation()([features, sampled_attention])
    >>> keras.ops.convert_to_numpy(expected).round(3)
    array([[0.8, 0.2]], dtype=float32)

    Reference:
        Katharopoulos and Fleuret 2019, eq. 4 and 12 (with replacement), eq. 14-17
        (without).
    """

    def __init__(self, replace=False, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.replace = replace

    def call(self, inputs):
        features, sampled_attention = check_inputs(inputs, *_INPUTS)
        self.compute_output_shape([features.shape, sampled_attention.shape])
        dtype = keras.backend.result_type(
            features.dtype, sampled_attention.dtype, "float32"
        )
        features = ops.cast(features, dtype)
        sampled_attention = ops.cast(sampled_attention, dtype)
        estimate = with_replacement_weights if self.replace else ordered_weights
        weights = estimate(sampled_attention)
        return weighted_sum(features, sampled_attention, weights)

    def compute_output_spec(self, inputs):
        features, sampled_attention = check_inputs(inputs, *_INPUTS)
        shape = self.compute_output_shape([features.shape, sampled_attention.shape])
        dtype = keras.backend.result_type(
            features.dtype, sampled_attention.dtype, "float32"
        )
        return keras.KerasTensor(shape, dtype=dtype)

    def compute_output_shape(self, input_shape):
        features, sampled_attention = map(tuple, check_inputs(input_shape, *_INPUTS))
        if (
            len(sampled_attention) != 2
            or len(features) < 3
            or features[1] is None
            or features[1] != sampled_attention[1]
        ):
            raise ValueError(
                "Expectation needs features of shape (batch, n_patches, dim) and their "
                "attention of shape (batch, n_patches), with the same n_patches. "
                f"Received: features.shape={features}, "
                f"sampled_attention.shape={sampled_attention}"
            )
        batch = common_batch(features=features, sampled_attention=sampled_attention)
        return (batch, *features[2:])

    def get_config(self):
        return {**super().get_config(), "replace": self.replace}
