"""Time and memory of training steps, with TensorFlow's profiler and allocator."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf


@dataclass(frozen=True)
class StepCost:
    """What a training step costs.

    Attributes:
        device: name of the device whose memory was counted, such as ``GPU:0``.
        seconds_per_sample: median time of a step over the batch size.
        peak_bytes: largest memory in use on the device during the steps, weights and
            images included, as TensorFlow's allocator counts it.
        bytes_per_sample: what the steps took above the memory in use before them, over
            the batch size.
    """

    device: str
    seconds_per_sample: float
    peak_bytes: int
    bytes_per_sample: float


def profile_training(
    model: keras.Model, dataset: Any, log_directory: str | Path, steps: int = 10
) -> StepCost:
    """Run a few training steps under the TensorFlow profiler.

    Two steps run first, unmeasured, so that tracing and the first allocations stay out
    of the figures. The weights change as in any training: profile a model you do not
    mean to keep, or before you train it.

    Args:
        model: a compiled model, TensorFlow backend.
        dataset: dataset of batches as ``fit`` takes it; its first two are used, in
            turn.
        log_directory: where TensorBoard's profile plugin (``pip install xprof``) finds
            the trace: ``tensorboard --logdir DIR``.
        steps: steps to trace.

    Returns:
        Time and memory of a step, with the trace as a file below ``log_directory``.

    Raises:
        RuntimeError: the backend is not TensorFlow.

    Reference:
        Katharopoulos and Fleuret 2019, section 4.1.2.
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "The TensorFlow profiler needs the TensorFlow backend. Set "
            f"KERAS_BACKEND=tensorflow. Received: {keras.backend.backend()}"
        )
    batches = list(dataset.take(2))
    batch_size = int(batches[0][1].shape[0])
    device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"
    for inputs, targets in batches[:1] * 2:
        model.train_on_batch(inputs, targets)
    before = tf.config.experimental.get_memory_info(device)["current"]
    tf.config.experimental.reset_memory_stats(device)
    seconds = []
    tf.profiler.experimental.start(str(log_directory))
    try:
        for step in range(steps):
            inputs, targets = batches[step % len(batches)]
            with tf.profiler.experimental.Trace("train", step_num=step, _r=1):
                start = time.perf_counter()
                model.train_on_batch(inputs, targets)
                seconds.append(time.perf_counter() - start)
    finally:
        tf.profiler.experimental.stop()
    peak = tf.config.experimental.get_memory_info(device)["peak"]
    median = sorted(seconds)[len(seconds) // 2]
    return StepCost(device, median / batch_size, peak, (peak - before) / batch_size)
