"""What the process of one model does: build it, and measure its steps. TensorFlow only."""

import gc
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from attention_sampling.experiments.cost.models import build

# Steps of a turn: the first finds in the caches what other processes left there.
STEPS_A_TURN = 3
_WARMUP = 3


class Step(NamedTuple):
    """What a step takes.

    Attributes:
        seconds: by the clock.
        peak: megabytes (10^6 bytes), the most that TensorFlow's allocator held meanwhile,
            weights, images and gradients included.
    """

    seconds: float
    peak: float


class ForwardBackward:
    """A forward and backward pass on random pixels, compiled as ``fit`` compiles it.

    The loss is the mean of the squared outputs, and what the model adds to it: the cost of
    a pass does not depend on the labels. The images are in host memory, so that moving
    them to a GPU counts.

    Args:
        model: functional, not compiled.
        batch_size: images a step.
    """

    def __init__(self, model: keras.Model, batch_size: int) -> None:
        import tensorflow as tf

        # Only to learn whether "auto" means XLA on this device.
        model.compile("sgd", "mse")

        @tf.function(jit_compile=bool(model.jit_compile))
        def compute_gradients(images: Any) -> list[Any]:
            with tf.GradientTape() as tape:
                outputs = keras.tree.flatten(model(images, training=True))
                losses = [tf.reduce_mean(tf.cast(x, "float32") ** 2) for x in outputs]
                loss = tf.add_n([*losses, *model.losses])
            weights = [weight.value for weight in model.trainable_variables]
            return [x for x in tape.gradient(loss, weights) if x is not None]

        rng = np.random.default_rng(0)
        with tf.device("CPU:0"):
            self._images = keras.tree.map_structure(
                lambda x: tf.constant(_random_pixels(rng, batch_size, x)), model.input
            )
        self._compute_gradients = compute_gradients

    def __call__(self) -> None:
        """Compute the gradients and wait for them."""
        for gradient in self._compute_gradients(self._images):
            gradient.numpy()


class Measurement:
    """A model ready to be measured, in its own process.

    Args:
        name, subject, reference: as of ``models.build``.
        batch_size: images a step.

    Raises:
        MemoryError: there is not enough memory.
    """

    def __init__(
        self, name: str, subject: str, reference: str, batch_size: int
    ) -> None:
        import tensorflow as tf

        keras.utils.set_random_seed(0)
        for gpu in tf.config.list_physical_devices("GPU"):
            # TensorFlow takes a whole GPU by default, and processes share it here.
            tf.config.experimental.set_memory_growth(gpu, True)
        self._load_libraries()
        gc.collect()
        self._resident = _read_megabytes("VmRSS")
        self._step = ForwardBackward(build(name, subject, reference), batch_size)
        for _ in range(_WARMUP):
            self._step()
        gc.collect()
        _reset_peak()

    def take_turn(self) -> list[Step]:
        """Take some steps."""
        import tensorflow as tf

        steps = []
        for _ in range(STEPS_A_TURN):
            tf.config.experimental.reset_memory_stats(device())
            start = time.perf_counter()
            self._step()
            seconds = time.perf_counter() - start
            peak = tf.config.experimental.get_memory_info(device())["peak"]
            steps.append(Step(seconds, peak / 1e6))
        return steps

    def resident(self) -> float:
        """Return the most resident memory of the steps, in megabytes.

        Above that before the model was built, with TensorFlow at work; NaN where the
        system has no /proc.
        """
        return _read_megabytes("VmHWM") - self._resident

    @staticmethod
    def _load_libraries() -> None:
        """Take a step of a tiny network: libraries are loaded and threads started."""
        images = keras.Input((16, 16, 1))
        x = keras.layers.Conv2D(8, 3, activation="relu")(images)
        x = keras.layers.GlobalAveragePooling2D()(x)
        ForwardBackward(keras.Model(images, keras.layers.Dense(2)(x)), 4)()


_measurement: list[Measurement] = []


def ignore_interrupts() -> None:
    """Leave Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def prepare(*arguments: Any) -> None:
    """Make the measurement of this process."""
    _measurement.append(_with_memory(Measurement, *arguments))


def ask(question: str, *arguments: Any) -> Any:
    """Call a method of the measurement of this process."""
    return _with_memory(getattr(_measurement[0], question), *arguments)


def device() -> str:
    """Return what TensorFlow computes on, ``"CPU:0"`` or ``"GPU:0"``."""
    import tensorflow as tf

    return "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"


def _with_memory(function: Any, *arguments: Any) -> Any:
    """Call a function; where memory ends, raise an error that another process can read."""
    import tensorflow as tf

    try:
        return function(*arguments)
    # oneDNN's kernels abort where they get no memory.
    except (tf.errors.ResourceExhaustedError, tf.errors.AbortedError) as error:
        raise MemoryError(str(error).strip().partition("\n")[0][:200]) from None


def _random_pixels(
    rng: np.random.Generator, batch_size: int, like: keras.KerasTensor
) -> np.ndarray:
    """Return pixels of 0 to 255 for an input; zeros where it is an index."""
    shape = (batch_size, *like.shape[1:])
    if like.dtype == "uint8":
        return rng.integers(256, size=shape, dtype="uint8")
    if "int" in like.dtype:
        return np.zeros(shape, like.dtype)
    return (255 * rng.random(shape, dtype="float32")).astype(like.dtype)


def _read_megabytes(name: str) -> float:
    """Return an entry of the status of this process in 10^6 bytes, NaN without /proc."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def _reset_peak() -> None:
    """Forget the peak of the resident memory, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
