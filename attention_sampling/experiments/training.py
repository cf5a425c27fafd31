"""One training of a method of the paper, that goes on where it was."""

import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from attention_sampling.callbacks import (
    AttentionImages,
    EpochCheckpoint,
    ProposalMix,
    resume_training,
)
from attention_sampling.experiments.data import Images
from attention_sampling.experiments.pretraining import (
    begin_with,
    fit_classifier,
    pretrain,
)
from attention_sampling.experiments.tasks import build_model
from attention_sampling.files import replacing
from attention_sampling.layers import LocalContrast
from attention_sampling.pipeline import set_source, with_sampling

# Measure -> its column of the log.
_MEASURES = {
    "train_loss": "cross_entropy",
    "train_error": "accuracy",
    "test_loss": "val_cross_entropy",
    "test_error": "val_accuracy",
}


def train(
    images: Images,
    split: tuple[np.ndarray, np.ndarray],
    settings: dict[str, Any],
    directory: Path,
    where: dict[str, Any],
    watched: Sequence[int] = (),
) -> dict[str, Any]:
    """Train one model, from where it was, and return what came out.

    Args:
        images: of the task.
        split: indices of the images to train on, and of those to test with.
        settings: as ``choose_settings`` returns them.
        directory: for ``model.keras``, ``log.csv``, ``tensorboard`` and, of networks that
            learned from boxes first, ``pretrained.keras``.
        where: run, seed and fold.
        watched: indices of images to plot into ``attention`` at the epochs of the paper's
            figure 3.

    Returns:
        Losses, errors and seconds at the end, and their curves.

    Raises:
        ValueError: the training diverged.
    """
    # A model after another is what it is for, and no reason for a warning each time.
    tf.get_logger().setLevel("ERROR")
    directory.mkdir(parents=True, exist_ok=True)
    path, log = directory / "model.keras", directory / "log.csv"
    train_on, test_on = split
    batch_size, epochs = settings["batch_size"], settings["epochs"]
    steps = math.ceil(len(train_on) / batch_size)
    if path.exists():
        model, done = resume_training(path, steps, log)
        if images.source is not None:
            set_source(model, images.source)
    else:
        model, done = build_compiled_model(images, settings, where["seed"], steps), 0
        log.unlink(missing_ok=True)
        _begin(model, images, train_on, settings, directory, where["seed"])
    if done < epochs:
        inputs = [entry.name for entry in model.inputs]
        # Another order after each interruption; 31 bits, as TensorFlow takes them.
        seeds = np.random.SeedSequence([where["seed"], where["fold"] or 0, done])
        order = int(seeds.generate_state(1)[0] >> 1)
        model.fit(
            images.batches(train_on, inputs, batch_size, order),
            validation_data=images.batches(test_on, inputs, batch_size),
            class_weight=_class_weights(images, train_on),
            initial_epoch=done,
            epochs=epochs,
            callbacks=[
                EpochSeconds(),
                keras.callbacks.TerminateOnNaN(),
                keras.callbacks.CSVLogger(log, append=done > 0),
                # Before the checkpoint: an epoch that is saved is plotted.
                *_watch(images, watched, inputs, directory / "attention"),
                EpochCheckpoint(path),
                keras.callbacks.TensorBoard(
                    directory / "tensorboard", write_graph=False
                ),
                *_other_callbacks(settings),
            ],
            shuffle=False,
            verbose=1 if sys.stdout.isatty() else 2,
        )
    rows = pd.read_csv(log)
    finite = np.isfinite(rows.to_numpy()).all(axis=1)
    if len(rows) < epochs or not finite.all():
        raise ValueError(
            f"The training diverged in epoch {len(rows)}. Expected: finite losses. "
            f"Received: --learning-rate {settings['learning_rate']}; try a lower one, in "
            "another --output"
        )
    curve = {
        name: (1 - rows[column] if name.endswith("error") else rows[column])
        for name, column in _MEASURES.items()
    }
    curve["seconds"] = rows["seconds"].cumsum()
    return {
        "epochs": len(rows),
        "n_train": len(train_on),
        "n_test": len(test_on),
        **{name: round(float(values.iloc[-1]), 6) for name, values in curve.items()},
        "curve": {name: values.round(6).tolist() for name, values in curve.items()},
    }


