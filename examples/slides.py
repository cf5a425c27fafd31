"""Classify whole slides that stay on disk, from the labels of whole slides.

A view of 128x128 pixels tells where to look; only the patches sampled there are read at full
resolution. Without --dataset, slides are generated: which cells are in the dark spots? With
it, a folder is read that holds one folder of slides a class, or labels.csv, a table with the
columns file and label. --predict says what the trained model makes of other slides.
"""

import argparse
import math
import os
import sys
from functools import partial
from pathlib import Path

from attention_sampling.files import one_process, quiet_imports

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with quiet_imports():
    import keras
    from keras import callbacks, layers

    import attention_sampling as ats
    from attention_sampling.callbacks import (
        EpochCheckpoint,
        begin_or_resume,
        resume_training,
    )
    from attention_sampling.data import Dihedral, open_source
    from attention_sampling.data.views import view_dataset
    from attention_sampling.datasets.folds import stratified_folds
    from attention_sampling.datasets.synthetic.slides import write_slides
    from attention_sampling.predict import predict_files
    from attention_sampling.visualize import explain_image, plot_attention

VIEW_SIZE, PATCH_SIZE = 128, 64
LEARNING_RATE = 2e-3


def open_slides(folder):
    table = folder / "labels.csv"
    source = open_source(table if table.exists() else folder, on_error="skip")
    for path, reason in source.skipped:
        print(f"left out: {path}: {reason}")
    if source.class_names is None:
        raise ValueError(
            f"{folder} holds neither labels.csv nor a folder for each class"
        )
    if source.dtype != "uint8":
        raise ValueError(f"Expected: pixels of 8 bits. Received: {source}")
    return Dihedral(source)  # which can be flipped, view and patches alike


def build_attention(channels):
    """Return the network that tells where in a view to look, in cells of 4x4 pixels."""
    view = keras.Input((VIEW_SIZE, VIEW_SIZE, channels))
    x = layers.Rescaling(1 / 127.5, offset=-1)(view)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    scores = layers.MaxPooling2D(4)(layers.Conv2D(1, 3, padding="same")(x))
    attention = ats.SampleSoftmax(squeeze_channels=True, smooth=1e-4)(scores)
    return keras.Model(view, attention)


def build_feature(channels):
    """Return the network from a patch to a vector of length 1."""
    patch = keras.Input((PATCH_SIZE, PATCH_SIZE, channels))
    x = layers.Rescaling(1 / 127.5, offset=-1)(patch)
    for stride in (2, 1, 2, 1, 2):
        x = layers.Conv2D(32, 3, stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.GlobalAveragePooling2D()(x)
    # Features that differ in direction, not in length: the attention is then the best
    # distribution to sample from.
    x = layers.BatchNormalization(momentum=0.9)(x)
    return keras.Model(patch, layers.UnitNormalization()(x))


def build_model(source, n_patches, seed):
    view = keras.Input((VIEW_SIZE, VIEW_SIZE, source.channels), name="view")
    index = keras.Input((), dtype="int32", name="index")
    features, _, _ = ats.attention_sampling(
        build_attention(source.channels),
        build_feature(source.channels),
        n_patches=n_patches,
        attention_regularizer=ats.MultinomialEntropy(0.01),
        # Most of a slide is glass: at first, look where the view shows anything at all.
        proposal=ats.LocalContrast(window=9),
        prediction="top_k",  # the same answer every time
        source=source,
        seed=seed,
    )([view, index])
    # Features of length 1, averaged, would move the logits too little.
    features = layers.Rescaling(4.0)(features)
    answer = layers.Dense(len(source.class_names), activation="softmax")(features)
    model = keras.Model([view, index], answer)
    cross_entropy = keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy")
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", cross_entropy],
    )
    return model


def train(output, dataset, epochs, batch_size, n_patches, seed, resume):
    settings = {"batch_size": batch_size, "n_patches": n_patches, "seed": seed}
    resume = begin_or_resume(output, resume, **settings)
    if not dataset:
        print(f"Generated slides: {output / 'slides'}", flush=True)
    source = open_slides(dataset or write_slides(output / "slides"))
    labels = source.labels
    chosen, test = stratified_folds(labels, n_folds=4, seed=seed)[0]
    print(f"{len(chosen)} slides to train on, {len(test)} to test with")
    keras.utils.set_random_seed(seed)
    views = {"cache": output / "views"}
    make_batches = partial(view_dataset, source, VIEW_SIZE, None, batch_size, **views)
    batches = make_batches(indices=chosen, shuffle=True, seed=seed, augment="flips")
    test_batches = make_batches(indices=test)
    model_file, log = output / "model.keras", output / "log.csv"
    if resume:
        model, done = resume_training(model_file, len(batches), log)
        ats.set_source(model, source)
    else:
        model, done = build_model(source, n_patches, seed), 0
    print("loss = cross_entropy + regularizer of the attention, which is negative")
    model.fit(
        batches,
        validation_data=test_batches,
        epochs=epochs,
        initial_epoch=done,
        callbacks=[
            callbacks.LearningRateScheduler(  # falls in the last quarter
                lambda epoch: LEARNING_RATE * min(1, 4 * (1 - epoch / epochs))
            ),
            ats.ProposalMix(1.0, 0.0, epochs=12),
            callbacks.TerminateOnNaN(),
            callbacks.CSVLogger(log, append=done > 0),
            callbacks.TensorBoard(output / "tensorboard", write_graph=False),
            EpochCheckpoint(model_file),
        ],
        shuffle=False,  # the batches are
        verbose=2,
    )
    scores = model.evaluate(test_batches, verbose=0, return_dict=True)
    if math.isnan(scores["loss"]):
        raise ValueError(f"The loss is NaN; {output} keeps the last good epoch, if any")
    for number in test[:6]:
        plot_slide(model, source.source, number, output / "pictures")
    print(f"Test accuracy {scores['accuracy']:.3f}. Everything is in {output}")


def plot_slide(model, source, number, directory):
    """Plot what the model looked at in a slide."""
    directory.mkdir(exist_ok=True)
    seen, name = explain_image(model, source, number), Path(source.names[number])
    label, answer = (
        source.class_names[source.labels[number]],
        next(iter(seen["prediction"])),
    )
    title = f"{name.name}: {label}, predicted {answer}"
    plot_attention(directory / f"{name.stem}.png", **seen, title=title)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    option = parser.add_argument
    option("--dataset", type=Path, help="folder of slides")
    option("--output", type=Path, default=Path("runs/slides"))
    option("--epochs", type=int, default=24)
    option("--batch-size", type=int, default=4, help="slides a step")
    option("--n-patches", type=int, default=8, help="patches of each slide")
    option("--seed", type=int, default=0)
    option("--resume", action="store_true", help="go on after the last whole epoch")
    option("--predict", type=Path, metavar="SLIDES", help="a slide, or a folder")
    arguments = parser.parse_args()
    if min(arguments.epochs, arguments.batch_size, arguments.n_patches) < 1:
        parser.error("--epochs, --batch-size and --n-patches must be at least 1")
    options = vars(arguments)
    slides, output = options.pop("predict"), options.pop("output")
    if slides and not (output / "model.keras").exists():
        raise ValueError(f"{output} holds no trained model: train one first")
    with one_process(output):
        if slides:
            predictions = output / "predictions"
            left_out = predict_files(output / "model.keras", [slides], predictions)
            for name, reason in left_out:
                print(f"left out: {name}: {reason}")
        else:
            train(output, **options)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; --resume goes on after the last whole epoch")
