"""The training step of attention sampling, and that of its two networks alone."""

from typing import Any

import keras
import numpy as np
from keras import ops

from attention_sampling.benchmark.processes import seconds_of
from attention_sampling.benchmark.steps import TrainingStep, random_pixels
from attention_sampling.benchmark.tables import Row, at_most
from attention_sampling.experiments.tasks import Method, Task, build_model
from attention_sampling.ops.patches import fold_patches

# Of a training step, over that of the bare networks.
LARGEST_RATIO = 1.05


class _Wait(keras.layers.Layer):
    """Hand on the first of two tensors when the second has been computed."""

    def call(self, inputs: list[Any]) -> Any:
        import tensorflow as tf

        with tf.control_dependencies(inputs[1:]):
            return tf.identity(inputs[0])

    def compute_output_spec(self, inputs: list[Any]) -> keras.KerasTensor:
        return keras.KerasTensor(inputs[0].shape, dtype=inputs[0].dtype)


def bare_networks(task: Task, method: Method, in_order: bool = False) -> keras.Model:
    """Build the two networks of attention sampling with nothing between them.

    What no implementation of the method can do without: the attention network on the
    view, the feature network on as many patches as are drawn, and the classifier. The
    features are added up, weighted by the attention of the first cells, so that one loss
    trains both networks.

    Args:
        task: an experiment.
        method: attention sampling.
        in_order: whether the feature network waits for the attention, as it does where
            the attention says which patches it gets. Else both networks may run at once.
            TensorFlow only.

    Returns:
        Functional model, not compiled, from view (batch, *task.view_shape) float and
        patches (batch, n_patches, *task.patch_shape) uint8, pixels 0 to 255, to the
        probability of each class (batch, n_classes).

    Example:

    >>> from attention_sampling.experiments.tasks import TASKS, parse_method
    >>> model = bare_networks(TASKS["colon_cancer"], parse_method("ats-10"))
    >>> [tuple(entry.shape) for entry in model.inputs]
    [(None, 100, 100, 3), (None, 10, 27, 27, 3)]
    """
    view = keras.Input(task.view_shape, name="view")
    shape = (method.n_patches, *task.patch_shape)
    patches = given = keras.Input(shape, name="patches", dtype="uint8")
    attention = task.attention(task.image_shape[-1])(view)
    attention = ops.reshape(attention, (-1, attention.shape[1] * attention.shape[2]))
    if in_order:
        patches = _Wait(autocast=False)([patches, attention])
    features = task.feature(task.patch_shape)(fold_patches(patches))
    features = ops.reshape(features, (-1, method.n_patches, features.shape[-1]))
    weights = attention[:, : method.n_patches, None]
    label = keras.layers.Dense(task.n_classes, activation="softmax", dtype="float32")(
        ops.sum(weights * features, axis=1)
    )
    return keras.Model([view, given], label, name=task.name)


def measure_overhead(
    task: Task, method: Method, batch_size: int, steps: int, warmup: int
) -> Row:
    """Compare training steps with those of the bare networks, in turns.

    Both are compiled with the same optimizer and loss, and take the same view. The whole
    step takes images, and the bare one patches, both uint8 as on disk.

    Args:
        task: an experiment.
        method: attention sampling.
        batch_size: images a step.
        steps: to measure of each.
        warmup: steps of each before.

    Returns:
        Row with the medians ``step_ms`` and ``bare_ms``; ``ratio``, the median over the
        pairs of steps, between the quartiles ``ratio_low`` and ``ratio_high``;
        ``processor_ratio``, the same of the time of all threads; ``in_order_ratio``, the
        same as ``ratio`` to bare networks of which the second waits for the first.
    """
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    view = random_pixels(rng, (batch_size, *task.view_shape), "float32")
    images = random_pixels(rng, (batch_size, *task.image_shape), "uint8")
    bare = [bare_networks(task, method, in_order) for in_order in (False, True)]
    patches = random_pixels(rng, (batch_size, *bare[0].inputs[1].shape[1:]), "uint8")
    labels = rng.integers(task.n_classes, size=batch_size)
    steps_of = [
        TrainingStep(build_model(task, method, seed=0), [view, images], labels),
        *(TrainingStep(model, [view, patches], labels) for model in bare),
    ]
    for step in steps_of * warmup:
        step()
    seconds = np.empty((steps, 3, 2))  # 3 of steps_of, 2 for clock and processor
    for turn in range(steps):
        # In any order: a step may be slower or faster after another, or after itself.
        for number in rng.permutation(len(steps_of)):
            seconds[turn, number] = seconds_of(steps_of[number])
    ratios = seconds[:, :1] / seconds[:, 1:]
    low, ratio, high = np.quantile(ratios[:, 0, 0], [0.25, 0.5, 0.75])
    whole, alone = 1e3 * np.median(seconds[:, :2, 0], axis=0)
    return {
        "task": task.name,
        "method": str(method),
        "batch_size": batch_size,
        "step_ms": float(whole),
        "bare_ms": float(alone),
        "ratio": float(ratio),
        "ratio_low": float(low),
        "ratio_high": float(high),
        "processor_ratio": float(np.median(ratios[:, 0, 1])),
        "in_order_ratio": float(np.median(ratios[:, 1, 0])),
        "limit": at_most(ratio, LARGEST_RATIO),
    }
