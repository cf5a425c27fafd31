"""Attention maps and patches as PNG files."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attention_sampling.files import replacing
from attention_sampling.viewer import displayable

Box = tuple[float, float, float, float]


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
        points: (row, column) in pixels of what was to be found, drawn as dots.
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
    _mark(axes, boxes, points)
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
        axes.imshow(displayable(patch))
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{number + 1}: {sampled_attention[number]:.2g}", fontsize=9)
    with replacing(path) as part:
        figure.savefig(part)


def draw_weighted_patches(
    path: str | os.PathLike[str],
    image: Any,
    weighted: Mapping[str, Any],
    boxes: Sequence[Box] = (),
    points: Sequence[tuple[float, float]] = (),
    title: str = "",
) -> None:
    """Write a picture of an image with the truth, and beside it what was looked at.

    Args:
        path: PNG file to write, replaced as a whole.
        image: (height, width, 1 or 3), uint8, uint16, or floats from 0 to 1.
        weighted: by the title of each, (height, width, 1 or 3) images of the same size,
            as ``weigh_patches`` makes them.
        boxes: (top, left, bottom, right) in pixels of what was to be found, drawn
            dashed.
        points: (row, column) in pixels of what was to be found, drawn as dots.
        title: line above the image.

    Reference:
        Katharopoulos and Fleuret 2019, figure 4.
    """
    from matplotlib.figure import Figure

    height, width = image.shape[:2]
    shown = {title: image, **weighted}
    figure = Figure(
        figsize=(5 * len(shown), 5 * height / width + 0.4),
        dpi=100,
        layout="constrained",
    )
    all_axes = figure.subplots(1, len(shown))
    for axes, (name, pixels) in zip(all_axes, shown.items(), strict=True):
        axes.imshow(displayable(pixels), extent=(0, width, height, 0))
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        axes.set_title(name, fontsize=10)
    _mark(all_axes[0], boxes, points)
    with replacing(path) as part:
        figure.savefig(part)


def _mark(axes: Any, boxes: Sequence[Box], points: Sequence[Any]) -> None:
    """Draw what was to be found."""
    from matplotlib.patches import Rectangle

    for top, left, bottom, right in boxes:
        axes.add_patch(
            Rectangle(
                (left - 3, top - 3),
                right - left + 6,
                bottom - top + 6,
                fill=False,
                edgecolor="lime",
                linestyle="--",
                linewidth=1.5,
            )
        )
    if len(points):
        rows, columns = np.transpose(points)
        axes.scatter(columns, rows, s=12, c="lime", edgecolors="black", linewidths=0.5)
