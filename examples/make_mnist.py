"""Make Megapixel MNIST: large, mostly empty images with five digits, three of one class.

    python examples/make_mnist.py data/megapixel_mnist
    python examples/make_mnist.py data/small --width 500 --height 500 --scale 0.2 \
        --n_noise 10

writes train.h5, test.h5 and parameters.json into the directory. The label of an image is
the class of its three digits; two digits are of other classes, and patches of noise, of
two random lines each, lie among them. The digits come from MNIST, which Keras downloads
unless --mnist names a directory with its files.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST, read_mnist
from attention_sampling.datasets.megapixel_mnist_files import (
    check_directory,
    write_megapixel_mnist_splits,
)

SPLITS = ("train", "test")
# Patches of noise in an image, whatever its size, as in the paper.
NOISE_PATCHES = 50
NOISE_AREA = 28  # pixels of an image for each patch of noise, at least
SMALLEST_VIEW = 7  # pixels: what one cell of the attention map is made from
MOST_SEED = 2**62 - 1  # seeds of the splits, twice as large, are kept in 64 bits


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "output", metavar="OUTPUT_DIR", help="where to write; it is made"
    )
    for name, kind, default, explanation in (
        ("n_train", int, 5000, "images to train on"),
        ("n_test", int, 1000, "images to test on"),
        ("width", int, 1500, "of the images, in pixels"),
        ("height", int, 1500, "of the images, in pixels"),
        (
            "scale",
            float,
            0.12,
            "size of the low-resolution views over that of the images",
        ),
        ("dataset_seed", int, 0, "of all that is drawn"),
    ):
        parser.add_argument(
            *both_spellings(name),
            type=kind,
            default=default,
            help=f"{explanation} (default: {default})",
        )
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument(
        *both_spellings("n_noise"),
        type=int,
        default=NOISE_PATCHES,
        help="patches of noise in an image, 28 x 28 pixels each, whatever its size "
        "(default: %(default)s)",
    )
    noise.add_argument(
        *both_spellings("no_noise"),
        action="store_const",
        const=0,
        dest="n_noise",
        help="the same as --n_noise 0",
    )
    parser.add_argument(
        "--mnist",
        metavar="DIR",
        help="the four idx files of MNIST, gzipped or not; without it, Keras downloads "
        "the digits",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a data set in OUTPUT_DIR"
    )
    arguments = parser.parse_args(argv)
    for name in ("n_train", "n_test", "width", "height"):
        if getattr(arguments, name) <= 0:
            parser.error(f"--{name} must be positive")
    for name in ("n_noise", "dataset_seed"):
        if getattr(arguments, name) < 0:
            parser.error(f"--{name} must not be negative")
    if arguments.dataset_seed > MOST_SEED:
        parser.error(f"--dataset_seed must be at most {MOST_SEED}")
    if not 0 < arguments.scale <= 1:
        parser.error("--scale must be above 0 and at most 1")
    if min(view_size(arguments)) < SMALLEST_VIEW:
        parser.error(
            f"--scale must leave views of {SMALLEST_VIEW} pixels or more each way, which "
            f"here are {' x '.join(map(str, view_size(arguments)))}"
        )
    # With more there is no black left, and no room in memory for their places.
    most = arguments.width * arguments.height // NOISE_AREA
    if arguments.n_noise > most:
        parser.error(
            f"--n_noise must be at most {most}, a patch for {NOISE_AREA} pixels"
        )
    return arguments


def view_size(arguments):
    """Return height and width of the views, in pixels."""
    sides = (arguments.height, arguments.width)
    return tuple(max(1, round(arguments.scale * side)) for side in sides)


def both_spellings(name):
    """Return an option with the underscores of the reference implementation, and dashes."""
    return dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}"))


def load_digits(directory):
    """Return (digits, labels) of MNIST by split."""
    if directory is not None:
        if Path(directory).is_file():
            raise NotADirectoryError(
                "--mnist must be a directory, with the four idx files of MNIST in it. "
                f"Received: --mnist {directory}, a file"
            )
        return {split: read_mnist(directory, split) for split in SPLITS}
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    try:
        loaded = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises it bare where there is no network
        raise OSError(
            f"MNIST could not be downloaded ({error}). Expected: a network. Without one "
            "name a directory with the idx files of MNIST. Received: no --mnist DIR"
        ) from error
    return dict(zip(SPLITS, loaded, strict=True))


def make_images(arguments):
    """Return the images by split; no image of one seed or split is that of another."""
    counts = (arguments.n_train, arguments.n_test)
    return {
        split: MegapixelMNIST(
            digits,
            labels,
            count=count,
            size=(arguments.height, arguments.width),
            noise_patches=arguments.n_noise,
            seed=len(SPLITS) * arguments.dataset_seed + number,
        )
        for number, ((split, (digits, labels)), count) in enumerate(
            zip(load_digits(arguments.mnist).items(), counts, strict=True)
        )
    }


def run_settings(arguments):
    """Return what determines a data set, by the names of the reference implementation."""
    return {
        "n_train": arguments.n_train,
        "n_test": arguments.n_test,
        "width": arguments.width,
        "height": arguments.height,
        "scale": arguments.scale,
        "noise": arguments.n_noise > 0,
        "n_noise": arguments.n_noise,
        "seed": arguments.dataset_seed,
    }


def main(argv=None):
    arguments = parse_arguments(argv)
    output = Path(arguments.output)
    check_directory(output, arguments.overwrite)  # sooner than the digits are loaded
    start = time.perf_counter()
    write_megapixel_mnist_splits(
        output,
        **make_images(arguments),
        view_size=view_size(arguments),
        settings=run_settings(arguments),
        overwrite=arguments.overwrite,
        progress=True,
    )
    seconds = time.perf_counter() - start
    sizes = [(output / f"{split}.h5").stat().st_size for split in SPLITS]
    print(
        f"{arguments.n_train} training and {arguments.n_test} test images are in {output}: "
        f"{sum(sizes) / 1e6:.1f} MB, {seconds:.0f} s."
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Interrupted: nothing is written.", file=sys.stderr)
        sys.exit(130)
    except MemoryError:
        sys.exit("error: not enough memory: make fewer images, or less --n_noise")
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
