"""Find the speed limit in a road scene whose sign is legible at full resolution only.

The speed-limit experiment of Katharopoulos and Fleuret 2019, section 4.4. Without
``--dataset`` it draws a small data set of its own, trains on it, and writes what it
found to ``runs/speed_limits``.
"""

import dataclasses
import functools
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from copied_networks import copy_networks
from data_identity import describe_data
from experiment import Experiment, Split
from experiment_runs import check_runs, run_experiment
from experiment_training import build_compiled_model
from road_images import RoadImages
from script import run_script
from speed_limits_options import parse_arguments

from attention_sampling.data import ImageFilesSource
from attention_sampling.datasets.road_scenes import write_road_scenes
from attention_sampling.datasets.speed_limits import (
    check_images,
    download_swedish,
    load_speed_limits,
)
from attention_sampling.experiments.networks import (
    SPEED_LIMITS_RECEPTIVE_FIELD,
    residual_features,
)
from attention_sampling.experiments.profiling import profile_training
from attention_sampling.experiments.tasks import TASKS

# Of images that --on-demand keeps decoded: a JPEG has to be decoded as a whole.
CACHE_BYTES = 2**28


def load_experiment(arguments, output):
    """Find the images, check all of them, and say how they are split."""
    directory = arguments.dataset
    if directory is None:
        directory = output / "scenes"
        write_road_scenes(directory)
    elif arguments.download:
        download_swedish(directory)

    @functools.cache
    def load(seed):
        return load_speed_limits(
            directory, arguments.test_fraction, arguments.test_from, seed
        )

    data = load(arguments.seed)
    samples = [*data.train, *data.test]
    size = check_images(samples)
    print(
        f"{len(data.train)} training and {len(data.test)} test images of "
        f"{size[1]} x {size[0]} pixels; classes {', '.join(data.classes)}"
    )
    task = build_task(arguments, size, len(data.classes))
    source = None
    if arguments.on_demand:
        source = ImageFilesSource(
            [sample.path for sample in samples], channels=3, cache_bytes=CACHE_BYTES
        )
    images = RoadImages(
        samples,
        np.arange(len(samples)),
        size,
        task.view_size,
        source,
        output / "views",
    )
    numbers = {sample: number for number, sample in enumerate(samples)}

    def splits(seed):
        parts = (load(seed).train, load(seed).test)
        return [Split(*(images.choose([numbers[s] for s in part]) for part in parts))]

    return Experiment(
        "speed_limits",
        task,
        data.classes,
        identify(directory, samples),
        splits,
        balanced=True,
        source=source,
        prepare=arguments.start_from and copy_networks(arguments.start_from),
    )


def identify(directory, samples):
    """Return what images these are, by names, annotations and sizes of the files."""
    parts = sorted(
        [
            Path(sample.path).name,
            os.path.getsize(sample.path),
            sample.label,
            *(dataclasses.astuple(sign) for sign in sample.signs),
        ]
        for sample in samples
    )
    drawn = (Path(directory) / "road_scenes.json").is_file()  # beside what we draw
    return describe_data(drawn, len(samples), [parts])


def build_task(arguments, size, n_classes):
    """Return the task for images of a size (height, width), in pixels."""
    # A view of 8 n pixels leaves no rest when the attention network pools 8 x 8.
    view_size = tuple(8 * round(extent * arguments.scale / 8) for extent in size)
    if min(view_size) < SPEED_LIMITS_RECEPTIVE_FIELD + 7:
        raise ValueError(
            "The view is too small for the attention network. Expected: at least 16 "
            f"pixels each way. Received: --scale {arguments.scale}, which makes "
            f"{view_size[1]} x {view_size[0]}"
        )
    strides = tuple(map(int, arguments.block_strides.split(",")))
    network = {
        "filters": (32,) * len(strides),
        "strides": strides,
        "first_stride": arguments.first_stride,
    }
    task = dataclasses.replace(
        TASKS["speed_limits"],
        image_shape=(*size, 3),
        view_size=view_size,
        patch_size=(arguments.patch_size, arguments.patch_size),
        n_classes=n_classes,
        # As dense as in the paper: four fifths of a patch from one to the next.
        grid_size=tuple(-(-5 * e // (4 * arguments.patch_size)) for e in size),
        feature=functools.partial(
            residual_features, **network, center=arguments.center
        ),
        convolutional=network,
    )
    return task.resized()  # which is refused where the patches are larger than images


def profile(experiment, arguments, directory):
    """Measure a few training steps, and say what they cost."""
    [split] = experiment.splits(arguments.seed)
    n_train, seed = len(split.train.labels), arguments.seed
    model = build_compiled_model(
        arguments, experiment.task, experiment.source, n_train, seed
    )
    inputs = arguments.method.inputs
    batches = split.train.batches(inputs, arguments.batch_size, seed)
    cost = profile_training(model, batches, directory)
    print(
        f"{cost.seconds_per_sample * 1e3:.1f} ms and "
        f"{cost.bytes_per_sample / 1e6:.1f} MB a sample, peak "
        f"{cost.peak_bytes / 1e6:.1f} MB on {cost.device}, batch "
        f"{arguments.batch_size}; trace in {directory}"
    )


def main(argv=None):
    arguments = parse_arguments(__doc__, argv)
    output = Path(arguments.output)
    if not arguments.profile:
        check_runs(arguments, output)
    experiment = load_experiment(arguments, output)
    if arguments.profile:
        profile(experiment, arguments, output / "profile")
        return
    run_experiment(
        experiment, arguments, output, sys.argv[1:] if argv is None else argv
    )


if __name__ == "__main__":
    run_script(main)
