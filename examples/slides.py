"""Classify whole slides that stay on disk, from labels of whole slides.

Real use: a directory of slides and a CSV file with the columns file and label:

    python examples/slides.py --slides DIR --labels labels.csv
    python examples/slides.py --slides OTHER_DIR --predict runs/slides/model.keras

Without arguments it draws a small set of slides, trains on it, and writes what it found
to ``runs/slides``. Slides may differ in size. A low-resolution view of each tells where to
look; only the patches drawn there are ever read at full resolution.
"""

import argparse
import os
import sys
from collections import Counter
from itertools import zip_longest
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from run_directory import (
    EpochSeconds,
    begin_output,
    check_output,
    describe_error,
    draw_curve,
    read_log,
    read_settings,
    restore,
    versions,
    write_json,
    write_rows,
)
from slide_folder import find_slides, load_slides, open_slides
from slide_networks import POOL, build_model
from tqdm import tqdm

import attention_sampling as ats
from attention_sampling.checkpoint import EpochCheckpoint
from attention_sampling.pictures import draw_attention
from attention_sampling.viewer import attention_viewer
from attention_sampling.views import view_dataset

# Pixels of the longer side of a slide in a picture.
PICTURE_SIZE = 1200
# Settings that a resumed run may change.
FREE_SETTINGS = {"epochs", "pictures"}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--slides",
        metavar="DIR",
        help="slides of one format; without it, some are drawn",
    )
    data.add_argument(
        "--labels",
        metavar="CSV",
        help="table with a header and the columns file, a name in DIR with or without "
        "its suffix, and label",
    )
    data.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="end at a file that cannot be opened or has no label, or leave it out "
        "(default: %(default)s)",
    )
    data.add_argument(
        "--test-fraction",
        type=float,
        default=0.25,
        help="share of test slides of each class, at least one; 0 for none "
        "(default: %(default)s)",
    )
    data.add_argument(
        "--predict",
        metavar="MODEL",
        help="write predictions.csv for all slides of DIR with the model.keras of a run "
        "instead of training",
    )
    training = parser.add_argument_group("training")
    for name, kind, default, explanation in (
        ("seed", int, 0, "of weights, draws, split"),
        ("view_size", int, 128, "height and width of the views, in pixels"),
        ("patch_size", int, 64, "in full-resolution pixels"),
        ("n_patches", int, 8, "patches drawn from each slide"),
        ("batch_size", int, 4, "slides a step"),
        ("epochs", int, 40, "passes over the training slides"),
        ("learning_rate", float, 2e-3, "of Adam, falling to 0 in the last quarter"),
    ):
        training.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=default,
            help=f"{explanation} (default: {default})",
        )
    output = parser.add_argument_group("output")
    output.add_argument("--output", metavar="DIR", default="runs/slides")
    earlier = output.add_mutually_exclusive_group()
    earlier.add_argument(
        "--resume", action="store_true", help="go on with the run in --output"
    )
    earlier.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the run, or the predictions, in --output first",
    )
    output.add_argument(
        "--pictures", type=int, default=6, help="slides to draw (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    for name in ("patch_size", "n_patches", "batch_size", "epochs"):
        if getattr(arguments, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    if arguments.view_size < 8 or arguments.view_size % POOL:
        parser.error(f"--view-size must be a multiple of {POOL}, and at least 8")
    if not 0 <= arguments.test_fraction < 1:
        parser.error("--test-fraction must be at least 0 and below 1")
    for name in ("seed", "learning_rate", "pictures"):
        if not 0 <= getattr(arguments, name) < float("inf"):
            parser.error(f"--{name.replace('_', '-')} must be at least 0 and finite")
    if arguments.predict and not arguments.slides:
        parser.error("--predict needs --slides DIR")
    if arguments.predict and arguments.labels:
        parser.error("--predict does without --labels")
    if not arguments.predict and bool(arguments.slides) != bool(arguments.labels):
        parser.error("--slides and --labels go together")
    return arguments


def build_dataset(arguments, slides, numbers, output, training_seed=None):
    """Return the batches of some slides, shuffled if there is a seed."""
    return view_dataset(
        slides.source,
        arguments.view_size,
        slides.labels,
        arguments.batch_size,
        shuffle=training_seed is not None,
        seed=training_seed,
        cache=output / "views",
        indices=numbers,
    )


def run_settings(arguments, slides):
    """Return what determines a run, by name."""
    settings = {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("output", "overwrite", "predict", "resume")
    }
    for name in ("slides", "labels"):
        if settings[name] is not None:
            settings[name] = str(Path(settings[name]).resolve())
    return {**settings, "classes": slides.classes}


def train(arguments, model, slides, steps, output):
    """Train, from the last whole epoch of the run in ``output`` if there is one."""
    epochs = restore(
        model, output, run_settings(arguments, slides), steps, arguments.resume
    )
    counts = Counter(slides.labels[number] for number in slides.train)
    model.fit(
        build_dataset(arguments, slides, slides.train, output, arguments.seed + epochs),
        validation_data=build_dataset(arguments, slides, slides.test, output)
        if slides.test
        else None,
        class_weight={
            label: len(slides.train) / (len(counts) * count)
            for label, count in counts.items()
        },
        initial_epoch=epochs,
        epochs=arguments.epochs,
        callbacks=[
            EpochSeconds(),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.CSVLogger(output / "log.csv", append=True),
            EpochCheckpoint(output / "model.keras"),
            ats.ProposalMix(1.0, 0.0, max(arguments.epochs // 2, 1)),
        ],
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 2,
    )


def draw_pictures(arguments, model, slides, output):
    """Draw what the model looked at in some slides, the classes in turn."""
    directory = output / "pictures"
    directory.mkdir(exist_ok=True)
    by_class = [
        [n for n in slides.test or slides.train if slides.labels[n] == label]
        for label in range(len(slides.classes))
    ]
    in_turn = [n for group in zip_longest(*by_class) for n in group if n is not None]
    numbers = in_turn[: arguments.pictures]
    if not numbers:
        return
    viewer = attention_viewer(model)
    dataset = build_dataset(arguments, slides, numbers, output).unbatch()
    for number, (inputs, _) in zip(
        tqdm(numbers, desc="Drawing pictures"), dataset, strict=True
    ):
        seen = viewer.predict_on_batch([x[None] for x in inputs])
        height, width, channels = slides.source.shape(number)
        scale = min(1, PICTURE_SIZE / max(height, width))
        image = slides.source.read_view(
            number, (max(1, round(scale * height)), max(1, round(scale * width)))
        )
        shown = slice(3 if channels > 2 else 1)  # without alpha
        answer = int(np.argmax(seen["prediction"][0]))
        name = Path(slides.source.names[number])
        draw_attention(
            directory / f"{number:04d}_{name.stem}.png",
            image[..., shown] / 255,
            seen["attention"][0],
            seen["patches"][0][..., shown],
            seen["sampled_attention"][0],
            seen["origins"][0],
            title=f"{name.name}: truth {slides.classes[slides.labels[number]]}, answer "
            f"{slides.classes[answer]} ({seen['prediction'][0, answer]:.2f})",
            image_size=(height, width),
        )


def predict(arguments, output):
    """Write what a trained model says of all slides in a directory."""
    path, target = Path(arguments.predict), output / "predictions.csv"
    if target.exists() and not arguments.overwrite:
        raise ValueError(
            f"{target} exists. Replace it by --overwrite, or choose another directory by "
            "--output."
        )
    classes = path.is_file() and read_settings(path.parent).get("classes")
    if not classes:
        raise ValueError(
            "The model to predict with must be the model.keras of a run of this example, "
            f"beside its settings.json, which names the classes. Received: {path}"
        )
    model = keras.saving.load_model(path, compile=False)
    source = open_slides(find_slides(arguments.slides), arguments.on_error)
    ats.bind_source(model, source)
    view_size = model.input_shape[0][1:3]
    answers = model.predict(
        view_dataset(source, view_size, batch_size=arguments.batch_size),
        verbose=1 if sys.stdout.isatty() else 2,
    )
    output.mkdir(parents=True, exist_ok=True)
    write_rows(
        target,
        [
            {
                "file": os.path.relpath(name, os.path.abspath(arguments.slides)),
                "label": classes[int(np.argmax(answer))],
                **{
                    f"probability of {label}": f"{share:.4f}"
                    for label, share in zip(classes, answer, strict=True)
                },
            }
            for name, answer in zip(source.names, answers, strict=True)
        ],
    )
    print(f"Slides: {len(source)}. What they are is in {target}.")


def main(argv=None):
    arguments = parse_arguments(argv)
    output = Path(arguments.output)
    keras.utils.set_random_seed(arguments.seed)
    if arguments.predict:
        predict(arguments, output)
        return
    slides = load_slides(arguments, output)
    settings = run_settings(arguments, slides)
    check_output(output, settings, FREE_SETTINGS, arguments.resume, arguments.overwrite)
    sizes = [slides.source.shape(number)[:2] for number in range(len(slides.source))]
    pixels = [height * width / 1e6 for height, width in sizes]
    print(
        f"{len(slides.train)} training and {len(slides.test)} test slides of "
        f"{min(pixels):.1f} to {max(pixels):.1f} megapixels; classes "
        f"{', '.join(slides.classes)}"
    )
    steps = -(-len(slides.train) // arguments.batch_size)
    model = build_model(arguments, slides, steps * arguments.epochs)
    begin_output(output, arguments.resume)
    train(arguments, model, slides, steps, output)
    rows = read_log(output / "log.csv", arguments.epochs)
    metrics = {
        "epochs": len(rows),
        "seconds": sum(float(row["seconds"]) for row in rows),
        "train_loss": float(rows[-1]["loss"]),
        "n_train": len(slides.train),
        "n_test": len(slides.test),
        "classes": slides.classes,
        "settings": settings,
        "versions": versions(),
    }
    if slides.test:
        counts = Counter(slides.labels[number] for number in slides.test)
        scores = model.evaluate(
            build_dataset(arguments, slides, slides.test, output),
            return_dict=True,
            verbose=1 if sys.stdout.isatty() else 2,
        )
        metrics |= {
            "test_accuracy": scores["accuracy"],
            "test_loss": scores["loss"],
            "most_frequent_class_accuracy": max(counts.values()) / len(slides.test),
        }
    if not np.isfinite([metrics["train_loss"], metrics.get("test_loss", 0)]).all():
        raise ValueError(
            f"The training diverged after {len(rows)} epochs. Expected: a finite loss. "
            "Try a lower --learning-rate, in another --output"
        )
    write_json(output / "metrics.json", metrics)
    draw_curve(rows, output / "curve.png")
    draw_pictures(arguments, model, slides, output)
    print(
        f"Test accuracy {metrics['test_accuracy']:.3f} (always the most frequent class: "
        f"{metrics['most_frequent_class_accuracy']:.3f})"
        if slides.test
        else f"Training accuracy {float(rows[-1]['accuracy']):.3f}, no test slides",
        f"after {len(rows)} epochs and {metrics['seconds']:.0f} s. Everything is in "
        f"{output}.",
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, tf.errors.OpError) as error:
        sys.exit(f"error: {describe_error(error)}")
