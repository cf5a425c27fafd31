"""What TensorFlow computes on, and what is held there."""

import keras


def check_backend() -> None:
    """Refuse backends whose steps and memory are measured in other ways.

    Raises:
        ValueError: the backend is not TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "The steps that are measured are TensorFlow's, and so is the allocator. "
            "Expected: KERAS_BACKEND=tensorflow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )


def device() -> str:
    """Return the name of what TensorFlow computes on, ``CPU:0`` or ``GPU:0``."""
    import tensorflow as tf

    return "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"


def describe_device() -> str:
    """Return that name, and what a GPU is called."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return device()
    details = tf.config.experimental.get_device_details(gpus[0])
    return f"{device()}, {details.get('device_name', 'unknown')}"


def allow_growth() -> None:
    """Let processes share a GPU: TensorFlow takes all of its memory by default."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def reset_allocator() -> None:
    """Forget the peak of TensorFlow's allocator."""
    import tensorflow as tf

    tf.config.experimental.reset_memory_stats(device())


def allocated(what: str) -> float:
    """Return megabytes (10^6 bytes) of the allocator, "current" or "peak"."""
    import tensorflow as tf

    held = tf.config.experimental.get_memory_info(device())[what]
    return float(held) / 1e6
