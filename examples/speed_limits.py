"""Read the speed limit in road scenes whose signs are legible at full resolution only.

An attention network sees a view at an eighth of the resolution and says where to look; a
few patches are sampled there from the full image, and a feature network reads them. Both
learn from one label for each image. Without --dataset the scenes are generated.
--predict and --evaluate read photographs with a model that is trained already.

Katharopoulos and Fleuret 2019, section 4.4.
"""

import argparse
import math
import os
import sys
import time
from collections import Counter
from pathlib import Path

from attention_sampling.files import one_process, quiet_imports

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with quiet_imports():
    import keras
    import pandas as pd
    import tensorflow as tf
    from keras import callbacks, layers
    from tqdm import tqdm

    import attention_sampling as ats
    from attention_sampling.callbacks import (
        EpochCheckpoint,
        begin_or_resume,
        check_model_file,
        resume_training,
    )
    from attention_sampling.data.photographs import read_photograph
    from attention_sampling.data.views import view_and_image_dataset
    from attention_sampling.datasets import speed_limits
    from attention_sampling.datasets.synthetic.scenes import write_scenes
    from attention_sampling.datasets.traffic_signs import GERMAN_CLASSES, read_german
    from attention_sampling.experiments import load_pretrained
    from attention_sampling.layers.attention_sampling import sampling_layers
    from attention_sampling.predict import picture_names
    from attention_sampling.visualize import explain, plot_attention

VIEW_SCALE = 1 / 8  # a sign of 34 pixels is 4 pixels wide in the view
PATCH_SIZE = 64  # pixels: a sign, wherever in its cell of the attention map it is
LEARNING_RATE = 2e-3


def make_batches(data, batch_size, seed):
    """Return batches of ((view, image), label), to train on and to test with."""
    size = speed_limits.check_images(data.train + data.test)
    view_size = tuple(2 * round(VIEW_SCALE * extent / 2) for extent in size)
    print(
        f"{len(data.train)} training and {len(data.test)} test images of {size[1]} x "
        f"{size[0]} pixels; classes {', '.join(data.classes)}"
    )

    def make(samples, seed=None):
        paths, labels = [s.path for s in samples], [s.label for s in samples]
        return view_and_image_dataset(paths, labels, size, view_size, batch_size, seed)

    return make(data.train, seed), make(data.test)


def build_attention():
    """Return the network from a view to the attention map."""
    view = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(view)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    scores = layers.Conv2D(1, 3, padding="same")(x)
    # Limits have a red ring. The attention starts as the variance of red against green
    # around a pixel, and learns from there: from an even start it takes much longer.
    red, green, _ = keras.ops.split(view, 3, axis=-1)
    contrast = ats.LocalContrast(window=3)(red - green)
    scores += 2 * keras.ops.log(1 + keras.ops.expand_dims(contrast, -1))
    scores = layers.MaxPooling2D(2)(scores)
    attention = ats.SampleSoftmax(squeeze_channels=True, smooth=1e-4)(scores)
    return keras.Model(view, attention, name="attention")


