"""Time and memory of the estimator, beside a training step that uses it."""

import gc
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from attention_sampling import attention_sampling
from attention_sampling.benchmark.gradients import pull_back
from attention_sampling.benchmark.tables import Row, at_most
from attention_sampling.layers import Expectation
from attention_sampling.networks import (
    megapixel_mnist_attention,
    megapixel_mnist_features,
)

DIM = 32
LARGEST_MEGABYTES = 64.0
# Calls of the estimator, which takes milliseconds, for each training step.
_CALLS = 10


class Setting(NamedTuple):
    """A training step of Megapixel MNIST, and what share of it the estimator may take."""

    n_patches: int
    batch_size: int
    limit: float
    image_size: int = 1500
    view_size: int = 180
    patch_size: int = 50


# 32 images of 100 patches would take 3 GB of activations for the forward pass alone.
SETTINGS = (Setting(10, 32, 0.02), Setting(100, 16, 0.05))


def measure_time(setting: Setting, rounds: int) -> Row:
    """Compare the estimator with training steps, all of them in turn.

    Args:
        setting: what is trained.
        rounds: how often each is run, after a first time that compiles.

    Returns:
        Median seconds of a training step, of one with the estimator with replacement
        and without control variate, and of the estimator alone, forward and backward;
        and the shares.
    """
    step = _training_step(setting)
    trivial = _training_step(setting, replace=True, control_variate=False)
    estimator = _estimator(setting.n_patches, setting.batch_size)
    turns = [step, trivial, *[estimator] * _CALLS]
    for function in (step, trivial, estimator):
        function()
    times = np.array(
        [[_seconds(function) for function in turns] for _ in range(rounds)]
    )
    steps, trivials, calls = times[:, 0], times[:, 1], times[:, 2:]
    seconds = [float(np.median(x)) for x in (steps, trivials, calls)]
    share = seconds[2] / seconds[0]
    return {
        "n": setting.n_patches,
        "batch": setting.batch_size,
        "step s": seconds[0],
        "step s, trivial": seconds[1],
        "estimator s": seconds[2],
        "share": share,
        "limit": at_most(share, setting.limit),
        "share of trivial": seconds[2] / seconds[1],
        "slowest call": float(calls.max() / seconds[0]),
        "steps differ": statistics.median(steps / trivials) - 1,
    }


def measure_memory(n_patches: int = 100, batch_size: int = 32) -> Row:
    """Run the estimator in a process of its own, forward and backward.

    Returns:
        Megabytes (10^6 bytes) above those before: at their peak, as TensorFlow's
        allocator counts them (NaN with another backend), and the resident ones of the
        process, with what compiling takes (NaN where there is no /proc).
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        allocated, resident = process.submit(_memory, n_patches, batch_size).result()
    row: Row = {"n": n_patches, "batch": batch_size}
    for name, megabytes in (("allocated", allocated), ("resident", resident)):
        unknown = math.isnan(megabytes)
        row[f"{name} MB"] = megabytes
        row[f"{name} limit"] = "" if unknown else at_most(megabytes, LARGEST_MEGABYTES)
    return row


def _training_step(setting: Setting, **arguments: Any) -> Callable[[], Any]:
    view = keras.Input((setting.view_size,) * 2 + (1,))
    image = keras.Input((setting.image_size,) * 2 + (1,), dtype="uint8")
    features, _, _ = attention_sampling(
        megapixel_mnist_attention(),
        megapixel_mnist_features((setting.patch_size,) * 2 + (1,)),
        n_patches=setting.n_patches,
        seed=0,
        **arguments,
    )([view, image])
    digit = keras.layers.Dense(10, activation="softmax")(features)
    model = keras.Model([view, image], digit)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    images = rng.integers(
        256, size=(setting.batch_size, *image.shape[1:]), dtype="uint8"
    )
    views = rng.uniform(0, 255, size=(setting.batch_size, *view.shape[1:]))
    labels = rng.integers(10, size=setting.batch_size)
    batch = (views.astype("float32"), images)
    return lambda: model.train_on_batch(batch, labels)


def _estimator(n_patches: int, batch_size: int) -> Callable[[], Any]:
    """Return a call of the estimator with control variate, forward and backward."""
    expectation = Expectation(estimator="unordered", control_variate=True)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(batch_size, n_patches, DIM)).astype("float32")
    attention = rng.dirichlet(np.ones(1024), size=batch_size)[:, :n_patches]
    inputs = [features, attention.astype("float32")]
    run = pull_back(lambda *x: expectation(x, training=True), compiled=True)
    cotangent = np.ones((batch_size, DIM), "float32")
    return lambda: run(inputs, cotangent)


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _memory(n_patches: int, batch_size: int) -> tuple[float, float]:
    """Return megabytes above those before, of the allocator and of the process."""
    _estimator(2, 1)()  # loads libraries and starts threads
    estimator = _estimator(n_patches, batch_size)
    gc.collect()
    resident = _resident("VmRSS")
    if keras.backend.backend() != "tensorflow":
        estimator()
        return float("nan"), _resident("VmHWM") - resident
    from tensorflow import config

    device = "GPU:0" if config.list_physical_devices("GPU") else "CPU:0"
    config.experimental.reset_memory_stats(device)
    before = config.experimental.get_memory_info(device)["current"]
    estimator()
    peak = config.experimental.get_memory_info(device)["peak"]
    return (peak - before) / 1e6, _resident("VmHWM") - resident


def _resident(field: str) -> float:
    """Return megabytes of this process: "VmRSS" now, "VmHWM" the most so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")
