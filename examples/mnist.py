"""Name the digit that is in a large image three times, from ten patches of it.

Megapixel MNIST, Katharopoulos and Fleuret 2019, section 4.2. The attention network sees a
small view, where digits and noise are smudges; the feature network sees patches of 50x50
pixels of the full image, where they can be read. Make the images first:

    python examples/make_mnist.py data/mnist500 --width 500 --height 500 --n_noise 10
    python examples/mnist.py --dataset data/mnist500
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# TensorFlow 2.21 logs while it is imported, whatever that level.
terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)
try:
    import keras
    import numpy as np
    import tensorflow as tf

    from attention_sampling import (
        LocalContrast,
        MultinomialEntropy,
        SampleSoftmax,
        attention_sampling,
        set_source,
    )
    from attention_sampling.callbacks import (
        EpochCheckpoint,
        begin_or_resume,
        resume_training,
    )
    from attention_sampling.data import HDF5Source
    from attention_sampling.datasets.megapixel_mnist_files import load_megapixel_mnist
    from attention_sampling.files import one_process
    from attention_sampling.visualize import explain, plot_attention
finally:
    os.dup2(terminal, 2)

PATCH_SIZE = 50
LEARNING_RATE = 1e-3


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--dataset", type=Path, default=Path("data/megapixel_mnist"))
    option("--output", type=Path, default=Path("runs/mnist"))
    option("--epochs", type=int, default=30)
    option("--batch-size", type=int, default=32)
    option("--n-patches", type=int, default=10)
    option("--seed", type=int, default=0)
    option("--resume", action="store_true", help="go on after the last whole epoch")
    option("--on-demand", action="store_true", help="read patches, not whole images")
    arguments = parser.parse_args()
    if min(arguments.epochs, arguments.batch_size, arguments.n_patches) < 1:
        parser.error("--epochs, --batch-size and --n-patches must be at least 1")
    return arguments


def make_batches(data, batch_size, first=None, seed=None):
    """Return a dataset of ((view, image), label); with a seed, for training.

    With ``first``, the index of the first image in the source, an index for each image.
    """

    def read(chosen):
        images = data.images(chosen) if first is None else np.int32(first + chosen)
        return data.views[chosen], images, data.labels[chosen]

    def load(chosen):
        kind = tf.uint8 if first is None else tf.int32
        view, image, label = tf.numpy_function(
            read, [chosen], [tf.float32, kind, tf.int32]
        )
        view.set_shape((None, *data.view_size, 1))
        image.set_shape((None, *data.size, 1) if first is None else (None,))
        label.set_shape((None,))
        return (view, image), label

    dataset = tf.data.Dataset.range(len(data))
    if seed is not None:
        dataset = dataset.shuffle(len(data), seed)
    return dataset.batch(batch_size).map(load, num_parallel_calls=2).prefetch(2)


def build_model(data, n_patches, seed, source):
    attention = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, padding="same", activation="tanh"),
            keras.layers.Conv2D(8, 3, padding="same", activation="tanh"),
            keras.layers.Conv2D(1, 3, padding="same"),
            SampleSoftmax(squeeze_channels=True, smooth=1e-5),
        ],
        name="attention",
    )
    feature = keras.Sequential(
        [
            keras.Input((PATCH_SIZE, PATCH_SIZE, 1)),
            keras.layers.Rescaling(1 / 255),
            *(keras.layers.Conv2D(32, k, activation="relu") for k in (7, 3, 3, 3)),
            keras.layers.GlobalMaxPooling2D(),
            # Features that differ in direction and not in length: each patch counts from
            # the beginning, and the attention is the best distribution to sample from.
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.UnitNormalization(),
        ],
        name="feature",
    )
    view = keras.Input((*data.view_size, 1), name="view")
    image = keras.Input((*data.size, 1), name="image", dtype="uint8")
    if source is not None:  # which image of the source
        image = keras.Input((), name="index", dtype="int32")
    features, _, _ = attention_sampling(
        attention,
        feature,
        n_patches=n_patches,
        attention_regularizer=MultinomialEntropy(1e-4),
        control_variate=True,
        # Most of an image is empty: in training, sample where there is something to see.
        proposal=LocalContrast(window=5),
        proposal_mix=1.0,
        source=source,
        seed=seed,
    )([view, image])
    # Features of length 1, averaged, would move the logits too little.
    features = keras.layers.Rescaling(4.0)(features)
    label = keras.layers.Dense(10, activation="softmax")(features)
    model = keras.Model([view, image], label)
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=[
            "accuracy",
            keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy"),
        ],
    )
    return model


def train(model, train_batches, test_batches, output, epochs, initial_epoch):
    def learning_rate(epoch):  # falls in the last quarter
        return LEARNING_RATE * min(1.0, 4 * (1 - epoch / epochs))

    print("`loss` holds the regularizer of the attention too, and may be negative")
    model.fit(
        train_batches,
        validation_data=test_batches,
        epochs=epochs,
        initial_epoch=initial_epoch,
        callbacks=[
            keras.callbacks.LearningRateScheduler(learning_rate),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.CSVLogger(output / "log.csv", append=initial_epoch > 0),
            keras.callbacks.TensorBoard(output / "tensorboard", write_graph=False),
            EpochCheckpoint(output / "model.keras"),
        ],
        shuffle=False,  # the dataset does
        verbose=1 if sys.stdout.isatty() else 2,
    )


def plot_some(model, batches, data, directory):
    """Plot what the model looked at: boxes are the digits, dashed those of other classes."""
    directory.mkdir(exist_ok=True)
    (views, images), labels = next(iter(batches.unbatch().batch(8)))
    found = explain(model, [views, images])
    predicted = found.pop("prediction").argmax(axis=-1)
    for i, image in enumerate(data.images(range(len(labels)))):
        plot_attention(
            directory / f"test_{i:05}.png",
            image,
            **{name: values[i] for name, values in found.items()},
            boxes=data.boxes[i, :3],
            other_boxes=data.boxes[i, 3:],
            title=f"digit {int(labels[i])}, predicted: {predicted[i]}",
        )


def main():
    arguments = parse_arguments()
    with one_process(arguments.output) as output:
        resuming = begin_or_resume(
            output,
            arguments.resume,
            batch_size=arguments.batch_size,
            n_patches=arguments.n_patches,
            on_demand=arguments.on_demand,
        )
        data, test_data = load_megapixel_mnist(arguments.dataset)
        print(
            f"{len(data)} training and {len(test_data)} test images of {data.size[1]} x "
            f"{data.size[0]} pixels, {data.noise_patches} patches of noise in each"
        )
        source, firsts = None, (None, None)
        if arguments.on_demand:  # one source for both, the test images after the others
            source, firsts = HDF5Source([data.path, test_data.path]), (0, len(data))
        keras.utils.set_random_seed(arguments.seed)
        if resuming:
            steps = -(-len(data) // arguments.batch_size)
            files = output / "model.keras", output / "log.csv"
            model, epoch = resume_training(files[0], steps, log=files[1])
            if source is not None:
                set_source(model, source)
        else:
            model = build_model(data, arguments.n_patches, arguments.seed, source)
            epoch = 0
        seed = arguments.seed + 1000 * epoch  # another order after an interruption
        train_batches = make_batches(data, arguments.batch_size, firsts[0], seed)
        test_batches = make_batches(test_data, arguments.batch_size, firsts[1])
        train(model, train_batches, test_batches, output, arguments.epochs, epoch)
        results = model.evaluate(test_batches, verbose=0, return_dict=True)
        print(f"test accuracy {results['accuracy']:.3f}")
        plot_some(model, test_batches, test_data, output / "pictures")
        print(f"model, log and pictures: {output}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; --resume goes on after the last whole epoch")
