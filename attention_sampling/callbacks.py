"""Callbacks: schedule of the proposal, pictures of attention, checkpoints to go on from."""

import csv
import errno
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from attention_sampling import backend
from attention_sampling.checks import check_count, check_fraction
from attention_sampling.files import keep_settings, replacing
from attention_sampling.layers import SamplePatches
from attention_sampling.layers.attention_sampling import sampling_layers
from attention_sampling.visualize import explain, plot_attention


class ProposalMix(keras.callbacks.Callback):
    """Set the fraction of the saliency in the proposal at the beginning of every epoch.

    From ``start`` in the first epoch it goes in equal steps to ``end`` in epoch
    ``epochs``, counted from 0, and stays there. At a mix of 0 the cells come from the
    attention alone.

    To go on with a saved model, tell ``fit`` its ``initial_epoch``.

    Args:
        start: mix of the first epoch, from 0 to 1.
        end: mix at last, from 0 to 1. Equal to ``start`` for a constant mix.
        epochs: epochs it takes from one to the other.

    Raises:
        ValueError: a mix outside of 0 to 1; ``epochs`` not positive; in
            training, a model that samples from no proposal.

    Example:

    >>> callback = ProposalMix(start=1.0, end=0.0, epochs=10)
    >>> [round(callback.mix(epoch), 1) for epoch in (0, 1, 4, 10, 20)]
    [1.0, 0.9, 0.6, 0.0, 0.0]
    """

    def __init__(self, start=1.0, end=0.0, epochs=10):
        super().__init__()
        self.start = check_fraction("start", start)
        self.end = check_fraction("end", end)
        self.epochs = check_count("epochs", epochs, smallest=1)

    def mix(self, epoch):
        """Return the mix of an epoch, counted from 0."""
        progress = min(epoch / self.epochs, 1.0)
        return self.start + (self.end - self.start) * progress

    def on_epoch_begin(self, epoch, logs=None):
        """Set the mix of the epoch, and refuse a model without a proposal."""
        layers = self._layers()
        if not layers:
            raise ValueError(
                "ProposalMix needs a model that samples from a proposal, as "
                "attention_sampling(proposal=LocalContrast()) makes it. "
                f"Received: model={self.model.name!r}"
            )
        for layer in layers:
            layer.set_mix(self.mix(epoch))

    def _layers(self):
        return [
            layer
            for layer in backend.all_layers(self.model)
            if isinstance(layer, SamplePatches)
            # A model may be built in its first step: it shows in the next epoch.
            and (layer.has_proposal or not layer.built)
        ]


