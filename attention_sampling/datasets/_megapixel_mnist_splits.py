"""Write the two files of a data set of Megapixel MNIST: both, or none."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_sampling.datasets._generated import locked
from attention_sampling.datasets._megapixel_mnist_writer import write_megapixel_mnist
from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST

FILES = ("train.h5", "test.h5")
_SETTINGS_FILE = "parameters.json"
_PART = ".megapixel_mnist.part"


def write_megapixel_mnist_splits(
    directory: str | os.PathLike[str],
    train: MegapixelMNIST,
    test: MegapixelMNIST,
    view_size: int | tuple[int, int],
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Write ``train.h5``, ``test.h5`` and ``parameters.json`` into a directory.

    They appear under their names when all of them are whole, and files of different data
    sets are never beside each other. What a killed run has left is cleared away.
    Processes that write to the same directory wait for each other.

    Args:
        directory: where to write; it and its parents are made. Other files in it stay.
        train: the images to train on.
        test: the images to test on, of the same kind and another seed.
        view_size: (height, width) of the views in pixels, one int or two.
        settings: what to keep in ``parameters.json`` and in both files, of types that
            JSON has.
        overwrite: whether to replace a data set in the directory.
        progress: whether to show progress bars.

    Raises:
        FileExistsError: the directory holds a data set, or is a file.
        OSError: the files cannot be written; what was there before is still there.
        ValueError: the views are larger than the images; the two sets of images are not
            of the same kind, or have the same seed.
    """
    _check_splits(train, test)
    settings = dict(settings or {})
    text = json.dumps(settings, indent=2) + "\n"
    check_directory(directory, overwrite)
    directory = Path(directory).absolute()
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / _PART
    try:
        with locked(directory):
            check_directory(directory, overwrite)  # again, should another have written
            shutil.rmtree(part, ignore_errors=True)
            try:
                part.mkdir()
                for name, data in zip(FILES, (train, test), strict=True):
                    write_megapixel_mnist(
                        part / name, data, view_size, settings, progress=progress
                    )
                (part / _SETTINGS_FILE).write_text(text, encoding="ascii")
                # The old test images go first: whenever killed, no two data sets mix.
                for name in (_SETTINGS_FILE, *reversed(FILES)):
                    (directory / name).unlink(missing_ok=True)
                for name in (*FILES, _SETTINGS_FILE):
                    os.replace(part / name, directory / name)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # others have put something there
                directory.rmdir()
        raise


def check_directory(directory: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuse a directory that no data set may be written to.

    Args:
        directory: where to write.
        overwrite: whether a data set in it may be replaced.

    Raises:
        FileExistsError: it holds one that may not, or is a file.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(
            f"A directory is to be written to. Received: {str(directory)!r}, a file"
        )
    found = [name for name in (*FILES, _SETTINGS_FILE) if (directory / name).exists()]
    if found and not overwrite:
        raise FileExistsError(
            "The directory must not hold a data set. Name another, or replace it: "
            "overwrite=True, --overwrite on the command line. "
            f"Received: {str(directory)!r}, which holds {', '.join(found)}"
        )


def _check_splits(train: MegapixelMNIST, test: MegapixelMNIST) -> None:
    for name in ("size", "noise_patches"):
        if getattr(train, name) != getattr(test, name):
            raise ValueError(
                "Training and test images must be of the same kind. Received: "
                f"{name}={getattr(train, name)} and {getattr(test, name)}"
            )
    if train.seed == test.seed:
        raise ValueError(
            "Training and test images must have different seeds, or the digits lie in "
            f"the same places. Received: seed={train.seed} for both"
        )
