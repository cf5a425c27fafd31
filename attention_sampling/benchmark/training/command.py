"""Train on Megapixel MNIST by several methods and compare how fast they learn."""

import argparse
import time
from pathlib import Path
from typing import Any

import keras

from attention_sampling.benchmark.circumstances import versions
from attention_sampling.benchmark.command_line import make_directory
from attention_sampling.benchmark.files import write_csv, write_json
from attention_sampling.benchmark.training import report as training_report
from attention_sampling.benchmark.training.data import (
    Batches,
    Images,
    make_images,
    read_digits,
)
from attention_sampling.benchmark.training.methods import (
    CALLBACKS,
    METHODS,
    build_model,
)

# What a preset does not name is in COMMON. "large" is the paper's, on fewer epochs.
PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "image_size": 200,
        "view_size": 50,
        "patch_size": 36,
        "n_patches": 5,
        "noise_patches": 3,
        "train": 2000,
        "test": 500,
        "epochs": 16,
    },
    "medium": {
        "image_size": 500,
        "view_size": 100,
        "patch_size": 50,
        "n_patches": 5,
        "noise_patches": 10,
        "train": 2000,
        "test": 500,
        "epochs": 14,
    },
    "large": {
        "image_size": 1500,
        "view_size": 180,
        "patch_size": 50,
        "n_patches": 10,
        "noise_patches": 50,
        "train": 5000,
        "test": 1000,
        "epochs": 50,
        "dtype_policy": "mixed_bfloat16",
    },
}
COMMON: dict[str, Any] = {
    "batch_size": 32,
    "learning_rate": 1e-3,
    "entropy": 1e-4,
    "dtype_policy": "float32",
}
EXPLANATIONS = {
    "image_size": "height and width of the images in pixels",
    "view_size": "height and width of the views in pixels",
    "patch_size": "height and width of the patches in full-resolution pixels",
    "n_patches": "patches drawn from each image",
    "noise_patches": "patches of noise in each image",
    "train": "images to train on",
    "test": "images to test on",
    "epochs": "passes over the training images",
    "batch_size": "images a step",
    "learning_rate": "of Adam",
    "entropy": "strength of the entropy regularizer",
    "dtype_policy": "of Keras, such as float32 or mixed_bfloat16",
}


