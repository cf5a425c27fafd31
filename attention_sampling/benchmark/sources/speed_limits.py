"""The speed-limits model with images in memory, and with patches read on demand."""

import gc
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

import attention_sampling as ats
from attention_sampling.benchmark.processes import (
    Seconds,
    peak_megabytes,
    processes,
    reset_peak,
    seconds_of,
)
from attention_sampling.benchmark.sources.files import (
    TiledImage,
    write_jpeg,
    write_tiff,
)
from attention_sampling.benchmark.tables import Row, at_most
from attention_sampling.data import HDF5Source, ImageFilesSource, Source, TiffSource
from attention_sampling.data.convert import convert
from attention_sampling.networks import (
    SPEED_LIMITS_RECEPTIVE_FIELD,
    residual_features,
    speed_limits_attention,
)

# Over that in memory.
LARGEST_TIME = 1.15
LARGEST_MEMORY = 1.0
IN_MEMORY = "in memory"
# What the name of a way ends in where views are made in the first epoch alone.
VIEWS_KEPT = ", views kept"
_CLASSES = 4


class Setting(NamedTuple):
    """What is trained: as ``examples/speed_limits.py`` on photographs."""

    image_size: tuple[int, int] = (960, 1280)
    scale: float = 0.3
    patch_size: int = 100
    n_patches: int = 5
    batch_size: int = 16
    batches: int = 3

    @property
    def view_size(self) -> tuple[int, int]:
        """(height, width) of the views: a whole number of cells."""
        height, width = (8 * round(self.scale * x / 8) for x in self.image_size)
        return height, width


# What belongs to this process; in tests, to this thread.
_here = threading.local()


def write_images(directory: Path, setting: Setting) -> dict[str, list[Path]]:
    """Write the images as photographs, as tiled TIFF, and converted to HDF5.

    Args:
        directory: for the files.
        setting: how many images of what size.

    Returns:
        Files by the name of what is measured.
    """
    photographs, tiled = [], []
    for seed in range(setting.batch_size * setting.batches):
        image = TiledImage(setting.image_size, seed)
        photographs.append(directory / f"{seed}.jpg")
        write_jpeg(photographs[-1], image.pixels())
        tiled.append(directory / f"{seed}.tif")
        write_tiff(tiled[-1], image, "deflate")
    converted = directory / "images.h5"
    convert(ImageFilesSource(photographs), converted, progress=False)
    return {
        IN_MEMORY: photographs,
        "on demand, HDF5": [converted],
        "on demand, TIFF": tiled,
        f"on demand, TIFF{VIEWS_KEPT}": tiled,
    }


def measure_speed_limits(
    files: dict[str, list[Path]], setting: Setting, steps: int
) -> list[Row]:
    """Train with the images in memory and on demand, each in a process, in turn.

    Args:
        files: as ``write_images`` returns them.
        setting: what is trained.
        steps: number to measure for each.

    Returns:
        A row for each. ``step s`` is the median of a step with its input pipeline,
        ``alone s`` that of a step on a batch that is there already; the ratios are to
        those in memory, ``processor ratio`` in time of the processor. ``peak MB`` is
        the largest resident memory of the process in its steps, the library and all
        included.
    """
    names = list(files)
    with processes(names) as started:
        started.call(prepare, {name: (name, files[name], setting) for name in names})
        turns = started.in_turns(take_steps, steps)
        peaks = started.call(end, dict.fromkeys(names, ()))
    # (turns, 2 for with the pipeline and alone, 2 for the clock and the processor)
    seconds = {name: np.array(of_one) for name, of_one in turns.items()}
    rows = []
    for name in names:
        ratios = np.median(seconds[name] / seconds[IN_MEMORY], axis=0)
        share = peaks[name] / peaks[IN_MEMORY]
        row: Row = {"images": name}
        for what, number in (("step", 0), ("alone", 1)):
            row[f"{what} s"] = float(np.median(seconds[name][:, number, 0]))
            row[f"{what} ratio"] = float(ratios[number, 0])
            row[f"{what} processor ratio"] = float(ratios[number, 1])
            row[f"{what} limit"] = (
                "" if name == IN_MEMORY else at_most(ratios[number, 0], LARGEST_TIME)
            )
        row["peak MB"], row["memory ratio"] = peaks[name], share
        row["memory limit"] = (
            ""
            if name == IN_MEMORY or math.isnan(share)
            else at_most(share, LARGEST_MEMORY)
        )
        rows.append(row)
    return rows


def prepare(name: str, paths: list[Path], setting: Setting) -> None:
    """Build and warm up a model and its input pipeline, in this process."""
    from attention_sampling.views import view_and_image_dataset, view_dataset

    keras.utils.set_random_seed(0)
    count = setting.batch_size * setting.batches
    labels = [number % _CLASSES for number in range(count)]
    source: Source | None = None
    if name == IN_MEMORY:
        dataset = view_and_image_dataset(
            list(map(str, paths)),
            labels,
            setting.image_size,
            setting.view_size,
            setting.batch_size,
            shuffle_seed=0,
        )
    else:
        kind = HDF5Source if paths[0].suffix == ".h5" else TiffSource
        source = kind(paths)
        dataset = view_dataset(
            source,
            setting.view_size,
            labels,
            setting.batch_size,
            shuffle=True,
            seed=0,
            cache="memory" if name.endswith(VIEWS_KEPT) else None,
        )
    _here.source = source
    _here.model = build_model(source, setting)
    _here.batches = _endless(dataset)
    for _ in range(max(2, setting.batches)):  # an epoch, for views to be kept
        _here.model.train_on_batch(*next(_here.batches))
    gc.collect()
    reset_peak()


def take_steps() -> tuple[Seconds, Seconds]:
    """Take some steps in this process.

    Returns:
        What a step takes with its batch from the pipeline, and on that batch again.
    """
    # This one's batch was made while other processes had their turn.
    _here.model.train_on_batch(*next(_here.batches))
    batch: list[Any] = []

    def step() -> None:
        batch[:] = next(_here.batches)
        _here.model.train_on_batch(*batch)

    return seconds_of(step), seconds_of(_here.model.train_on_batch, *batch)


def end() -> float:
    """End the pipeline and close the source; return the largest memory of the steps."""
    peak = peak_megabytes()
    del _here.batches
    if _here.source is not None:
        _here.source.close()
    return peak


def build_model(source: Source | None, setting: Setting) -> keras.Model:
    """Build the model of the example: paper, section 4.4."""
    view = keras.Input((*setting.view_size, 3))
    images = (
        keras.Input((*setting.image_size, 3), dtype="uint8")
        if source is None
        else keras.Input((), dtype="int32")
    )
    features, _, _ = ats.attention_sampling(
        speed_limits_attention(),
        residual_features((setting.patch_size, setting.patch_size, 3)),
        n_patches=setting.n_patches,
        receptive_field=SPEED_LIMITS_RECEPTIVE_FIELD,
        attention_regularizer=ats.MultinomialEntropy(0.01),
        seed=0,
        source=source,
    )([view, images])
    limit = keras.layers.Dense(_CLASSES, activation="softmax")(features)
    model = keras.Model([view, images], limit)
    model.compile(
        optimizer=keras.optimizers.Adam(clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
    )
    return model


def _endless(dataset: Any) -> Iterator[Any]:
    """Yield batches for ever, as tensors of TensorFlow or arrays for other backends."""
    batches = iter(dataset.repeat())
    if keras.backend.backend() == "tensorflow":
        return batches
    return (
        ([np.asarray(x) for x in inputs], np.asarray(labels))
        for inputs, labels in batches
    )
