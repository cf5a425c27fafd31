"""One training of a method of the paper: of one run, on one fold."""

import sys
from collections import Counter

import keras
import numpy as np
from experiment_options import sampling_keywords
from run_directory import (
    EpochSeconds,
    RequireFinite,
    read_log,
    restore_model,
    write_rows,
)

import attention_sampling as ats
from attention_sampling.checkpoint import EpochCheckpoint
from attention_sampling.tasks import build_model


def build_compiled_model(arguments, task, source, n_train, seed):
    """Build the model of a training, compiled.

    Args:
        arguments: of the command line.
        task: networks and sizes.
        source: of the patches, where images stay on disk, or None.
        n_train: how many images it will be trained on.
        seed: of weights and draws.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    keywords = sampling_keywords(arguments)
    if source is not None:
        keywords["source"] = source
    model = build_model(
        task,
        arguments.method,
        seed=seed,
        entropy=arguments.entropy,
        feature_scale=arguments.feature_scale,
        center=arguments.center,
        sampling=keywords,
    )
    model.compile(
        optimizer=_optimizer(arguments, arguments.epochs * _steps(arguments, n_train)),
        loss="sparse_categorical_crossentropy",
        metrics=[
            "accuracy",
            # Alone: the loss holds the regularizer and the weights of the classes too.
            keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy"),
        ],
    )
    return model


def train(arguments, model, split, directory, seed, balanced=False):
    """Train, from the last whole epoch in ``directory`` if there is one.

    Args:
        arguments: of the command line.
        model: as of `build_compiled_model`.
        split: images to train on and to test with.
        directory: for ``log.csv`` and ``model.keras``.
        seed: of order and augmentation: ints.
        balanced: whether to weigh each class by the inverse of its prior.

    Returns:
        The rows of the log, one for each epoch.

    Raises:
        ValueError: the training diverged, or has more epochs already.
    """
    directory.mkdir(parents=True, exist_ok=True)
    steps = _steps(arguments, len(split.train.labels))
    done = restore_model(model, directory, steps, arguments.epochs)
    if done < arguments.epochs:
        # Another order after each interruption; 31 bits, as TensorFlow takes them.
        [order] = np.random.SeedSequence([*seed, done]).generate_state(1) >> 1
        inputs = arguments.method.inputs
        model.fit(
            split.train.batches(inputs, arguments.batch_size, int(order)),
            validation_data=split.test.batches(inputs, arguments.batch_size),
            class_weight=_class_weights(split.train.labels) if balanced else None,
            initial_epoch=done,
            epochs=arguments.epochs,
            callbacks=[
                EpochSeconds(),
                RequireFinite(),
                EpochLog(directory / "log.csv"),
                keras.callbacks.TensorBoard(
                    directory / "tensorboard", write_graph=False
                ),
                EpochCheckpoint(directory / "model.keras"),
                *_mix_callbacks(arguments),
            ],
            shuffle=False,
            verbose=1 if sys.stdout.isatty() else 2,
        )
    return read_log(directory / "log.csv", arguments.epochs)


class EpochLog(keras.callbacks.Callback):
    """Write a row for each epoch, replacing the file as a whole.

    Args:
        path: CSV file to go on with. Rows of epochs that are done anew are dropped.
    """

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        rows = read_log(self.path, epoch)
        write_rows(self.path, [*rows, {"epoch": epoch, **logs}])


def _steps(arguments, n_images):
    return -(-n_images // arguments.batch_size)


def _optimizer(arguments, steps):
    rate = arguments.learning_rate
    if arguments.decay:
        # Never none: an optimizer without a schedule could not go on with the file of
        # one with it.
        falling = max(1, round(arguments.decay * steps))
        constant = steps - falling
        rate = keras.optimizers.schedules.CosineDecay(
            rate,
            falling,
            warmup_target=rate if constant else None,
            warmup_steps=constant,
        )
    if not arguments.weight_decay:
        return keras.optimizers.Adam(rate, clipnorm=1.0)
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=arguments.weight_decay, clipnorm=1.0
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


def _mix_callbacks(arguments):
    if arguments.method.kind != "ats" or not (arguments.mix and arguments.mix_epochs):
        return []
    return [ats.ProposalMix(arguments.mix, 0.0, arguments.mix_epochs)]


def _class_weights(labels):
    """Weigh each class by the inverse of its prior, 1 on average."""
    counts = Counter(map(int, labels))
    return {
        label: len(labels) / (len(counts) * count) for label, count in counts.items()
    }
