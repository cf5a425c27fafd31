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
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from data_identity import describe_data
from run_directory import begin_output, check_output
from run_files import read_log, write_rows
from run_lock import one_process
from run_progress import (
    EpochLog,
    EpochSeconds,
    check_extension,
    extensions,
    note_planned_epochs,
    restore_model,
)
from run_settings import check_settings, earlier_epochs, read_settings
from script import explained, run_script
from slide_figures import draw_curve, draw_pictures
from slide_folder import build_dataset, find_slides, load_slides, open_slides
from slide_networks import POOL, build_model, constant_steps

import attention_sampling as ats
from attention_sampling.benchmark.circumstances import versions
from attention_sampling.benchmark.files import write_json
from attention_sampling.callbacks import EpochCheckpoint, check_model_file
from attention_sampling.data.views import view_dataset

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
        ("learning_rate", float, 2e-3, "of Adam"),
        (
            "decay",
            float,
            0.25,
            "share of the training, at its end, over which the learning rate falls to 0",
        ),
        (
            "mix_epochs",
            int,
            20,
            "until patches come from the attention alone, and not also from where the "
            "view shows anything at all",
        ),
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
    for name in ("patch_size", "n_patches", "batch_size", "epochs", "mix_epochs"):
        if getattr(arguments, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    if arguments.view_size < 8 or arguments.view_size % POOL:
        parser.error(f"--view-size must be a multiple of {POOL}, and at least 8")
    if not 0 <= arguments.test_fraction < 1:
        parser.error("--test-fraction must be at least 0 and below 1")
    for name in ("seed", "learning_rate", "pictures"):
        if not 0 <= getattr(arguments, name) < float("inf"):
            parser.error(f"--{name.replace('_', '-')} must be at least 0 and finite")
    if arguments.seed >= 2**32:
        parser.error(f"--seed must be below {2**32}")
    if not 0 <= arguments.decay <= 1:
        parser.error("--decay must be from 0 to 1")
    if arguments.predict and not arguments.slides:
        parser.error("--predict needs --slides DIR")
    if arguments.predict and arguments.labels:
        parser.error("--predict does without --labels")
    if not arguments.predict and bool(arguments.slides) != bool(arguments.labels):
        parser.error("--slides and --labels go together")
    return arguments


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
    names, extents = slides.source.names, range(len(slides.source))
    parts = [
        [Path(names[n]).name, slides.source.shape(n), slides.labels[n]] for n in extents
    ]
    return {
        **settings,
        "classes": slides.classes,
        "backend": keras.backend.backend(),
        "data": describe_data(arguments.slides is None, len(parts), [parts]),
    }


def restore(arguments, model, steps, output):
    """Give the model the state of the run in ``output``; return its whole epochs."""
    earlier = earlier_epochs(output)
    epochs = restore_model(model, output, steps, arguments.epochs)
    check_extension(
        output,
        epochs,
        arguments.epochs,
        earlier,
        arguments.decay,
        lambda planned: constant_steps(arguments.decay, planned * steps) // steps,
    )
    if earlier is not None:
        note_planned_epochs(output, earlier)
    return epochs


def train(arguments, model, slides, epochs, output):
    """Train a model from where it is, after some epochs, to the end."""
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
            EpochLog(output / "log.csv", arguments.epochs),
            EpochCheckpoint(output / "model.keras"),
            ats.ProposalMix(1.0, 0.0, arguments.mix_epochs),
        ],
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 2,
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
    check_model_file(path)
    model = keras.saving.load_model(path, compile=False)
    source = open_slides(find_slides(arguments.slides), arguments.on_error)
    ats.set_source(model, source)
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
    with one_process(output):
        train_on_slides(arguments, output)


def train_on_slides(arguments, output):
    """Train a model on slides from where it is; write what comes of it."""
    check_output(output, arguments.resume, arguments.overwrite)
    slides = load_slides(arguments, output)
    settings = run_settings(arguments, slides)
    if arguments.resume:
        check_settings(output, settings, FREE_SETTINGS)
    sizes = [slides.source.shape(number)[:2] for number in range(len(slides.source))]
    pixels = [height * width / 1e6 for height, width in sizes]
    print(
        f"{len(slides.train)} training and {len(slides.test)} test slides of "
        f"{min(pixels):.1f} to {max(pixels):.1f} megapixels; classes "
        f"{', '.join(slides.classes)}"
    )
    steps = -(-len(slides.train) // arguments.batch_size)
    model = build_model(arguments, slides, steps * arguments.epochs)
    epochs = restore(arguments, model, steps, output) if arguments.resume else 0
    begin_output(output, arguments.overwrite)
    write_json(output / "settings.json", settings)
    with explained(output):
        train(arguments, model, slides, epochs, output)
        conclude(arguments, model, slides, settings, output)


def conclude(arguments, model, slides, settings, output):
    """Write, draw and say what a training has come to."""
    rows = read_log(output / "log.csv", arguments.epochs)
    if not rows[-1].get("cross_entropy"):
        raise ValueError(
            f"{output / 'log.csv'} is of an earlier version, without the cross-entropy. "
            "Train further by more --epochs, or anew by --overwrite"
        )
    metrics = {
        "epochs": len(rows),
        "extended_from": extensions(rows),
        "seconds": sum(float(row["seconds"]) for row in rows),
        "train_loss": float(rows[-1]["cross_entropy"]),
        "n_train": len(slides.train),
        "n_test": len(slides.test),
        "classes": slides.classes,
        "settings": settings,
        "versions": versions(),
    }
    if slides.test:
        counts = Counter(slides.labels[number] for number in slides.test)
        metrics |= {
            "test_accuracy": float(rows[-1]["val_accuracy"]),
            "test_loss": float(rows[-1]["val_cross_entropy"]),
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
    run_script(main)
