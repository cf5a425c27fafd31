"""A training step as ``fit`` takes it, and its passes alone. TensorFlow only."""

from typing import Any

import keras
import numpy as np

OPTIMIZER = "Adam(1e-3, clipnorm=1)"


class TrainingStep:
    """A step of training on one batch, compiled and run as ``fit`` does it.

    The batch lies in host memory, so that moving it to a GPU counts.

    Args:
        model: not compiled. Gets Adam, gradients of at most norm 1, and cross-entropy.
        inputs: what the model takes, a NumPy array or a list of them.
        labels: (batch,) int array.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, activation="softmax")]
    ... )
    >>> step = TrainingStep(model, np.ones((3, 4), "float32"), np.zeros(3, "int32"))
    >>> step()
    """

    def __init__(self, model: keras.Model, inputs: Any, labels: np.ndarray) -> None:
        import tensorflow as tf

        self.model = model
        model.compile(
            keras.optimizers.Adam(1e-3, clipnorm=1.0),
            "sparse_categorical_crossentropy",
        )
        model.make_train_function()
        with tf.device("CPU:0"):
            self._batch = keras.tree.map_structure(tf.constant, (inputs, labels))

    def __call__(self) -> None:
        """Take the step and wait for its end."""
        logs = self.model.train_function(iter([self._batch]))
        logs["loss"].numpy()


class BackwardPass:
    """A forward and backward pass on one batch: the gradients, and no step along them.

    What the paper measures. Compiled as ``fit`` compiles the training step; the batch lies
    in host memory, so that moving it to a GPU counts.

    Args:
        model: not compiled. Gets cross-entropy.
        inputs: what the model takes, a NumPy array or a list of them.
        labels: (batch,) int array.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, activation="softmax")]
    ... )
    >>> x, y = np.ones((3, 4), "float32"), np.zeros(3, "int32")
    >>> [tuple(gradient.shape) for gradient in BackwardPass(model, x, y)()]
    [(4, 2), (2,)]

    Reference:
        Katharopoulos and Fleuret 2019, section 4.1.2.
    """

    def __init__(self, model: keras.Model, inputs: Any, labels: np.ndarray) -> None:
        import tensorflow as tf

        model.compile("sgd", "sparse_categorical_crossentropy")

        @tf.function(jit_compile=bool(model.jit_compile))
        def compute_gradients(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                answer = model(x, training=True)
                loss = model.compute_loss(x, y, answer, training=True)
            return tape.gradient(
                loss, [weight.value for weight in model.trainable_variables]
            )

        self._compute_gradients = compute_gradients
        with tf.device("CPU:0"):
            self._batch = keras.tree.map_structure(tf.constant, (inputs, labels))

    def __call__(self) -> list[Any]:
        """Compute the gradients, wait for them, and return them."""
        gradients = self._compute_gradients(*self._batch)
        gradients[-1].numpy()
        return gradients


def random_pixels(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str
) -> np.ndarray:
    """Return pixels of 0 to 255, uint8 or float32, with nothing made on the way."""
    if dtype == "uint8":
        return rng.integers(256, size=shape, dtype="uint8")
    pixels = rng.random(shape, dtype="float32")
    pixels *= 255
    return pixels