class AttentionImages(keras.callbacks.Callback):
    """Plot what the model looks at in chosen images, while it trains.

    Writes a PNG file of each image, ``IMAGE-epoch-005.png`` after five epochs, and the same to
    TensorBoard. What is trained is the same with and without it.

    Args:
        directory: where to write; TensorBoard's ``--logdir``.
        inputs: arrays as for ``model.predict``, a few images: ``[views, images]`` or
            ``[views, indices]``.
        epochs: after how many epochs, such as those of the paper's figure 3; 0 is before the
            first. Or an int, for every so many.
        names: what to call each image; its number by default.
        boxes: of each image, (top, left, bottom, right) in full-resolution pixels of each
            thing that was to be found; none by default.

    Raises:
        ValueError: no int of at least 1 and no epochs, or not one name, and one list of
            boxes, for each image; in training, a model that ``visualize.explain`` refuses.

    Example:

    >>> views, images = np.zeros((2, 40, 40, 1)), np.zeros((2, 320, 320, 1))
    >>> callback = AttentionImages("runs/images", [views, images], epochs=(0, 1, 2, 5, 10))

    Reference:
        Katharopoulos and Fleuret 2019, figure 3.
    """

    def __init__(self, directory, inputs, epochs=1, names=None, boxes=None):
        super().__init__()
        self.directory = Path(directory)
        self.inputs = [np.asarray(x) for x in inputs]
        if isinstance(epochs, int):
            self.every, self.epochs = check_count("epochs", epochs, smallest=1), None
        else:
            self.every, self.epochs = (
                None,
                {check_count("epochs", n, 0) for n in epochs},
            )
        count = len(self.inputs[0])
        self.names = [str(n) for n in (range(count) if names is None else names)]
        self.boxes = [()] * count if boxes is None else list(boxes)
        for name, of_images in (("names", self.names), ("boxes", self.boxes)):
            if len(of_images) != count:
                raise ValueError(
                    f"`{name}` must hold one entry for each of {count} images. Received: "
                    f"{len(of_images)}"
                )

    def on_epoch_begin(self, epoch, logs=None):
        """Plot the model as it is before the first epoch."""
        if epoch == 0:
            self._plot(0)

    def on_epoch_end(self, epoch, logs=None):
        """Plot the model after the epoch, if it is one of those asked for."""
        self._plot(epoch + 1)

    def _plot(self, done):
        if done not in self.epochs if self.epochs is not None else done % self.every:
            return
        seen, sizes = self._explain()
        self.directory.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(self.names):
            path = self.directory / f"{name}-epoch-{done:03d}.png"
            plot_attention(
                path,
                self.inputs[0][number],
                *(seen[key][number] for key in list(seen)[1:]),
                boxes=self.boxes[number],
                title=f"{name}, after {done} epoch{'s' * (done != 1)}",
                image_size=sizes[number],
            )
            _log_image(self.directory, f"attention/{name}", path, done)

    def _explain(self):
        """Return what was looked at, and the full size of each image."""
        [layer] = sampling_layers(self.model)
        state = layer.sample_patches.seed_generator.state
        before = keras.ops.convert_to_numpy(state)
        seen = explain(self.model, self.inputs)
        state.assign(before)  # training goes on with the samples it would have had
        if layer.source is None:
            return seen, [self.inputs[1].shape[1:3]] * len(self.names)
        return seen, [layer.source.shape(index)[:2] for index in self.inputs[1]]


def _log_image(directory, tag, path, step):
    """Write a picture to TensorBoard's files, without TensorFlow."""
    from PIL import Image
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    with Image.open(path) as picture:
        width, height = picture.size
    image = Summary.Image(
        height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes()
    )
    summary = Summary(value=[Summary.Value(tag=tag, image=image)])
    writer = EventFileWriter(str(directory))
    writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
    writer.close()


class EpochCheckpoint(keras.callbacks.Callback):
    """Save the whole model after every epoch, never leaving a half-written file.

    The file holds the weights, the state of the optimizer and the random state of this
    package's layers; Keras does not save that of its own, such as ``Dropout``. It is
    written under a temporary name and renamed, so that a process killed at any moment
    leaves the last whole epoch. An epoch that ends with a loss or a weight that is not
    finite is not saved: the last good one stays. Go on with ``resume_training``.

    Args:
        path: the ``.keras`` file to write.

    Raises:
        ValueError: ``path`` does not end in ``.keras``.

    Example:

    >>> checkpoint = EpochCheckpoint("runs/model.keras")
    """

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)
        if self.path.suffix != ".keras":
            raise ValueError(
                "A checkpoint is a Keras model file and must end in .keras. "
                f"Received: path={str(path)!r}"
            )

    def on_epoch_end(self, epoch, logs=None):
        """Replace the file by the model as it is now, unless the training diverged."""
        logs = logs or {}
        losses = [logs[name] for name in ("loss", "val_loss") if name in logs]
        # The loss is that before the last step, which may have broken the weights.
        values = [*losses, *self.model.get_weights()]
        if all(np.isfinite(np.asarray(value, "float32")).all() for value in values):
            save_model(self.model, self.path)


