"""The expected feature under the attention distribution, from a few sampled cells."""

import keras
from keras import ops

from attention_sampling.checks import (
    check_choice,
    check_flag,
    check_inputs,
    common_batch,
)
from attention_sampling.layers.sample_patches import SamplePatches
from attention_sampling.ops import estimators

_INPUTS = ("features", "sampled_attention")
_OPTIONAL = ("sampled_proposal",)


@keras.saving.register_keras_serializable(package="attention_sampling")
class Expectation(keras.layers.Layer):
    """Estimate the attention-weighted sum of all features from the sampled ones.

    Value, gradient with respect to the features and gradient with respect to the
    attention are all unbiased: on average over the samples they equal those of the full
    model, which would process every cell. The exceptions are cells from a proposal with
    ``self_normalize``, and ``prediction="top_k"``. It computes in float32 at least, also
    under mixed precision.

    Args:
        replace: whether the cells were sampled with replacement. Must be that of
            ``SamplePatches``.
        estimator: without replacement, ``"unordered"`` (the default) or ``"ordered"``,
            that of the paper, which has more variance. The latter needs the attention in
            sampling order, as ``SamplePatches`` gives it.
        control_variate: take from each feature, in the gradient of the attention alone,
            what the other sampled cells say the sum is. It changes nothing on average, and
            takes out most of the noise of that gradient where features share a large
            mean. A regularizer of the attention then counts for more: make it weaker.
            Not with ``"ordered"``; for a single patch there is none. None for True if
            the cells come from a proposal, and else False.
        prediction: outside training, ``"sample"`` to estimate as in training, or
            ``"top_k"`` for the attention-weighted mean of the cells of most attention,
            which ``SamplePatches(prediction="top_k")`` takes then. Must be that of
            ``SamplePatches``.
        self_normalize: where cells came from a proposal, divide by the weights' sum: a
            bias of the order of 1 / n_patches for much less variance.

    Input shape:
        ``[features, sampled_attention]``: (batch, n_patches, ...) and
        (batch, n_patches). ``n_patches`` must be known. If the cells were sampled from a
        proposal, a third input, ``sampled_proposal`` (batch, n_patches).

    Output shape:
        (batch, ...), float32.

    Raises:
        ValueError: arguments that exclude each other; ranks or number of patches that do
            not match; different batch; in a functional model, other settings than those
            of the ``SamplePatches`` layer that sampled the cells.

    Example:

    >>> features = keras.ops.array([[[1.0, 0.0], [0.0, 1.0]]])
    >>> sampled_attention = keras.ops.array([[0.6, 0.2]])
    >>> expected = Expectation()([features, sampled_attention])
    >>> keras.ops.convert_to_numpy(expected).round(3)
    array([[0.667, 0.333]], dtype=float32)

    Reference:
        Katharopoulos and Fleuret 2019, eq. 4 and 12 (with replacement), eq. 14-17
        (ordered); Murthy 1957 and Kool et al. 2020 (arXiv 2002.06043) (unordered and the
        control variates).
    """

    def __init__(
        self,
        replace=False,
        *,
        estimator=None,
        control_variate=None,
        prediction="sample",
        self_normalize=True,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.replace = check_flag("replace", replace)
        self.estimator = check_choice(
            "estimator", estimator, (None, "ordered", "unordered")
        )
        if replace and estimator is not None:
            raise ValueError(
                "`estimator` chooses between estimators without replacement. "
                f"Leave it out, or set replace=False. Received: estimator={estimator!r}, "
                f"replace={replace}"
            )
        self.control_variate = control_variate
        if control_variate is not None:
            self.control_variate = check_flag("control_variate", control_variate)
        if control_variate and estimator == "ordered":
            raise ValueError(
                "The ordered estimator has no control variate. Use "
                "estimator='unordered'. Received: control_variate=True, "
                "estimator='ordered'"
            )
        self.prediction = check_choice("prediction", prediction, ("sample", "top_k"))
        self.self_normalize = check_flag("self_normalize", self_normalize)

    def call(self, inputs, training=None):
        inputs = check_inputs(inputs, *_INPUTS, optional=_OPTIONAL)
        self.compute_output_shape([x.shape for x in inputs])
        dtype = keras.backend.result_type(*(x.dtype for x in inputs), "float32")
        inputs = [ops.cast(x, dtype) for x in inputs]
        return self._estimate(*inputs, training=training)

    def sampling_weights(self, sampled_attention, sampled_proposal=None, training=None):
        """Return the weights c_s of sampled cells.

        Args:
            sampled_attention: (batch, n_patches) float tensor.
            sampled_proposal: (batch, n_patches) float tensor, None if the cells were
                sampled from the attention.
            training: whether the model is being trained.

        Returns:
            (batch, n_patches) tensor, constant for the gradient.
        """
        if self.prediction == "top_k" and not training:
            return estimators.top_k_weights(sampled_attention)
        proposed = sampled_proposal is not None
        probabilities = sampled_proposal if proposed else sampled_attention
        if self.replace:
            weights = estimators.with_replacement_weights(probabilities)
        elif self.estimator == "ordered":
            weights = estimators.ordered_weights(probabilities)
        else:
            weights = estimators.unordered_weights(probabilities)
        if proposed and self.self_normalize:
            weights = estimators.normalized_weights(weights, sampled_attention)
        return weights

    def _estimate(self, features, sampled_attention, *proposal, training):
        weights = self.sampling_weights(sampled_attention, *proposal, training=training)
        control_variate = None
        if self._has_control_variate(features.shape[1], bool(proposal), training):
            leave_one_out = (
                estimators.with_replacement_leave_one_out
                if self.replace
                else estimators.unordered_leave_one_out
            )
            control_variate = estimators.control_variate(
                features,
                sampled_attention,
                leave_one_out(*proposal or [sampled_attention]),
                normalize=bool(proposal) and self.self_normalize,
            )
        return estimators.weighted_sum(
            features, sampled_attention, weights, control_variate
        )

    def _has_control_variate(self, n_patches, proposed, training):
        top_k = self.prediction == "top_k" and not training
        if n_patches == 1 or top_k or self.estimator == "ordered":
            return False
        return proposed if self.control_variate is None else self.control_variate

    def compute_output_spec(self, inputs, training=None):
        inputs = check_inputs(inputs, *_INPUTS, optional=_OPTIONAL)
        self._check_source(inputs)
        shape = self.compute_output_shape([x.shape for x in inputs])
        dtype = keras.backend.result_type(*(x.dtype for x in inputs), "float32")
        return keras.KerasTensor(shape, dtype=dtype)

    def compute_output_shape(self, input_shape):
        input_shape = check_inputs(input_shape, *_INPUTS, optional=_OPTIONAL)
        features, sampled_attention, *proposal = map(tuple, input_shape)
        if (
            len(sampled_attention) != 2
            or len(features) < 3
            or features[1] is None
            or features[1] != sampled_attention[1]
            or (proposal and proposal[0][1:] != sampled_attention[1:])
        ):
            received = [f"features.shape={features}"]
            received += [f"sampled_attention.shape={sampled_attention}"]
            received += [f"sampled_proposal.shape={shape}" for shape in proposal]
            raise ValueError(
                "Expectation needs features of shape (batch, n_patches, dim) and their "
                "attention of shape (batch, n_patches), with the same n_patches; so, too, "
                f"their proposal, if there is one. Received: {', '.join(received)}"
            )
        batch = common_batch(features=features, sampled_attention=sampled_attention)
        return (batch, *features[2:])

    def _check_source(self, inputs):
        """Refuse cells that were sampled in another way, where a model can tell."""
        history = getattr(inputs[1], "_keras_history", None)
        source = getattr(history, "operation", None)
        if not isinstance(source, SamplePatches):
            return
        for name in ("replace", "prediction"):
            sampled, expected = getattr(source, name), getattr(self, name)
            if sampled != expected:
                raise ValueError(
                    f"SamplePatches and Expectation must be given the same `{name}`. "
                    "attention_sampling() sets both. Received: "
                    f"SamplePatches({name}={sampled!r}), Expectation({name}={expected!r})"
                )
        if source.has_proposal and len(inputs) == 2:
            raise ValueError(
                "The cells were sampled from a proposal. Pass it on as a third input, "
                "[features, sampled_attention, sampled_proposal]. Received: 2 inputs"
            )

    def get_config(self):
        return {
            **super().get_config(),
            "replace": self.replace,
            "estimator": self.estimator,
            "control_variate": self.control_variate,
            "prediction": self.prediction,
            "self_normalize": self.self_normalize,
        }
