"""What a model looked at, as arrays and as pictures."""

import math
import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from attention_sampling.checks import check_count
from attention_sampling.data.opening import open_source
from attention_sampling.data.source import Source
from attention_sampling.files import replacing
from attention_sampling.layers.attention_sampling import sampling_layers

# (top, left, bottom, right) in pixels.
Box = tuple[float, float, float, float]

# Pixels of the longer side of an image that is reduced for a picture.
_PICTURE = 1200
_DPI = 100
_GAP = 4  # pixels of a picture between a thing and the box around it
# A window of a smaller side in a picture, in its pixels, has its number beside it.
_LEGIBLE = 32


def explain(model: keras.Model, inputs: Any, batch_size: int = 32) -> dict[str, Any]:
    """Predict, and return what each prediction was made from.

    The prediction and all the rest come from the same sampled cells.

    Args:
        model: model that calls one layer of ``attention_sampling()`` once, functional
            or subclassed.
        inputs: arrays as for ``model.predict``, such as ``[views, images]``; of a
            dataset, those of a batch: ``(inputs, labels) = next(iter(dataset))``. Or the
            path of an image, whose view is made as the model needs it.
        batch_size: images at a time.

    Returns:
        Dict of NumPy arrays: ``prediction`` (as the model returns it), ``attention``
        (batch, rows, columns), ``patches`` (batch, n_patches, patch_height, patch_width,
        channels), ``sampled_attention`` (batch, n_patches), and ``origins`` (batch,
        n_patches, 2), the row and column of each patch's top-left pixel in the
        full-resolution image. With ``prediction="all"`` the patches are those of most
        attention.

        Of a path, the same of this one image, without the axis ``batch``; the prediction is
        a dict from class name to value, the largest first, if the model has
        ``class_names``. Besides, ``image``, (height, width, channels), reduced to at most
        1200 pixels, and its full-resolution ``image_size``: all that ``plot_attention``
        takes.

    Raises:
        TypeError: ``model`` is no model; inputs that are no arrays, such as a dataset.
        ValueError: no such layer, or several; no inputs; ``batch_size`` not positive; an
            image of other channels, or several in one file.
        SourceError: the image cannot be read.

    Example:

    >>> from attention_sampling import SampleSoftmax, attention_sampling
    >>> inputs = [keras.Input((10, 10, 3)), keras.Input((100, 100, 3))]
    >>> attention = keras.Sequential([keras.layers.Conv2D(1, 1), SampleSoftmax(True)])
    >>> feature = keras.layers.GlobalAveragePooling2D()
    >>> features, *_ = attention_sampling(attention, feature, 32, n_patches=4)(inputs)
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(features))
    >>> seen = explain(model, [np.ones((1, 10, 10, 3)), np.ones((1, 100, 100, 3))])
    >>> seen["prediction"].shape, seen["origins"].shape
    ((1, 2), (1, 4, 2))
    """
    if isinstance(inputs, str | os.PathLike):
        return _explain_file(model, inputs)
    layer = _find_layer(model)
    check_count("batch_size", batch_size, smallest=1)
    for value in keras.tree.flatten(inputs):
        if not getattr(value, "shape", ()):
            raise TypeError(
                "`inputs` must be arrays, such as [views, images]; of a dataset, those of "
                "a batch: inputs, labels = next(iter(dataset)). "
                f"Received: {type(value).__name__}"
            )
    inputs = keras.tree.map_structure(np.asarray, inputs)
    for number, value in enumerate(keras.tree.flatten(inputs)):
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"Inputs must be finite. Received: NaN in input {number}")
    count = len(keras.tree.flatten(inputs)[0])

    def predict(start: int, end: int) -> Any:
        batch = keras.tree.map_structure(lambda x: x[start:end], inputs)
        return model(batch, training=False)

    if not model.built:
        predict(0, 1)  # which may call the layer more than once
    batches = []
    for start in range(0, count, batch_size):
        looked_at: list[Any] = []
        layer.observe = looked_at.append
        try:
            prediction = predict(start, start + batch_size)
        finally:
            layer.observe = None
        if len(looked_at) != 1:
            raise ValueError(
                "The model must call its layer of attention_sampling() once. "
                f"Received: {len(looked_at)} calls in {model.name!r}"
            )
        seen = (prediction, *looked_at[0])
        batches.append(keras.tree.map_structure(ops.convert_to_numpy, seen))
    if not batches:
        raise ValueError("There is nothing to predict. Received: no inputs")
    names = ("prediction", "attention", "patches", "sampled_attention", "origins")
    joined = keras.tree.map_structure(lambda *x: np.concatenate(x), *batches)
    return dict(zip(names, joined, strict=True))


