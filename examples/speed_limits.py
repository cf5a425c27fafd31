"""Find the speed limit in a road scene whose sign is legible at full resolution only.

The speed-limit experiment of Katharopoulos and Fleuret 2019, section 4.4. Without
arguments it draws a small data set of its own, trains on it, and writes what it found
to ``runs/speed_limits``.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import sys
import time
from collections import Counter
from itertools import zip_longest
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from tqdm import tqdm

import attention_sampling as ats
from attention_sampling.callbacks import attention_viewer, draw_attention
from attention_sampling.checkpoint import EpochCheckpoint, completed_epochs
from attention_sampling.datasets.road_scenes import write_road_scenes
from attention_sampling.datasets.speed_limits import (
    check_images,
    download_swedish,
    load_speed_limits,
)
from attention_sampling.networks import (
    SPEED_LIMITS_RECEPTIVE_FIELD,
    residual_features,
    speed_limits_attention,
)
from attention_sampling.profiling import profile_training
from attention_sampling.views import view_and_image_dataset

# What the settings are where the command line does not say: for the data set the
# example draws, and for photographs of a megapixel (the paper's).
DRAWN_SETTINGS = {
    "epochs": 28,
    "batch_size": 8,
    "n_patches": 6,
    "patch_size": 64,
    "scale": 0.25,
    "mix_epochs": 14,
    "learning_rate": 2e-3,
    "first_stride": 2,
    "test_fraction": 0.2,
}
PHOTOGRAPH_SETTINGS = {
    "epochs": 100,
    "batch_size": 16,
    "n_patches": 5,
    "patch_size": 100,
    "scale": 0.3,
    "mix_epochs": 0,
    "learning_rate": 1e-3,
    "first_stride": 1,
    "test_fraction": 0.25,
}
# Features of unit norm, averaged over patches, move the logits little: scaled up, the
# classifier need not grow its weights first.
FEATURE_SCALE = 4
# Settings that a resumed run may change.
FREE_SETTINGS = {"epochs", "pictures"}
# What a run leaves in its output directory, the model first: without it, no run.
RUN_FILES = (
    "model.keras",
    "log.csv",
    "metrics.json",
    "curve.png",
    "pictures",
    "tensorboard",
)


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        metavar="DIR",
        help="German Traffic Sign Detection Benchmark (gt.txt) or Swedish Traffic Signs "
        "(Set1, Set2); without it, scenes are drawn",
    )
    data.add_argument(
        "--download",
        action="store_true",
        help="fetch the Swedish Traffic Signs into --dataset first",
    )
    data.add_argument(
        "--test-from",
        type=int,
        metavar="N",
        help="image number >= N is test, instead of a share (German format)",
    )
    training = parser.add_argument_group("training")
    training.add_argument(
        "--seed", type=int, default=0, help="of weights, draws, split (%(default)s)"
    )
    training.add_argument(
        "--entropy",
        type=float,
        default=0.01,
        help="strength of the entropy regularizer (default: %(default)s)",
    )
    for name, kind, explanation in (
        ("test_fraction", float, "share of test images, unless the data set says"),
        ("epochs", int, "passes over the training images"),
        ("batch_size", int, "images a step"),
        ("n_patches", int, "patches drawn from each image"),
        ("patch_size", int, "in full-resolution pixels"),
        ("scale", float, "of the view to the image"),
        (
            "mix_epochs",
            int,
            "until the share of local contrast in the proposal has fallen from 1 to 0; "
            "0 draws from the attention alone, as the paper",
        ),
        ("learning_rate", float, "of Adam, falling to 0 in the last quarter"),
        (
            "first_stride",
            int,
            "of the feature network; 2 is faster, 1 sees more detail",
        ),
    ):
        training.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            help=f"{explanation} (default: {PHOTOGRAPH_SETTINGS[name]}, for drawn scenes "
            f"{DRAWN_SETTINGS[name]})",
        )
    training.add_argument(
        "--start-from",
        metavar="MODEL",
        help="begin with the networks of another run's model.keras; the classifier is "
        "new, so the classes may differ",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output", metavar="DIR", default="runs/speed_limits")
    earlier = output.add_mutually_exclusive_group()
    earlier.add_argument(
        "--resume", action="store_true", help="go on with the run in --output"
    )
    earlier.add_argument(
        "--overwrite", action="store_true", help="delete the run in --output first"
    )
    output.add_argument(
        "--pictures", type=int, default=8, help="test images to draw (%(default)s)"
    )
    output.add_argument(
        "--profile",
        action="store_true",
        help="measure a few training steps instead of training",
    )
    arguments = parser.parse_args(argv)
    defaults = PHOTOGRAPH_SETTINGS if arguments.dataset else DRAWN_SETTINGS
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    for name in ("epochs", "batch_size", "n_patches", "patch_size", "first_stride"):
        if getattr(arguments, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    if not 0 < arguments.scale <= 1:
        parser.error("--scale must be above 0 and at most 1")
    for name in ("mix_epochs", "learning_rate", "entropy", "pictures"):
        if not 0 <= getattr(arguments, name) < float("inf"):
            parser.error(f"--{name.replace('_', '-')} must be at least 0 and finite")
    if arguments.download and not arguments.dataset:
        parser.error("--download needs --dataset DIR, where to put the images")
    return arguments


def load_data(arguments, output):
    """Return the data set and the (height, width) of its images, all checked."""
    directory = arguments.dataset
    if directory is None:
        directory = output / "scenes"
        write_road_scenes(directory)
    elif arguments.download:
        download_swedish(directory)
    data = load_speed_limits(
        directory,
        test_fraction=arguments.test_fraction,
        test_from=arguments.test_from,
        seed=arguments.seed,
    )
    return data, check_images([*data.train, *data.test])


def build_model(arguments, n_classes, image_size, total_steps):
    # A view of 8 n pixels leaves no rest when the attention network pools 8 x 8.
    view_size = [8 * round(extent * arguments.scale / 8) for extent in image_size]
    patch_shape = (arguments.patch_size, arguments.patch_size, 3)
    if min(view_size) < SPEED_LIMITS_RECEPTIVE_FIELD + 7:
        raise ValueError(
            "The view is too small for the attention network. Expected: at least 16 "
            f"pixels each way. Received: --scale {arguments.scale}, which makes "
            f"{view_size[1]} x {view_size[0]}"
        )
    view = keras.Input((*view_size, 3), name="view")
    image = keras.Input((*image_size, 3), name="image", dtype="uint8")
    features, _, _ = ats.attention_sampling(
        speed_limits_attention(),
        residual_features(patch_shape, first_stride=arguments.first_stride),
        n_patches=arguments.n_patches,
        proposal=ats.LocalContrast(window=5) if arguments.mix_epochs else None,
        receptive_field=SPEED_LIMITS_RECEPTIVE_FIELD,
        attention_regularizer=ats.MultinomialEntropy(arguments.entropy),
        seed=arguments.seed,
    )([view, image])
    scaled = keras.layers.Rescaling(FEATURE_SCALE)(features)
    limit = keras.layers.Dense(n_classes, activation="softmax", name="limit")(scaled)
    model = keras.Model([view, image], limit, name="speed_limits")
    # Constant until the attention has surely found the signs, then down to 0.
    constant_steps = total_steps * 3 // 4
    schedule = keras.optimizers.schedules.CosineDecay(
        arguments.learning_rate,
        total_steps - constant_steps,
        warmup_target=arguments.learning_rate,
        warmup_steps=constant_steps,
    )
    model.compile(
        optimizer=keras.optimizers.Adam(schedule, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def copy_networks(model, path):
    """Begin with the attention and the feature network of another run's model."""
    donor = keras.saving.load_model(path, compile=False)
    for name in ("attention", "feature"):
        try:
            model.get_layer(name).set_weights(donor.get_layer(name).get_weights())
        except ValueError as error:
            raise ValueError(
                f"{path} has no {name} network like the one to be trained. Expected: the "
                f"model.keras of a run of this example. Received: {error}"
            ) from error


