"""Attention maps and patches as PNG files."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attention_sampling.files import replacing
from attention_sampling.viewer import displayable

Box = tuple[float, float, float, float]

# In each picture, so that whoever clears away ours leaves those of others.
_SOFTWARE = "attention-sampling"
_DPI = 100
_GAP = 4  # pixels of a picture between a thing and the box around it
# Boxes with a smaller side in a picture, in its pixels, are shown enlarged beneath it,
# each in the middle of a window of so many times its side.
_LEGIBLE = 32
_WINDOW = 3
_MOST_ENLARGED = 6
_IN_A_ROW = 3


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
    _mark(axes, boxes, points, other_boxes, gap=_GAP * width / (9 * _DPI))
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
    _save(figure, path)


def draw_weighted_patches(
    path: str | os.PathLike[str],
    image: Any,
    weighted: Mapping[str, Any],
    boxes: Sequence[Box] = (),
    points: Sequence[tuple[float, float]] = (),
    title: str = "",
    other_boxes: Sequence[Box] = (),
) -> None:
    """Write a picture of an image with the truth, and beside it what was looked at.

    Where the boxes are too small to be read, each of them, up to six, is numbered and
    shown enlarged beneath, out of all images.

    Args:
        path: PNG file to write, replaced as a whole.
        image: (height, width, 1 or 3), uint8, uint16, or floats from 0 to 1.
        weighted: by the title of each, (height, width, 1 or 3) images of the same size,
            as ``weigh_patches`` makes them.
        boxes: (top, left, bottom, right) in pixels of what was to be found.
        points: (row, column) in pixels of what was to be found, drawn as dots.
        title: line above the image.
        other_boxes: of what was not to be found, drawn dashed.

    Reference:
        Katharopoulos and Fleuret 2019, figures 3 and 4.
    """
    from matplotlib.figure import Figure

    height, width = image.shape[:2]
    shown = {title: image, **weighted}
    gap = _GAP * width / (5 * _DPI)
    enlarged: list[Box] = []
    all_boxes = [*boxes, *other_boxes]
    if any(_side(box) * 5 * _DPI / width < _LEGIBLE for box in all_boxes):
        enlarged = all_boxes[:_MOST_ENLARGED]
    rows = math.ceil(len(enlarged) / _IN_A_ROW)
    figure = Figure(
        figsize=(
            5 * len(shown),
            5 * height / width + 0.4 + rows * 5 / _IN_A_ROW,
        ),
        dpi=_DPI,
        layout="constrained",
    )
    parts = figure.subfigures(1, len(shown), squeeze=False)[0]
    for number, (part, (name, pixels)) in enumerate(
        zip(parts, shown.items(), strict=True)
    ):
        heights = [height / width] + [1 / _IN_A_ROW] * rows
        grid = part.add_gridspec(1 + rows, _IN_A_ROW, height_ratios=heights)
        axes = part.add_subplot(grid[0, :])
        pixels = displayable(pixels)
        axes.imshow(pixels, extent=(0, width, height, 0))
        axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
        axes.set_title(name, fontsize=10)
        if not number:
            _mark(axes, boxes, points, other_boxes, gap, numbered=bool(enlarged))
        for place, box in enumerate(enlarged):
            axes = part.add_subplot(grid[1 + place // _IN_A_ROW, place % _IN_A_ROW])
            _enlarge(axes, pixels, box, str(place + 1), other=place >= len(boxes))
    _save(figure, path)


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


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    with replacing(path) as part:
        figure.savefig(part, metadata={"Software": _SOFTWARE})


def _enlarge(axes: Any, pixels: Any, box: Box, name: str, other: bool) -> None:
    """Show the surroundings of a box."""
    top, left, bottom, right = box
    reach = _WINDOW * _side(box) / 2
    row, column = (top + bottom) / 2, (left + right) / 2
    axes.set_facecolor("0.5")  # beyond the borders of the image
    height, width = pixels.shape[:2]
    axes.imshow(pixels, extent=(0, width, height, 0), interpolation="nearest")
    axes.set(
        xlim=(column - reach, column + reach),
        ylim=(row + reach, row - reach),
        xticks=[],
        yticks=[],
    )
    none: Sequence[Box] = ()
    gap = _side(box) / 10
    _mark(axes, none if other else [box], (), [box] if other else none, gap)
    axes.set_title(name, fontsize=8, pad=2)


def _side(box: Box) -> float:
    top, left, bottom, right = box
    return max(bottom - top, right - left)


def _mark(
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
