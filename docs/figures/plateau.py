"""Print when three models begin to learn, and write plateau.png.

For docs/guides/not_learning.rst. Run ``python docs/figures/plateau.py docs/_static``.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure

from attention_sampling import (
    LocalContrast,
    ProposalMix,
    SampleSoftmax,
    attention_sampling,
)

# What the attention begins as, whether there is a proposal, and the style of the plot.
RUNS = {
    "begins flat": (False, False, "k-"),
    "begins flat, with a proposal": (False, True, "C0-"),
    "begins at the contrast of the view": (True, False, "C1-"),
}
PANELS = {
    "val_accuracy": "validation accuracy",
    "attention_entropy": "attention_entropy, nats",
    "sampled_mass": "sampled_mass",
    "effective_sample_size": "effective_sample_size",
}
N_PATCHES, CELLS = 5, 20 * 20


def make_data(seed):
    """Return views, images and labels: are the stripes of each image horizontal?"""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, size=(256, 320, 320, 1), dtype="uint8")
    labels = rng.integers(0, 2, size=256)
    for image, label in zip(images, labels, strict=True):
        row, column = rng.integers(0, 320 - 16, size=2)
        square = image[row : row + 16, column : column + 16, 0]
        (square if label else square.T)[np.arange(16) % 4 < 2] = 255
    views = images.reshape(256, 40, 8, 40, 8, 1).mean(axis=(2, 4), dtype="float32")
    return views, images, labels


def build_attention(from_contrast):
    """Return the network from a view to the attention map."""
    view = keras.Input((40, 40, 1))
    x = layers.Rescaling(1 / 127.5, offset=-1)(view)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    scores = layers.Conv2D(1, 3, padding="same")(x)
    if from_contrast:
        scores += 2 * keras.ops.log(1 + LocalContrast(5)(view)[..., None])
    scores = layers.MaxPooling2D(2)(scores)
    return keras.Model(view, SampleSoftmax(True, smooth=1e-4)(scores))


def build_feature():
    """Return the network from a patch to a vector of length 1."""
    model = keras.Sequential(
        [keras.Input((24, 24, 1)), layers.Rescaling(1 / 127.5, offset=-1)]
    )
    for filters in (16, 32, 32):
        model.add(layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
    model.add(layers.GlobalMaxPooling2D())
    model.add(layers.BatchNormalization(momentum=0.9))
    model.add(layers.UnitNormalization())
    return model


def train(from_contrast, with_proposal, data, epochs, seed):
    """Return the history of a training."""
    views, images, labels = data
    keras.utils.set_random_seed(seed)
    inputs = [keras.Input((40, 40, 1)), keras.Input((320, 320, 1), dtype="uint8")]
    features, _, _ = attention_sampling(
        build_attention(from_contrast),
        build_feature(),
        n_patches=N_PATCHES,
        proposal=LocalContrast(5) if with_proposal else None,
        metrics=True,
        seed=seed,
    )(inputs)
    features = layers.Rescaling(4.0)(features)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(features))
    model.compile(
        keras.optimizers.Adam(0.002),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = model.fit(
        [views, images],
        labels,
        validation_split=0.25,
        batch_size=16,
        epochs=epochs,
        callbacks=[ProposalMix(1.0, 0.0, epochs=16)] if with_proposal else [],
        verbose=0,
    )
    return history.history


def plot(path, histories):
    """Plot accuracy and the three numbers over the epochs."""
    figure = Figure((11, 6), layout="constrained")
    for axes, (key, label) in zip(
        figure.subplots(2, 2, sharex=True).flat, PANELS.items(), strict=True
    ):
        for name, (_, _, style) in RUNS.items():
            values = histories[name][key]
            axes.plot(range(1, len(values) + 1), values, style, label=name)
        axes.set(title=label)
        axes.grid(alpha=0.3)
        if key == "attention_entropy":
            axes.axhline(np.log(CELLS), color="grey", linestyle=":")
            axes.set_ylim(0, np.log(CELLS) + 0.8)
            axes.text(24, np.log(CELLS) + 0.15, "log(number of cells)", color="grey")
        axes.set_xlabel("epoch")
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    data = make_data(arguments.seed)
    histories = {}
    for name, (from_contrast, with_proposal, _) in RUNS.items():
        histories[name] = history = train(
            from_contrast, with_proposal, data, arguments.epochs, arguments.seed
        )
        learned = np.flatnonzero(np.array(history["val_accuracy"]) > 0.9)
        print(
            f"{name}: accuracy above 0.9 from epoch "
            f"{learned[0] + 1 if len(learned) else 'none'}, at the end "
            f"{history['val_accuracy'][-1]:.3f}; entropy {history['attention_entropy'][0]:.2f} "
            f"to {history['attention_entropy'][-1]:.2f}",
            flush=True,
        )
    plot(arguments.output / "plateau.png", histories)
