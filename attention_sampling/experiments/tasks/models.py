"""The model of a method for a task."""

from collections.abc import Mapping
from typing import Any

import keras

from attention_sampling.checks import check_choice
from attention_sampling.experiments.baselines import (
    UniformAttention,
    convolutional_network,
    deep_mil,
)
from attention_sampling.experiments.tasks.method import Method, parse_method
from attention_sampling.experiments.tasks.task import Task
from attention_sampling.pipeline import attention_sampling
from attention_sampling.regularizers import MultinomialEntropy


def build_model(
    task: Task,
    method: Method | str,
    seed: int | None = None,
    entropy: float | None = None,
    feature_scale: float = 1.0,
    center: bool = False,
    sampling: Mapping[str, Any] | None = None,
) -> keras.Model:
    """Build the model of a method for a task.

    Args:
        task: one of ``TASKS``, or one made of it.
        method: as ``parse_method`` gives it, or its text.
        seed: of the draws; None for a random one. Weights are Keras' own business.
        entropy: strength of the entropy regularizer of the attention, 0 for none; None
            for that of the task. Of "ats": the others have none.
        feature_scale: factor of the feature before the classifier, of "ats", "u" and
            "deep-mil". Features of unit norm, averaged, move the logits little.
        center: batch-normalize the features before they get unit norm, of "ats", "u" and
            "deep-mil".
        sampling: further keywords of ``attention_sampling()``, of "ats" and "u". With
            ``source`` the images stay on disk.

    Returns:
        Functional model, not compiled, from a list in the order of ``method.inputs``,
        view (batch, height, width, channels) float and image likewise, uint8,
        pixels 0 to 255, or with a source view and index (batch,) int32, to the
        probability of each class (batch, n_classes), float32. Where there is one input,
        the list has one.

    Raises:
        ValueError: no such method, keywords that it does not have, or sizes that do not
            fit.

    Example:

    >>> from attention_sampling.experiments.tasks import TASKS
    >>> model = build_model(TASKS["colon_cancer"], "ats-10")
    >>> [entry.name for entry in model.inputs], model.output_shape
    (['view', 'image'], (None, 2))

    Reference:
        Katharopoulos and Fleuret 2019, section 4.
    """
    sampling = dict(sampling or {})
    method = parse_method(method) if isinstance(method, str) else method
    check_choice("method.kind", method.kind, ("ats", "u", "cnn", "deep-mil"))
    if sampling and "view" not in method.inputs:
        raise ValueError(
            f"The method {method} draws no patches. Expected: sampling without entries. "
            f"Received: sampling={sampling!r}"
        )
    inputs = _inputs(task, method, sampling)
    if method.kind == "cnn":
        features = convolutional_network(
            task.image_shape, method.scale, **task.convolutional
        )(inputs[0])
    else:
        features = _pooled(task, method, seed, entropy, center, sampling)(inputs)
        if feature_scale != 1:
            features = keras.layers.Rescaling(feature_scale, dtype="float32")(features)
    # Probabilities rounded to bfloat16 would give losses of 0.
    label = keras.layers.Dense(
        task.n_classes, activation="softmax", dtype="float32", name="label"
    )(features)
    return keras.Model(inputs, label, name=task.name)


def _inputs(task, method, sampling):
    view = keras.Input(task.view_shape, name="view")
    if sampling.get("source") is not None:
        return [view, keras.Input((), name="index", dtype="int32")]
    image = keras.Input(task.image_shape, name="image", dtype="uint8")
    return [view, image] if "view" in method.inputs else [image]


def _pooled(task, method, seed, entropy, center, sampling):
    """Return a callable from the inputs to one feature an image."""
    options = {"center": True} if center else {}
    feature = task.feature(task.patch_shape, **options)
    if method.kind == "deep-mil":
        pool = deep_mil(
            feature, task.patch_size, task.deep_mil_grid, gated=method.gated
        )
        return lambda inputs: pool(inputs[0])[0]
    attention = task.attention(task.image_shape[-1])
    strength = task.entropy if entropy is None else entropy
    regularizer = MultinomialEntropy(strength) if strength else None
    if method.kind == "u":
        top_k = sampling.get("prediction") == "top_k"
        if top_k or sampling.get("proposal") is not None:
            raise ValueError(
                f"The method {method} draws every place alike. Expected: sampling "
                "without a proposal, and prediction not 'top_k', which would always be "
                f"the first places. Received: sampling={sampling!r}"
            )
        map_size = attention.compute_output_shape((None, *task.view_shape))[1:]
        attention, regularizer = UniformAttention(map_size), None
    keywords = {
        "patch_size": task.patch_size,
        "n_patches": method.n_patches,
        "attention_regularizer": regularizer,
        "receptive_field": task.receptive_field,
        "seed": seed,
        **sampling,
    }
    pool = attention_sampling(attention, feature, **keywords)
    return lambda inputs: pool(inputs)[0]
