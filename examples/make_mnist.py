"""Make Megapixel MNIST: large, mostly empty images with five digits, three of one class.

    python examples/make_mnist.py data/megapixel_mnist
    python examples/make_mnist.py data/small --width 500 --height 500 --n_noise 10

writes train.h5 and test.h5 into the directory. The label of an image is the class of its
three digits; two digits are of other classes, and patches of noise, of two lines each,
are among them. The digits come from MNIST, which Keras downloads (11 MB) unless --mnist
names a directory with its four original files, gzipped or not:

    https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz
    https://storage.googleapis.com/cvdf-datasets/mnist/train-labels-idx1-ubyte.gz
    https://storage.googleapis.com/cvdf-datasets/mnist/t10k-images-idx3-ubyte.gz
    https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz
"""

import argparse
import json
import sys

from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.datasets.megapixel_mnist_files import write_megapixel_mnist
from attention_sampling.datasets.mnist import read_mnist
from attention_sampling.files import one_process, quiet_imports, replacing

PATHS = "output", "mnist"  # the options that do not change the images


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", metavar="DIR", help="where to write; it is made")
    for name, default, explanation in (
        ("n_train", 5000, "images to train on"),
        ("n_test", 1000, "images to test on"),
        ("width", 1500, "of the images, in pixels"),
        ("height", 1500, "of the images, in pixels"),
        ("n_noise", 50, "patches of noise in an image, of 28 x 28 pixels"),
        ("scale", 0.12, "width and height of the views over those of the images"),
        ("seed", 0, "of all that is random"),
    ):
        parser.add_argument(
            f"--{name}",
            type=type(default),
            default=default,
            help=f"{explanation} (default: %(default)s)",
        )
    parser.add_argument(
        "--mnist",
        metavar="DIR",
        help="the four files of MNIST; without it, Keras downloads the digits",
    )
    return parser.parse_args()


def load_digits(directory):
    """Return ``(digits, labels)`` of the training digits and of the test digits."""
    if directory is not None:
        return [read_mnist(directory, split) for split in ("train", "test")]
    with quiet_imports():
        import keras
    try:
        return keras.datasets.mnist.load_data()
    except Exception as error:  # of no other type where there is no network
        raise OSError(
            f"MNIST could not be downloaded ({error}). Download its four files, which "
            "--help lists, and name their directory by --mnist"
        ) from error


def show_progress(done, total):
    if done % 50 == 0 or done == total:
        print(f"\r{done} of {total} images", end="", flush=True)


def main():
    arguments = parse_arguments()
    with one_process(arguments.output) as output:
        if (output / "train.h5").exists():
            raise FileExistsError(
                f"{output} holds a data set already: delete it, or choose another "
                "directory"
            )
        # Other images for each seed, and for training and test.
        train, test = (
            MegapixelMNIST(
                digits,
                labels,
                count,
                size=(arguments.height, arguments.width),
                noise_patches=arguments.n_noise,
                seed=2 * arguments.seed + split,
            )
            for split, (count, (digits, labels)) in enumerate(
                zip(
                    (arguments.n_train, arguments.n_test),
                    load_digits(arguments.mnist),
                    strict=True,
                )
            )
        )
        view_size = tuple(round(arguments.scale * extent) for extent in train.size)
        write_megapixel_mnist(output, train, test, view_size, show_progress)
        with replacing(output / "parameters.json") as part:
            numbers = {k: v for k, v in vars(arguments).items() if k not in PATHS}
            part.write_text(json.dumps(numbers, indent=2) + "\n")
        megabytes = sum(file.stat().st_size for file in output.glob("*.h5")) / 1e6
        print(f" are in {output}, {megabytes:.1f} MB")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted: nothing is written")
