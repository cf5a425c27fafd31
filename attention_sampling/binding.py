"""Give a loaded model the images it reads from."""

from typing import Any

import keras

from attention_sampling.layers import ExtractPatches


def bind_source(model: keras.Model, source: Any) -> None:
    """Let a model read its patches from a source.

    A source is not saved with a model, and ``keras.models.clone_model`` leaves it behind
    too. The new one may hold other images, such as those to predict.

    Args:
        model: model that was built with ``attention_sampling(source=...)``, or with
            other layers that take a source.
        source: ``attention_sampling.data.Source`` of the same channels and dtype as the
            one the model was built with.

    Raises:
        TypeError: this is no source.
        ValueError: the source is of another kind; no layer of the model takes one.

    Example:

    >>> from attention_sampling.data import ArraySource
    >>> index = keras.Input((), dtype="int32")
    >>> origins = keras.Input((4, 2), dtype="int32")
    >>> source = ArraySource([np.zeros((100, 200, 3), "uint8")])
    >>> patches = ExtractPatches(32, source=source)([index, origins])
    >>> model = keras.models.clone_model(keras.Model([index, origins], patches))
    >>> bind_source(model, source)
    >>> model.predict([np.array([0]), np.zeros((1, 4, 2), "int32")], verbose=0).shape
    (1, 4, 32, 32, 3)
    """
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, ExtractPatches) and layer.reader is not None
    ]
    if not layers:
        raise ValueError(
            "No layer of the model takes patches from a source. Build it with "
            f"attention_sampling(source=...). Received: model={model.name!r}"
        )
    for layer in layers:
        layer.bind_source(source)
