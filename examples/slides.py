"""Classify whole slides that stay on disk, from the labels of whole slides.

A view of 128x128 pixels tells where to look; only the patches sampled there are read at full
resolution. Without --dataset, slides are generated: which cells are in the dark spots? With
it, a folder is read that holds slides and labels.csv, a table with the columns file and
label. --predict says what the trained model makes of another slide, or a folder of them.
"""

import argparse
import csv
import json
import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# TensorFlow 2.21 logs while it is imported, whatever that level.
terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)
try:
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
    from attention_sampling.files import one_process
    from attention_sampling.visualize import explain, plot_attention
finally:
    os.dup2(terminal, 2)

VIEW_SIZE, PATCH_SIZE = 128, 64


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    return arguments


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
    return keras.Sequential(
        [
            keras.Input((VIEW_SIZE, VIEW_SIZE, channels)),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(1, 3, padding="same"),
            layers.MaxPooling2D(4),
            ats.SampleSoftmax(squeeze_channels=True, smooth=1e-4),
        ]
    )


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
    sample = ats.attention_sampling(
        build_attention(source.channels),
        build_feature(source.channels),
        n_patches=n_patches,
        attention_regularizer=ats.MultinomialEntropy(0.01),
        # Most of a slide is glass: at first, look where the view shows anything at all.
        proposal=ats.LocalContrast(window=9),
        prediction="top_k",  # the same answer every time
        source=source,
        seed=seed,
    )
    view = keras.Input((VIEW_SIZE, VIEW_SIZE, source.channels), name="view")
    index = keras.Input((), dtype="int32", name="index")
    features, _, _ = sample([view, index])
    # Features of length 1, averaged, would move the logits too little.
    features = layers.Rescaling(4.0)(features)
    answer = layers.Dense(n_classes, activation="softmax")(features)
    model = keras.Model([view, index], answer)
    cross_entropy = keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy")
    model.compile(
        keras.optimizers.Adam(clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", cross_entropy],
    )
    return model


def plot_slide(model, source, number, label, classes, directory):
    """Plot what the model looked at in a slide."""
    view = source.read_view(number, VIEW_SIZE)
    seen = explain(model, [view[None], np.array([number], "int32")])
    answer = classes[seen.pop("prediction")[0].argmax()]
    size = source.shape(number)[:2]
    scale = min(1, 1200 / max(size))
    image = source.read_view(number, [int(scale * extent) for extent in size])
    name = Path(source.names[number])
    plot_attention(
        directory / f"{name.stem}.png",
        image / 255,
        **{key: values[0] for key, values in seen.items()},
        title=f"{name.name}: {label}, predicted: {answer}",
        image_size=size,
    )


def predict(paths, output):
    """Write what the trained model makes of other slides."""
    if not (output / "model.keras").exists():
        raise ValueError(f"{output} holds no trained model: train one first")
    classes = json.loads((output / "classes.json").read_text("utf-8"))
    model = keras.saving.load_model(output / "model.keras", compile=False)
    source = open_slides(paths)
    ats.set_source(model, source)
    answers = model.predict(view_dataset(source, VIEW_SIZE, batch_size=4), verbose=0)
    with (output / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["file", "label", *classes])
        for name, answer in zip(source.names, answers, strict=True):
            label = classes[answer.argmax()]
            csv.writer(file).writerow([name, label, *(f"{p:.4f}" for p in answer)])
    print(f"{len(source)} slides; what they are is in {file.name}")


def train(arguments, output):
    model_file, log, views = (output / n for n in ("model.keras", "log.csv", "views"))
    resuming = begin_or_resume(
        output,
        arguments.resume,
        batch_size=arguments.batch_size,
        n_patches=arguments.n_patches,
        seed=arguments.seed,  # that of the split too
    )
    keras.utils.set_random_seed(arguments.seed)
    if arguments.dataset is None:
        print(f"generated slides: {output / 'slides'}", flush=True)
    label_of = read_labels(arguments.dataset or write_slides(output / "slides"))
    source = open_slides(list(label_of))
    classes = sorted({label_of[path] for path in source.paths})
    labels = [classes.index(label_of[path]) for path in source.paths]
    names = output / "classes.json"
    if resuming and json.loads(names.read_text("utf-8")) != classes:
        raise ValueError(f"{output} was trained with other labels. Received: {classes}")
    names.write_text(json.dumps(classes), "utf-8")
    train_set, test_set = stratified_folds(labels, n_folds=4, seed=arguments.seed)[0]
    print(f"{len(train_set)} slides to train on, {len(test_set)} to test with")
    batches = partial(view_dataset, source, VIEW_SIZE, labels, arguments.batch_size)
    shuffled = {"shuffle": True, "seed": arguments.seed}
    train_batches = batches(indices=train_set, cache=views, **shuffled)
    test_batches = batches(indices=test_set, cache=views)
    if resuming:
        model, initial_epoch = resume_training(model_file, len(train_batches), log)
        ats.set_source(model, source)
    else:
        initial_epoch = 0
        model = build_model(source, len(classes), arguments.n_patches, arguments.seed)
    print("loss = cross_entropy + regularizer of the attention, which is negative")
    epochs = arguments.epochs
    model.fit(
        train_batches,
        validation_data=test_batches,
        epochs=epochs,
        initial_epoch=initial_epoch,
        callbacks=[
            # The learning rate falls in the last quarter.
            callbacks.LearningRateScheduler(
                lambda n: 2e-3 * min(1, 4 - 4 * n / epochs)
            ),
            ats.ProposalMix(1.0, 0.0, epochs=12),
            callbacks.TerminateOnNaN(),
            callbacks.CSVLogger(log, append=initial_epoch > 0),
            callbacks.TensorBoard(output / "tensorboard", write_graph=False),
            EpochCheckpoint(model_file),
        ],
        shuffle=False,  # the dataset does it
        verbose=2,
    )
    scores = model.evaluate(test_batches, verbose=0, return_dict=True)
    (output / "pictures").mkdir(exist_ok=True)
    for number in test_set[:6]:
        label = classes[labels[number]]
        plot_slide(model, source, number, label, classes, output / "pictures")
    print(f"test accuracy {scores['accuracy']:.3f}; pictures are in {output}")


def main():
    arguments = parse_arguments()
    with one_process(arguments.output) as output:
        if arguments.predict:
            predict(arguments.predict, output)
        else:
            train(arguments, output)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; --resume goes on after the last whole epoch")
