"""Print when road scenes are told apart, by what is sampled from; write saliency_epochs.png.

For docs/guides/not_learning.rst. Run ``python docs/figures/saliency_epochs.py docs/_static``:
it trains the networks of examples/speed_limits.py on the scenes that this generates, but
its attention begins flat.
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure

from attention_sampling import (
    ColorContrast,
    LocalContrast,
    MultinomialEntropy,
    ProposalMix,
    SampleSoftmax,
    attention_sampling,
)
from attention_sampling.datasets.speed_limits import load_speed_limits
from attention_sampling.datasets.synthetic.scenes import write_scenes

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from speed_limits import build_feature, make_batches

# Clearly better than 0.75, the error of the same answer for all, on 128 test images.
BELOW = 0.6
PROPOSALS = {
    "attention alone": None,
    "LocalContrast(3)": LocalContrast(3),
    "ColorContrast()": ColorContrast(),
}


def build_attention():
    """Return the attention network of the example, without the contrast it begins with."""
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(1, 3, padding="same", kernel_initializer="zeros"),
            layers.MaxPooling2D(2),
            SampleSoftmax(squeeze_channels=True, smooth=1e-4),
        ]
    )


def train(proposal, n_classes, batches, test_batches, epochs, seed):
    """Return the test error after each epoch."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    (view, image), _ = batches.element_spec
    inputs = [keras.Input(view.shape[1:]), keras.Input(image.shape[1:], dtype="uint8")]
    features, _, _ = attention_sampling(
        build_attention(),
        build_feature(),
        n_patches=5,
        attention_regularizer=MultinomialEntropy(0.01),
        control_variate=True,
        proposal=proposal,
        seed=seed,
    )(inputs)
    features = layers.Rescaling(4.0)(features)
    label = layers.Dense(n_classes, activation="softmax")(features)
    model = keras.Model(inputs, label)
    model.compile(
        keras.optimizers.Adam(2e-3, clipnorm=1.0),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = model.fit(
        batches,
        validation_data=test_batches,
        epochs=epochs,
        callbacks=[ProposalMix(1.0, 0.0, epochs=epochs // 2 + 1)] if proposal else [],
        shuffle=False,
        verbose=0,
    )
    return 1 - np.array(history.history["val_accuracy"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = Figure((7, 3), layout="constrained")
    axes = figure.subplots()
    with TemporaryDirectory() as directory:
        write_scenes(directory, n_images=arguments.images)
        data = load_speed_limits(directory, test_fraction=0.2, seed=0)
        for seed in range(arguments.runs):
            both = make_batches(data, 8, seed)
            for color, (name, proposal) in enumerate(PROPOSALS.items()):
                errors = train(
                    proposal, len(data.classes), *both, arguments.epochs, seed
                )
                below = np.flatnonzero(errors < BELOW)
                first = f"epoch {below[0] + 1}" if len(below) else "no epoch"
                print(f"{name}, seed {seed}: below {BELOW} after {first}", flush=True)
                label = None if seed else name
                epochs = range(1, len(errors) + 1)
                axes.plot(epochs, errors, color=f"C{color}", label=label)
    axes.axhline(0.75, color="grey", linestyle=":", label="the same answer for all")
    axes.set(xlabel="epoch", ylabel="test error", ylim=(0, 1))
    axes.legend()
    figure.savefig(arguments.output / "saliency_epochs.png", dpi=75)
