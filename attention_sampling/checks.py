"""Checks of arguments and inputs: clear errors, before anything is computed."""

from typing import Any

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


def check_fraction(name: str, value: Any) -> float:
    """Return a number from 0 to 1.

    Args:
        name: what to call the value in an error.
        value: a number.

    Raises:
        ValueError: it is no number, or outside.

    Example:

    >>> check_fraction("proposal_mix", 0.5)
    0.5
    """
    number = isinstance(value, float | int | np.floating | np.integer)
    if not number or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(
            f"`{name}` must be a number from 0 to 1. Received: {name}={value!r}"
        )
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """Return a bool.

    Args:
        name: what to call the value in an error.
        value: True or False, of Python or NumPy.

    Raises:
        ValueError: it is something else, such as 1 or "yes".

    Example:

    >>> check_flag("replace", True)
    True
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be True or False. Received: {name}={value!r}")
    return bool(value)


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    """Return a value that is one of a few.

    Args:
        name: what to call the value in an error.
        value: any.
        choices: what it may be.

    Raises:
        ValueError: it is none of them.

    Example:

    >>> check_choice("prediction", "sample", ("sample", "top_k"))
    'sample'
    """
    # Of its type too: 1 is no True.
    if not any(type(value) is type(x) and value == x for x in choices):
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, choices))}. "
            f"Received: {name}={value!r}"
        )
    return value


def check_class_names(class_names: Any) -> tuple[str, ...]:
    """Return names of classes, each there once.

    Args:
        class_names: list of names.

    Raises:
        ValueError: none, a single text, or a name that is there twice.

    Example:

    >>> check_class_names(["cat", "dog"])
    ('cat', 'dog')
    """
    names = () if isinstance(class_names, str) else tuple(map(str, class_names))
    if not names or len({*names}) < len(names):
        raise ValueError(
            "`class_names` must be a list of different names. Received: "
            f"class_names={class_names!r}"
        )
    return names


def check_inputs(inputs: Any, *names: str, optional: tuple[str, ...] = ()) -> Any:
    """Return the inputs of a layer that takes several, or their shapes.

    Args:
        inputs: list or tuple, one entry for each name.
        names: of the inputs, for the error.
        optional: names of inputs that may follow.

    Raises:
        ValueError: no list or tuple, or of another length.
    """
    lengths = range(len(names), len(names) + len(optional) + 1)
    if not isinstance(inputs, list | tuple) or len(inputs) not in lengths:
        received = len(inputs) if isinstance(inputs, list | tuple) else type(inputs)
        expected = [*names, *(f"optional {name}" for name in optional)]
        raise ValueError(
            f"Expected a list of {' to '.join(str(n) for n in lengths)} inputs, "
            f"[{', '.join(expected)}]. Received: {received}"
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
    import keras  # here, as this module is read while Keras is half loaded

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
