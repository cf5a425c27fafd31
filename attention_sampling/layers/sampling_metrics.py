"""Numbers that tell whether attention and sampling do well, as metrics of a model."""

import keras
from keras import ops

from attention_sampling.checks import check_inputs
from attention_sampling.layers.expectation import Expectation

_INPUTS = ("features", "attention", "sampled_attention")
_OPTIONAL = ("sampled_proposal",)


@keras.saving.register_keras_serializable(package="attention_sampling")
class SamplingMetrics(keras.layers.Layer):
    """Report three numbers beside the loss, and hand the features on unchanged.

    - ``attention_entropy``, nats: the logarithm of the number of cells where the
      attention is flat, 0 where one cell holds all of it.
    - ``sampled_mass``: attention that the sampled cells hold together. Of cells sampled with
      replacement, each counts as often as it was sampled.
    - ``effective_sample_size``, patches: ``1 / sum w^2`` of the normalised weights
      ``w_s = c_s a_s`` (Kish): the number of patches that the feature is in effect the
      mean of. Near 1 while ``sampled_mass`` is low, proposal and attention disagree.

    They are means over the samples of an epoch, of training and of validation.
    ``attention_sampling(metrics=True)`` reports them.

    Args:
        expectation: the ``Expectation`` layer whose weights are meant.

    Input shape:
        ``[features, attention, sampled_attention]``, the estimated features of any shape,
        the attention map (batch, rows, columns) and (batch, n_patches); if cells were
        sampled from a proposal, ``sampled_proposal`` (batch, n_patches) as well.

    Output shape:
        That of ``features``.

    Raises:
        ValueError: in training with Keras on JAX, which keeps no metrics of layers.
            Predicting works there.

    Example:

    >>> layer = SamplingMetrics(Expectation())
    >>> features, attention = keras.ops.zeros((1, 8)), keras.ops.full((1, 2, 2), 0.25)
    >>> _ = layer([features, attention, keras.ops.full((1, 2), 0.25)])
    >>> {metric.name: round(float(metric.result()), 3) for metric in layer.metrics}
    {'attention_entropy': 1.386, 'sampled_mass': 0.5, 'effective_sample_size': 2.0}
    """

    def __init__(self, expectation=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.expectation = Expectation() if expectation is None else expectation
        if keras.backend.backend() == "jax":
            return  # but for training, a model saved elsewhere works
        self.attention_entropy = keras.metrics.Mean(name="attention_entropy")
        self.sampled_mass = keras.metrics.Mean(name="sampled_mass")
        self.effective_sample_size = keras.metrics.Mean(name="effective_sample_size")

    def build(self, input_shape):
        check_inputs(input_shape, *_INPUTS, optional=_OPTIONAL)
        self.built = True

    def call(self, inputs, training=None):
        features, attention, *sampled = check_inputs(
            inputs, *_INPUTS, optional=_OPTIONAL
        )
        if keras.backend.backend() == "jax":
            if training:
                raise ValueError(
                    "Keras on JAX keeps no metrics of layers while it trains. Build the "
                    "model without `metrics`, or use another backend. "
                    "Received: KERAS_BACKEND='jax'"
                )
            return features
        attention = ops.cast(ops.stop_gradient(attention), "float32")
        sampled = [ops.cast(ops.stop_gradient(x), "float32") for x in sampled]
        self.attention_entropy.update_state(_entropy(attention))
        self.sampled_mass.update_state(ops.sum(sampled[0], axis=1))
        weights = self.expectation.sampling_weights(*sampled, training=training)
        size = _effective_sample_size(weights * sampled[0])
        self.effective_sample_size.update_state(size)
        return features

    def compute_output_spec(self, inputs, training=None):
        check_inputs(inputs, *_INPUTS, optional=_OPTIONAL)
        return keras.KerasTensor(inputs[0].shape, dtype=inputs[0].dtype)

    def compute_output_shape(self, input_shape):
        return check_inputs(input_shape, *_INPUTS, optional=_OPTIONAL)[0]

    def get_config(self):
        return {
            **super().get_config(),
            "expectation": keras.saving.serialize_keras_object(self.expectation),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["expectation"] = keras.saving.deserialize_keras_object(
            config["expectation"]
        )
        return cls(**config)


def _entropy(attention):
    """Return the (batch,) entropies in nats; a cell without attention adds nothing."""
    logarithm = ops.log(ops.where(attention > 0, attention, 1.0))
    return -ops.sum(attention * logarithm, axis=(1, 2))


def _effective_sample_size(weights):
    """Return (sum w)^2 / sum w^2 for each sample, (batch,)."""
    total = ops.sum(weights, axis=1)
    return total * total / ops.maximum(ops.sum(weights * weights, axis=1), 1e-30)
