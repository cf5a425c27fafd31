"""The images of the three tasks: loaded, split, and in batches for any method."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from attention_sampling.data import HDF5Source, Source
from attention_sampling.data.views import image_decoder, without_autotuning
from attention_sampling.datasets import colon_cancer, folds, speed_limits
from attention_sampling.datasets.megapixel_mnist_files import load_megapixel_mnist
from attention_sampling.experiments import networks, sign_networks
from attention_sampling.experiments.augmentation import AUGMENTATIONS, augment
from attention_sampling.experiments.tasks import TASKS, Task

_DIGITS_OF_LABEL = 3  # of the five in an image of Megapixel MNIST, the first
Split = tuple[np.ndarray, np.ndarray]


class Truth(NamedTuple):
    """An image and what is to be found in it, in its pixels.

    Attributes:
        name: of the image.
        image: (height, width, 1 or 3) uint8.
        boxes: (top, left, bottom, right) of each thing that makes the label.
        other_boxes: of things like them that do not.
        points: (row, column) of each thing that makes the label.
    """

    name: str
    image: np.ndarray
    boxes: Sequence[Any] = ()
    other_boxes: Sequence[Any] = ()
    points: Sequence[Any] = ()


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images of a task: all of them, to train on and to test with.

    Args:
        task: networks and sizes.
        classes: name of each label.
        labels: (count,) int32.
        splits: from a seed to the indices to train on and to test with, of each fold.
        read: from the index of an image, a tensor, to its tensor (height, width,
            channels) uint8.
        truth: from the index of an image to its ``Truth``.
        about: what tells these images from others of the task, as JSON can say it.
        changes: keywords of ``augment`` for the training images; empty for none.
        balanced: whether to weigh each class by the inverse of its prior.
        view: from an index to the view, where there are views to be read.
        source: of the patches, where images stay on disk.
        boxes: of each image two lists, of what makes its label and of things like it that
            do not, (top, left, bottom, right) in its pixels; where there are boxes.
    """

    task: Task
    classes: Sequence[str]
    labels: np.ndarray
    splits: Callable[[int], Sequence[Split]]
    read: Callable[[Any], Any]
    truth: Callable[[int], Truth]
    about: dict[str, Any]
    changes: dict[str, Any]
    balanced: bool = False
    view: Callable[[int], np.ndarray] | None = None
    source: Source | None = None
    boxes: Sequence[tuple[Sequence[Any], Sequence[Any]]] = ()

    def batches(
        self,
        indices: np.ndarray,
        inputs: Sequence[str],
        batch_size: int,
        seed: int | None = None,
    ) -> tf.data.Dataset:
        """Return batches ``(inputs, labels)``, as ``model.fit`` takes them.

        Args:
            indices: (chosen,) of the images.
            inputs: names of what the model takes: "view", "image" and "index".
            batch_size: images a batch; the last may be smaller.
            seed: int for training: shuffled anew in every epoch, and augmented. None
                for the images as they are, in their order.
        """
        dataset = tf.data.Dataset.from_tensor_slices(np.asarray(indices, "int32"))
        if seed is not None:
            dataset = dataset.shuffle(len(indices), seed=seed)
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)

        def make(index: Any, image_seed: Any) -> Any:
            made = {"index": index}
            if "image" in inputs:
                image = tf.ensure_shape(self.read(index), self.task.image_shape)
                if seed is not None and self.changes:
                    image = augment(image, image_seed, **self.changes)
                made["image"] = image
            if "view" in inputs and self.view is not None:
                view = tf.numpy_function(self.view, [index], tf.float32)
                made["view"] = tf.ensure_shape(view, self.task.view_shape)
            elif "view" in inputs:
                # After the change, so that both show the same.
                made["view"] = tf.image.resize(image, self.task.view_size, "area")
            return tuple(made[name] for name in inputs), tf.gather(self.labels, index)

        dataset = tf.data.Dataset.zip(dataset, seeds)
        dataset = dataset.map(make, num_parallel_calls=tf.data.AUTOTUNE)
        return without_autotuning(dataset.batch(batch_size).prefetch(1))


def load_images(task: str, directory: Path, settings: dict[str, Any]) -> Images:
    """Load the images of a task.

    Args:
        task: its name.
        directory: where they are.
        settings: of the training, as ``choose_settings`` returns them, and its seed.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: a file is damaged, or the sizes do not fit.
    """
    load = {
        "megapixel_mnist": _load_digits,
        "colon_cancer": _load_tissue,
        "speed_limits": _load_scenes,
    }
    return load[task](directory, settings)


