"""Classify whole slides that stay on disk, from the labels of whole slides.

A view of 128x128 pixels tells where to look; only the patches sampled there are read at full
resolution. Without --dataset, slides are generated: which cells are in the dark spots? With
it, a folder is read that holds slides and labels.csv, a table with the columns file and
label. --predict says what the trained model makes of another slide, or a folder of them.
"""

import argparse
import csv
import json
import math
import os
import sys
from functools import partial
from pathlib import Path

from attention_sampling.files import one_process, quiet_imports

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with quiet_imports():
    import keras
    import numpy as np
    from keras import callbacks, layers

    import attention_sampling as ats
    from attention_sampling.callbacks import (
        EpochCheckpoint,
        begin_or_resume,
        resume_training,
    )
    from attention_sampling.data import open_source
    from attention_sampling.data.views import view_dataset
    from attention_sampling.datasets.folds import stratified_folds
    from attention_sampling.datasets.synthetic.slides import write_slides
    from attention_sampling.visualize import explain, plot_attention

VIEW_SIZE, PATCH_SIZE = 128, 64
LEARNING_RATE = 2e-3


def read_labels(folder):
    """Return the label of each slide, by its path."""
    table = folder / "labels.csv"
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"file", "label"} <= {*(rows.fieldnames or ())}:
            raise ValueError(
                f"{table} lacks the columns file and label: {rows.fieldnames}"
            )
        return {os.path.abspath(folder / row["file"]): row["label"] for row in rows}


def open_slides(paths):
    source = open_source(paths, on_error="skip")
    for path, reason in source.skipped:
        print(f"left out: {path}: {reason}")
    if source.dtype != "uint8":
        raise ValueError(f"Expected: pixels of 8 bits. Received: {source}")
    return source


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
    """Return the network that sees the patches, as they are or mirrored."""
    patch = keras.Input((PATCH_SIZE, PATCH_SIZE, channels))
    x = layers.Rescaling(1 / 127.5, offset=-1)(layers.RandomFlip()(patch))
    for stride in (2, 1, 2, 1, 2):
        x = layers.Conv2D(32, 3, stride, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.GlobalAveragePooling2D()(x)
    # Features that differ in direction, not in length: the attention is then the best
    # distribution to sample from.
    x = layers.BatchNormalization(momentum=0.9)(x)
    return keras.Model(patch, layers.UnitNormalization()(x))


def build_model(source, n_classes, n_patches, seed):
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
    answer = layers.Dense(n_classes, activation="softmax")(features)
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
    label_of = read_labels(dataset or write_slides(output / "slides"))
    source = open_slides(list(label_of))
    classes = sorted({label_of[path] for path in source.paths})
    names = output / "classes.json"
    if resume and json.loads(names.read_text("utf-8")) != classes:
        raise ValueError(f"{output} was trained with other labels. Received: {classes}")
    names.write_text(json.dumps(classes), "utf-8")
    labels = [classes.index(label_of[path]) for path in source.paths]
    chosen, test = stratified_folds(labels, n_folds=4, seed=seed)[0]
    print(f"{len(chosen)} slides to train on, {len(test)} to test with")
    keras.utils.set_random_seed(seed)
    views = {"cache": output / "views"}
    make_batches = partial(view_dataset, source, VIEW_SIZE, labels, batch_size, **views)
    batches = make_batches(indices=chosen, shuffle=True, seed=seed)
    test_batches = make_batches(indices=test)
    model_file, log = output / "model.keras", output / "log.csv"
    if resume:
        model, done = resume_training(model_file, len(batches), log)
        ats.set_source(model, source)
    else:
        model, done = build_model(source, len(classes), n_patches, seed), 0
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
        plot_slide(model, source, number, classes, labels[number], output / "pictures")
    print(f"Test accuracy {scores['accuracy']:.3f}. Everything is in {output}")


def plot_slide(model, source, number, classes, label, directory):
    """Plot what the model looked at in a slide."""
    directory.mkdir(exist_ok=True)
    view = source.read_view(number, VIEW_SIZE)
    seen = explain(model, [view[None], np.array([number], "int32")])
    predicted = seen.pop("prediction")[0].argmax()
    size, name = source.shape(number)[:2], Path(source.names[number])
    scale = min(1, 1200 / max(size))
    plot_attention(
        directory / f"{name.stem}.png",
        source.read_view(number, [int(scale * extent) for extent in size]),
        **{key: values[0] for key, values in seen.items()},
        title=f"{name.name}: {classes[label]}, predicted {classes[predicted]}",
        image_size=size,
    )


def predict(slides, output):
    """Write what the trained model makes of other slides."""
    model = keras.saving.load_model(output / "model.keras", compile=False)
    classes = json.loads((output / "classes.json").read_text("utf-8"))
    source = open_slides(slides)
    ats.set_source(model, source)
    answers = model.predict(view_dataset(source, VIEW_SIZE, batch_size=4), verbose=0)
    with (output / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["file", "label", *classes])
        for name, answer in zip(source.names, answers, strict=True):
            label = classes[answer.argmax()]
            csv.writer(file).writerow([name, label, *(f"{p:.4f}" for p in answer)])
    print(f"{len(source)} slides; what they are is in {file.name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    option = parser.add_argument
    option("--dataset", type=Path, help="folder of slides and of labels.csv")
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
    if slides and not output.exists():  # a typing error makes no directory
        raise ValueError(f"{output} holds no trained model: train one first")
    with one_process(output):
        if slides:
            predict(slides, output)
        else:
            train(output, **options)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; --resume goes on after the last whole epoch")