def build_augmentation(seed):
    """Return a random change of one image: place, contrast, brightness."""
    # The same seed in all would draw the same numbers: dark images would be flat.
    move, stretch, light = map(int, np.random.SeedSequence(seed).generate_state(3))
    layers = [
        keras.layers.RandomTranslation(0.05, 0.05, interpolation="nearest", seed=move),
        keras.layers.RandomContrast(0.2, value_range=(0, 255), seed=stretch),
        keras.layers.RandomBrightness(0.1, value_range=(0, 255), seed=light),
    ]

    def augment(image):
        for layer in layers:
            image = layer(image)
        return image

    return augment


def build_dataset(arguments, samples, image_size, view_size, training_seed=None):
    """Return the batches of some images, shuffled and augmented if there is a seed."""
    return view_and_image_dataset(
        [sample.path for sample in samples],
        [sample.label for sample in samples],
        image_size,
        view_size,
        arguments.batch_size,
        shuffle_seed=training_seed,
        augment=None if training_seed is None else build_augmentation(training_seed),
    )


def class_weights(samples):
    """Weigh each class by the inverse of its prior, 1 on average."""
    counts = Counter(sample.label for sample in samples)
    return {
        label: len(samples) / (len(counts) * count) for label, count in counts.items()
    }


def run_settings(arguments):
    """Return what determines a run, by name."""
    settings = {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("download", "output", "overwrite", "profile", "resume")
    }
    if arguments.dataset is not None:
        settings["dataset"] = str(Path(arguments.dataset).resolve())
    return settings


