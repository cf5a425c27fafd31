"""Read the speed limit in road scenes whose signs are legible at full resolution only.

An attention network sees a view at an eighth of the resolution and says where to look; a
few patches are sampled there from the full image, and a feature network reads them. Both
learn from one label for each image. Without --dataset the scenes are generated.

Katharopoulos and Fleuret 2019, section 4.4.
"""

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow 2.21 logs while it is imported, whatever that level.
terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 2)
try:
    import keras
    import tensorflow as tf

    from attention_sampling import (
        LocalContrast,
        MultinomialEntropy,
        SampleSoftmax,
        attention_sampling,
    )
    from attention_sampling.callbacks import EpochCheckpoint, resume_training
    from attention_sampling.data.views import view_and_image_dataset
    from attention_sampling.datasets.speed_limits import (
        check_images,
        download_swedish,
        load_speed_limits,
    )
    from attention_sampling.datasets.synthetic.scenes import write_scenes
    from attention_sampling.files import one_process
    from attention_sampling.visualize import explain, plot_attention
finally:
    os.dup2(terminal, 2)

VIEW_SCALE = 1 / 8  # a sign of 34 pixels is 4 pixels wide in the view
PATCH_SIZE = 64  # pixels: a sign, wherever in its cell of the attention map it is
LEARNING_RATE = 2e-3
N_PICTURES = 8


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--dataset", type=Path, help="German or Swedish traffic signs")
    option("--download", action="store_true", help="the Swedish set into --dataset")
    option("--output", type=Path, default=Path("runs/speed_limits"))
    option("--epochs", type=int, default=10)
    option("--batch-size", type=int, default=8)
    option("--n-patches", type=int, default=5)
    option(
        "--seed", type=int, default=0, help="of the split, too: resume with the same"
    )
    option("--resume", action="store_true", help="go on after the last whole epoch")
    option("--profile", action="store_true", help="measure a few steps, train nothing")
    arguments = parser.parse_args()
    if arguments.download and not arguments.dataset:
        parser.error("--download needs --dataset, where to put the images")
    return arguments


def build_attention():
    """Return the network from a view to the attention map."""
    view = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(view)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    scores = keras.layers.Conv2D(1, 3, padding="same")(x)
    # Signs are made to catch the eye. The attention starts as the variance of colour
    # around a pixel, and learns from there; from an even start it takes many times as long.
    colour = view - keras.ops.mean(view, axis=-1, keepdims=True)
    contrast = LocalContrast(window=3)(colour)
    scores += 2 * keras.ops.log(1 + keras.ops.expand_dims(contrast, -1))
    scores = keras.layers.MaxPooling2D(2)(scores)
    attention = SampleSoftmax(squeeze_channels=True, smooth=1e-4)(scores)
    return keras.Model(view, attention, name="attention")


