"""What an experiment of the paper gives to be trained on: images, and how they split."""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from attention_sampling.data import Source
from attention_sampling.experiments.tasks import Task


@dataclass(frozen=True)
class Picture:
    """An image to draw attention on, and where the truth is.

    Args:
        name: of the image, and of the picture's file.
        image: (height, width, 1 or 3) uint8.
        boxes: (top, left, bottom, right) of each thing to be found, in pixels.
        other_boxes: of things like them that do not make the label.
        points: (row, column) of each thing to be found, in pixels.
    """

    name: str
    image: np.ndarray
    boxes: Sequence[tuple[float, float, float, float]] = ()
    other_boxes: Sequence[tuple[float, float, float, float]] = ()
    points: Sequence[tuple[float, float]] = ()


class Images(abc.ABC):
    """Labelled images of an experiment, in batches for any method.

    Attributes:
        labels: one int for each image.
    """

    labels: Sequence[int]

    @abc.abstractmethod
    def batches(self, inputs, batch_size, seed=None):
        """Return batches ``(inputs, labels)``, as ``model.fit`` takes them.

        Args:
            inputs: names of what the model takes, in order: ``"view"``, ``"image"``.
            batch_size: images a batch; the last batch may be smaller.
            seed: int for training: shuffled anew in every epoch and, where images are,
                augmented. None for all images as they are, in their order.
        """

    @abc.abstractmethod
    def choose(self, numbers):
        """Return some of the images, by their numbers, as `Images`."""

    @abc.abstractmethod
    def picture(self, number):
        """Return an image with its truth, as a `Picture`."""


@dataclass(frozen=True)
class Split:
    """Images to train on, and others to test with."""

    train: Images
    test: Images


@dataclass(frozen=True)
class Experiment:
    """What an example gives to be trained on.

    Args:
        name: of the example.
        task: networks and sizes.
        classes: name of each label.
        data: what images these are, as `data_identity.describe_data` returns it.
        splits: from the seed of a run to its `Split`, or to one for each fold.
        folds: how many parts the images are tested in; None for a single split.
        balanced: whether to weigh each class by the inverse of its prior.
        source: of the patches, where images stay on disk.
        prepare: what to do with each new model before it is trained, such as to give
            it the weights of another.
    """

    name: str
    task: Task
    classes: Sequence[str]
    data: dict
    splits: Callable[[int], Sequence[Split]]
    folds: int | None = None
    balanced: bool = False
    source: Source | None = None
    prepare: Callable[[keras.Model], None] | None = None
