"""Gradients, the same call for every backend."""

import keras
import numpy as np
from keras import ops


def value_and_gradients(function, inputs, cotangent=None):
    """Return ``function(*inputs)`` and the gradients with respect to each input.

    Args:
        function: of float tensors, to one tensor.
        inputs: float arrays.
        cotangent: array of the shape of the value, which it is contracted with before
            it is differentiated; ones if None.

    Returns:
        The value and the list of gradients, numpy arrays. The gradient is zero with
        respect to an input that the value does not depend on.
    """
    backend = keras.backend.backend()
    value, gradients = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[
        backend
    ](function, inputs, cotangent)
    return (
        ops.convert_to_numpy(value),
        [ops.convert_to_numpy(gradient) for gradient in gradients],
    )


def _tensorflow(function, inputs, cotangent):
    import tensorflow as tf

    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        for x in inputs:
            tape.watch(x)
        value = function(*inputs)
    if cotangent is not None:
        cotangent = tf.constant(cotangent, value.dtype)
    gradients = tape.gradient(
        value,
        inputs,
        output_gradients=cotangent,
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return value, [tf.convert_to_tensor(gradient) for gradient in gradients]


def _jax(function, inputs, cotangent):
    import jax
    import jax.numpy as jnp

    value, pull_back = jax.vjp(function, *(jnp.asarray(x) for x in inputs))
    if cotangent is None:
        cotangent = np.ones(value.shape)
    return value, pull_back(jnp.asarray(cotangent, value.dtype))


def _torch(function, inputs, cotangent):
    import torch

    inputs = [torch.tensor(x, requires_grad=True) for x in inputs]
    value = function(*inputs)
    if cotangent is None:
        cotangent = np.ones(value.shape)
    if not value.requires_grad:
        return value, [torch.zeros_like(x) for x in inputs]
    cotangent = torch.tensor(cotangent, dtype=value.dtype)
    gradients = torch.autograd.grad(
        value, inputs, grad_outputs=cotangent, allow_unused=True
    )
    gradients = [
        torch.zeros_like(x) if gradient is None else gradient
        for x, gradient in zip(inputs, gradients, strict=True)
    ]
    return value.detach(), gradients
