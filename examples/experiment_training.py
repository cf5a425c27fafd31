"""One training of a method of the paper: of one run, on one fold."""

import sys
from collections import Counter

import keras
import numpy as np
from experiment_options import sampling_keywords
from run_files import read_log
from run_progress import (
    EpochLog,
    EpochSeconds,
    RequireFinite,
    check_extension,
    restore_model,
)

import attention_sampling as ats
from attention_sampling.callbacks import EpochCheckpoint
from attention_sampling.experiments.tasks import build_model


def build_compiled_model(arguments, task, source, n_train, seed):
    """Build the model of a training, compiled.

    Args:
        arguments: of the command line.
        task: networks and sizes.
        source: of the patches, where images stay on disk, or None.
        n_train: how many images it will be trained on.
        seed: of weights and draws.
    """
    policy = keras.config.dtype_policy()
    keras.backend.clear_session()  # which forgets the policy of Keras, too
    keras.utils.set_random_seed(seed)
    keywords = sampling_keywords(arguments)
    if source is not None:
        keywords["source"] = source
    keras.config.set_dtype_policy(arguments.dtype_policy)
    try:
        model = build_model(
            task,
            arguments.method,
            seed=seed,
            entropy=arguments.entropy,
            feature_scale=arguments.feature_scale,
            center=arguments.center,
            sampling=keywords,
        )
    finally:
        keras.config.set_dtype_policy(policy)
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


def restore_training(arguments, model, n_train, directory, earlier):
    """Give the model the state of an earlier training; return its whole epochs.

    Args:
        arguments: of the command line.
        model: as of `build_compiled_model`.
        n_train: how many images it is trained on.
        directory: of ``log.csv`` and ``model.keras``, if there are any.
        earlier: epochs it was to have, where the log does not say.

    Raises:
        ValueError: with the arguments, the epochs done would have been others.
    """
    steps = _steps(arguments, n_train)
    done = restore_model(model, directory, steps, arguments.epochs)
    check_extension(
        directory,
        done,
        arguments.epochs,
        earlier,
        arguments.decay,
        lambda epochs: _constant_steps(arguments, epochs * steps) // steps,
    )
    return done


def train(arguments, model, split, directory, done, seed, balanced=False):
    """Train from where the model is to the end.

    Args:
        arguments: of the command line.
        model: as of `build_compiled_model` and `restore_training`.
        split: images to train on and to test with.
        directory: for ``log.csv`` and ``model.keras``.
        done: epochs that the model has been trained for.
        seed: of order and augmentation: ints.
        balanced: whether to weigh each class by the inverse of its prior.

    Returns:
        The rows of the log, one for each epoch.

    Raises:
        ValueError: the training diverged.
    """
    directory.mkdir(parents=True, exist_ok=True)
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
                EpochLog(directory / "log.csv", arguments.epochs),
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


def _steps(arguments, n_images):
    return -(-n_images // arguments.batch_size)


def _constant_steps(arguments, steps):
    """Return after how many steps of a training its learning rate begins to fall."""
    if not arguments.decay:
        return steps
    # One at least: an optimizer without a schedule could not go on with the file of one
    # with it.
    return steps - max(1, round(arguments.decay * steps))


def _optimizer(arguments, steps):
    rate = arguments.learning_rate
    if arguments.decay:
        constant = _constant_steps(arguments, steps)
        rate = keras.optimizers.schedules.CosineDecay(
            rate,
            steps - constant,
            warmup_target=rate if constant else None,
            warmup_steps=constant,
        )
    clip = {"global_clipnorm" if arguments.clip == "global" else "clipnorm": 1.0}
    if not arguments.weight_decay:
        return keras.optimizers.Adam(rate, **clip)
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=arguments.weight_decay, **clip
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
