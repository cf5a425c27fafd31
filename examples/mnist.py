"""Name the digit that is in a large image three times, from ten patches of it.

Megapixel MNIST, Katharopoulos and Fleuret 2019, section 4.2. The attention network sees a
small view, where digits and noise are smudges; the feature network sees patches of 50x50
pixels of the full image, where they can be read. Make the images first:

    python examples/make_mnist.py data/mnist500 --width 500 --height 500 --n_noise 10
    python examples/mnist.py --dataset data/mnist500
"""

import argparse
import math
import os
import sys
from pathlib import Path

from attention_sampling.files import one_process, quiet_imports

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with quiet_imports():
    import keras
    import numpy as np
    import tensorflow as tf
    from keras import callbacks, layers

    import attention_sampling as ats
    from attention_sampling.callbacks import (
        AttentionImages,
        EpochCheckpoint,
        begin_or_resume,
        resume_training,
    )
    from attention_sampling.data import HDF5Source
    from attention_sampling.data.views import without_autotuning
    from attention_sampling.datasets.megapixel_mnist_files import load_megapixel_mnist
    from attention_sampling.visualize import explain, plot_attention

PATCH_SIZE = 50
LEARNING_RATE = 1e-3


def make_batches(data, batch_size, first=None, seed=None):
    """Return batches of ((view, image), label), shuffled if there is a seed.

    With ``first``, the index of the first image in the source, an index for each image.
    """
    kinds = [tf.float32, tf.uint8 if first is None else tf.int32, tf.int32]
    image_shape = () if first is not None else (*data.size, 1)

    def read(chosen):
        images = data.images(chosen) if first is None else np.int32(first + chosen)
        return data.views[chosen], images, data.labels[chosen]

    def load(chosen):
        view, image, label = tf.numpy_function(read, [chosen], kinds)
        view = tf.ensure_shape(view, (None, *data.view_size, 1))
        image = tf.ensure_shape(image, (None, *image_shape))
        return (view, image), tf.ensure_shape(label, (None,))

    dataset = tf.data.Dataset.range(len(data))
    if seed is not None:
        dataset = dataset.shuffle(len(data), seed)
    dataset = dataset.batch(batch_size).map(load, num_parallel_calls=2)
    return without_autotuning(dataset.prefetch(2))


def build_attention():
    """Return the network from a view to the attention map, a cell for each pixel."""
    view = keras.Input((None, None, 1))
    x = layers.Rescaling(1 / 255)(view)
    x = layers.Conv2D(8, 3, padding="same", activation="tanh")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="tanh")(x)
    scores = layers.Conv2D(1, 3, padding="same")(x)
    attention = ats.SampleSoftmax(squeeze_channels=True, smooth=1e-5)(scores)
    return keras.Model(view, attention, name="attention")


def build_feature():
    """Return the network from a patch to a vector of length 1."""
    patch = keras.Input((PATCH_SIZE, PATCH_SIZE, 1))
    x = layers.Rescaling(1 / 255)(patch)
    for size in (7, 3, 3, 3):
        x = layers.Conv2D(32, size, activation="relu")(x)
    x = layers.GlobalMaxPooling2D()(x)
    # Features that differ in direction and not in length: each patch counts from the
    # beginning, and the attention is the best distribution to sample from.
    x = layers.BatchNormalization(momentum=0.9)(x)
    return keras.Model(patch, layers.UnitNormalization()(x), name="feature")


def build_model(data, n_patches, seed, source):
    view = keras.Input((*data.view_size, 1), name="view")
    image = keras.Input((*data.size, 1), name="image", dtype="uint8")
    if source is not None:  # which image of the source
        image = keras.Input((), name="index", dtype="int32")
    features, _, _ = ats.attention_sampling(
        build_attention(),
        build_feature(),
        n_patches=n_patches,
        attention_regularizer=ats.MultinomialEntropy(1e-4),
        control_variate=True,
        # Most of an image is empty: in training, sample where there is something to see.
        proposal=ats.LocalContrast(window=5),
        proposal_mix=1.0,
        source=source,
        seed=seed,
    )([view, image])
    # Features of length 1, averaged, would move the logits too little.
    features = layers.Rescaling(4.0)(features)
    label = layers.Dense(10, activation="softmax")(features)
    model = keras.Model([view, image], label)
    cross_entropy = keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy")
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", cross_entropy],
    )
    return model


