"""Print the test error of one trained model by patches at prediction; write budget.png.

For docs/guides/budget.rst. Run ``python docs/figures/budget.py docs/_static``. Each image
holds seven squares of stripes; are more of them horizontal or vertical?
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure

from attention_sampling import (
    LocalContrast,
    SampleSoftmax,
    attention_sampling,
    with_sampling,
)

SIDE, SQUARE, SQUARES, SCALE, PATCH = 320, 24, 7, 8, 32
STRIPES = [0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21]
N_PATCHES = (1, 2, 3, 5, 7, 10, 20, 40)


def generate(count, rng):
    """Return views, images and labels."""
    images = rng.integers(0, 60, size=(count, SIDE, SIDE, 1), dtype="uint8")
    horizontal = rng.integers(0, SQUARES + 1, size=count)
    cell = SIDE // 8  # no two squares in one cell of 8 x 8
    for image, number in zip(images, horizontal, strict=True):
        for k, position in enumerate(rng.choice(64, SQUARES, replace=False)):
            jitter = rng.integers(0, cell - SQUARE + 1, size=2)
            row, column = cell * np.array(divmod(position, 8)) + jitter
            square = image[row : row + SQUARE, column : column + SQUARE, 0]
            (square if k < number else square.T)[STRIPES] = 255
    low = SIDE // SCALE
    shape = (count, low, SCALE, low, SCALE, 1)
    views = images.reshape(shape).mean(axis=(2, 4), dtype="float32")
    return [views, images], (2 * horizontal > SQUARES).astype("int32")


def build(n_patches):
    """Return the compiled model of the first page of the documentation."""
    view, image = (
        keras.Input((SIDE // SCALE, SIDE // SCALE, 1)),
        keras.Input((SIDE, SIDE, 1), dtype="uint8"),
    )
    x = layers.Rescaling(1 / 127.5, offset=-1)(view)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    scores = layers.Conv2D(1, 3, padding="same")(x)
    scores += 2 * keras.ops.log(1 + LocalContrast(5)(view)[..., None])
    scores = layers.MaxPooling2D(2)(scores)
    softmax = SampleSoftmax(squeeze_channels=True, smooth=1e-4)
    attention = keras.Model(view, softmax(scores))
    feature = keras.Sequential(
        [keras.Input((PATCH, PATCH, 1)), layers.Rescaling(1 / 127.5, offset=-1)]
    )
    for filters in (16, 32, 32):
        feature.add(
            layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)
        )
        feature.add(layers.BatchNormalization(momentum=0.9))
        feature.add(layers.ReLU())
    feature.add(layers.GlobalMaxPooling2D())
    feature.add(layers.BatchNormalization(momentum=0.9))
    feature.add(layers.UnitNormalization())
    features, _, _ = attention_sampling(attention, feature, n_patches=n_patches)(
        [view, image]
    )
    answer = layers.Dense(2, activation="softmax")(layers.Rescaling(4.0)(features))
    model = keras.Model([view, image], answer)
    model.compile(
        keras.optimizers.Adam(0.002),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def test_errors(model, n_patches, prediction, test, repeats):
    """Return the test error of each repetition."""
    changed = with_sampling(model, n_patches, prediction)
    return np.array(
        [
            1 - changed.evaluate(*test, verbose=0, return_dict=True)["accuracy"]
            for _ in range(repeats)
        ]
    )


def plot(path, sampled, top_k, exact):
    """Plot the errors against the number of patches."""
    figure = Figure((7, 4), layout="constrained")
    axes = figure.subplots()
    means, deviations = sampled.mean(axis=1), sampled.std(axis=1)
    axes.fill_between(N_PATCHES, means - deviations, means + deviations, alpha=0.2)
    axes.plot(N_PATCHES, means, "o-", label='"sample", mean and deviation')
    axes.plot(N_PATCHES, top_k, "s-", label='"top_k"')
    axes.axhline(exact, color="black", ls="--", label='"all": the full model')
    axes.set(xscale="log", xlabel="patches at prediction", ylabel="test error")
    axes.set_xticks(N_PATCHES, map(str, N_PATCHES))
    axes.minorticks_off()
    axes.set_ylim(0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1024, help="to train on")
    parser.add_argument("--test-images", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs, labels = generate(arguments.images, rng)
    test = generate(arguments.test_images, rng)
    model = build(n_patches=10)
    model.fit(inputs, labels, batch_size=16, epochs=arguments.epochs, verbose=2)
    sampled, top_k = [], []
    for n in N_PATCHES:
        sampled.append(test_errors(model, n, "sample", test, arguments.repeats))
        top_k += list(test_errors(model, n, "top_k", test, 1))
        print(
            f"{n} patches: sample {sampled[-1].mean():.3f} +- {sampled[-1].std():.3f}, "
            f"top_k {top_k[-1]:.3f}",
            flush=True,
        )
    [exact] = test_errors(model, None, "all", test, 1)
    print(f"all: {exact:.3f}")
    plot(arguments.output / "budget.png", np.array(sampled), top_k, exact)
