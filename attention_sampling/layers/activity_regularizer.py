"""Attach a regularizer to a tensor inside a model."""

import keras


@keras.saving.register_keras_serializable(package="attention_sampling")
class ActivityRegularizer(keras.layers.Layer):
    """Add ``regularizer(inputs)`` to the loss and hand the inputs on unchanged.

    Use it for regularizers that normalise by the batch themselves, such as
    ``MultinomialEntropy``. The ``activity_regularizer`` argument of Keras' own layers
    divides by the batch size once more (in releases since January 2026; before, it did not), so
    the same strength would mean something else there.

    Args:
        regularizer: callable from the inputs to a scalar loss, or whatever
            ``keras.regularizers.get`` understands. To be saved with a model it must be
            a registered Keras serializable.

    Input shape:
        Any.

    Output shape:
        That of the input.

    Raises:
        TypeError: ``regularizer`` is not callable.

    Example:

    >>> from attention_sampling import MultinomialEntropy
    >>> layer = ActivityRegularizer(MultinomialEntropy(strength=1.0))
    >>> attention = layer(keras.ops.full((2, 5, 5), 0.04))
    >>> round(float(layer.losses[0]), 3)
    -3.219

    Reference:
        Katharopoulos and Fleuret 2019, eq. 21.
    """

    def __init__(self, regularizer, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.regularizer = keras.regularizers.get(regularizer)
        if not callable(self.regularizer):
            raise TypeError(
                "`regularizer` must be a callable from a tensor to a scalar loss, such "
                f"as MultinomialEntropy(0.01). Received: regularizer={regularizer!r}"
            )

    def call(self, inputs):
        self.add_loss(self.regularizer(inputs))
        return inputs

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "regularizer": keras.saving.serialize_keras_object(self.regularizer),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["regularizer"] = keras.saving.deserialize_keras_object(
            config["regularizer"]
        )
        return cls(**config)