def check_output(arguments, output):
    """Refuse to touch an earlier run, unless it is to be resumed or overwritten."""
    if not (output / "model.keras").exists() or arguments.overwrite:
        return
    if not arguments.resume:
        raise ValueError(
            f"{output} holds a run. Go on with it by --resume, delete it by --overwrite, "
            "or choose another directory by --output."
        )
    try:
        earlier = json.loads((output / "settings.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The settings of the run in {output} cannot be read ({error}). Delete the "
            "run by --overwrite, or choose another directory by --output."
        ) from error
    differing = [
        f"--{name.replace('_', '-')} was {earlier.get(name)}, is {value}"
        for name, value in run_settings(arguments).items()
        if name not in FREE_SETTINGS and earlier.get(name) != value
    ]
    if differing:
        raise ValueError(
            f"The run in {output} has other settings: {'; '.join(differing)}. Resume it "
            "with its own, or choose another directory by --output."
        )


def begin_output(arguments, output):
    """Make the output directory of a run, without what is to be overwritten."""
    output.mkdir(parents=True, exist_ok=True)
    for name in RUN_FILES if not arguments.resume else ():
        path = output / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def write_json(path, content):
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    os.replace(part, path)


def read_log(path, epochs):
    """Return the rows of the training log for the first epochs."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if None not in row.values()][:epochs]


def cut_log(path, epochs):
    """Drop what the log says of epochs that the model file does not hold."""
    rows = read_log(path, epochs)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    os.replace(part, path)


class EpochSeconds(keras.callbacks.Callback):
    """Put the seconds each epoch took into its logs."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = time.perf_counter() - self.start


def train(arguments, model, data, image_size, output):
    """Train, from the last whole epoch of the run in ``output`` if there is one."""
    steps = -(-len(data.train) // arguments.batch_size)
    log, checkpoint = output / "log.csv", output / "model.keras"
    epochs = 0
    if checkpoint.exists():
        model.optimizer.build(model.trainable_variables)  # or its state is not loaded
        model.load_weights(checkpoint)
        epochs = completed_epochs(model, steps)
        print(f"Going on after epoch {epochs}.")
        if epochs > arguments.epochs:
            raise ValueError(
                f"The run in {output} has {epochs} epochs already. Expected: at least as "
                f"many. Received: --epochs {arguments.epochs}"
            )
    elif arguments.resume:
        print(f"{output} holds no whole epoch yet: beginning.")
    write_json(output / "settings.json", run_settings(arguments))
    cut_log(log, epochs)
    view_size = model.get_layer("view").output.shape[1:3]
    model.fit(
        build_dataset(
            arguments, data.train, image_size, view_size, arguments.seed + epochs
        ),
        validation_data=build_dataset(arguments, data.test, image_size, view_size),
        class_weight=class_weights(data.train),
        initial_epoch=epochs,
        epochs=arguments.epochs,
        callbacks=[
            EpochSeconds(),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.CSVLogger(log, append=True),
            keras.callbacks.TensorBoard(output / "tensorboard", write_graph=False),
            EpochCheckpoint(checkpoint),
            *(
                [ats.ProposalMix(1.0, 0.0, arguments.mix_epochs)]
                if arguments.mix_epochs
                else []
            ),
        ],
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 2,
    )


def draw_pictures(arguments, model, data, image_size, output):
    """Draw what the model looked at in some test images, the classes in turn."""
    directory = output / "pictures"
    directory.mkdir(exist_ok=True)
    by_class = [
        [sample for sample in data.test if sample.label == label]
        for label in range(len(data.classes))
    ]
    samples = [
        sample for group in zip_longest(*by_class) for sample in group if sample
    ][: arguments.pictures]
    if not samples:
        return
    view_size = model.get_layer("view").output.shape[1:3]
    viewer = attention_viewer(model)
    dataset = build_dataset(arguments, samples, image_size, view_size).unbatch()
    margin = [
        SPEED_LIMITS_RECEPTIVE_FIELD / 2 * extent / low
        for extent, low in zip(image_size, view_size, strict=True)
    ]
    for sample, ((view, image), _) in zip(
        tqdm(samples, desc="Drawing pictures"), dataset, strict=True
    ):
        seen = viewer.predict_on_batch([view[None], image[None]])
        answer = int(np.argmax(seen["prediction"][0]))
        draw_attention(
            directory / f"{Path(sample.path).stem}.png",
            image.numpy(),
            seen["attention"][0],
            seen["patches"][0],
            seen["sampled_attention"][0],
            seen["origins"][0],
            margin=margin,
            boxes=[
                (sign.top, sign.left, sign.bottom, sign.right) for sign in sample.signs
            ],
            title=f"{Path(sample.path).name}: truth {data.classes[sample.label]}, answer "
            f"{data.classes[answer]} ({seen['prediction'][0, answer]:.2f})",
        )


def draw_curve(rows, path):
    """Draw loss and accuracy by epoch."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    epochs = range(1, len(rows) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for prefix, label in (("", "training"), ("val_", "test")):
            axes.plot(epochs, [float(row[prefix + name]) for row in rows], label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.legend()
    part = path.with_name(f".{path.stem}.part.png")
    figure.savefig(part)
    os.replace(part, path)


def main(argv=None):
    arguments = parse_arguments(argv)
    output = Path(arguments.output)
    keras.utils.set_random_seed(arguments.seed)
    if not arguments.profile:
        check_output(arguments, output)
    data, image_size = load_data(arguments, output)
    print(
        f"{len(data.train)} training and {len(data.test)} test images of "
        f"{image_size[1]} x {image_size[0]} pixels; classes {', '.join(data.classes)}"
    )
    steps = -(-len(data.train) // arguments.batch_size)
    model = build_model(
        arguments, len(data.classes), image_size, steps * arguments.epochs
    )
    begun = arguments.resume and (output / "model.keras").exists()
    if arguments.start_from is not None and not begun:
        copy_networks(model, arguments.start_from)
    if arguments.profile:
        view_size = model.get_layer("view").output.shape[1:3]
        cost = profile_training(
            model,
            build_dataset(arguments, data.train, image_size, view_size, arguments.seed),
            output / "profile",
        )
        print(
            f"{cost.seconds_per_sample * 1e3:.1f} ms and "
            f"{cost.bytes_per_sample / 1e6:.1f} MB a sample, peak "
            f"{cost.peak_bytes / 1e6:.1f} MB on {cost.device}, batch "
            f"{arguments.batch_size}; trace in {output / 'profile'}"
        )
        return
    begin_output(arguments, output)
    train(arguments, model, data, image_size, output)
    view_size = model.get_layer("view").output.shape[1:3]
    test = build_dataset(arguments, data.test, image_size, view_size)
    scores = model.evaluate(
        test, return_dict=True, verbose=1 if sys.stdout.isatty() else 2
    )
    rows = read_log(output / "log.csv", arguments.epochs)
    most_frequent = max(Counter(sample.label for sample in data.test).values())
    metrics = {
        "test_error": 1 - scores["accuracy"],
        "test_accuracy": scores["accuracy"],
        "test_loss": scores["loss"],
        "most_frequent_class_error": 1 - most_frequent / len(data.test),
        "epochs": len(rows),
        "seconds": sum(float(row["seconds"]) for row in rows),
        "n_train": len(data.train),
        "n_test": len(data.test),
        "classes": data.classes,
        "image_size": image_size,
        "view_size": view_size,
        "settings": run_settings(arguments),
        "versions": {
            "attention_sampling": ats.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }
    if not np.isfinite(scores["loss"]):
        raise ValueError(
            f"The training diverged after {len(rows)} epochs. Expected: a finite loss. "
            f"Received: test loss {scores['loss']}; try a lower --learning-rate, in "
            "another --output"
        )
    write_json(output / "metrics.json", metrics)
    draw_curve(rows, output / "curve.png")
    draw_pictures(arguments, model, data, image_size, output)
    print(
        f"Test accuracy {scores['accuracy']:.3f} after {len(rows)} epochs and "
        f"{metrics['seconds']:.0f} s (always the most frequent class: "
        f"{most_frequent / len(data.test):.3f}). Everything is in {output}."
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, tf.errors.OpError) as error:
        sys.exit(f"error: {error}")
