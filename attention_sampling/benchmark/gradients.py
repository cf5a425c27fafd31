"""Value and gradients of a function, the same call on every Keras backend."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

# (inputs, cotangent) -> value, gradient with respect to each input.
PullBack = Callable[[Sequence[Any], Any], tuple[np.ndarray, list[np.ndarray]]]


def pull_back(function: Callable[..., Any], compiled: bool = False) -> PullBack:
    """Make a function that runs another one forward and backward.

    Args:
        function: of float tensors, to one tensor.
        compiled: compile it, as the backend compiles a training step: a graph with
            TensorFlow, XLA with JAX, nothing with PyTorch. The function is then traced
            once for inputs of one shape.

    Returns:
        Function of ``(inputs, cotangent)``, arrays, the latter of the shape of the
        value. It returns the value and the gradient of ``sum(value * cotangent)`` with
        respect to each input, as arrays: all has been computed when it returns.

    Example:

    >>> value, gradients = pull_back(keras.ops.square)([np.float32([3.0])], [2.0])
    >>> value, gradients
    (array([9.], dtype=float32), [array([12.], dtype=float32)])
    """
    backend = keras.backend.backend()
    run = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[backend](
        function, compiled
    )

    def run_on_arrays(
        inputs: Sequence[Any], cotangent: Any
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        value, gradients = run([ops.convert_to_tensor(x) for x in inputs], cotangent)
        return ops.convert_to_numpy(value), [
            ops.convert_to_numpy(gradient) for gradient in gradients
        ]

    return run_on_arrays


def _tensorflow(function: Callable[..., Any], compiled: bool) -> Callable[..., Any]:
    import tensorflow as tf

    def run(inputs: Any, cotangent: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = function(*inputs)
        gradients = tape.gradient(
            value,
            inputs,
            output_gradients=tf.cast(cotangent, value.dtype),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return value, [tf.convert_to_tensor(gradient) for gradient in gradients]

    return tf.function(run) if compiled else run


def _jax(function: Callable[..., Any], compiled: bool) -> Callable[..., Any]:
    import jax

    def run(inputs: Any, cotangent: Any) -> Any:
        value, backward = jax.vjp(function, *inputs)
        return value, backward(jax.numpy.asarray(cotangent, value.dtype))

    return jax.jit(run) if compiled else run


def _torch(function: Callable[..., Any], compiled: bool) -> Callable[..., Any]:
    import torch

    def run(inputs: Any, cotangent: Any) -> Any:
        inputs = [x.detach().clone().requires_grad_() for x in inputs]
        value = function(*inputs)
        cotangent = torch.as_tensor(cotangent, dtype=value.dtype, device=value.device)
        gradients = torch.autograd.grad(value, inputs, cotangent, allow_unused=True)
        return value.detach(), [
            torch.zeros_like(x) if gradient is None else gradient
            for x, gradient in zip(inputs, gradients, strict=True)
        ]

    return run
