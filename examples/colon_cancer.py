"""Tell which images of stained tissue hold epithelial nuclei, from ten patches of each.

Colon cancer, Katharopoulos and Fleuret 2019, section 4.3. The attention network sees a
view of 100 x 100 pixels, where nuclei are dots; the feature network sees patches of 27 x 27
of the image of 500 x 500, where they have a shape. Without --dataset, tissue is generated;
with it, the images of CRCHistoPhenotypes_2016_04_28 are read. They are for research only:
publish neither them nor pictures made from them.
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
    from skimage.color import hed_from_rgb, rgb_from_hed

    import attention_sampling as ats
    from attention_sampling.callbacks import (
        EpochCheckpoint,
        begin_or_resume,
        resume_training,
    )
    from attention_sampling.data.views import without_autotuning
    from attention_sampling.datasets.colon_cancer import load_colon_cancer, read_images
    from attention_sampling.datasets.folds import stratified_folds
    from attention_sampling.datasets.synthetic.tissue import write_tissue
    from attention_sampling.visualize import explain, plot_attention

CLASSES = ("without", "epithelial")
PATCH_SIZE = 27  # pixels of an image
SCALE = 5  # pixels of an image for one of its view, each way
LEARNING_RATE = 1e-3


def augment(image, seed):
    """Turn, mirror, and change the amounts of the stains, contrast and brightness."""
    random = tf.random.stateless_uniform([7], seed, -1, 1)
    turned = tf.image.rot90(image, tf.cast(2 * (random[0] + 1), tf.int32))
    turned = tf.cond(random[1] > 0, lambda: turned, lambda: tf.reverse(turned, [0]))
    # The logarithm of the light that comes through is linear in the amounts.
    amounts = tf.linalg.diag(1 + 0.2 * random[2:5])
    mixing = np.float32(hed_from_rgb) @ amounts @ np.float32(rgb_from_hed)
    light = tf.math.log((tf.cast(turned, tf.float32) + 1) / 256)
    changed = 256 * tf.exp(tf.tensordot(light, mixing, 1)) - 1
    mean = tf.reduce_mean(changed)
    changed = mean + (changed - mean) * (1 + 0.2 * random[5]) + 25 * random[6]
    return tf.ensure_shape(tf.saturate_cast(changed, tf.uint8), image.shape)


def make_view(image):
    height, width, _ = image.shape
    return tf.image.resize(image, (height // SCALE, width // SCALE), method="area")


def make_batches(images, labels, batch_size, seed=None):
    """Return batches of ((view, image), label), to train on if there is a seed."""
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    if seed is not None:
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
        dataset = dataset.shuffle(len(labels), seed=seed)
        dataset = tf.data.Dataset.zip(dataset, seeds).map(
            lambda sample, seed: (augment(sample[0], seed), sample[1]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    # The view is made last, so that it shows the same tissue.
    dataset = dataset.map(lambda image, label: ((make_view(image), image), label))
    return without_autotuning(dataset.batch(batch_size).prefetch(2))


def build_attention():
    """Return the network from a view to the attention map, a cell for each pixel."""
    view = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(view)
    x = layers.Conv2D(8, 3, padding="same", activation="tanh")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="tanh")(x)
    scores = layers.Conv2D(1, 3, padding="same")(x)
    attention = ats.SampleSoftmax(squeeze_channels=True, smooth=1e-5)(scores)
    return keras.Model(view, attention, name="attention")


def build_feature():
    """Return the network from a patch to a vector of length 1."""
    patch = keras.Input((PATCH_SIZE, PATCH_SIZE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(patch)
    x = layers.MaxPooling2D(2)(layers.Conv2D(36, 4, activation="relu")(x))
    x = layers.MaxPooling2D(2)(layers.Conv2D(48, 3, activation="relu")(x))
    x = layers.Dense(512, activation="relu")(layers.Flatten()(x))
    x = layers.Dense(512, activation="relu")(x)
    # Features of one length, in all directions: the attention is then the best
    # distribution to sample from, and each patch counts from the beginning.
    x = layers.BatchNormalization(momentum=0.9)(x)
    return keras.Model(patch, layers.UnitNormalization()(x), name="feature")


def build_model(image_shape, n_patches, seed):
    height, width, channels = image_shape
    view = keras.Input((height // SCALE, width // SCALE, channels), name="view")
    image = keras.Input(image_shape, name="image", dtype="uint8")
    features, _, _ = ats.attention_sampling(
        build_attention(),
        build_feature(),
        n_patches=n_patches,
        attention_regularizer=ats.MultinomialEntropy(0.01),
        control_variate=True,
        seed=seed,
    )([view, image])
    features = layers.Rescaling(4.0)(features)  # an average of unit vectors is short
    label = layers.Dense(len(CLASSES), activation="softmax")(features)
    model = keras.Model([view, image], label)
    cross_entropy = keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy")
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", cross_entropy],
    )
    return model


def train(output, dataset, epochs, batch_size, n_patches, seed, resume):
    settings = {"batch_size": batch_size, "n_patches": n_patches}
    resume = begin_or_resume(output, resume, **settings)
    if not dataset:
        print(f"Generated tissue: {output / 'tissue'}", flush=True)
    data = load_colon_cancer(dataset or write_tissue(output / "tissue"))
    chosen, test = stratified_folds(data.labels, 5, names=data.numbers)[0]
    print(f"{data}: {len(chosen)} to train on, {len(test)} to test with")
    images, labels = read_images(data.samples), data.labels
    keras.utils.set_random_seed(seed)
    model_file, log = output / "model.keras", output / "log.csv"
    if resume:
        model, done = resume_training(model_file, -(-len(chosen) // batch_size), log)
    else:
        model, done = build_model(images.shape[1:], n_patches, seed), 0
    order = seed + 1000 * done  # another one after an interruption
    test_batches = make_batches(images[test], labels[test], batch_size)
    print("loss = cross_entropy + regularizer of the attention, which is negative")
    model.fit(
        make_batches(images[chosen], labels[chosen], batch_size, order),
        validation_data=test_batches,
        epochs=epochs,
        initial_epoch=done,
        callbacks=[
            callbacks.LearningRateScheduler(  # falls in the second half
                lambda epoch: LEARNING_RATE * min(1, 2 * (1 - epoch / epochs))
            ),
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
    samples = [data.samples[number] for number in test[:4]]
    plot_pictures(model, samples, images[test[:4]], output / "pictures")
    print(f"Test accuracy {scores['accuracy']:.3f}. Everything is in {output}")


def plot_pictures(model, samples, images, directory):
    """Plot what the model looked at, with the epithelial nuclei as points."""
    directory.mkdir(exist_ok=True)
    views = np.stack([make_view(image) for image in images])
    seen = explain(model, [views, images])
    predictions = seen.pop("prediction")
    for i, sample in enumerate(samples):
        plot_attention(
            directory / f"img{sample.number}.png",
            images[i],
            **{name: values[i] for name, values in seen.items()},
            points=sample.nuclei["epithelial"],
            title=f"{CLASSES[sample.label]}, predicted: {predictions[i, 1]:.2f} {CLASSES[1]}",
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    option = parser.add_argument
    option("--dataset", type=Path, help="directory of CRCHistoPhenotypes_2016_04_28")
    option("--output", type=Path, default=Path("runs/colon_cancer"))
    option("--epochs", type=int, help="default: 20 on generated tissue, else 100")
    option("--batch-size", type=int, default=5)
    option("--n-patches", type=int, default=10)
    option("--seed", type=int, default=0)
    option("--resume", action="store_true", help="go on after the last whole epoch")
    arguments = parser.parse_args()
    if arguments.epochs is None:
        arguments.epochs = 100 if arguments.dataset else 20
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
