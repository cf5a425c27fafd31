"""Take rows of a tensor. With ``host``, what of the core calls a backend by itself."""

import importlib
from typing import Any

import keras
from keras import ops


def gather_rows(x: Any, indices: Any) -> Any:
    """Take rows by indices that are known to lie inside.

    What ``keras.ops.take`` does, which counts negative indices from the end: for that it
    reads and writes every index again, on TensorFlow and PyTorch for a third to a half of
    its time where rows are as short as a pixel.

    Args:
        x: (rows, ...) tensor.
        indices: int tensor of any shape, from 0 to ``rows - 1``. What comes of others depends
            on the backend.

    Returns:
        (*indices.shape, ...) tensor.

    Example:

    >>> x = keras.ops.array([[1, 2], [3, 4]])
    >>> rows = gather_rows(x, keras.ops.array([[1], [0]]))
    >>> keras.ops.convert_to_numpy(rows).tolist()
    [[[3, 4]], [[1, 2]]]
    """
    symbolic = any(keras.utils.is_keras_tensor(tensor) for tensor in (x, indices))
    backend = None if symbolic else keras.backend.backend()
    if backend == "tensorflow":
        return importlib.import_module("tensorflow").gather(x, indices)
    if backend == "torch":
        rows = importlib.import_module("torch").index_select(x, 0, indices.ravel())
        return rows.reshape(*indices.shape, *x.shape[1:])
    return ops.take(x, indices, axis=0)
