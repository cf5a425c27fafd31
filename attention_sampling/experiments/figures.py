"""The paper's figures 3 and 4: what was to be found, beside what was looked at."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from attention_sampling.experiments.baselines import AttentionPooling, ExtractGrid
from attention_sampling.ops.geometry import window_origins_by_image
from attention_sampling.visualize import (
    Box,
    displayable,
    mark_boxes,
    save_figure,
)

# Boxes with a smaller side in a picture, in its pixels, are shown enlarged beneath it,
# each in the middle of a window of so many times its side.
_LEGIBLE = 32
_MOST_ENLARGED = 6
_WINDOW = 3
_IN_A_ROW = 3
_GAP = 4  # pixels of a picture between a thing and the box around it
_DPI = 100
# Of what is added to a model. An automatic one may be in a loaded model already.
_NAME = "attention_of_deep_mil"


def deep_mil_viewer(model: keras.Model) -> keras.Model:
    """Build a model that returns the prediction and the attention of a Deep MIL model.

    Args:
        model: functional model that holds one ``ExtractGrid`` and one
            ``AttentionPooling``, as ``deep_mil()`` makes it. 

    Returns:
        Model from the inputs of ``model`` to a dict: ``prediction`` (the output of
        ``model``) and ``attention`` (batch, rows, columns).
    """
    grids, pools = (
        [layer for layer in model.layers if isinstance(layer, kind)]
        for kind in (ExtractGrid, AttentionPooling)
    )
    if not len(grids) == len(pools) == 1:
        raise ValueError(
            "Expected a model of deep_mil(). Received: model with "
            f"{len(grids)} ExtractGrid and {len(pools)} AttentionPooling"
        )
    attention = keras.layers.Reshape(grids[0].grid_size, name=_NAME)(pools[0].output[1])
    return keras.Model(
        model.inputs, {"prediction": model.output, "attention": attention}
    )


def weigh_patches(
    image: Any,
    attention: Any,
    patch_size: tuple[int, int],
    view_size: tuple[int, int] | None = None,
    receptive_field: int = 0,
) -> np.ndarray:
    """Multiply every patch of an image by its attention, from 0 to 1.

    The weights are w = (a - min a) / (max a - min a), or 1 where all are alike. Patches
    overlap: a pixel takes the largest weight of those that show it.

    Args:
        image: (height, width, 1 or 3), the full-resolution image: uint8, uint16, or
            floats from 0 to 1.
        attention: (rows, columns) attention map, of attention sampling or of Deep MIL.
        patch_size: (height, width) of the patches, in pixels.
        view_size: (height, width) of the view, in its pixels; needed for a receptive
            field only.
        receptive_field: as of ``attention_sampling()``.

    Returns:
        (height, width, 3) floats from 0 to 1.

    Example:

    >>> attention = np.array([[0.7, 0.1], [0.1, 0.1]])
    >>> weigh_patches(np.ones((4, 4, 1)), attention, (2, 2))[..., 0]
    array([[1., 1., 0., 0.],
           [1., 1., 0., 0.],
           [0., 0., 0., 0.],
           [0., 0., 0., 0.]])

    Reference:
        Katharopoulos and Fleuret 2019, section 4.3.2 and figure 4.
    """
    image, attention = displayable(image), np.asarray(attention, "float64")
    size = image.shape[:2]
    spread = attention.max() - attention.min()
    weights = np.ones(attention.size)
    if spread > 0:
        weights = np.ravel(attention - attention.min()) / spread
    [origins] = window_origins_by_image(
        np.arange(attention.size)[None],
        attention.shape,
        view_size or size,
        np.array([size]),
        patch_size,
        receptive_field,
    )
    of_pixel = np.zeros(size)
    ends = np.clip(origins + patch_size, 0, size)
    for weight, (top, left), (bottom, right) in zip(
        weights, np.clip(origins, 0, None), ends, strict=True
    ):
        window = of_pixel[top:bottom, left:right]
        np.maximum(window, weight, out=window)
    return image * of_pixel[..., None]


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
            mark_boxes(axes, boxes, points, other_boxes, gap, numbered=len(enlarged))
        for place, box in enumerate(enlarged):
            axes = part.add_subplot(grid[1 + place // _IN_A_ROW, place % _IN_A_ROW])
            _enlarge(axes, pixels, box, str(place + 1), other=place >= len(boxes))
    save_figure(figure, path)


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
    mark_boxes(axes, none if other else [box], (), [box] if other else none, gap)
    axes.set_title(name, fontsize=8, pad=2)


def _side(box: Box) -> float:
    top, left, bottom, right = box
    return max(bottom - top, right - left)
