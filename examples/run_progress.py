"""Trainings that go on where they were, and the log of their epochs."""

import time

import keras
import numpy as np
from run_directory import run_files
from run_files import read_log, write_rows

from attention_sampling.callbacks import check_model_file, completed_epochs

# In the log: how many epochs the training was to have when the row was written.
PLANNED = "planned_epochs"


def restore_model(model, directory, steps_per_epoch, epochs):
    """Give the model the state that ``directory`` holds, if any; return its whole epochs.

    Args:
        model: compiled model.
        directory: of ``model.keras`` and ``log.csv``.
        steps_per_epoch: optimizer steps of an epoch.
        epochs: that it is to have in the end.

    Raises:
        ValueError: it has more, or a file is damaged.
    """
    checkpoint = directory / "model.keras"
    if not checkpoint.exists():
        return 0
    try:
        check_model_file(checkpoint)
    except ValueError as error:
        raise ValueError(
            f"{error}. The epochs it held are lost: delete it, and --resume trains them "
            "anew"
        ) from error
    model.optimizer.build(model.trainable_variables)  # or its state is not loaded
    model.load_weights(checkpoint)
    _advance_random_numbers(model)
    done = completed_epochs(model, steps_per_epoch)
    if done > epochs:
        raise ValueError(
            f"The run in {directory} has {done} epochs already. Expected: at least as "
            f"many. Received: --epochs {epochs}"
        )
    if len(read_log(directory / "log.csv", done)) < done:
        raise ValueError(
            f"{directory / 'log.csv'} lacks some of the {done} epochs that the model "
            f"beside it has. Delete {checkpoint}, and --resume trains it anew"
        )
    print(f"Going on after epoch {done}.")
    return done


def _advance_random_numbers(model):
    """Give layers of Keras, such as Dropout, other random numbers than they have had.

    A file holds the state of those of this package alone.
    """
    steps = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
    for state in model.variables:
        if state.path.endswith("seed_generator_state"):
            seed, count = keras.ops.convert_to_numpy(state)
            if not count:  # as built, not loaded
                # No layer here takes more than a few at a step.
                state.assign(np.array([seed, 100 * steps], state.dtype))


def check_extension(directory, done, epochs, earlier, decay, constant_epochs):
    """Refuse a number of epochs with which those done would have been others.

    The learning rate falls at the end of a training. Trained for longer, it would have
    fallen later, and going on would raise it again.

    Args:
        directory: of ``log.csv``.
        done: whole epochs of the training.
        epochs: that it is to have in the end.
        earlier: that it was to have, where the log does not say.
        decay: share of the training over which the learning rate falls.
        constant_epochs: from a number of epochs to those before it falls.
    """
    rows = read_log(directory / "log.csv", done)
    for epoch, row in enumerate(rows, start=1):
        planned = int(row.get(PLANNED) or earlier or epochs)
        if planned != epochs and epoch > min(map(constant_epochs, (planned, epochs))):
            raise ValueError(
                f"The training in {directory} has done {done} of {planned} epochs, with "
                f"a learning rate that falls over the last {decay:.0%} of them: with "
                f"--epochs {epochs} it would have been another. Train anew, by "
                "--overwrite or in another --output. Only with --decay 0 from the start "
                "can a finished training be extended"
            )


def note_planned_epochs(output, epochs):
    """Write into a run's logs of earlier versions how many epochs there were to be."""
    for path in run_files(output):
        if path.name != "log.csv":
            continue
        rows = read_log(path, None)
        if rows and PLANNED not in rows[0]:
            write_rows(path, [{**row, PLANNED: epochs} for row in rows])


def extensions(rows):
    """Return at which numbers of epochs a finished training was gone on with, or None.

    Args:
        rows: of the log.
    """
    found = [
        epoch
        for epoch, row in enumerate(rows[:-1], start=1)
        if row.get(PLANNED) == str(epoch)
    ]
    return found or None


class EpochLog(keras.callbacks.Callback):
    """Write a row for each epoch, replacing the file as a whole.

    Args:
        path: CSV file to go on with. Rows of epochs that are done anew are dropped.
        epochs: that the training is to have.
    """

    def __init__(self, path, epochs):
        super().__init__()
        self.path, self.epochs = path, epochs

    def on_epoch_end(self, epoch, logs=None):
        rows = read_log(self.path, epoch)
        write_rows(self.path, [*rows, {"epoch": epoch, **logs, PLANNED: self.epochs}])


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
