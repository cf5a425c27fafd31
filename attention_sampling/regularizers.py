"""Regularizers of the attention distribution."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="attention_sampling")
class MultinomialEntropy(keras.regularizers.Regularizer):
    """Regularizer that raises the entropy of an attention map.

    It is ``strength * sum(a log(a + eps)) / batch``: the negative entropy in nats,
    averaged over the batch, in float32 at least. Hand it to
    ``attention_sampling(attention_regularizer=...)`` or to ``ActivityRegularizer``. The
    ``activity_regularizer`` argument of Keras' own layers divides by the batch size once
    more (in releases since January 2026): there, multiply the strength by it.

    ``multinomial_entropy`` is another name for it.

    Args:
        strength: factor, lambda in the paper; positive raises the entropy, so that the
            attention keeps exploring, negative lowers it.
        eps: added inside the logarithm, which would be infinite at 0; positive.

    Call arguments:
        x: (batch, ...) float tensor that sums to 1 for each sample.

    Raises:
        ValueError: ``strength`` is not finite, or ``eps`` not positive.

    Example:

    >>> regularizer = MultinomialEntropy(strength=1.0)
    >>> round(float(regularizer(keras.ops.full((3, 10, 10), 0.01))), 3)
    -4.605

    Reference:
        Katharopoulos and Fleuret 2019, eq. 21.
    """

    def __init__(self, strength=1.0, eps=1e-6):
        if not math.isfinite(strength):
            raise ValueError(
                f"`strength` must be a finite number. Received: strength={strength}"
            )
        if eps <= 0:
            raise ValueError(f"`eps` must be positive. Received: eps={eps}")
        self.strength = strength
        self.eps = eps

    def __call__(self, x):
        dtype = keras.backend.result_type(x.dtype, "float32")
        attention = ops.cast(x, dtype)
        batch = ops.cast(ops.shape(attention)[0], dtype)
        total = ops.sum(attention * ops.log(attention + self.eps))
        return self.strength * total / batch

    def get_config(self):
        return {"strength": self.strength, "eps": self.eps}


multinomial_entropy = MultinomialEntropy
