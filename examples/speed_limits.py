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
    from attention_sampling.callbacks import (
        EpochCheckpoint,
        begin_or_resume,
        resume_training,
    )
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
    option("--seed", type=int, default=0, help="of the split too")
    option("--resume", action="store_true", help="go on after the last whole epoch")
    option("--profile", action="store_true", help="measure a few steps, train nothing")
    arguments = parser.parse_args()
    if min(arguments.epochs, arguments.batch_size, arguments.n_patches) < 1:
        parser.error("--epochs, --batch-size and --n-patches must be at least 1")
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
    # Limits have a red ring. The attention starts as the variance of red against green
    # around a pixel, and learns from there: from an even start it takes much longer.
    red, green, _ = keras.ops.split(view, 3, axis=-1)
    contrast = LocalContrast(window=3)(red - green)
    scores += 2 * keras.ops.log(1 + keras.ops.expand_dims(contrast, -1))
    scores = keras.layers.MaxPooling2D(2)(scores)
    attention = SampleSoftmax(squeeze_channels=True, smooth=1e-4)(scores)
    return keras.Model(view, attention, name="attention")


def convolve(x, filters, size, strides=1):
    x = keras.layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))


def build_feature():
    """Return the network from a patch to a vector of length 1."""
    patch = keras.Input((PATCH_SIZE, PATCH_SIZE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(patch)
    x = convolve(x, 16, 5, strides=2)
    x = keras.layers.MaxPooling2D(2)(convolve(x, 32, 3))
    x = keras.layers.MaxPooling2D(2)(convolve(x, 64, 3))
    x = keras.layers.GlobalMaxPooling2D()(convolve(x, 64, 3))
    # Features that differ in direction, not in length: then the attention is the best
    # distribution to sample from.
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    return keras.Model(patch, keras.layers.UnitNormalization()(x), name="feature")


def build_model(image_size, view_size, n_classes, n_patches, seed):
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
        keras.optimizers.Adam(LEARNING_RATE, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=[
            "accuracy",
            keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy"),
        ],
    )
    return model


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
    print(f"A training step on {device}: {milliseconds:.0f} ms, peak {peak:.0f} MiB")
    trace = keras.callbacks.TensorBoard(directory, profile_batch=(2, 5))
    model.fit(few, shuffle=False, verbose=0, callbacks=[trace])
    print(f"Look at it: pip install xprof; tensorboard --logdir {directory}")


def plot_pictures(model, batches, samples, classes, directory):
    directory.mkdir(exist_ok=True)
    [((views, images), _)] = batches.unbatch().batch(N_PICTURES).take(1)
    seen = explain(model, [views, images])
    predictions = seen.pop("prediction")
    for number, sample in enumerate(samples[:N_PICTURES]):
        predicted = classes[predictions[number].argmax()]
        plot_attention(
            directory / f"{Path(sample.path).stem}.png",
            images[number].numpy(),
            **{name: array[number] for name, array in seen.items()},
            boxes=[(s.top, s.left, s.bottom, s.right) for s in sample.signs],
            title=f"{classes[sample.label]}, predicted {predicted}",
        )


def main():
    arguments = parse_arguments()
    with one_process(arguments.output) as output:
        run(arguments, output)


def run(arguments, output):
    model_file, log = output / "model.keras", output / "log.csv"
    resuming = not arguments.profile and begin_or_resume(
        output,
        arguments.resume,
        batch_size=arguments.batch_size,
        n_patches=arguments.n_patches,
        seed=arguments.seed,  # that of the split too
    )
    directory = arguments.dataset or output / "scenes"
    if arguments.download:
        download_swedish(directory)
    elif not arguments.dataset:
        write_scenes(directory)
    data = load_speed_limits(directory, test_fraction=0.2, seed=arguments.seed)
    size = check_images(data.train + data.test)
    view_size = tuple(2 * round(VIEW_SCALE * extent / 2) for extent in size)
    print(
        f"{len(data.train)} training and {len(data.test)} test images of {size[1]} x "
        f"{size[0]} pixels; classes {', '.join(data.classes)}"
    )

    keras.utils.set_random_seed(arguments.seed)
    sizes = size, view_size, arguments.batch_size
    labels = [sample.label for sample in data.train]
    train = view_and_image_dataset(
        [s.path for s in data.train], labels, *sizes, shuffle_seed=arguments.seed
    )
    test = view_and_image_dataset(
        [s.path for s in data.test], [s.label for s in data.test], *sizes
    )
    initial_epoch = 0
    if resuming:
        model, initial_epoch = resume_training(model_file, len(train), log)
        print(f"Going on after epoch {initial_epoch}")
    else:
        n_classes, n_patches = len(data.classes), arguments.n_patches
        model = build_model(size, view_size, n_classes, n_patches, arguments.seed)
    if arguments.profile:
        profile(model, train, output / "profile")
        return

    def learning_rate(epoch):  # falls in the last quarter
        return LEARNING_RATE * min(1.0, 4 * (1 - epoch / arguments.epochs))

    if initial_epoch < arguments.epochs:
        print("loss = cross_entropy + regularizer of the attention, which is negative")
        model.fit(
            train,
            validation_data=test,
            initial_epoch=initial_epoch,
            epochs=arguments.epochs,
            # Rare classes count as much as frequent ones.
            class_weight={
                label: len(labels) / (len(data.classes) * count)
                for label, count in Counter(labels).items()
            },
            callbacks=[
                keras.callbacks.LearningRateScheduler(learning_rate),
                keras.callbacks.TerminateOnNaN(),
                keras.callbacks.CSVLogger(log, append=resuming),
                keras.callbacks.TensorBoard(output / "tensorboard", write_graph=False),
                EpochCheckpoint(model_file),
            ],
            shuffle=False,  # the batches are
            verbose=2,
        )
    scores = model.evaluate(test, verbose=0, return_dict=True)
    plot_pictures(model, test, data.test, data.classes, output / "pictures")
    print(f"Test accuracy {scores['accuracy']:.3f}. Everything is in {output}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; --resume goes on after the last whole epoch")
