"""The networks of attention sampling, each trained by itself before all learn together.

Signs are small and rare. A feature network that cannot read them yet gives the attention
no reason to find them, and an attention that finds none gives it nothing to read. So the
two learn from boxes around signs, then the classifier from labels.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from attention_sampling.data.views import without_autotuning
from attention_sampling.datasets.traffic_signs import GERMAN_CLASSES
from attention_sampling.experiments.augmentation import augment
from attention_sampling.experiments.data import Images
from attention_sampling.layers.attention_sampling import sampling_layers

_N_WINDOWS = 3  # of each image, in an epoch
_ZOOM = 0.2  # of a window: largest change of the logarithm of its size
_SHIFT = 1 / 6  # of a window: farthest that a sign is from its middle
_SMALLEST_PART = 0.6  # of the height and width of an image, to look for signs in
_LEARNING_RATE = 2e-3
_CLASSIFIER_RATE = 3e-2  # of a few weights
_MOST_IMAGES = 4000  # to learn them from


def pretrain(
    model: keras.Model, images: Images, indices: np.ndarray, epochs: int, seed: int
) -> None:
    """Train the networks of a model, of any method with patches, on boxes.

    Args:
        model: of ``build_model``, its feature network of ``sign_features``.
        images: with boxes.
        indices: (chosen,) of the images to train on.
        epochs: passes over them, for each network.
        seed: of order and windows.

    Raises:
        ValueError: the first class is not that of images without a sign.

    Reference:
        Not in the paper, whose Swedish signs are larger in their images.
    """
    if images.classes[0] != GERMAN_CLASSES[0]:
        raise ValueError(
            "Windows without a limit need a class. Expected: images of the class "
            f"{GERMAN_CLASSES[0]!r}, or --pretrain 0. Received: {images.classes}"
        )
    networks = find_networks(model)
    pretrain_features(networks["feature"], images, indices, epochs, seed)
    if "attention" in networks:
        pretrain_attention(networks["attention"], images, indices, epochs, seed)
    # The classifier begins with the most certain class; `fit_classifier` goes on.
    n_classes = networks["label"].units
    networks["label"].set_weights([0.3 * np.eye(n_classes), np.zeros(n_classes)])


def fit_classifier(
    model: keras.Model,
    images: Images,
    indices: np.ndarray,
    seed: int,
    class_weight: dict[int, float] | None = None,
) -> None:
    """Train the last layer of a model alone, on labels of at most 4,000 images.

    The networks before it stay as they are. In the training that follows, all of them
    learn but for their batch normalizations, which this makes untrainable.

    Args:
        model: of ``build_model``, with patches.
        images: of its task.
        indices: (chosen,) of the images to train on.
        seed: of the choice of images, and their order.
        class_weight: as of ``model.fit``.
    """
    # At random: images may be sorted by class.
    indices = np.random.default_rng(seed).permutation(indices)[:_MOST_IMAGES]
    batch_size = 16
    alone = keras.Model(model.inputs, model.outputs)
    for layer in model.layers:
        layer.trainable = layer.name == "label"
    steps = math.ceil(len(indices) / batch_size)
    alone.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(_CLASSIFIER_RATE, steps)
        ),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    inputs = [entry.name for entry in model.inputs]
    dataset = images.batches(indices, inputs, batch_size, seed)
    print(f"Classifier from labels, {steps} steps", flush=True)
    alone.fit(dataset, class_weight=class_weight, shuffle=False, verbose=2)
    for layer in model.layers:
        layer.trainable = True
    for network in find_networks(model).values():
        for layer in getattr(network, "layers", ()):
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False


def begin_with(model: keras.Model, other: keras.Model) -> None:
    """Give the networks of a model the weights of those of another, of any method.

    Args:
        model: of ``build_model``, with patches.
        other: likewise, with patches of the same size.

    Raises:
        ValueError: the networks differ, or the other has not all of them.
    """
    try:
        theirs = find_networks(other)
    except ValueError as error:  # of Keras, which has no such layer
        raise ValueError(
            "The model to begin with is another one. Expected: a model of `experiments "
            f"run`. Received: one of the layers {[x.name for x in other.layers]}"
        ) from error
    for name, network in find_networks(model).items():
        if name not in theirs:
            raise ValueError(
                f"The model to begin with has no network for the {name}. Expected: one of "
                "attention sampling. Received: one without it"
            )
        ours, weights = network.get_weights(), theirs[name].get_weights()
        if [weight.shape for weight in ours] != [weight.shape for weight in weights]:
            raise ValueError(
                f"The network for the {name} is another one. Expected: a model of this "
                "version and task, of the same classes and settings of the networks, such "
                "as --center and --patch-size. Received: weights of other shapes"
            )
        network.set_weights(weights)


def find_networks(model: keras.Model) -> dict[str, Any]:
    """Return what a model learns: "feature", "label", and "attention" if it samples."""
    networks = {"label": model.get_layer("label")}
    if not (layers := sampling_layers(model)):
        return networks | {"feature": model.get_layer("feature")}
    networks["feature"] = layers[0].feature
    if layers[0].attention.trainable_weights:
        networks["attention"] = layers[0].attention
    return networks


def pretrain_features(
    feature: keras.Model, images: Images, indices: np.ndarray, epochs: int, seed: int
) -> None:
    """Train a feature network of ``sign_features`` to read single windows.

    Of the three windows of an image, two show its limit if there is one; the others show
    another sign, or anything. Arguments as of ``pretrain``.
    """
    shape, batch_size = feature.input_shape[1:], 64
    count = len(indices) * _N_WINDOWS
    model = keras.Model(feature.input, feature.get_layer("classes").output)
    model.compile(
        _optimizer(epochs * count / batch_size),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )

    def cut(image: Any, index: Any, seed: Any) -> Any:
        rng, label = np.random.default_rng(seed), images.labels[index]
        return cut_windows(rng, image, *images.boxes[index], label, shape[:2])

    def read(index: Any, seed: Any) -> Any:
        cuts = [images.read(index), index, seed]
        windows, labels = tf.numpy_function(cut, cuts, [tf.uint8, tf.int32])
        return tf.ensure_shape(windows, (None, *shape)), tf.ensure_shape(labels, [None])

    def change(window: Any, label: Any, seed: Any) -> Any:
        return augment(window, seed, **_changes(images)), label

    dataset = _shuffle(indices, seed).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.unbatch().shuffle(16 * batch_size, seed=seed)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    dataset = _with_seeds(dataset, seed).map(
        lambda pair, seed: change(*pair, seed), num_parallel_calls=tf.data.AUTOTUNE
    )
    _fit("Features", model, dataset.batch(batch_size), epochs)


def pretrain_attention(
    attention: keras.Model, images: Images, indices: np.ndarray, epochs: int, seed: int
) -> None:
    """Train an attention network to find what makes the label of an image.

    The loss is the negative logarithm of the attention in the boxes. Images without a box
    are left out. Arguments as of ``pretrain``.
    """
    batch_size = 16
    indices = np.array([index for index in indices if len(images.boxes[index][0])])
    view = keras.Input(images.task.view_shape)
    model = keras.Model(view, attention(view))
    model.compile(
        _optimizer(epochs * len(indices) / batch_size),
        loss=lambda *maps: -ops.log(attention_in_boxes(*maps) + 1e-6),
        metrics=[attention_in_boxes],
        jit_compile=False,
    )
    dataset = mark_views(images, indices, model.output_shape[1:], seed)
    _fit("Attention", model, dataset.batch(batch_size), epochs)


def mark_views(
    images: Images, indices: np.ndarray, map_shape: tuple[int, int], seed: int
) -> tf.data.Dataset:
    """Return views of parts of images, and the cells at the middle of a box in each.

    Args:
        images: with boxes.
        indices: (chosen,) of images that have boxes; in another order in every epoch.
        map_shape: rows and columns of the attention map.
        seed: of order and changes: of part, light and color, and half are mirrored.

    Returns:
        Dataset of views (height, width, channels) uint8 and ``mark_cells`` of them.
    """
    task = images.task

    def choose(index: Any, seed: Any) -> Any:
        rng, boxes = np.random.default_rng(seed), np.array(images.boxes[index][0])
        part = choose_part(rng, boxes, task.image_shape[:2])
        inside = mark_cells(boxes - np.tile(part[:2], 2), part[2:], map_shape)
        mirror = rng.random() < 0.5  # where a sign is, not what it is
        return part, inside[:, ::-1].copy() if mirror else inside, mirror

    def make(index: Any, seed: Any) -> Any:
        kinds = [tf.int32, tf.float32, tf.bool]
        part, inside, mirror = tf.numpy_function(choose, [index, seed], kinds)
        part, mirror = tf.ensure_shape(part, [4]), tf.ensure_shape(mirror, [])
        inside = tf.ensure_shape(inside, map_shape)
        image = tf.image.crop_to_bounding_box(images.read(index), *tf.unstack(part))
        view = tf.image.resize(image, task.view_size, "area")
        view = tf.ensure_shape(tf.cast(tf.round(view), tf.uint8), task.view_shape)
        view = augment(view, seed, **_changes(images))
        return tf.where(mirror, tf.reverse(view, [1]), view), inside

    return _shuffle(indices, seed).map(make, num_parallel_calls=tf.data.AUTOTUNE)


def cut_windows(
    rng: np.random.Generator,
    image: np.ndarray,
    boxes: Sequence[Any],
    other_boxes: Sequence[Any],
    label: int,
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Cut three windows, each a little larger or smaller than it is returned.

    Args:
        rng: source of every choice.
        image: (height, width, 3) uint8.
        boxes: (top, left, bottom, right) of what makes the label.
        other_boxes: of things like it that do not.
        label: of the image.
        size: (height, width) of the windows, in pixels.

    Returns:
        Windows (3, height, width, 3) uint8, black outside of the image, and labels (3,)
        int32: that of the image where the window holds the middle of one of the boxes,
        else 0.
    """
    from PIL import Image

    whole = Image.fromarray(image)
    extent, shape = np.array(size, "float64"), np.array(image.shape[:2])
    windows, labels = [], []
    for number in range(_N_WINDOWS):
        chosen = boxes if number < 2 and len(boxes) else other_boxes
        span = extent * np.exp(rng.uniform(-_ZOOM, _ZOOM))
        if len(chosen) and (number < 2 or len(boxes)):
            top, left, bottom, right = chosen[rng.integers(len(chosen))]
            # A window grows with its sign, to 1.6 times at most: then it shows a part.
            side = max(bottom - top, right - left) / min(size)
            span = span * max(1.0, min(1.1 * side, 1.6))
            middle = np.array([top + bottom, left + right]) / 2
            middle = middle + rng.uniform(-_SHIFT, _SHIFT, 2) * span
        else:
            middle = rng.uniform(0, shape)
        (top, left), (bottom, right) = middle - span / 2, middle + span / 2
        window = whole.transform(
            size[::-1],
            Image.Transform.EXTENT,
            (left, top, right, bottom),
            Image.Resampling.BILINEAR,
        )
        windows.append(np.asarray(window))
        inside = any(
            abs(np.array([a + c, b + d]) / 2 - middle).max() < span.min() / 2
            for a, b, c, d in boxes
        )
        labels.append(label if inside else 0)
    return np.stack(windows), np.array(labels, "int32")


