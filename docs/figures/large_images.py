"""Print time and memory of a training step by image size, and write large_images.png.

For docs/large_images.rst. Run ``python docs/figures/large_images.py docs/_static``; it
writes tiled TIFF images of up to 1,024 megapixels into a temporary directory.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tifffile
from matplotlib.figure import Figure

import attention_sampling as ats
from attention_sampling.data import TiffSource

TILE, VIEW, PATCH = 256, 256, 256


def write_image(path, side):
    """Write a square image with a pyramid, tile by tile, of a few tiles of noise."""
    rng = np.random.default_rng(0)
    blurred = rng.normal(128, 40, size=(16, TILE // 8, TILE // 8, 3)).clip(0, 255)
    tiles = blurred.astype("uint8").repeat(8, axis=1).repeat(8, axis=2)
    sides = [side]
    while sides[-1] > 2 * VIEW:
        sides.append(-(-sides[-1] // 2))
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for level, side in enumerate(sides):
            count = (-(-side // TILE)) ** 2
            writer.write(
                (tiles[rng.integers(16)] for _ in range(count)),
                shape=(side, side, 3),
                dtype="uint8",
                photometric="rgb",
                tile=(TILE, TILE),
                compression="jpeg",
                **({"subfiletype": 1} if level else {"subifds": len(sides) - 1}),
            )


def prepare(path):
    """Build a small model on an image, in the process of this image."""
    global model, batch
    source = TiffSource(path)
    low, index = keras.Input((VIEW, VIEW, 3)), keras.Input((), dtype="int32")
    attention = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, strides=4, padding="same", activation="relu"),
            keras.layers.Conv2D(1, 3, strides=2, padding="same"),
            ats.SampleSoftmax(squeeze_channels=True),
        ]
    )
    feature = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 5, strides=4, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    # With this receptive field the patches are inside the smallest image, too.
    sampling = ats.attention_sampling(
        attention, feature, PATCH, n_patches=10, receptive_field=66, source=source
    )
    label = keras.layers.Dense(2, activation="softmax")(sampling([low, index])[0])
    model = keras.Model([low, index], label)
    model.compile("adam", "sparse_categorical_crossentropy")
    view = source.read_view(0, VIEW)[None]
    batch = [view, np.zeros(1, "int32")], np.zeros(1)
    model.train_on_batch(*batch)


def take_steps():
    """Return the fastest of three steps in seconds, and the peak memory in MB so far."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.train_on_batch(*batch)
        seconds.append(time.perf_counter() - start)
    return min(seconds), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=int, nargs="+", default=[1, 16, 256, 1024])
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        processes = {}
        for size in arguments.megapixels:
            path = f"{directory}/{size}.tif"
            write_image(path, round(size**0.5 * 1000))
            processes[size] = ProcessPoolExecutor(1, mp_context=spawn)
            processes[size].submit(prepare, path).result()
        # In turns, so that other work on the machine slows all of them alike.
        turns = [
            [process.submit(take_steps).result() for process in processes.values()]
            for _ in range(arguments.turns)
        ]
        for process in processes.values():
            process.shutdown()
    seconds, megabytes = np.moveaxis(turns, 2, 0)
    ratios = np.median(seconds / seconds[:, :1], axis=0)
    above = megabytes[-1] - megabytes[-1, 0]
    names = [f"{size:,}" for size in arguments.megapixels]
    for row in zip(names, np.median(seconds, axis=0), ratios, above, strict=True):
        print(
            "{} megapixels: {:.3f} s, {:.2f} of the smallest, {:+.1f} MB".format(*row)
        )
    figure = Figure((9, 3.2), layout="constrained")
    for axes, values, label in zip(
        figure.subplots(1, 2),
        (np.median(seconds, axis=0), megabytes[-1]),
        ("seconds of a training step", "peak memory of the process, MB"),
        strict=True,
    ):
        axes.plot(names, values, "o-")
        axes.set(ylabel=label, xlabel="megapixels of the image")
        axes.set_ylim(0, 1.2 * max(values))
    figure.savefig(arguments.output / "large_images.png", dpi=100)
