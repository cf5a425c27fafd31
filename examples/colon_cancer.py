"""Find out whether there are epithelial nuclei in images of stained tissue.

The colon cancer experiment of Katharopoulos and Fleuret 2019, section 4.3. Without a
directory it draws a small data set of its own, trains on it, and writes what it found to
``runs/colon_cancer``.
"""

import argparse
import dataclasses
import functools
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from data_identity import describe_data
from experiment import Experiment, Split
from experiment_options import add_options, describe, set_defaults
from experiment_runs import check_runs, run_experiment
from script import run_script
from stained_tissue import AUGMENTATIONS, TissueImages

from attention_sampling.datasets.colon_cancer import load_colon_cancer, read_images
from attention_sampling.datasets.drawn_colon_cancer import write_colon_cancer
from attention_sampling.datasets.folds import (
    parse_ids,
    split_by_ids,
    stratified_folds,
)
from attention_sampling.experiments.networks import colon_cancer_features
from attention_sampling.experiments.tasks import TASKS

TASK = TASKS["colon_cancer"]
CLASSES = ("without", "epithelial")
# Of the images to the views.
SCALE = 5

# For the published images.
SETTINGS = {
    "epochs": 100,
    "batch_size": TASK.batch_size,
    "learning_rate": 1e-3,
    "decay": 0.5,
    "clip": "weight",
    "weight_decay": 0.0,
    "dtype_policy": "float32",
    "dropout": 0.0,
    "augmentation": "strong",
    "entropy": 0.01,
    "mix": 0.0,  # tissue has contrast everywhere: it tells nothing of the places
    "mix_epochs": 0,
    "estimator": "unordered",
    "control_variate": True,
    "prediction": "sample",
    "center": True,
    "feature_scale": 4.0,
}
PAPER_SETTINGS = SETTINGS | {
    "decay": 0.0,
    "clip": "global",
    "augmentation": "light",
    "entropy": TASK.entropy,
    "estimator": "ordered",
    "control_variate": False,
    "center": False,
    "feature_scale": 1.0,
}
DRAWN_SETTINGS = SETTINGS | {"epochs": 30, "augmentation": "light"}
VARIANTS = {
    "": SETTINGS,
    "for drawn images": DRAWN_SETTINGS,
    "with --paper": PAPER_SETTINGS,
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "dataset",
        nargs="?",
        metavar="DATASET_DIR",
        type=Path,
        help="CRCHistoPhenotypes_2016_04_28, or the directory it is in; without it, "
        "images are drawn",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="parts of the images, each of them to test with once (default: 5)",
    )
    for part, other in (("train", "test"), ("test", "train")):
        parser.add_argument(
            f"--{part}-on",
            type=_ids,
            metavar="IDS",
            help=f"instead of folds, numbers of the images to {part} on, such as "
            f"1-50,60 (default: all but those of --{other}-on)",
        )
    parser.add_argument(
        "--augmentation",
        choices=AUGMENTATIONS,
        help="of the training images: light changes brightness and contrast as the "
        "paper, strong also mirrors, turns, and changes the stains"
        + describe("augmentation", VARIANTS),
    )
    parser.add_argument(
        "--dropout",
        type=float,
        help="in the dense layers of the features" + describe("dropout", VARIANTS),
    )
    parser.add_argument(
        "--paper", action="store_true", help="begin with the settings of the paper"
    )
    add_options(parser, TASK, "runs/colon_cancer", VARIANTS)
    arguments = parser.parse_args(argv)
    defaults = SETTINGS if arguments.dataset else DRAWN_SETTINGS
    set_defaults(parser, arguments, PAPER_SETTINGS if arguments.paper else defaults)
    if not 0 <= arguments.dropout < 1:
        parser.error("--dropout must be at least 0 and below 1")
    by_ids = arguments.train_on is not None or arguments.test_on is not None
    if by_ids and arguments.folds is not None:
        parser.error("--folds does not go with --train-on and --test-on")
    if not by_ids and arguments.folds is None:
        arguments.folds = 5
    if arguments.folds is not None and arguments.folds < 2:
        parser.error("--folds must be at least 2")
    return arguments


def _ids(text):
    try:
        parse_ids(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from None
    return text  # as the settings are to say it


def load_experiment(arguments, output):
    """Load the images into memory, and say how they are split."""
    directory = arguments.dataset
    if directory is None:
        directory = output / "tissue"
        write_colon_cancer(directory)
    data = load_colon_cancer(directory)
    print(data)
    height, width = data.size
    task = dataclasses.replace(
        TASK.resized(data.size, (height // SCALE, width // SCALE)),
        feature=functools.partial(colon_cancer_features, dropout=arguments.dropout),
    )
    pixels = read_images(data.samples)
    images = TissueImages(
        data.samples,
        tf.constant(pixels),
        task.view_size,
        AUGMENTATIONS[arguments.augmentation],
    )

    def splits(seed):
        if arguments.folds is None:
            ids = (arguments.train_on, arguments.test_on)
            parts = [split_by_ids(data.numbers, *(i and parse_ids(i) for i in ids))]
        else:
            parts = stratified_folds(
                images.labels, arguments.folds, seed, names=data.numbers
            )
        return [Split(*map(images.choose, part)) for part in parts]

    identity = describe_data(
        data.drawn,
        len(data.samples),
        [data.numbers, np.asarray(data.labels), pixels],
    )
    return Experiment(
        "colon_cancer", task, CLASSES, identity, splits, folds=arguments.folds
    )


def main(argv=None):
    arguments = parse_arguments(argv)
    output = Path(arguments.output)
    check_runs(arguments, output)
    experiment = load_experiment(arguments, output)
    run_experiment(
        experiment, arguments, output, sys.argv[1:] if argv is None else argv
    )


if __name__ == "__main__":
    run_script(main)