def _begin(model, images, train_on, settings, directory, seed):
    """Begin with networks of another run, or trained on boxes, and fit the classifier."""
    if settings.get("start"):
        begin_with(model, keras.saving.load_model(settings["start"], compile=False))
    elif settings.get("pretrain"):
        kept = directory / "pretrained.keras"
        if not kept.exists():
            pretrain(model, images, train_on, settings["pretrain"], seed)
            with replacing(kept) as part:
                model.save(part)
        model.load_weights(kept)
    else:
        return
    if settings.get("networks"):  # of speed limits, which may know boxes alone
        fit_classifier(model, images, train_on, seed, _class_weights(images, train_on))


def build_compiled_model(
    images: Images, settings: dict[str, Any], seed: int, steps: int
) -> keras.Model:
    """Build the model of a training, compiled.

    Args:
        images: of the task.
        settings: of the training.
        seed: of weights and sampling.
        steps: of an epoch.
    """
    names = ("estimator", "control_variate", "prediction")
    sampling = {name: settings[name] for name in names if name in settings}
    if settings.get("mix"):
        sampling["proposal"] = LocalContrast(window=5)
        sampling["proposal_mix"] = settings["mix"]
    if images.source is not None:
        sampling["source"] = images.source
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(settings["dtype_policy"])
    model = build_model(
        images.task,
        settings["method"],
        seed=seed,
        entropy=settings.get("entropy"),
        feature_scale=settings.get("feature_scale", 1),
        center=settings.get("center", False),
        sampling=sampling,
    )
    model.compile(
        optimizer=_build_optimizer(settings, steps * settings["epochs"]),
        loss="sparse_categorical_crossentropy",
        metrics=[
            "accuracy",
            # Alone: the loss holds the regularizer and the weights of the classes too.
            keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy"),
        ],
        jit_compile=False,  # compiled, a step takes twice as long on a CPU
    )
    return model


def _build_optimizer(settings, steps):
    rate = settings["learning_rate"]
    if settings["decay"]:
        falling = max(1, round(settings["decay"] * steps))
        rate = keras.optimizers.schedules.CosineDecay(
            rate,
            falling,
            warmup_target=rate if falling < steps else None,
            warmup_steps=steps - falling,
        )
    clip = "global_clipnorm" if settings["clip"] == "global" else "clipnorm"
    return keras.optimizers.Adam(rate, **{clip: 1.0})


def _class_weights(images, indices):
    """Weigh each class by the inverse of its prior, 1 on average, or all alike."""
    counts = Counter(images.labels[indices].tolist())
    if not images.balanced:
        return None
    return {label: len(indices) / (len(counts) * n) for label, n in counts.items()}


def _other_callbacks(settings):
    if not settings.get("mix_epochs"):
        return []
    return [ProposalMix(settings["mix"], 0.0, settings["mix_epochs"])]


def _watch(images, indices, inputs, directory):
    if not len(indices):
        return []
    truths = [images.truth(index) for index in indices]
    [(arrays, _)] = images.batches(indices, inputs, len(indices))
    return [
        AttentionImages(
            directory,
            arrays,
            epochs=(0, 1, 2, 5, 10, 15),
            names=[truth.name for truth in truths],
            boxes=[truth.boxes for truth in truths],
        )
    ]


class EpochSeconds(keras.callbacks.Callback):
    """Put the seconds each epoch took into its logs, without the test after it."""

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.start = time.perf_counter()

    def on_test_begin(self, logs=None):
        """Stop it."""
        self.seconds = time.perf_counter() - self.start

    def on_epoch_end(self, epoch, logs=None):
        """Say what it shows."""
        logs["seconds"] = self.seconds


def measure_budgets(
    path: Path, images: Images, indices: np.ndarray, budgets: Sequence[int]
) -> dict[str, float]:
    """Return the test error of one trained model by the patches it samples of an image.

    Args:
        path: of the model.
        images: of its task.
        indices: of the images to test with.
        budgets: numbers of patches.
    """
    model = load_model(path, images.source)
    inputs, errors = [entry.name for entry in model.inputs], {}
    for n_patches in budgets:
        sampling = with_sampling(model, n_patches, prediction="sample")
        # As many patches at once as a batch of ten images with ten.
        batches = images.batches(indices, inputs, max(1, 100 // n_patches))
        predicted = sampling.predict(batches, verbose=0).argmax(axis=-1)
        errors[str(n_patches)] = float(np.mean(predicted != images.labels[indices]))
    return errors


def load_model(path: Path, source: Any) -> keras.Model:
    """Load a trained model to look at, with the source of its patches, if it has one."""
    model = keras.saving.load_model(path, compile=False)
    if source is not None:
        set_source(model, source)
    return model
