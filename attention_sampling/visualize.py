"""What a model looked at, as arrays and as pictures."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from attention_sampling.files import replacing
from attention_sampling.layers import SamplePatches, SampleSoftmax

Box = tuple[float, float, float, float]

# Of what is added to a model. An automatic one may be in a loaded model already.
_NAME = "attention_of_viewer"
# In each picture, so that whoever clears away ours leaves those of others.
_SOFTWARE = "attention-sampling"
_DPI = 100
_GAP = 4  # pixels of a picture between a thing and the box around it
# A window of a smaller side in a picture, in its pixels, has its number beside it.
_LEGIBLE = 32
_MOST_ENLARGED = 6


def attention_viewer(model: keras.Model) -> keras.Model:
    """Build a model that shows what another looked at, from the same draws.

    Args:
        model: functional model that holds one ``SamplePatches`` layer with
            ``return_origins=True``, as ``attention_sampling()`` makes it.

    Returns:
        Model from the inputs of ``model`` to a dict: ``prediction`` (the output of
        ``model``), ``attention`` (batch, rows, columns), ``patches`` (batch, n_patches, patch_height, patch_width, channels),
        ``sampled_attention`` (batch, n_patches) and ``origins`` (batch, n_patches, 2).

    Raises:
        ValueError: no such layer, or several.
    """
    layers = [layer for layer in model.layers if isinstance(layer, SamplePatches)]
    if len(layers) != 1 or not layers[0].return_origins:
        raise ValueError(
            "Pictures need a functional model with one SamplePatches layer that returns "
            "its origins, as attention_sampling() makes it. "
            f"Received: {len(layers)} SamplePatches layers in {model.name!r}"
        )
    patches, sampled_attention, *_, origins = layers[0].output
    attention = layers[0].input[2]
    if layers[0].use_logits:
        attention = SampleSoftmax(name=_NAME)(attention)
    return keras.Model(
        model.inputs,
        {
            "prediction": model.output,
            "attention": attention,
            "patches": patches,
            "sampled_attention": sampled_attention,
            "origins": origins,
        },
    )


def draw_attention(
    path: str | os.PathLike[str],
    image: Any,
    attention: Any,
    patches: Any,
    sampled_attention: Any,
    origins: Any,
    margin: tuple[float, float] = (0, 0),
    boxes: Sequence[Box] = (),
    title: str = "",
    image_size: tuple[int, int] | None = None,
    points: Sequence[tuple[float, float]] = (),
    other_boxes: Sequence[Box] = (),
) -> None:
    """Write a picture of an image, its attention map, and the patches taken from it.

    Args:
        path: PNG file to write, replaced as a whole.
        image: (height, width, 1 or 3), the full-resolution image, or a view of it with
            ``image_size``: uint8, uint16, or floats from 0 to 1.
        attention: (rows, columns) attention map.
        patches: (n_patches, patch_height, patch_width, 1 or 3), pixels likewise.
        sampled_attention: (n_patches,) attention at each patch.
        origins: (n_patches, 2) row and column of each patch, in pixels.
        margin: (rows, columns) pixels of the image at each side that the attention map
            does not cover, half the receptive field at full resolution.
        boxes: (top, left, bottom, right) in pixels of what was to be found.
        title: line above the image.
        image_size: height and width of the image in full-resolution pixels, in which
            all places are; None if ``image`` itself is at full resolution.
        points: (row, column) in pixels of what was to be found, drawn as dots.
        other_boxes: of what was not to be found, drawn dashed.
    """
    from matplotlib import patches as shapes
    from matplotlib.figure import Figure

    height, width = image_size or image.shape[:2]
    columns = math.ceil(len(patches) / 4)
    figure = Figure(figsize=(9 + 1.8 * columns, 9 * height / width + 0.4), dpi=_DPI)
    grid = figure.add_gridspec(
        min(4, len(patches)),
        1 + columns,
        width_ratios=[9, *[1.6] * columns],
        left=0.01,
        right=0.99,
        bottom=0.02,
        top=0.92,
        wspace=0.04,
        hspace=0.3,
    )
    axes = figure.add_subplot(grid[:, 0])
    axes.imshow(displayable(image), extent=(0, width, height, 0))
    # The eye compares brightness: opacity grows with attention, none where there is
    # none.
    opacity = np.sqrt(attention / attention.max())
    axes.imshow(
        attention,
        cmap="autumn",
        alpha=0.75 * opacity,
        extent=(margin[1], width - margin[1], height - margin[0], margin[0]),
        interpolation="nearest",
    )
    mark(axes, boxes, points, other_boxes, gap=_GAP * width / (9 * _DPI))
    for number, (row, column) in enumerate(origins, start=1):
        axes.add_patch(
            shapes.Rectangle(
                (column, row),
                patches.shape[2],
                patches.shape[1],
                fill=False,
                edgecolor="cyan",
                linewidth=1.2,
            )
        )
        # Beside a small window, in a large one: there it hides nothing.
        small = patches.shape[2] * 9 * _DPI / width < 2 * _LEGIBLE
        axes.annotate(
            str(number),
            (column + small * patches.shape[2], row),
            xytext=(3, -2),
            textcoords="offset points",
            color="cyan",
            va="top",
            annotation_clip=True,
            clip_on=True,
        )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_title(title, fontsize=11)
    for number, patch in enumerate(patches):
        axes = figure.add_subplot(grid[number % 4, 1 + number // 4])
        axes.imshow(displayable(patch))
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{number + 1}: {sampled_attention[number]:.2g}", fontsize=9)
    save_figure(figure, path)


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is a picture that this module has drawn.

    Example:

    >>> is_ours("nowhere.png")
    False
    """
    from PIL import Image

    try:
        with Image.open(Path(path), formats=["PNG"]) as image:
            return image.info.get("Software") == _SOFTWARE
    except (OSError, ValueError, SyntaxError):  # no PNG file, or a broken one
        return False


def displayable(image: Any) -> Any:
    """Return (height, width, 3) floats from 0 to 1 of an image of 1 or 3 channels."""
    image = np.asarray(image)
    if np.issubdtype(image.dtype, np.integer):
        image = image / np.iinfo(image.dtype).max
    if image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    return np.clip(image, 0, 1)


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure as a whole, marked as ours."""
    with replacing(path) as part:
        figure.savefig(part, metadata={"Software": _SOFTWARE})


def mark(
    axes: Any,
    boxes: Sequence[Box],
    points: Sequence[Any],
    other_boxes: Sequence[Box],
    gap: float,
    numbered: bool = False,
) -> None:
    """Draw what was to be found, and what was not."""
    from matplotlib.patches import Rectangle

    styled = [*((box, "-") for box in boxes), *((box, "--") for box in other_boxes)]
    for number, ((top, left, bottom, right), style) in enumerate(styled, start=1):
        axes.add_patch(
            Rectangle(
                (left - gap, top - gap),
                right - left + 2 * gap,
                bottom - top + 2 * gap,
                fill=False,
                edgecolor="lime",
                linestyle=style,
                linewidth=1.5,
            )
        )
        if numbered and number <= _MOST_ENLARGED:
            axes.annotate(
                str(number),
                (right + gap, (top + bottom) / 2),
                xytext=(2, 0),
                textcoords="offset points",
                color="lime",
                fontsize=9,
                va="center",
            )
    if len(points):
        rows, columns = np.transpose(points)
        axes.scatter(columns, rows, s=12, c="lime", edgecolors="black", linewidths=0.5)
