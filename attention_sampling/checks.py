"""Checks of what a user hands in: clear errors, before anything is computed."""

from typing import Any

import keras
import numpy as np


def check_pair(name: str, value: Any) -> tuple[int, int]:
    """Return ``(height, width)`` from one positive int or a pair of them.

    Args:
        name: what to call the value in an error.
        value: an int, or two ints (height, width), in pixels.

    Raises:
        ValueError: ``value`` is neither, or not positive.

    Example:

    >>> check_pair("patch_size", 50)
    (50, 50)
    """
    pair = (value, value) if isinstance(value, int | np.integer) else value
    if (
        not isinstance(pair, tuple | list)
        or len(pair) != 2
        or not all(isinstance(extent, int | np.integer) for extent in pair)
        or any(isinstance(extent, bool) or extent <= 0 for extent in pair)
    ):
        raise ValueError(
            f"`{name}` must be a positive int or a pair (height, width) of positive "
            f"ints, in pixels. Received: {name}={value!r}"
        )
    return int(pair[0]), int(pair[1])


def check_count(name: str, value: Any, smallest: int) -> int:
    """Return an int that is at least ``smallest``.

    Args:
        name: what to call the value in an error.
        value: an int, of Python or NumPy.
        smallest: the smallest that is allowed.

    Raises:
        ValueError: ``value`` is no int, or smaller.

    Example:

    >>> check_count("n_patches", 10, smallest=1)
    10
    """
    if (
        not isinstance(value, int | np.integer)
        or isinstance(value, bool)
        or value < smallest
    ):
        raise ValueError(
            f"`{name}` must be an int of at least {smallest}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def check_inputs(inputs: Any, *names: str) -> Any:
    """Return the inputs of a layer that takes several, or their shapes.

    Args:
        inputs: list or tuple, one entry for each name.
        names: of the inputs, for the error.

    Raises:
        ValueError: no list or tuple, or of another length.
    """
    if not isinstance(inputs, list | tuple) or len(inputs) != len(names):
        received = len(inputs) if isinstance(inputs, list | tuple) else type(inputs)
        raise ValueError(
            f"Expected a list of {len(names)} inputs, [{', '.join(names)}]. "
            f"Received: {received}"
        )
    return inputs


def check_images(name: str, shape: tuple[int | None, ...]) -> None:
    """Refuse what is not a batch of channels-last images.

    Args:
        name: what to call the images in an error.
        shape: of the images; None for an extent that is not known yet.

    Raises:
        ValueError: another rank, or Keras set to channels-first.
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Attention sampling works on channels-last images. Call "
            "keras.config.set_image_data_format('channels_last') before building the "
            "model. Received: image_data_format="
            f"{keras.config.image_data_format()!r}"
        )
    if len(shape) != 4:
        raise ValueError(
            f"`{name}` must have shape (batch, height, width, channels). "
            f"Received: {name}.shape={shape}"
        )


def common_batch(**shapes: tuple[int | None, ...]) -> int | None:
    """Return the batch size the named shapes share, None where none of them knows it.

    Args:
        shapes: of each input, by its name.

    Raises:
        ValueError: two of them differ.
    """
    known = {name: shape[0] for name, shape in shapes.items() if shape[0] is not None}
    if len(set(known.values())) > 1:
        *others, last = shapes
        received = ", ".join(f"{name}.shape={shape}" for name, shape in shapes.items())
        raise ValueError(
            f"{', '.join(others)} and {last} must hold the same number of samples. "
            f"Received: {received}"
        )
    return next(iter(known.values()), None)
