"""The paper's figures 3 and 4: what was to be found, beside what was looked at."""

import os
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import keras
import numpy as np

from attention_sampling import visualize
from attention_sampling.experiments.baselines import AttentionPooling, ExtractGrid
from attention_sampling.files import replacing
from attention_sampling.ops.geometry import window_origins_by_image

Box = tuple[float, float, float, float]
_MOST_PATCHES = 16  # in a picture
_MOST_WINDOWS = 10  # in an image of a grid


def explain(model: keras.Model, inputs: Any, batch_size: int = 32) -> dict[str, Any]:
    """Return what a model of attention sampling or Deep MIL looked at.

    Args:
        model: as ``build_model`` makes it.
        inputs: what ``model.predict`` takes.
        batch_size: images at once.

    Returns:
        Dict of NumPy arrays: ``prediction``, ``attention`` (batch, rows, columns), and of
        attention sampling what ``visualize.explain`` returns beside.
    """
    grids, pools = (
        [layer for layer in model.layers if isinstance(layer, kind)]
        for kind in (ExtractGrid, AttentionPooling)
    )
    if not pools:
        return visualize.explain(model, inputs, batch_size)
    outputs = [model.output, pools[0].output[1]]
    prediction, attention = keras.Model(model.inputs, outputs).predict(
        inputs, batch_size, verbose=0
    )
    attention = attention.reshape(-1, *grids[0].grid_size)
    return {"prediction": prediction, "attention": attention}


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
        image: (height, width, 1 or 3), the full-resolution image, uint8.
        attention: (rows, columns) attention map, of attention sampling or of Deep MIL.
        patch_size: (height, width) of the patches, in pixels.
        view_size: (height, width) of the view, in its pixels; needed for a receptive
            field only.
        receptive_field: as of ``attention_sampling()``.

    Returns:
        (height, width, 1 or 3) uint8.

    Example:

    >>> attention = np.array([[0.7, 0.1], [0.1, 0.1]])
    >>> weigh_patches(np.full((4, 4, 1), 9, "uint8"), attention, (2, 2))[..., 0]
    array([[9, 9, 0, 0],
           [9, 9, 0, 0],
           [0, 0, 0, 0],
           [0, 0, 0, 0]], dtype=uint8)

    Reference:
        Katharopoulos and Fleuret 2019, section 4.3.2 and figure 4.
    """
    attention = np.asarray(attention, "float64")
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
    return np.rint(image * of_pixel[..., None]).astype("uint8")


def plot_weighted_patches(
    path: str | os.PathLike[str],
    image: Any,
    weighted: Any,
    boxes: Sequence[Box] = (),
    other_boxes: Sequence[Box] = (),
    points: Sequence[tuple[float, float]] = (),
    title: str = "",
) -> None:
    """Plot an image with the truth, and beside it the image times its attention.

    Args:
        path: PNG file to write, replaced as a whole.
        image: (height, width, 1 or 3) uint8.
        weighted: likewise, as ``weigh_patches`` makes it.
        boxes: (top, left, bottom, right) in pixels of what was to be found.
        other_boxes: of what was not to be found, dashed.
        points: (row, column) in pixels of what was to be found.
        title: line above the image.

    Reference:
        Katharopoulos and Fleuret 2019, figures 3 and 4.
    """
    from matplotlib.figure import Figure

    height, width = image.shape[:2]
    figure = Figure((12, 6 * height / width + 0.4), layout="constrained")
    panels = figure.subplots(1, 2)
    titles = (title, "patches times their attention")
    for axes, pixels, above in zip(panels, (image, weighted), titles, strict=True):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
        axes.set_title(above, fontsize=10)
    visualize.mark_boxes(panels[0], boxes, points, other_boxes, gap=width / 150)
    with replacing(path) as part:
        figure.savefig(part, dpi=100)


def choose_in_turn(labels: np.ndarray, indices: np.ndarray, count: int) -> list[int]:
    """Return some of the indices, of the classes in turn.

    Example:

    >>> choose_in_turn(np.array([1, 1, 1, 0, 1, 0]), np.arange(6), 5)
    [3, 0, 5, 1, 2]
    """
    of_class = [indices[labels[indices] == x] for x in np.unique(labels[indices])]
    in_turn = chain.from_iterable(zip_longest(*of_class))
    return [int(index) for index in in_turn if index is not None][:count]


def plot_pictures(
    model: keras.Model, images: Any, indices: Sequence[int], directory: Path
) -> None:
    """Plot what a model looked at, beside the truth.

    Args:
        model: of attention sampling or Deep MIL, with its weights.
        images: ``Images`` of its task.
        indices: of the images to plot.
        directory: for ``NAME.png``, the image and the image times its attention, and of
            attention sampling ``NAME_patches.png``, the sampled patches.
    """
    if not len(indices):
        return
    directory.mkdir(exist_ok=True)
    task, seen = images.task, _explain(model, images, indices)
    for number, index in enumerate(indices):
        truth = images.truth(index)._asdict()
        name, image = truth.pop("name"), truth.pop("image")
        prediction, attention = seen["prediction"][number], seen["attention"][number]
        answer = int(np.argmax(prediction))
        truth["title"] = (
            f"{name}: truth {images.classes[images.labels[index]]}, answer "
            f"{images.classes[answer]} ({prediction[answer]:.2f})"
        )
        field = task.receptive_field if "patches" in seen else 0
        weighted = weigh_patches(
            image, attention, task.patch_size, task.view_size, field
        )
        plot_weighted_patches(directory / f"{name}.png", image, weighted, **truth)
        if "patches" in seen:
            keys = ("patches", "sampled_attention", "origins")
            scales = zip(task.image_shape, task.view_size, strict=False)
            visualize.plot_attention(
                directory / f"{name}_patches.png",
                image,
                attention,
                *(seen[key][number, :_MOST_PATCHES] for key in keys),
                margin=tuple(field / 2 * full / low for full, low in scales),
                **truth,
            )


def describe_answers(
    model: keras.Model, images: Any, indices: Sequence[int]
) -> list[dict[str, Any]]:
    """Return what ``plot_grid`` takes of some images: image, windows, boxes and title.

    Arguments as of ``plot_pictures``, of attention sampling.
    """
    if not len(indices):
        return []
    seen, found = _explain(model, images, indices), []
    for number, index in enumerate(indices):
        truth, scores = images.truth(index), seen["prediction"][number]
        label, answer = images.labels[index], int(np.argmax(scores))
        title = (
            f"{images.classes[label]}: {images.classes[answer]} ({scores[answer]:.2f})"
        )
        height, width = images.task.patch_size
        windows = [
            (top, left, top + height, left + width)
            for top, left in seen["origins"][number, :_MOST_WINDOWS]
        ]
        found.append(
            {"image": truth.image, "windows": windows, "boxes": truth.boxes}
            | {"title": title, "right": label == answer}
        )
    return found


def _explain(model, images, indices):
    names = [entry.name for entry in model.inputs]
    [(inputs, _)] = images.batches(np.array(indices), names, len(indices))
    return explain(model, [values.numpy() for values in inputs])


def plot_grid(path: Path, answers: Sequence[dict[str, Any]]) -> None:
    """Plot images side by side, with windows, boxes and answers; wrong ones in red.

    Args:
        path: JPEG file to write.
        answers: as of ``describe_answers``.
    """
    from matplotlib.figure import Figure

    columns = 3
    height, width = answers[0]["image"].shape[:2]
    rows = -(-len(answers) // columns)
    figure = Figure((12, rows * (12 / columns * height / width + 0.3)))
    figure.set_layout_engine("constrained")
    for axes in (panels := figure.subplots(rows, columns, squeeze=False).ravel()):
        axes.set_axis_off()
    for axes, answer in zip(panels, answers, strict=False):
        axes.imshow(answer["image"])
        axes.set_title(answer["title"], color="black" if answer["right"] else "red")
        visualize.mark_boxes(axes, answer["boxes"], (), answer["windows"], gap=0)
    with replacing(path) as part:
        figure.savefig(part, dpi=100, pil_kwargs={"quality": 85})
