"""What Keras does differently from backend to backend, or keeps to itself."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

# Bytes of an argument that JAX hands to a callback without the help of another thread
# (its CPU client: kSmallDataTransferByteSize).
_COPIED_AT_ONCE = 100_000


def call_numpy(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    shape: tuple[int | None, ...],
    dtype: str,
) -> Any:
    """Call a NumPy function on tensors, eagerly or whenever the graph runs.

    No gradient goes through it, and XLA on TensorFlow cannot compile it.

    Args:
        function: callable from as many arrays as there are inputs to one array. Called
            again for the same inputs it must return the same.
        inputs: integer tensors.
        shape: shape of the array; extents may be None on TensorFlow.
        dtype: dtype of the array.

    Returns:
        Tensor of that shape and dtype.

    Raises:
        Exception: what ``function`` raises. From inside a graph of TensorFlow or JAX an
            error of theirs comes out, whose text holds the original one.

    Example:

    >>> flipped = call_numpy(np.flip, [keras.ops.array([1, 2, 3])], (3,), "int32")
    >>> keras.ops.convert_to_numpy(flipped).tolist()
    [3, 2, 1]
    """

    def call(*arrays: Any) -> Any:
        return np.asarray(function(*map(np.asarray, arrays)), dtype=dtype)

    return _CALLS[keras.backend.backend()](call, inputs, shape, dtype)


def supports_jit() -> bool:
    """Return whether the backend's compiler can compile what ``call_numpy`` makes."""
    return keras.backend.backend() != "tensorflow"


def _is_symbolic() -> bool:
    """Return whether Keras only wants to know shapes, and the values mean nothing."""
    with keras.SymbolicScope() as scope:
        return scope.original_scope is not None


def _call_tensorflow(
    function: Callable[..., Any], inputs: Sequence[Any], shape: Any, dtype: str
) -> Any:
    tensorflow = importlib.import_module("tensorflow")
    result = tensorflow.numpy_function(function, inputs, tensorflow.as_dtype(dtype))
    result.set_shape(shape)
    return result


def _call_jax(
    function: Callable[..., Any], inputs: Sequence[Any], shape: Any, dtype: str
) -> Any:
    jax = importlib.import_module("jax")
    # 64 bits are switched off by default, and refused as the result of a callback.
    dtype = jax.dtypes.canonicalize_dtype(dtype).name
    if _is_symbolic():  # sizes may be symbols, which do not add up to bytes
        return ops.zeros(shape, dtype=dtype)
    if not any(
        isinstance(x, jax.core.Tracer) for x in inputs
    ):  # errors keep their type
        arrays = map(ops.convert_to_numpy, inputs)
        return ops.convert_to_tensor(function(*arrays).astype(dtype))
    sizes = [x.shape for x in inputs]

    def join(*parts: Sequence[Any]) -> Any:
        arrays = [
            np.concatenate([np.asarray(part) for part in pieces]).reshape(size)
            for pieces, size in zip(parts, sizes, strict=True)
        ]
        return function(*arrays).astype(dtype)

    # Larger arguments come by a thread of JAX, and a callback that has the only one
    # would wait for them forever (jax-ml/jax#24255). An int has 8 bytes at most.
    step = _COPIED_AT_ONCE // 8
    parts = [
        tuple(x.reshape(-1)[i : i + step] for i in range(0, max(x.size, 1), step))
        for x in inputs
    ]
    result = jax.ShapeDtypeStruct(shape, dtype)
    return jax.pure_callback(join, result, *parts, vmap_method="sequential")


def _call_eagerly(
    function: Callable[..., Any], inputs: Sequence[Any], shape: Any, dtype: str
) -> Any:
    if _is_symbolic():  # without a graph, layers are called on tensors of ones
        return ops.zeros(shape, dtype=dtype)
    return ops.convert_to_tensor(function(*map(ops.convert_to_numpy, inputs)))


_CALLS = {
    "tensorflow": _call_tensorflow,
    "jax": _call_jax,
    "torch": _call_eagerly,
    "numpy": _call_eagerly,
}


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
        Tensor of shape ``(*indices.shape, ...)``.

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


def all_layers(model: keras.Model) -> list[keras.Layer]:
    """Return a model and every layer in it, at any depth.

    Keras has no public way to find the layers inside of layers.

    Raises:
        TypeError: this is neither a model nor a layer.

    Example:

    >>> inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> layers = all_layers(keras.Sequential([inner]))
    >>> any(isinstance(layer, keras.layers.Dense) for layer in layers)
    True
    """
    if not isinstance(model, keras.Layer):
        raise TypeError(
            "`model` must be a Keras model; keras.saving.load_model loads one of a file. "
            f"Received: model={model!r}"
        )
    return list(model._flatten_layers())