def build_feature():
    """Return the network from a patch to a vector of length 1."""
    patch = keras.Input((PATCH_SIZE, PATCH_SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(patch)
    for filters, size, stride in ((16, 5, 2), (32, 3, 1), (64, 3, 2), (64, 3, 2)):
        x = keras.layers.Conv2D(
            filters, size, strides=stride, padding="same", use_bias=False
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalMaxPooling2D()(x)
    # Features that differ in direction, not in length: then the attention is the best
    # distribution to sample from.
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.Model(patch, keras.layers.UnitNormalization()(x), name="feature")


def build_model(view_size, image_size, n_classes, n_patches, seed):
    view = keras.Input((*view_size, 3), name="view")
    image = keras.Input((*image_size, 3), name="image", dtype="uint8")
    features, _, _ = attention_sampling(
        build_attention(),
        build_feature(),
        n_patches=n_patches,
        attention_regularizer=MultinomialEntropy(0.01),
        control_variate=True,
        prediction="top_k",
        seed=seed,
    )([view, image])
    # Features of length 1, averaged, would move the logits too little.
    features = keras.layers.Rescaling(4.0)(features)
    label = keras.layers.Dense(n_classes, activation="softmax")(features)
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


def train(model, train_batches, test_batches, labels, output, initial_epoch, epochs):
    counts = Counter(labels)

    def learning_rate(epoch):  # falls in the last quarter
        return LEARNING_RATE * min(1.0, 4 * (1 - epoch / epochs))

    # `loss` holds the regularizer of the attention and may be negative; `cross_entropy`
    # is that of the classes alone.
    model.fit(
        train_batches,
        validation_data=test_batches,
        initial_epoch=initial_epoch,
        epochs=epochs,
        # Rare classes count as much as frequent ones.
        class_weight={
            label: len(labels) / len(counts) / n for label, n in counts.items()
        },
        callbacks=[
            keras.callbacks.LearningRateScheduler(learning_rate),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.CSVLogger(output / "log.csv", append=True),
            keras.callbacks.TensorBoard(output / "tensorboard", write_graph=False),
            EpochCheckpoint(output / "model.keras"),
        ],
        shuffle=False,  # the batches are
        verbose=2,
    )


def profile(model, batches, directory):
    """Train a few steps; print what one takes, and leave a trace for TensorBoard."""
    device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"
    few = batches.take(10).cache()
    model.fit(few, shuffle=False, verbose=0)  # builds the graph
    tf.config.experimental.reset_memory_stats(device)
    start = time.perf_counter()
    model.fit(few, shuffle=False, verbose=0)
    milliseconds = 1000 * (time.perf_counter() - start) / len(few)
    peak = tf.config.experimental.get_memory_info(device)["peak"] / 2**20
    trace = keras.callbacks.TensorBoard(directory, profile_batch=(2, 5))
    model.fit(few, shuffle=False, verbose=0, callbacks=[trace])
    print(f"A training step on {device}: {milliseconds:.0f} ms, peak {peak:.0f} MiB")
    print(f"Look at it: pip install xprof; tensorboard --logdir {directory}")


def plot_pictures(model, batches, samples, classes, directory):
    directory.mkdir(exist_ok=True)
    (views, images), _ = next(iter(batches.unbatch().batch(N_PICTURES)))
    seen = explain(model, [views, images])
    for prediction, image, sample, *looked_at in zip(
        seen.pop("prediction"), images.numpy(), samples, *seen.values(), strict=False
    ):
        plot_attention(
            directory / f"{Path(sample.path).stem}.png",
            image,
            *looked_at,
            boxes=[(s.top, s.left, s.bottom, s.right) for s in sample.signs],
            title=f"{classes[sample.label]}, predicted {classes[prediction.argmax()]}",
        )


def main():
    arguments = parse_arguments()
    with one_process(arguments.output) as output:
        run(arguments, output)


def run(arguments, output):
    model_file, log = output / "model.keras", output / "log.csv"
    if model_file.exists() and not (arguments.resume or arguments.profile):
        raise FileExistsError(
            f"{output} holds a trained model: go on with --resume, or choose another "
            "--output"
        )
    directory = arguments.dataset or output / "scenes"
    if arguments.download:
        download_swedish(directory)
    elif not arguments.dataset:
        write_scenes(directory)
    data = load_speed_limits(directory, test_fraction=0.2, seed=arguments.seed)
    image_size = check_images(data.train + data.test)
    view_size = [2 * round(VIEW_SCALE * extent / 2) for extent in image_size]
    keras.utils.set_random_seed(arguments.seed)

    def read(samples, shuffle_seed=None):
        paths, labels = zip(*((s.path, s.label) for s in samples), strict=True)
        return view_and_image_dataset(
            paths, labels, image_size, view_size, arguments.batch_size, shuffle_seed
        )

    print(
        f"{len(data.train)} training and {len(data.test)} test images of "
        f"{image_size[1]} x {image_size[0]} pixels; classes {', '.join(data.classes)}"
    )
    train_batches, test_batches = read(data.train, arguments.seed), read(data.test)
    if arguments.resume and model_file.exists():
        model, initial_epoch = resume_training(model_file, len(train_batches), log)
        print(f"Going on after epoch {initial_epoch}")
    else:
        log.unlink(missing_ok=True)
        model, initial_epoch = (
            build_model(
                view_size,
                image_size,
                len(data.classes),
                arguments.n_patches,
                arguments.seed,
            ),
            0,
        )
    if arguments.profile:
        profile(model, train_batches, output / "profile")
        return
    if initial_epoch < arguments.epochs:
        labels = [sample.label for sample in data.train]
        train(
            model,
            train_batches,
            test_batches,
            labels,
            output,
            initial_epoch,
            arguments.epochs,
        )
    scores = model.evaluate(test_batches, verbose=0, return_dict=True)
    plot_pictures(model, test_batches, data.test, data.classes, output / "pictures")
    print(f"Test accuracy {scores['accuracy']:.3f}. Everything is in {output}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; --resume goes on after the last whole epoch")
