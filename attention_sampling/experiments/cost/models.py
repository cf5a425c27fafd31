"""The models that are measured: methods of a task, a user's own, the bare networks."""

import math

import keras
from keras import ops

from attention_sampling.experiments.tasks import TASKS, build_model
from attention_sampling.layers.attention_sampling import AttentionSampling

# The row of the two networks of attention sampling with nothing between them.
BARE = "bare networks"


def build(name: str, subject: str, reference: str) -> keras.Model:
    """Build what is measured.

    Args:
        name: a method of a task, ``BARE`` for the networks of ``reference``, or anything
            where ``subject`` is a file.
        subject: a task, or the path of a ``.keras`` file.
        reference: the method whose networks are the bare ones.

    Raises:
        ValueError: the file holds no model that can be measured.
    """
    named = reference if name == BARE else name
    if subject in TASKS:
        model = build_model(TASKS[subject], named, seed=0)
    else:
        model = load_model(subject)
    return build_bare_networks(model) if name == BARE else model


def load_model(path: str) -> keras.Model:
    """Load a functional or sequential model whose inputs have a known size.

    Raises:
        ValueError: it is another kind of model, or a size is unknown.
    """
    model = keras.saving.load_model(path, compile=False)
    try:
        inputs = keras.tree.flatten(model.input)
    except (AttributeError, ValueError):
        inputs = []
    if not inputs:
        raise ValueError(
            "The cost is measured of functional models, which know their inputs. Expected: "
            "keras.Model(inputs, outputs). "
            f"Received: --model {path}, a {type(model).__name__}"
        )
    shapes = [tuple(x.shape[1:]) for x in inputs]
    if any(None in shape for shape in shapes):
        raise ValueError(
            "The cost depends on the size of the images. Expected: keras.Input with known "
            f"sizes. Received: --model {path}, with inputs of shape {shapes}"
        )
    return model


def find_sampling(model: keras.Model) -> AttentionSampling | None:
    """Return the one ``AttentionSampling`` layer of a functional model, if there is one."""
    found = [layer for layer in model.layers if isinstance(layer, AttentionSampling)]
    return found[0] if len(found) == 1 else None


def build_bare_networks(model: keras.Model) -> keras.Model:
    """Build the two networks of attention sampling with nothing between them.

    What no implementation of the method can do without: the attention network on the
    view, and the feature network on as many patches as are sampled. The features are
    added up, weighted by the attention of the first cells, so that one loss trains both.

    Args:
        model: functional, with one ``AttentionSampling`` layer called on images.

    Returns:
        Functional model from view (batch, height, width, channels) and patches (batch,
        n_patches, patch_height, patch_width, channels) to features (batch, dim).

    Example:

    >>> from attention_sampling.experiments.tasks import TASKS, build_model
    >>> bare = build_bare_networks(build_model(TASKS["colon_cancer"], "ats-10"))
    >>> [tuple(entry.shape) for entry in bare.inputs]
    [(None, 100, 100, 3), (None, 10, 27, 27, 3)]
    """
    layer = find_sampling(model)
    low, high = layer.input
    view = keras.Input(low.shape[1:], dtype=low.dtype, name="view")
    shape = (layer.n_patches, *layer.sample_patches.patch_size, high.shape[-1])
    patches = keras.Input(shape, dtype=high.dtype, name="patches")
    attention = layer.attention(view)
    attention = ops.reshape(attention, (-1, math.prod(attention.shape[1:])))
    features = layer.feature(
        ops.cast(ops.reshape(patches, (-1, *shape[1:])), keras.config.floatx())
    )
    features = ops.reshape(features, (-1, layer.n_patches, features.shape[-1]))
    weights = ops.cast(attention[:, : layer.n_patches, None], features.dtype)
    return keras.Model([view, patches], ops.sum(weights * features, axis=1))