def explain_image(model: keras.Model, source: Source, index: int) -> dict[str, Any]:
    """Predict one image of a source, and return what the prediction was made from.

    Args:
        model: as of ``explain``, with the inputs ``[view, image]`` or ``[view, index]`` and
            views of a fixed size.
        source: images of the channels and dtype that the model was built for. The source
            of the model itself stays as it is.
        index: which image.

    Returns:
        What ``explain`` returns of one path.

    Raises:
        IndexError: no such image.
        ValueError: a model of other inputs, or images that do not fit it.
        SourceError: the image cannot be read.
    """
    layer = _find_layer(model)
    if not layer.built:
        raise ValueError(f"The model has never been called. Received: {model.name!r}")
    if None in layer.view_size:
        raise ValueError(
            "The model takes views of any size, and does not tell which to make. Build it "
            "with keras.Input((height, width, channels)) for the view, or pass arrays to "
            f"explain(). Received: views of {layer.view_size}"
        )
    view = source.read_view(index, layer.view_size)
    size = source.shape(index)[:2]
    reader = layer.sample_patches.extract_patches.reader
    if reader is None:
        image = source.read_window(index, 0, (0, 0), size)
        seen = explain(model, [view[None], image[None]])
    else:
        with reader.bound_to(source):
            seen = explain(model, [view[None], np.array([index], "int32")])
    seen = {
        name: keras.tree.map_structure(lambda x: x[0], x) for name, x in seen.items()
    }
    scale = min(1.0, _PICTURE / max(size))
    image = source.read_view(index, [max(1, int(scale * extent)) for extent in size])
    if source.dtype.kind in "iu":
        image = np.rint(image).astype(source.dtype)
    prediction = _by_name(seen.pop("prediction"), layer.class_names)
    return {"prediction": prediction, **seen, "image": image, "image_size": size}


def open_for(model: keras.Model, paths: Any, **keywords: Any) -> Source:
    """Open image files for a model: grey ones as RGB where it was built for RGB.

    Raises:
        SourceError: there are no such files, or they cannot be opened.
        ValueError: images of other channels or of another dtype.
    """
    layer = _find_layer(model)
    if layer.channels != 3:
        source = open_source(paths, **keywords)
    else:
        try:
            source = open_source(paths, channels=3, **keywords)
        except TypeError:  # of files that hold no photographs
            source = open_source(paths, **keywords)
    expected = layer.source
    dtype = source.dtype if expected is None else _kind(expected)
    if (source.channels, source.dtype) != (layer.channels, dtype):
        raise ValueError(
            f"The model was built for images of {layer.channels} channels of {dtype}. "
            f"Received: {source}"
        )
    return source


def _kind(source: Any) -> Any:
    """Return the dtype of a source, or of what is known of one that is not bound."""
    return np.dtype(source["dtype"] if isinstance(source, dict) else source.dtype)


def _find_layer(model: Any) -> Any:
    """Return the one layer of ``attention_sampling()`` of a model."""
    layers = sampling_layers(model)
    if len(layers) != 1:
        raise ValueError(
            "What a model looked at is known of one layer of attention_sampling(). "
            "Build the model with it instead of with SamplePatches and Expectation. "
            f"Received: {len(layers)} such layers in {model.name!r}"
        )
    return layers[0]


def _explain_file(model: keras.Model, path: Any) -> dict[str, Any]:
    """Return what ``explain`` returns of one path."""
    with open_for(model, path) as source:
        if len(source) > 1:
            raise ValueError(
                "A path must be that of one image; explain_image(model, "
                "open_source(path), index) takes one of several. Received: "
                f"{os.fspath(path)!r} of {len(source)} images"
            )
        return explain_image(model, source, 0)


def _by_name(prediction: Any, class_names: Sequence[str] | None) -> Any:
    """Return a vector of one entry a class by class name, the largest first."""
    if class_names is None or np.shape(prediction) != (len(class_names),):
        return prediction
    order = np.argsort(-prediction)
    return {class_names[number]: float(prediction[number]) for number in order}