class EpochLog(keras.callbacks.Callback):
    """Write a row for each epoch, replacing the file as a whole.

    The seconds are those of training, without the test after it.

    Args:
        path: CSV file to write.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, str]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_test_begin(self, logs: Any = None) -> None:
        """Stop the clock: the training images have been seen."""
        self.seconds = time.perf_counter() - self.start

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the file."""
        row = {"epoch": str(epoch + 1)}
        row |= {name: f"{logs[name]:.5f}" for name in training_report.MEASURES}
        self.rows.append({**row, "seconds": f"{self.seconds:.2f}"})
        write_csv(self.path, self.rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    parser.add_argument(
        "--mnist",
        metavar="DIR",
        help="where the four files of MNIST are, gzipped or not",
    )
    parser.add_argument(
        "--output", metavar="DIR", required=True, help="for logs, table and figure"
    )
    parser.add_argument(
        "--preset", choices=PRESETS, default="small", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--methods",
        type=_methods,
        default=list(METHODS),
        metavar="A,B,...",
        help=f"of {', '.join(METHODS)} (default: all)",
    )
    parser.add_argument(
        "--seeds",
        type=_seeds,
        default=[0],
        metavar="I,J,...",
        help="of images, weights and draws; a run for each (default: 0)",
    )
    for name, explanation in EXPLANATIONS.items():
        values = [{**COMMON, **preset}[name] for preset in PRESETS.values()]
        defaults = dict.fromkeys(map(str, values))
        parser.add_argument(
            _option(name),
            type=type(values[0]),
            metavar="N",
            help=f"{explanation} (default: {', '.join(defaults)})",
        )
    parser.add_argument(
        "--overwrite", action="store_true", help="do finished runs again"
    )
    parser.add_argument(
        "--report-only",
        action="store_true",
        help="table and figure of the runs in --output, without new ones",
    )


def run(arguments: argparse.Namespace) -> None:
    """Do the runs that are not there yet; then write the table and the figure.

    Raises:
        ValueError: a setting is out of range; --output holds runs of other settings.
        OSError: a file cannot be read or written.
    """
    output = Path(arguments.output)
    if not arguments.report_only:
        settings = choose_settings(arguments)
        missing = find_missing_runs(arguments, settings, output)
        digits = read_digits(arguments.mnist) if missing else {}
        make_directory(output)
        for seed in dict.fromkeys(seed for _, seed in missing):
            images = make_images(settings, digits, seed)
            for method in (method for method, other in missing if other == seed):
                train(settings, method, seed, images, output)
    print(training_report.report(output, arguments.preset, list(METHODS)))


def choose_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what determines the runs beside method and seed.

    Raises:
        ValueError: a setting is out of range, or the place of MNIST is missing.
    """
    settings = {"preset": arguments.preset, **COMMON, **PRESETS[arguments.preset]}
    for name in EXPLANATIONS:
        value = getattr(arguments, name)
        if value is not None:
            settings[name] = value
        if name == "dtype_policy":
            keras.dtype_policies.get(settings[name])
            continue
        smallest = 0 if name in ("noise_patches", "learning_rate", "entropy") else 1
        if not smallest <= settings[name] < float("inf"):
            raise ValueError(
                f"{_option(name)} must be at least {smallest} and finite. "
                f"Received: {settings[name]}"
            )
    if arguments.mnist is None:
        raise ValueError(
            "Training needs the digits. Expected: --mnist DIR, where the four files of "
            "MNIST are; or --report-only. Received: neither"
        )
    return settings


def find_missing_runs(
    arguments: argparse.Namespace, settings: dict[str, Any], output: Path
) -> list[tuple[str, int]]:
    """Return (method, seed) of each run that is to be done, seed by seed.

    Raises:
        ValueError: there are runs of other settings, which would not compare.
    """
    asked = [(method, seed) for seed in arguments.seeds for method in arguments.methods]
    finished = set()
    for earlier in training_report.read_runs(output, settings["preset"]):
        if arguments.overwrite and (earlier.method, earlier.seed) in asked:
            continue
        training_report.check_settings(earlier, settings, output)
        if earlier.finished:
            finished.add((earlier.method, earlier.seed))
    for method, seed in asked:
        if (method, seed) in finished:
            print(f"Done before: {method}, seed {seed}")
    return [run for run in asked if run not in finished]


def train(
    settings: dict[str, Any],
    method: str,
    seed: int,
    images: dict[str, Images],
    output: Path,
) -> None:
    """Do one run, and write its settings and its log.

    Args:
        settings: of the benchmark.
        method: a key of ``METHODS``.
        seed: of weights, order and draws.
        images: by split, ``"train"`` and ``"test"``.
        output: existing directory for ``<preset>-<method>-<seed>.csv`` and ``.json``.
    """
    name = f"{settings['preset']}-{method}-{seed}"
    print(f"Training: {method}, seed {seed}", flush=True)
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    log = output / f"{name}.csv"
    model = build_model(settings, method, seed)
    log.unlink(missing_ok=True)  # or it would be that of the new settings
    write_json(
        log.with_suffix(".json"),
        {"method": method, "seed": seed, "settings": settings, "versions": versions()},
    )
    model.fit(
        Batches(images["train"], settings["batch_size"], shuffle_seed=seed),
        validation_data=Batches(images["test"], settings["batch_size"]),
        epochs=settings["epochs"],
        callbacks=[*CALLBACKS.get(method, list)(), EpochLog(log)],
        shuffle=False,  # batches would be shuffled once more, as wholes
        verbose=2,
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _methods(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    if not METHODS.keys() >= set(names):
        raise argparse.ArgumentTypeError(
            f"expected some of {', '.join(METHODS)}, separated by commas; got {text!r}"
        )
    return names


def _seeds(text: str) -> list[int]:
    words = dict.fromkeys(text.split(","))
    if not all(word.isascii() and word.isdigit() for word in words):
        raise argparse.ArgumentTypeError(
            f"expected non-negative ints, separated by commas; got {text!r}"
        )
    return list(dict.fromkeys(map(int, words)))