def convolve(x, filters, size, strides=1):
    x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def build_feature():
    """Return the network from a patch to a vector of length 1."""
    patch = keras.Input((PATCH_SIZE, PATCH_SIZE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(patch)
    x = convolve(x, 16, 5, strides=2)
    x = layers.MaxPooling2D(2)(convolve(x, 32, 3))
    x = layers.MaxPooling2D(2)(convolve(x, 64, 3))
    x = layers.GlobalMaxPooling2D()(convolve(x, 64, 3))
    # Features that differ in direction, not in length: then the attention is the best
    # distribution to sample from.
    x = layers.BatchNormalization(momentum=0.9)(x)
    return keras.Model(patch, layers.UnitNormalization()(x), name="feature")


def build_model(batches, classes, n_patches, seed):
    (view, image), _ = batches.element_spec
    view = keras.Input(view.shape[1:], name="view")
    image = keras.Input(image.shape[1:], name="image", dtype="uint8")
    features, _, _ = ats.attention_sampling(
        build_attention(),
        build_feature(),
        n_patches=n_patches,
        attention_regularizer=ats.MultinomialEntropy(0.01),
        control_variate=True,
        prediction="top_k",
        seed=seed,
        class_names=classes,
    )([view, image])
    # Features of length 1, averaged, would move the logits too little.
    features = layers.Rescaling(4.0)(features)
    label = layers.Dense(len(classes), activation="softmax")(features)
    model = keras.Model([view, image], label)
    cross_entropy = keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy")
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", cross_entropy],
    )
    return model


def train(options, output):
    batch_size, epochs, seed = options.batch_size, options.epochs, options.seed
    settings = {"batch_size": batch_size, "n_patches": options.n_patches, "seed": seed}
    resume = not options.profile and begin_or_resume(output, options.resume, **settings)
    directory = options.dataset or output / "scenes"
    if options.download:
        speed_limits.download_swedish(directory)
    elif not options.dataset:
        write_scenes(directory)
    data = speed_limits.load_speed_limits(directory, test_fraction=0.2, seed=seed)
    keras.utils.set_random_seed(seed)
    batches, test_batches = make_batches(data, batch_size, seed)
    model_file, log = output / "model.keras", output / "log.csv"
    if resume:
        model, done = resume_training(model_file, len(batches), log)
        print(f"Going on after epoch {done}")
    else:
        model, done = build_model(batches, data.classes, options.n_patches, seed), 0
    if options.profile:
        return measure_steps(model, batches, output / "profile")
    print("loss = cross_entropy + regularizer of the attention, which is negative")
    counts = Counter(sample.label for sample in data.train)
    usual = len(data.train) / len(data.classes)
    model.fit(
        batches,
        validation_data=test_batches,
        epochs=epochs,
        initial_epoch=done,
        # Rare classes count as much as frequent ones.
        class_weight={label: usual / count for label, count in counts.items()},
        callbacks=[
            callbacks.LearningRateScheduler(  # falls in the last quarter
                lambda epoch: LEARNING_RATE * min(1, 4 * (1 - epoch / epochs))
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
    plot_pictures(model, test_batches, data, output / "pictures")
    print(f"Test accuracy {scores['accuracy']:.3f}. Everything is in {output}")


def plot_pictures(model, batches, data, directory):
    """Plot what the model looked at, with the signs in boxes."""
    directory.mkdir(exist_ok=True)
    [((views, images), _)] = batches.unbatch().batch(8).take(1)
    seen = explain(model, [views, images])
    predicted = seen.pop("prediction").argmax(axis=-1)
    for i, sample in enumerate(data.test[: len(images)]):
        plot_attention(
            directory / f"{Path(sample.path).stem}.png",
            images[i],
            **{name: values[i] for name, values in seen.items()},
            boxes=[(s.top, s.left, s.bottom, s.right) for s in sample.signs],
            title=f"{data.classes[sample.label]}, predicted {data.classes[predicted[i]]}",
        )


def measure_steps(model, batches, directory):
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
    trace = callbacks.TensorBoard(directory, profile_batch=(2, 5))
    model.fit(few, shuffle=False, verbose=0, callbacks=[trace])
    print(f"Look at it: pip install xprof; tensorboard --logdir {directory}")


def read_photographs(paths, model_file):
    """Yield each photograph, its class, and what a trained model made of it."""
    if model_file:
        check_model_file(model_file)
        model = keras.saving.load_model(model_file, compile=False)
    else:
        model = load_pretrained("speed_limits")
    names = [layer.class_names for layer in sampling_layers(model)]
    if len(names) != 1 or names[0] is None or model.inputs[1].ndim != 4:
        raise ValueError(f"{model_file} is no model that this example has trained")
    if not {*names[0]} <= {*GERMAN_CLASSES}:
        raise ValueError(f"{model_file} reads no German limits: {', '.join(names[0])}")
    view_size, size = (x.shape[1:3] for x in model.inputs)
    if None in size:  # it takes any; this is how large the signs were that it learned
        view_size, size = None, (None, 1360)
    for path in paths:
        view, image = read_photograph(path, size, view_size)
        seen = explain(model, [view[None], image[None]])
        seen = {name: values[0] for name, values in seen.items()}
        yield image, names[0][seen["prediction"].argmax()], seen


def predict(paths, model_file, output):
    """Print the limit in each photograph, and plot what the model looked at."""
    output.mkdir(parents=True, exist_ok=True)
    pictures, found = picture_names(paths), read_photographs(paths, model_file)
    for path, picture, (image, name, seen) in zip(paths, pictures, found, strict=True):
        limit = "no limit" if name == "empty" else f"{name} km/h"
        title = f"{limit} ({seen['prediction'].max():.2f})"
        best = [seen[key][:10] for key in ("patches", "sampled_attention", "origins")]
        plot_attention(output / picture, image, seen["attention"], *best, title=title)
        print(f"{path}: {title}", flush=True)


def evaluate(directory, model_file):
    """Print how often a trained model is wrong on German traffic signs."""
    classes, samples = read_german(directory)
    found = read_photographs([sample.path for sample in samples], model_file)
    found = tqdm(found, "Reading photographs", len(samples), disable=None)
    predicted = pd.Series([name for _, name, _ in found], name="predicted")
    true = pd.Series([classes[sample.label] for sample in samples], name="true")
    wrong, frequency = true != predicted, true.value_counts(normalize=True)
    balanced = wrong.groupby(true).mean().mean()  # each class counts as much
    print(f"{len(samples)} photographs")
    print(f"Error {wrong.mean():.3f}, balanced error {balanced:.3f}")
    print(f"Always {frequency.index[0]!r}: error {1 - frequency.iloc[0]:.3f}")
    confusion = pd.crosstab(true, predicted)
    print(confusion.reindex(GERMAN_CLASSES, columns=GERMAN_CLASSES, fill_value=0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    option = parser.add_argument
    use = parser.add_mutually_exclusive_group().add_argument
    use("--dataset", type=Path, help="German or Swedish traffic signs, to train on")
    use("--predict", nargs="+", metavar="PHOTO", help="print the limits")
    use("--evaluate", type=Path, metavar="DIR", help="print the errors on a folder")
    option("--download", action="store_true", help="the Swedish set into --dataset")
    option("--output", type=Path, default=Path("runs/speed_limits"))
    option("--epochs", type=int, default=10)
    option("--batch-size", type=int, default=8)
    option("--n-patches", type=int, default=5)
    option("--seed", type=int, default=0, help="of the split too")
    option("--resume", action="store_true", help="go on after the last whole epoch")
    option("--profile", action="store_true", help="measure a few steps, train nothing")
    option(
        "--model",
        type=Path,
        help="for --predict and --evaluate, in place of the package's",
    )
    arguments = parser.parse_args()
    if min(arguments.epochs, arguments.batch_size, arguments.n_patches) < 1:
        parser.error("--epochs, --batch-size and --n-patches must be at least 1")
    if arguments.download and not arguments.dataset:
        parser.error("--download needs --dataset, where to put the images")
    if arguments.predict:
        predict(arguments.predict, arguments.model, arguments.output)
    elif arguments.evaluate:
        evaluate(arguments.evaluate, arguments.model)
    elif arguments.model:
        parser.error("--model needs --predict or --evaluate")
    else:
        with one_process(arguments.output) as output:
            train(arguments, output)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; --resume goes on after the last whole epoch")
