"""Checks of the inputs of layers: their number and shapes."""

from typing import Any


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
