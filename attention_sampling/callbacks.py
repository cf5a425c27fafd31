"""Attention maps and patches as pictures."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from attention_sampling.layers import SamplePatches


def attention_viewer(model: keras.Model) -> keras.Model:
    """Build a model that shows what another looked at, from the same draws.

    Args:
        model: functional model that holds one ``SamplePatches`` layer with
            ``return_origins=True``, as ``attention_sampling()`` makes it.

    Returns:
        Model from the inputs of ``model`` to a dict: ``prediction`` (the output of
        ``model``), ``attention`` (batch, rows, columns), ``patches`` (batch, n_patches,
        patch_height, patch_width, channels), ``sampled_attention`` (batch, n_patches)
        and ``origins`` (batch, n_patches, 2).

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
    return keras.Model(
        model.inputs,
        {
            "prediction": model.output,
            "attention": layers[0].input[2],
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
    boxes: Sequence[tuple[int, int, int, int]] = (),
    title: str = "",
    image_size: tuple[int, int] | None = None,
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
        boxes: (top, left, bottom, right) in pixels of what was to be found, drawn
            dashed.
        title: line above the image.
        image_size: height and width of the image in full-resolution pixels, in which
            all places are; None if ``image`` itself is at full resolution.
    """
    from matplotlib import patches as shapes
    from matplotlib.figure import Figure

    height, width = image_size or image.shape[:2]
    columns = math.ceil(len(patches) / 4)
    figure = Figure(figsize=(9 + 1.8 * columns, 9 * height / width + 0.4), dpi=100)
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
    axes.imshow(_displayable(image), extent=(0, width, height, 0))
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
    for top, left, bottom, right in boxes:
        axes.add_patch(
            shapes.Rectangle(
                (left - 3, top - 3),
                right - left + 6,
                bottom - top + 6,
                fill=False,
                edgecolor="lime",
                linestyle="--",
                linewidth=1.5,
            )
        )
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
        axes.text(
            column + 4, row + 4, str(number), color="cyan", va="top", clip_on=True
        )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_title(title, fontsize=11)
    for number, patch in enumerate(patches):
        axes = figure.add_subplot(grid[number % 4, 1 + number // 4])
        axes.imshow(_displayable(patch))
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{number + 1}: {sampled_attention[number]:.3f}", fontsize=9)
    path = Path(path)
    part = path.with_name(f".{path.stem}.part.png")
    figure.savefig(part)
    os.replace(part, path)


def _displayable(image: Any) -> Any:
    """Return (height, width, 3) floats from 0 to 1."""
    image = np.asarray(image)
    if np.issubdtype(image.dtype, np.integer):
        image = image / np.iinfo(image.dtype).max
    if image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    return np.clip(image, 0, 1)
