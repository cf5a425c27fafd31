"""Name the digit that occurs most often in a megapixel image.

The Megapixel MNIST experiment of Katharopoulos and Fleuret 2019, section 4.2:

    python examples/make_mnist.py data/megapixel_mnist
    python examples/mnist.py data/megapixel_mnist

What it finds is written to ``runs/mnist``.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from data_identity import describe_data
from experiment import Experiment, Images, Picture, Split
from experiment_options import add_options, set_defaults
from experiment_runs import check_runs, run_experiment
from script import run_script

from attention_sampling.data import HDF5Source
from attention_sampling.datasets.megapixel_mnist_files import load_megapixel_mnist
from attention_sampling.experiments.tasks import TASKS

TASK = TASKS["megapixel_mnist"]
DIGITS_OF_LABEL = 3  # of the five in an image, the first
# Settings of a data set that are kept with a run, besides noise and seed.
MADE_WITH = ("n_train", "n_test", "width", "height", "scale")

SETTINGS = {
    "epochs": 30,
    "batch_size": TASK.batch_size,
    "learning_rate": 1e-3,
    "decay": 0.25,
    "clip": "weight",
    "weight_decay": 0.0,
    "dtype_policy": "float32",
    "entropy": TASK.entropy,
    "mix": 1.0,
    "mix_epochs": 0,
    "estimator": "unordered",
    "control_variate": True,
    "prediction": "sample",
    "center": True,
    "feature_scale": 4.0,
}
# What the paper does not say is as in the scripts of its authors.
PAPER_SETTINGS = SETTINGS | {
    "epochs": 500,
    "batch_size": 128,
    "decay": 0.0,
    "clip": "global",
    "mix": 0.0,
    "estimator": "ordered",
    "control_variate": False,
    "center": False,
    "feature_scale": 1.0,
}
VARIANTS = {"": SETTINGS, "with --paper": PAPER_SETTINGS}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "dataset",
        metavar="DATASET_DIR",
        type=Path,
        help="what examples/make_mnist.py has written",
    )
    parser.add_argument(
        "--on-demand",
        action="store_true",
        help="read each patch from disk when it is drawn, instead of whole images",
    )
    parser.add_argument(
        "--paper", action="store_true", help="begin with the settings of the paper"
    )
    add_options(parser, TASK, "runs/mnist", VARIANTS)
    arguments = parser.parse_args(argv)
    set_defaults(parser, arguments, PAPER_SETTINGS if arguments.paper else SETTINGS)
    return arguments


class DigitImages(Images):
    """Images of a `MegapixelMNISTFile`.

    Args:
        data: the file.
        first: number of its first image in the source, to be read on demand; None to
            read whole images.
        numbers: of the images in the file, all by default.
    """

    def __init__(self, data, first=None, numbers=None):
        self.data, self.first = data, first
        self.numbers = np.arange(len(data)) if numbers is None else np.asarray(numbers)
        self.labels = data.labels[self.numbers]

    def choose(self, numbers):
        return DigitImages(self.data, self.first, self.numbers[numbers])

    def batches(self, inputs, batch_size, seed=None):
        return Batches(self, inputs, batch_size, seed)

    def read(self, name, chosen):
        """Return one input of a model for some images.

        Args:
            name: ``"view"`` or ``"image"``.
            chosen: (batch,) numbers among these images.
        """
        numbers = self.numbers[chosen]
        if name == "view":
            return self.data.views[numbers]
        if self.first is None:
            return self.data.images(numbers)
        return (self.first + numbers).astype("int32")

    def picture(self, number):
        place = self.numbers[number]
        [image] = self.data.images([place])
        boxes = self.data.boxes[place]
        return Picture(
            f"{Path(self.data.path).stem}_{place:05d}",
            image,
            boxes=boxes[:DIGITS_OF_LABEL],
            other_boxes=boxes[DIGITS_OF_LABEL:],
        )


class Batches(keras.utils.PyDataset):
    """Batches of `DigitImages`, read in threads while the model trains.

    Args:
        images: to take them from.
        inputs, batch_size, seed: as of ``Images.batches``.
    """

    def __init__(self, images, inputs, batch_size, seed):
        super().__init__(workers=2, max_queue_size=4)
        self.images, self.inputs, self.batch_size = images, inputs, batch_size
        self.order = np.arange(len(images.labels))
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index):
        chosen = self.order[index * self.batch_size :][: self.batch_size]
        made = tuple(self.images.read(name, chosen) for name in self.inputs)
        return made, self.images.labels[chosen]

    def on_epoch_end(self):
        if self.rng is not None:
            self.order = self.rng.permutation(self.order)


def load_experiment(arguments):
    """Open the images to train on and those to test with."""
    try:
        files = load_megapixel_mnist(arguments.dataset)
    except FileNotFoundError as error:
        raise ValueError(
            f"{error}. Make the images first: python examples/make_mnist.py "
            f"{arguments.dataset}"
        ) from error
    train, test = files
    check_labels(files)
    print(
        f"{len(train)} training and {len(test)} test images of {train.size[1]} x "
        f"{train.size[0]} pixels, {train.noise_patches} patches of noise in each"
    )
    task = dataclasses.replace(
        TASK, image_shape=(*train.size, 1), view_size=train.view_size
    )
    source, firsts = None, (None, None)
    if arguments.on_demand:
        source, firsts = HDF5Source([train.path, test.path]), (0, len(train))
    split = Split(*map(DigitImages, files, firsts))
    return Experiment(
        "mnist",
        task,
        tuple("0123456789"),
        identify(files),
        lambda seed: [split],
        source=source,
    )


def check_labels(files):
    """Refuse labels that are no digits, which the file format has room for."""
    for data in files:
        strange = np.setdiff1d(data.labels, np.arange(TASK.n_classes))
        if len(strange):
            raise ValueError(
                f"The labels must be digits, 0 to {TASK.n_classes - 1}. Make the images "
                "again by examples/make_mnist.py. "
                f"Received: label {strange[0]} in {data.path}"
            )


def identify(files):
    """Return what images these are: how they were made, and what is cheap to read."""
    train, test = files
    settings = train.settings
    parts = [
        part
        for data in files
        for part in (data.labels, data.boxes, data.seed, data.images([0]))
    ]
    return describe_data(
        False,  # those of the paper are drawn too
        len(train) + len(test),
        [*parts, train.view_size],
        noise_patches=train.noise_patches,
        seed=settings.get("seed"),
        **{name: settings[name] for name in MADE_WITH if name in settings},
    )


def main(argv=None):
    arguments = parse_arguments(argv)
    output = Path(arguments.output)
    check_runs(arguments, output)
    experiment = load_experiment(arguments)
    run_experiment(
        experiment, arguments, output, sys.argv[1:] if argv is None else argv
    )


if __name__ == "__main__":
    run_script(main)