def train(output, dataset, epochs, batch_size, n_patches, seed, resume, on_demand):
    settings = {"n_patches": n_patches, "on_demand": on_demand}
    resume = begin_or_resume(output, resume, batch_size=batch_size, **settings)
    data, test_data = load_megapixel_mnist(dataset)
    print(
        f"{len(data)} training and {len(test_data)} test images of {data.size[1]} x "
        f"{data.size[0]} pixels, {data.noise_patches} patches of noise in each"
    )
    source, first, first_test = None, None, None
    if on_demand:  # one source for both, the test images after the others
        source = HDF5Source([data.path, test_data.path])
        first, first_test = 0, len(data)
    keras.utils.set_random_seed(seed)
    model_file, log = output / "model.keras", output / "log.csv"
    if resume:
        model, done = resume_training(model_file, -(-len(data) // batch_size), log)
        if source is not None:
            ats.set_source(model, source)
    else:
        model, done = build_model(data, n_patches, seed, source), 0
    order = seed + 1000 * done  # another one after an interruption
    test_batches = make_batches(test_data, batch_size, first_test)
    print("loss = cross_entropy + regularizer of the attention, which is negative")
    model.fit(
        make_batches(data, batch_size, first, order),
        validation_data=test_batches,
        epochs=epochs,
        initial_epoch=done,
        callbacks=[
            callbacks.LearningRateScheduler(  # falls in the last quarter
                lambda epoch: LEARNING_RATE * min(1, 4 * (1 - epoch / epochs))
            ),
            callbacks.TerminateOnNaN(),
            callbacks.CSVLogger(log, append=done > 0),
            callbacks.TensorBoard(output / "tensorboard", write_graph=False),
            watch_attention(output / "attention", test_data, first_test),
            EpochCheckpoint(model_file),  # last: an epoch that is saved is plotted
        ],
        shuffle=False,  # the batches are
        verbose=2,
    )
    scores = model.evaluate(test_batches, verbose=0, return_dict=True)
    if math.isnan(scores["loss"]):
        raise ValueError(f"The loss is NaN; {output} keeps the last good epoch, if any")
    plot_pictures(model, test_batches, test_data, output / "pictures")
    print(f"Test accuracy {scores['accuracy']:.3f}. Everything is in {output}")


def watch_attention(directory, data, first):
    """Return a callback that plots two test images at the epochs of the paper's figure 3."""
    images = data.images([0, 1]) if first is None else np.array([first, first + 1])
    return AttentionImages(
        directory,
        [data.views[:2], images],
        epochs=(0, 1, 2, 5, 10, 15),
        names=["first", "second"],
        boxes=data.boxes[:2, :3],
    )


def plot_pictures(model, batches, data, directory):
    """Plot what the model looked at: boxes are the digits, dashed those of other classes."""
    directory.mkdir(exist_ok=True)
    [((views, images), labels)] = batches.unbatch().batch(8).take(1)
    seen = explain(model, [views, images])
    predicted = seen.pop("prediction").argmax(axis=-1)
    for i, image in enumerate(data.images(range(len(labels)))):
        plot_attention(
            directory / f"test_{i:05}.png",
            image,
            **{name: values[i] for name, values in seen.items()},
            boxes=data.boxes[i, :3],
            other_boxes=data.boxes[i, 3:],
            title=f"digit {int(labels[i])}, predicted {predicted[i]}",
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
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
    options = vars(arguments)
    with one_process(options.pop("output")) as output:
        train(output, **options)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; --resume goes on after the last whole epoch")
