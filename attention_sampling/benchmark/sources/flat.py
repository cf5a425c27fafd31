"""A training step, and its memory, on images of a megapixel and of a thousand."""

import gc
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from attention_sampling import SampleSoftmax, attention_sampling
from attention_sampling.benchmark.processes import (
    Seconds,
    peak_megabytes,
    processes,
    reset_peak,
    seconds_of,
)
from attention_sampling.benchmark.sources.files import TiledImage, write_tiff
from attention_sampling.benchmark.tables import Row, at_most
from attention_sampling.data import TiffSource

# Over those of the smallest image.
LARGEST_TIME = 1.15
LARGEST_MEGABYTES = 50.0
# Steps of a turn, of which the faster counts, after one that finds what the other
# processes left in the caches.
_STEPS = 2


class Setting(NamedTuple):
    """What is trained.

    The receptive field keeps the patches inside an image of a megapixel: of one that
    hangs over the border, less is read.
    """

    view_size: int = 256
    n_patches: int = 10
    patch_size: int = 256
    receptive_field: int = 66


class Prepared(NamedTuple):
    """What a process says before the steps.

    Attributes:
        view_seconds: to make the view.
        view_megabytes: largest memory meanwhile.
    """

    view_seconds: float
    view_megabytes: float


class Turn(NamedTuple):
    """What one process did in its turn.

    Attributes:
        step: of a training step.
        read: of reading as many patches, beside the step.
    """

    step: Seconds
    read: Seconds


# What belongs to this process; in tests, to this thread.
_here = threading.local()


def write_images(directory: Path, megapixels: Sequence[float]) -> dict[str, Path]:
    """Write tiled TIFF files with JPEG compression and pyramids.

    Args:
        directory: for the files.
        megapixels: sizes of the square images, in 10^6 pixels.

    Returns:
        The files, by name of the size.
    """
    files = {}
    for size in sorted(megapixels):
        side = round(math.sqrt(size * 1e6))
        files[f"{size:g} MP"] = path = directory / f"{size:g}.tif"
        write_tiff(path, TiledImage((side, side), seed=0), "jpeg")
    return files


def measure_flat(files: dict[str, Path], setting: Setting, steps: int) -> list[Row]:
    """Train on each image in a process of its own, all of them in turn.

    Args:
        files: as ``write_images`` returns them, the smallest image first.
        setting: what is trained.
        steps: number to measure for each image.

    Returns:
        A row for each image. ``step s`` is the median; ``ratio`` the median over the
        turns of the time over that of the smallest image, between the quartiles ``low``
        and ``high``, and ``processor ratio`` the same of the time of the processor.
        ``read s`` is what reading as many patches takes. ``peak MB`` is the largest
        resident memory of the process in its steps, the library and all included. The
        view is made once, before the steps.
    """
    names = list(files)
    with processes(names) as started:
        prepared = started.call(
            prepare, {name: (path, setting) for name, path in files.items()}
        )
        turns = started.in_turns(take_steps, -(-steps // _STEPS))
        peaks = started.call(end, dict.fromkeys(names, ()))
    # (turns, 2 for step and reading, 2 for the clock and the processor)
    seconds = {name: np.array(of_one) for name, of_one in turns.items()}
    rows = []
    for name in names:
        ratios = seconds[name][:, 0] / seconds[names[0]][:, 0]
        low, ratio, high = np.quantile(ratios[:, 0], [0.25, 0.5, 0.75])
        above = peaks[name] - peaks[names[0]]
        rows.append(
            {
                "image": name,
                "file MB": files[name].stat().st_size / 1e6,
                "step s": float(np.median(seconds[name][:, 0, 0])),
                "ratio": float(ratio),
                "low": float(low),
                "high": float(high),
                "time limit": at_most(ratio, LARGEST_TIME),
                "processor ratio": float(np.median(ratios[:, 1])),
                "read s": float(np.median(seconds[name][:, 1, 0])),
                "peak MB": peaks[name],
                "above MB": above,
                "memory limit": ""
                if math.isnan(above)
                else at_most(above, LARGEST_MEGABYTES),
                "view s": prepared[name].view_seconds,
                "view peak MB": prepared[name].view_megabytes,
            }
        )
    return rows


def prepare(path: Path, setting: Setting) -> Prepared:
    """Open an image, make its view, and build and warm up the model, in this process."""
    keras.utils.set_random_seed(0)
    source = TiffSource(path)
    reset_peak()
    seconds = seconds_of(source.read_view, 0, setting.view_size)
    prepared = Prepared(seconds.wall, peak_megabytes())
    view = source.read_view(0, setting.view_size)[None]
    _here.source, _here.setting = source, setting
    _here.model = build_model(source, setting)
    _here.batch = ([view, np.zeros(1, "int32")], np.zeros(1))
    for _ in range(2):
        _here.model.train_on_batch(*_here.batch)
    gc.collect()
    reset_peak()
    return prepared


def take_steps() -> Turn:
    """Take some steps in this process, and read as many patches at random beside."""
    _here.model.train_on_batch(*_here.batch)
    steps = [
        seconds_of(_here.model.train_on_batch, *_here.batch) for _ in range(_STEPS)
    ]
    source, setting = _here.source, _here.setting
    room = np.array(source.shape(0)[:2]) - setting.patch_size
    rng = np.random.default_rng(0)
    reads = [
        seconds_of(
            source.read_patches,
            np.zeros(setting.n_patches, "int32"),
            rng.integers(room + 1, size=(setting.n_patches, 2)),
            setting.patch_size,
        )
        for _ in range(_STEPS)
    ]
    return Turn(min(steps), min(reads))


def end() -> float:
    """Close the source; return the largest memory of the steps."""
    _here.source.close()
    return peak_megabytes()


def build_model(source: Any, setting: Setting) -> keras.Model:
    """Build a small model, so that reading weighs in its steps."""
    attention = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, strides=4, padding="same", activation="relu"),
            keras.layers.Conv2D(1, 3, strides=2, padding="same"),
            SampleSoftmax(squeeze_channels=True),
        ]
    )
    feature = keras.Sequential(
        [
            keras.Input((setting.patch_size, setting.patch_size, source.channels)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 5, strides=4, activation="relu"),
            keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.UnitNormalization(),
        ]
    )
    view = keras.Input((setting.view_size, setting.view_size, source.channels))
    index = keras.Input((), dtype="int32")
    features, _, _ = attention_sampling(
        attention,
        feature,
        n_patches=setting.n_patches,
        receptive_field=setting.receptive_field,
        seed=0,
        source=source,
    )([view, index])
    label = keras.layers.Dense(2, activation="softmax")(features)
    model = keras.Model([view, index], label)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    return model