def plot_attention(
    path: str | os.PathLike[str],
    image: Any,
    attention: Any,
    patches: Any,
    sampled_attention: Any,
    origins: Any,
    *,
    margin: tuple[float, float] = (0, 0),
    boxes: Sequence[Box] = (),
    other_boxes: Sequence[Box] = (),
    points: Sequence[tuple[float, float]] = (),
    title: str = "",
    image_size: tuple[int, int] | None = None,
    prediction: Any = None,
) -> None:
    """Plot an image, its attention map, and the patches taken from it.

    Args:
        path: PNG file to write, replaced as a whole.
        image: (height, width, channels), the full-resolution image, or a view of it with
            ``image_size``. Pixels of uint8 or uint16; or floats from 0 to 1, and floats
            and other integers from 0 to 255 or 65535: the largest pixel decides which.
        attention: (rows, columns) attention map, as of one image of ``explain``, like
            the next three.
        patches: (n_patches, patch_height, patch_width, channels), pixels of the same kinds.
        sampled_attention: (n_patches,) attention at each patch.
        origins: (n_patches, 2) row and column of each patch, in pixels.
        margin: (rows, columns) pixels of the image at each side that the attention map
            does not cover, half the receptive field at full resolution.
        boxes: (top, left, bottom, right) in pixels of what was to be found.
        other_boxes: of what was not to be found, plotted dashed.
        points: (row, column) in pixels of what was to be found, plotted as dots.
        title: line above the image.
        image_size: height and width of the image in full-resolution pixels, the unit of
            all positions; None if ``image`` itself is at full resolution.
        prediction: dict from class name to value, the largest first, as ``explain``
            returns it: the first is the title, if there is no other.

    Raises:
        ValueError: pixels of another range.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    image, patches = displayable(image, patches)
    if not title and isinstance(prediction, dict):
        name, value = next(iter(prediction.items()))
        title = f"{name}: {value:.2f}"
    height, width = image_size or image.shape[:2]
    columns = math.ceil(len(patches) / 4)
    figure = Figure(figsize=(9 + 1.8 * columns, 9 * height / width + 0.4), dpi=_DPI)
    ratios = [9, *[1.6] * columns]
    grid = figure.add_gridspec(min(4, len(patches)), 1 + columns, width_ratios=ratios)
    grid.update(left=0.01, right=0.99, bottom=0.02, top=0.92, wspace=0.04, hspace=0.3)
    axes = figure.add_subplot(grid[:, 0])
    axes.imshow(image, extent=(0, width, height, 0))
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
    mark_boxes(axes, boxes, points, other_boxes, gap=_GAP * width / (9 * _DPI))
    for number, (row, column) in enumerate(origins, start=1):
        frame = Rectangle((column, row), *patches.shape[2:0:-1], fill=False, ec="cyan")
        axes.add_patch(frame)
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
        axes.imshow(patch)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{number + 1}: {sampled_attention[number]:.2g}", fontsize=9)
    save_figure(figure, path)


def displayable(*images: Any) -> list[Any]:
    """Return floats from 0 to 1 of images of one scale, all with 3 channels.

    Args:
        images: (..., channels) each, as ``plot_attention`` takes them.

    Raises:
        ValueError: the pixels are of another range.

    Example:

    >>> image, patch = displayable(np.full((9, 9, 1), 255.0), np.full((3, 3, 1), 51.0))
    >>> patch.shape, round(float(patch.max()), 3)
    ((3, 3, 3), 0.2)
    """
    arrays = [np.asarray(image) for image in images]
    shown = []
    for array in arrays:
        # A dark patch is on the scale of its image.
        alike = [other for other in arrays if other.dtype == array.dtype]
        array = array[..., : 3 if array.shape[-1] > 2 else 1]  # without alpha
        array = np.clip(array.astype("float32") / _white(alike), 0, 1)
        shown.append(np.broadcast_to(array, (*array.shape[:-1], 3)))
    return shown


def _white(arrays: list[Any]) -> int:
    """Return the value of a white pixel, of arrays of one dtype."""
    dtype = arrays[0].dtype
    if dtype in ("uint8", "uint16"):
        return int(np.iinfo(dtype).max)
    lowest = min(array.min() for array in arrays)
    highest = max(array.max() for array in arrays)
    for white in (255, 65535) if dtype.kind in "iu" else (1, 255, 65535):
        if highest <= 1.01 * white:  # what resizes an image may go beyond
            if lowest < -0.01 * white:
                break
            return white
    raise ValueError(
        "The pixels of `image` and `patches` must be from 0 to 1, 255 or 65535. "
        f"Received: {dtype} from {lowest} to {highest}"
    )


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file that appears as a whole."""
    if not os.path.splitext(path)[1]:
        raise ValueError(
            f"A picture needs a suffix such as .png. Received: path={os.fspath(path)!r}"
        )
    with replacing(path) as part:
        figure.savefig(part)


def mark_boxes(
    axes: Any,
    boxes: Sequence[Box],
    points: Sequence[Any],
    other_boxes: Sequence[Box],
    gap: float,
) -> None:
    """Mark what was to be found, and dashed what was not.

    Args:
        axes: of matplotlib, in pixels of the image.
        boxes: (top, left, bottom, right) of what was to be found.
        points: (row, column) of what was to be found.
        other_boxes: of what was not to be found.
        gap: pixels between a thing and the box around it.
    """
    from matplotlib.patches import Rectangle

    styled = [*((box, "-") for box in boxes), *((box, "--") for box in other_boxes)]
    for (top, left, bottom, right), style in styled:
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
    if len(points):
        rows, columns = np.transpose(points)
        axes.scatter(columns, rows, s=12, c="lime", edgecolors="black", linewidths=0.5)
