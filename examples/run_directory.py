"""What the examples leave in their output directory, and how a run goes on there."""

import csv
import json
import platform
import re
import shutil
import time

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import attention_sampling as ats
from attention_sampling.checkpoint import completed_epochs
from attention_sampling.files import replacing

# What a run leaves in its output directory, or a series of runs, each in its own.
RUN_FILES = (
    "model.keras",
    "log.csv",
    "metrics.json",
    "curve.png",
    "pictures",
    "tensorboard",
    "run-[0-9]*",
)


def holds_run(output):
    """Tell whether there is a model in an output directory: without it, no run."""
    return any(
        next(output.glob(pattern), None) is not None
        for pattern in (
            "model.keras",
            "run-[0-9]*/model.keras",
            "run-[0-9]*/fold-*/model.keras",
        )
    )


def check_output(output, settings, free_settings, resume, overwrite):
    """Refuse to touch an earlier run, unless it is to be resumed or overwritten."""
    if not holds_run(output) or overwrite:
        return
    if not resume:
        raise ValueError(
            f"{output} holds a run. Go on with it by --resume, delete it by --overwrite, "
            "or choose another directory by --output."
        )
    try:
        earlier = read_settings(output)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The settings of the run in {output} cannot be read ({error}). Delete the "
            "run by --overwrite, or choose another directory by --output."
        ) from error
    differing = [
        f"--{name.replace('_', '-')} was {earlier.get(name)}, is {value}"
        for name, value in settings.items()
        if name not in free_settings and earlier.get(name) != value
    ]
    if differing:
        raise ValueError(
            f"The run in {output} has other settings: {'; '.join(differing)}. Resume it "
            "with its own, or choose another directory by --output."
        )


def begin_output(output, resume):
    """Make the output directory of a run, without what is to be overwritten."""
    output.mkdir(parents=True, exist_ok=True)
    for pattern in RUN_FILES if not resume else ():
        for path in output.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def restore(model, output, settings, steps_per_epoch, resume):
    """Give the model the state of the run in ``output``; return its whole epochs.

    The settings are written beside it, and the log is cut to these epochs.
    """
    epochs = restore_model(model, output, steps_per_epoch, settings["epochs"])
    if resume and not epochs:
        print(f"{output} holds no whole epoch yet: beginning.")
    write_json(output / "settings.json", settings)
    cut_log(output / "log.csv", epochs)
    return epochs


def restore_model(model, output, steps_per_epoch, most_epochs):
    """Give the model the state that ``output`` holds, if any; return its whole epochs."""
    checkpoint, epochs = output / "model.keras", 0
    if checkpoint.exists():
        model.optimizer.build(model.trainable_variables)  # or its state is not loaded
        model.load_weights(checkpoint)
        epochs = completed_epochs(model, steps_per_epoch)
        print(f"Going on after epoch {epochs}.")
        if epochs > most_epochs:
            raise ValueError(
                f"The run in {output} has {epochs} epochs already. Expected: at least as "
                f"many. Received: --epochs {most_epochs}"
            )
    return epochs


def write_json(path, content):
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path):
    return json.loads(path.read_text())


def read_settings(output):
    return read_json(output / "settings.json")


def read_log(path, epochs):
    """Return the rows of the training log for the first epochs."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if None not in row.values()][:epochs]


def write_rows(path, rows):
    """Write rows, dicts of the same keys, as a CSV file with a header."""
    with replacing(path) as part, part.open("w", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


def cut_log(path, epochs):
    """Drop what the log says of epochs that the model file does not hold."""
    write_rows(path, read_log(path, epochs))


class EpochSeconds(keras.callbacks.Callback):
    """Put the seconds each epoch took into its logs, without the test after it."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start, self.seconds = time.perf_counter(), None

    def on_test_begin(self, logs=None):
        self.seconds = time.perf_counter() - self.start

    def on_epoch_end(self, epoch, logs=None):
        if self.seconds is None:  # there was no test
            self.seconds = time.perf_counter() - self.start
        logs["seconds"] = self.seconds


class RequireFinite(keras.callbacks.TerminateOnNaN):
    """End a training whose loss is not finite, before the epoch is kept.

    Raises:
        ValueError: at the end of the epoch.
    """

    def on_epoch_end(self, epoch, logs=None):
        found = {name: value for name, value in logs.items() if not np.isfinite(value)}
        if found:
            raise ValueError(
                f"The training diverged in epoch {epoch + 1}. Expected: finite losses. "
                f"Received: {', '.join(f'{n}={v}' for n, v in found.items())}. Try a "
                "lower --learning-rate, in another --output"
            )


def draw_curve(rows, path):
    """Draw loss and accuracy by epoch, on test images too if there are any."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    epochs = range(1, len(rows) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for prefix, label in (("", "training"), ("val_", "test")):
            values = [row[prefix + name] for row in rows]
            if "NA" not in values:
                axes.plot(epochs, list(map(float, values)), label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.legend()
    with replacing(path) as part:
        figure.savefig(part)


def versions():
    """Return the versions of what runs, by name."""
    return {
        "attention_sampling": ats.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
    }


def describe_error(error):
    """Return what went wrong as one line.

    What a source raises while TensorFlow runs comes out with a traceback around it.
    """
    text = str(error)
    if isinstance(error, tf.errors.OpError):
        found = re.search(r"SourceError: (.*)", text)
        text = found[1] if found else error.message
    return " ".join(text.split())