def _load_digits(directory, settings):
    files = load_megapixel_mnist(directory)
    train, test = files

    def locate(index):
        return (train, index) if index < len(train) else (test, index - len(train))

    def read(index):
        file, index = locate(index)
        return file.images([index])[0]

    def view(index):
        file, index = locate(index)
        return file.views[index]

    def truth(index):
        file, number = locate(index)
        name, boxes = f"{Path(file.path).stem}_{number:05d}", file.boxes[number]
        return Truth(
            name, read(index), boxes[:_DIGITS_OF_LABEL], boxes[_DIGITS_OF_LABEL:]
        )

    labels = np.concatenate([train.labels, test.labels]).astype("int32")
    indices = np.arange(len(labels))
    return Images(
        replace(
            TASKS["megapixel_mnist"],
            image_shape=(*train.size, 1),
            view_size=train.view_size,
        ),
        tuple("0123456789"),
        labels,
        lambda seed: [(indices[: len(train)], indices[len(train) :])],
        lambda index: tf.numpy_function(read, [index], tf.uint8),
        truth,
        {"images": len(labels), "noise_patches": train.noise_patches},
        changes={},
        view=view,
        source=HDF5Source([train.path, test.path])
        if settings.get("on_demand")
        else None,
    )


def _load_tissue(directory, settings):
    data = colon_cancer.load_colon_cancer(directory)
    pixels = tf.constant(colon_cancer.read_images(data.samples))

    def splits(seed):
        if settings["folds"] is None:
            ids = (settings["train_on"], settings["test_on"])
            ids = (text and folds.parse_ids(text) for text in ids)
            return [folds.split_by_ids(data.numbers, *ids)]
        if settings["folds"] == "blocks":
            return folds.block_folds(data.numbers)
        return folds.stratified_folds(
            data.labels, settings["folds"], seed, names=data.numbers
        )

    def truth(index):
        sample = data.samples[index]
        name, points = Path(sample.path).stem, sample.nuclei["epithelial"]
        return Truth(name, pixels[index].numpy(), points=points)

    height, width = data.size
    task = TASKS["colon_cancer"].resized(data.size, (height // 5, width // 5))
    return Images(
        task,
        ("without", "epithelial"),
        data.labels,
        splits,
        lambda index: tf.gather(pixels, index),
        truth,
        {"images": len(data.labels)},
        AUGMENTATIONS[settings["augmentation"]],
    )


def _load_scenes(directory, settings):
    def load(seed):
        fraction = settings["test_fraction"]
        return speed_limits.load_speed_limits(directory, fraction, seed)

    data = load(settings["seed"])
    samples = [*data.train, *data.test]
    size = speed_limits.check_images(samples)
    index_of = {sample.path: index for index, sample in enumerate(samples)}
    paths, decode = tf.constant(list(index_of)), image_decoder(list(index_of))
    # Other signs in images of the same names are another data set.
    listed = [(s.path.removeprefix(str(directory)), s.label, s.signs) for s in samples]
    digest = sha256(repr(sorted(listed)).encode("utf-8")).hexdigest()[:12]

    def splits(seed):
        parts = load(seed)
        parts = (parts.train, parts.test)
        return [tuple(np.array([index_of[x.path] for x in part]) for part in parts)]

    def read(index):
        return decode(tf.io.read_file(tf.gather(paths, index)))

    boxes = [
        tuple([(s.top, s.left, s.bottom, s.right) for s in signs] for signs in both)
        for both in ((sample.signs, sample.other_signs) for sample in samples)
    ]

    def truth(index):
        return Truth(Path(samples[index].path).stem, read(index).numpy(), *boxes[index])

    return Images(
        _fit_road_task(size, len(data.classes), settings),
        data.classes,
        np.array([sample.label for sample in samples], "int32"),
        splits,
        read,
        truth,
        {"images": len(samples), "samples": digest},
        AUGMENTATIONS[settings["augmentation"]],
        balanced=settings["balanced"],
        boxes=boxes,
    )


def _fit_road_task(size, n_classes, settings):
    """Return the task for images of a size (height, width)."""
    first_stride, *strides = map(int, settings["strides"].split(","))
    network = {
        "filters": (32,) * len(strides),
        "strides": strides,
        "first_stride": first_stride,
    }
    # A network on whole images has neither patches nor a view.
    patch, scale = settings.get("patch_size", 1), settings.get("scale", 1)
    chosen: dict[str, Any] = {}
    if settings.get("networks") == "paper":
        build, pool = functools.partial(networks.residual_features, **network), 8
    else:
        build, pool = sign_networks.sign_features, 4
        build = functools.partial(build, n_classes=n_classes)
        chosen = {"attention": sign_networks.sign_attention, "receptive_field": 0}
    task = replace(
        TASKS["speed_limits"],
        image_shape=(*size, 3),
        # Without a rest when the attention network pools.
        view_size=tuple(pool * round(x * scale / pool) for x in size),
        patch_size=(patch, patch),
        n_classes=n_classes,
        # As dense as in the paper: four fifths of a patch from one to the next.
        grid_size=tuple(-(-5 * extent // (4 * patch)) for extent in size),
        feature=functools.partial(build, center=settings.get("center", True)),
        convolutional=network,
        **chosen,
    )
    return task.resized()  # which refuses sizes that do not fit
