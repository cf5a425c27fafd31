"""What a process does that measures the passes of one model. TensorFlow only."""

import gc
import threading
from typing import NamedTuple

import keras
import numpy as np

from attention_sampling.benchmark.cost.device import (
    allocated,
    allow_growth,
    reset_allocator,
)
from attention_sampling.benchmark.processes import (
    peak_megabytes,
    reset_peak,
    resident_megabytes,
    seconds_of,
)
from attention_sampling.benchmark.steps import BackwardPass, random_pixels
from attention_sampling.experiments.tasks import Method, Task, build_model

# Steps of a turn, after one that finds what other processes left in the caches.
STEPS_A_TURN = 3
# So long a step is a turn by itself: what is in the caches is nothing to it.
_LONG_SECONDS = 0.5


class Step(NamedTuple):
    """What a step takes.

    Attributes:
        wall: seconds by the clock.
        processor: seconds of all threads of the process.
        peak: megabytes (10^6 bytes), the most that TensorFlow's allocator holds
            meanwhile, weights, batch and gradients included: what the profiler calls
            peak memory.
    """

    wall: float
    processor: float
    peak: float


class Memory(NamedTuple):
    """Megabytes (10^6 bytes) that a training takes.

    Attributes:
        held: that TensorFlow's allocator holds between two steps: weights, and on a CPU
            the batch.
        resident: the most resident memory of the process during the steps, above that
            before the model was built, with TensorFlow loaded and at work. NaN where
            there is no /proc.
    """

    held: float
    resident: float


# What belongs to this process; in tests, to this thread.
_here = threading.local()


def prepare(task: Task, method: Method, batch_size: int, warmup: int) -> None:
    """Build a model and warm it up, in this process.

    Args:
        task: an experiment.
        method: its method.
        batch_size: images a step.
        warmup: steps, at least 1.

    Raises:
        MemoryError: there is not enough memory.
    """
    keras.utils.set_random_seed(0)
    allow_growth()
    _load_libraries()
    gc.collect()
    resident = resident_megabytes()
    rng = np.random.default_rng(0)
    try:
        step = BackwardPass(
            build_model(task, method, seed=0),
            [
                random_pixels(
                    rng,
                    (batch_size, *getattr(task, f"{name}_shape")),
                    "float32" if name == "view" else "uint8",
                )
                for name in method.inputs
            ],
            rng.integers(task.n_classes, size=batch_size),
        )
        for _ in range(warmup):
            step()
    except _shortages() as error:
        raise MemoryError(_short(error)) from None
    gc.collect()
    reset_peak()
    _here.step, _here.resident = step, resident


def take_turn() -> list[Step]:
    """Take some steps in this process.

    Raises:
        MemoryError: there is not enough memory.
    """
    try:
        first = _measure(_here.step)
        if first.wall > _LONG_SECONDS:
            return [first]
        return [_measure(_here.step) for _ in range(STEPS_A_TURN)]
    except _shortages() as error:
        raise MemoryError(_short(error)) from None


def end() -> Memory:
    """Return the memory of the steps since ``prepare``."""
    return Memory(allocated("current"), peak_megabytes() - _here.resident)


def _load_libraries() -> None:
    """Train a tiny network: libraries are loaded and threads started."""
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    BackwardPass(model, np.ones((4, 16, 16, 1), "float32"), np.zeros(4, "int32"))()


def _measure(step: BackwardPass) -> Step:
    reset_allocator()
    return Step(*seconds_of(step), allocated("peak"))


def _shortages() -> tuple[type[Exception], ...]:
    """Return what TensorFlow raises where memory ends: oneDNN's kernels abort."""
    import tensorflow as tf

    errors = tf.errors
    return (MemoryError, errors.ResourceExhaustedError, errors.AbortedError)


def _short(error: Exception) -> str:
    """Return the line of an error that tells of the shortage, or its first."""
    lines = str(error).strip().splitlines() or [""]
    return next((line for line in lines if line.startswith("OOM")), lines[0])[:200]