def save_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Save a model under a temporary name, then rename it to ``path``.

    Args:
        model: the model to save.
        path: the ``.keras`` file to write or to replace.
    """
    with replacing(path) as part:
        model.save(part)


def begin_or_resume(
    output: str | os.PathLike[str], resume: bool, **settings: Any
) -> bool:
    """Tell whether to go on with the training in a directory.

    Nothing that is there is overwritten, and no training goes on with other settings. Call
    it inside ``files.one_process(output)``.

    Args:
        output: directory of ``model.keras``, which ``EpochCheckpoint`` writes, and of
            ``settings.json``, which this writes.
        resume: whether the user wants to go on.
        settings: what may not change, such as the seed.

    Returns:
        Whether there is a model to go on with.

    Raises:
        FileExistsError: there is one, and ``resume`` is False.
        ValueError: it was trained with other settings.

    Example:

    >>> begin_or_resume(".", resume=True, seed=0)
    False
    """
    trained = Path(output, "model.keras").exists()
    if trained and not resume:
        raise FileExistsError(
            f"{output} holds a trained model: go on with it (resume), or choose another "
            "output"
        )
    keep_settings(Path(output, "settings.json"), settings, trained)
    return trained


def resume_training(
    path: str | os.PathLike[str],
    steps_per_epoch: int,
    log: str | os.PathLike[str] | None = None,
) -> tuple[keras.Model, int]:
    """Load a model that ``EpochCheckpoint`` saved, to go on after its last epoch.

    Rows of the log of later epochs, which the model knows nothing of, are cut.

    Args:
        path: the ``.keras`` file.
        steps_per_epoch: optimizer steps of an epoch.
        log: file of ``keras.callbacks.CSVLogger``; there may be none yet.

    Returns:
        The compiled model, and the ``initial_epoch`` to tell ``fit``.

    Raises:
        ValueError: ``steps_per_epoch`` not positive; a damaged file; a model that was
            saved without its optimizer, or not at the end of an epoch of that length, so
            that it was trained with other data or another batch size.
        OSError: a file that cannot be read or written.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((8, 3)), np.ones((8, 1))
    >>> checkpoint = EpochCheckpoint("model.keras")
    >>> _ = model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[checkpoint])
    >>> model, initial_epoch = resume_training("model.keras", steps_per_epoch=2)
    >>> initial_epoch
    3
    """
    check_count("steps_per_epoch", steps_per_epoch, smallest=1)
    check_model_file(path)
    model = keras.saving.load_model(path)
    epochs = _finished_epochs(model, steps_per_epoch)
    if log is not None and os.path.exists(log):
        _cut_log(log, epochs)
    return model, epochs


def _finished_epochs(model: keras.Model, steps_per_epoch: int) -> int:
    """Return for how many whole epochs a model has been trained."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(
            "The model was saved without its optimizer, so that the epochs it was trained "
            f"for are not known. Expected: a compiled model. Received: {model.name!r}"
        )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "Steps that overflow are left out under mixed_float16, so that the steps done "
            "do not tell the epochs done. Expected: another dtype policy, such as "
            "mixed_bfloat16, or a count of the epochs of your own. "
            "Received: a LossScaleOptimizer"
        )
    steps = int(keras.ops.convert_to_numpy(optimizer.iterations))
    epochs, rest = divmod(steps, steps_per_epoch)
    if rest:
        raise ValueError(
            f"The model was saved after {steps} steps, which is no whole number of epochs "
            f"of {steps_per_epoch} steps: resume with the data and the batch size it was "
            f"trained with. Received: steps_per_epoch={steps_per_epoch}"
        )
    return epochs


def _cut_log(path: str | os.PathLike[str], epochs: int) -> None:
    """Keep the header and the whole rows of the first epochs."""
    with open(path, newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    with replacing(path) as part, open(part, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            # A killed process may leave half a row, which is its last.
            if len(row) == len(header) and row[0].isdigit() and int(row[0]) < epochs:
                writer.writerow(row)


def check_model_file(path: str | os.PathLike[str]) -> None:
    """Read a model file to its end, to find out whether it is whole.

    What Keras raises of a damaged one tells neither its name nor what is wrong.

    Args:
        path: the ``.keras`` file.

    Raises:
        ValueError: it is damaged, or no such file.
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
            for name in ("config.json", "metadata.json", "model.weights.h5"):
                file.getinfo(name)
    except Exception as error:
        # zipfile raises what it likes; "invalid argument" is of a damaged offset.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        damaged = str(error) or type(error).__name__
    if damaged is not None:
        raise ValueError(
            "A model file is damaged, or none. Expected: a .keras file, whole. "
            f"Received: {os.fspath(path)} ({damaged})"
        )
