"""Find the speed limit in a road scene whose sign is legible at full resolution only.

The speed-limit experiment of Katharopoulos and Fleuret 2019, section 4.4. Without
arguments it draws a small data set of its own, trains on it, and writes what it found
to ``runs/speed_limits``.
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
    restore,
    versions,
    write_json,
)
from tqdm import tqdm

import attention_sampling as ats
from attention_sampling.callbacks import attention_viewer, draw_attention
from attention_sampling.checkpoint import EpochCheckpoint
from attention_sampling.data import ImageFilesSource
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
from attention_sampling.views import view_and_image_dataset, view_dataset

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
# Of images that --on-demand keeps decoded: a JPEG has to be decoded as a whole.
CACHE_BYTES = 2**28
# Settings that a resumed run may change.
FREE_SETTINGS = {"epochs", "pictures"}


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
        "--on-demand",
        action="store_true",
        help="leave the images on disk and read each patch when it is drawn, as for "
        "images that do not fit into memory. Training images are then not augmented: "
        "view and patches are read apart, and would show different pictures",
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


class Images:
    """The images of a run, in batches: as a whole, or to be read on demand.

    Args:
        arguments: of the command line.
        data: `SpeedLimits`.
        size: (height, width) of all images, in pixels.
        output: directory of the run, where views are kept if images stay on disk.
    """

    def __init__(self, arguments, data, size, output):
        # A view of 8 n pixels leaves no rest when the attention network pools 8 x 8.
        self.view_size = tuple(
            8 * round(extent * arguments.scale / 8) for extent in size
        )
        if min(self.view_size) < SPEED_LIMITS_RECEPTIVE_FIELD + 7:
            raise ValueError(
                "The view is too small for the attention network. Expected: at least 16 "
                f"pixels each way. Received: --scale {arguments.scale}, which makes "
                f"{self.view_size[1]} x {self.view_size[0]}"
            )
        self.size, self.batch_size = size, arguments.batch_size
        self.source, self.view_cache = None, output / "views"
        if arguments.on_demand:
            samples = [*data.train, *data.test]
            self.numbers = {sample: number for number, sample in enumerate(samples)}
            self.source = ImageFilesSource(
                [sample.path for sample in samples], channels=3, cache_bytes=CACHE_BYTES
            )

    def model_inputs(self):
        """Return what a model takes: views, and images or their numbers."""
        view = keras.Input((*self.view_size, 3), name="view")
        if self.source is None:
            return view, keras.Input((*self.size, 3), name="image", dtype="uint8")
        return view, keras.Input((), name="index", dtype="int32")

    def batches(self, samples, training_seed=None):
        """Return a dataset of some images, for training if there is a seed.

        Then they are shuffled and, unless they are read on demand, augmented.
        """
        shuffle = training_seed is not None
        if self.source is None:
            return view_and_image_dataset(
                [sample.path for sample in samples],
                [sample.label for sample in samples],
                self.size,
                self.view_size,
                self.batch_size,
                shuffle_seed=training_seed,
                augment=build_augmentation(training_seed) if shuffle else None,
            )
        return view_dataset(
            self.source,
            self.view_size,
            [sample.label for sample in self.numbers],
            self.batch_size,
            shuffle=shuffle,
            seed=training_seed,
            cache=self.view_cache,
            indices=[self.numbers[sample] for sample in samples],
        )

    def pixels(self, image):
        """Return the pixels of what a batch holds: an image, or its number."""
        if self.source is None:
            return image.numpy()
        return self.source.read_patches([int(image)], [(0, 0)], self.size)[0]


def build_model(arguments, n_classes, images, total_steps):
    patch_shape = (arguments.patch_size, arguments.patch_size, 3)
    inputs = images.model_inputs()
    features, _, _ = ats.attention_sampling(
        speed_limits_attention(),
        residual_features(patch_shape, first_stride=arguments.first_stride),
        n_patches=arguments.n_patches,
        proposal=ats.LocalContrast(window=5) if arguments.mix_epochs else None,
        receptive_field=SPEED_LIMITS_RECEPTIVE_FIELD,
        attention_regularizer=ats.MultinomialEntropy(arguments.entropy),
        seed=arguments.seed,
        source=images.source,
    )(inputs)
    scaled = keras.layers.Rescaling(FEATURE_SCALE)(features)
    limit = keras.layers.Dense(n_classes, activation="softmax", name="limit")(scaled)
    model = keras.Model(inputs, limit, name="speed_limits")
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


def train(arguments, model, data, images, output):
    """Train, from the last whole epoch of the run in ``output`` if there is one."""
    steps = -(-len(data.train) // arguments.batch_size)
    epochs = restore(model, output, run_settings(arguments), steps, arguments.resume)
    model.fit(
        images.batches(data.train, arguments.seed + epochs),
        validation_data=images.batches(data.test),
        class_weight=class_weights(data.train),
        initial_epoch=epochs,
        epochs=arguments.epochs,
        callbacks=[
            EpochSeconds(),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.CSVLogger(output / "log.csv", append=True),
            keras.callbacks.TensorBoard(output / "tensorboard", write_graph=False),
            EpochCheckpoint(output / "model.keras"),
            *(
                [ats.ProposalMix(1.0, 0.0, arguments.mix_epochs)]
                if arguments.mix_epochs
                else []
            ),
        ],
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 2,
    )


def draw_pictures(arguments, model, data, images, output):
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
    viewer = attention_viewer(model)
    dataset = images.batches(samples).unbatch()
    margin = [
        SPEED_LIMITS_RECEPTIVE_FIELD / 2 * extent / low
        for extent, low in zip(images.size, images.view_size, strict=True)
    ]
    for sample, ((view, image), _) in zip(
        tqdm(samples, desc="Drawing pictures"), dataset, strict=True
    ):
        seen = viewer.predict_on_batch([view[None], image[None]])
        answer = int(np.argmax(seen["prediction"][0]))
        draw_attention(
            directory / f"{Path(sample.path).stem}.png",
            images.pixels(image),
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


def main(argv=None):
    arguments = parse_arguments(argv)
    output = Path(arguments.output)
    keras.utils.set_random_seed(arguments.seed)
    if not arguments.profile:
        check_output(
            output,
            run_settings(arguments),
            FREE_SETTINGS,
            arguments.resume,
            arguments.overwrite,
        )
    data, image_size = load_data(arguments, output)
    print(
        f"{len(data.train)} training and {len(data.test)} test images of "
        f"{image_size[1]} x {image_size[0]} pixels; classes {', '.join(data.classes)}"
    )
    images = Images(arguments, data, image_size, output)
    steps = -(-len(data.train) // arguments.batch_size)
    model = build_model(arguments, len(data.classes), images, steps * arguments.epochs)
    begun = arguments.resume and (output / "model.keras").exists()
    if arguments.start_from is not None and not begun:
        copy_networks(model, arguments.start_from)
    if arguments.profile:
        cost = profile_training(
            model, images.batches(data.train, arguments.seed), output / "profile"
        )
        print(
            f"{cost.seconds_per_sample * 1e3:.1f} ms and "
            f"{cost.bytes_per_sample / 1e6:.1f} MB a sample, peak "
            f"{cost.peak_bytes / 1e6:.1f} MB on {cost.device}, batch "
            f"{arguments.batch_size}; trace in {output / 'profile'}"
        )
        return
    begin_output(output, arguments.resume)
    train(arguments, model, data, images, output)
    scores = model.evaluate(
        images.batches(data.test),
        return_dict=True,
        verbose=1 if sys.stdout.isatty() else 2,
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
        "view_size": images.view_size,
        "settings": run_settings(arguments),
        "versions": versions(),
    }
    if not np.isfinite(scores["loss"]):
        raise ValueError(
            f"The training diverged after {len(rows)} epochs. Expected: a finite loss. "
            f"Received: test loss {scores['loss']}; try a lower --learning-rate, in "
            "another --output"
        )
    write_json(output / "metrics.json", metrics)
    draw_curve(rows, output / "curve.png")
    draw_pictures(arguments, model, data, images, output)
    print(
        f"Test accuracy {scores['accuracy']:.3f} after {len(rows)} epochs and "
        f"{metrics['seconds']:.0f} s (always the most frequent class: "
        f"{most_frequent / len(data.test):.3f}). Everything is in {output}."
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, tf.errors.OpError) as error:
        sys.exit(f"error: {describe_error(error)}")