def choose_part(
    rng: np.random.Generator, boxes: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Choose a part of an image that holds the middle of one of the boxes.

    Args:
        rng: source of every choice.
        boxes: (count, 4), each (top, left, bottom, right) in pixels.
        size: (height, width) of the image.

    Returns:
        (4,) int32: top, left, height and width of the part. These are 0.6 to 1 of those
        of the image.
    """
    shape = np.array(size)
    extent = np.round(shape * rng.uniform(_SMALLEST_PART, 1)).astype(int)
    box = boxes[rng.integers(len(boxes))]
    middle = np.clip((box[:2] + box[2:]) // 2, 0, shape - 1)
    first = np.maximum(0, middle - extent + 1)
    origin = rng.integers(first, np.minimum(shape - extent, middle) + 1)
    return np.concatenate([origin, extent]).astype("int32")


def mark_cells(
    boxes: Sequence[Any], image_shape: Sequence[int], map_shape: tuple[int, int]
) -> np.ndarray:
    """Return (rows, columns) float32: 1 for cells at the middle of a box, else 0.

    Args:
        boxes: (top, left, bottom, right) in pixels of the image.
        image_shape: height and width of the image, in pixels.
        map_shape: rows and columns of the attention map.
    """
    cell = np.array(image_shape[:2]) / map_shape
    rows, columns = (
        (np.arange(n) + 0.5) * c for n, c in zip(map_shape, cell, strict=True)
    )
    marked = np.zeros(map_shape, "float32")
    for top, left, bottom, right in boxes:
        near = np.maximum(cell, max(bottom - top, right - left) / 4)
        in_rows = abs(rows - (top + bottom) / 2) <= near[0]
        marked[np.ix_(in_rows, abs(columns - (left + right) / 2) <= near[1])] = 1
    return marked


def attention_in_boxes(inside: Any, attention: Any) -> Any:
    """Return the attention (batch,) in the marked cells: the metric of the training."""
    return ops.sum(inside * attention, axis=(1, 2))


def _fit(name: str, model: keras.Model, dataset: tf.data.Dataset, epochs: int) -> None:
    print(f"{name} from boxes, {len(dataset)} steps an epoch", flush=True)
    dataset = without_autotuning(dataset.prefetch(2))
    model.fit(dataset, epochs=epochs, shuffle=False, verbose=2)


def _changes(images: Images) -> dict[str, Any]:
    """Return the changes of training images, without those that move what is in boxes."""
    return {"brightness": 0, "contrast": 0, **images.changes, "shift": 0}


def _optimizer(steps: float) -> keras.optimizers.Optimizer:
    falling = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, math.ceil(steps))
    return keras.optimizers.Adam(falling, clipnorm=1.0)


def _shuffle(indices: np.ndarray, seed: int) -> tf.data.Dataset:
    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(indices, "int32"))
    return _with_seeds(dataset.shuffle(len(indices), seed=seed), seed)


def _with_seeds(dataset: tf.data.Dataset, seed: int) -> tf.data.Dataset:
    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
    return tf.data.Dataset.zip(dataset, seeds)
