"""Road scenes in files, in batches: read as a whole and augmented, or on demand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from experiment import Images, Picture
from PIL import Image

from attention_sampling.data import Source
from attention_sampling.data.views import view_and_image_dataset, view_dataset
from attention_sampling.datasets.speed_limits import Sample


@dataclass(frozen=True, eq=False)
class RoadImages(Images):
    """Images of a `SpeedLimits` data set.

    Args:
        samples: of the data set, in the order of ``source`` if there is one.
        numbers: (n_images,) int; which of the samples these are.
        image_size: (height, width) of all images, in pixels.
        view_size: (height, width) of the views, in pixels.
        source: of the images, to be read on demand; None to read them as a whole.
        view_cache: directory to keep the views of a source in.
    """

    samples: Sequence[Sample]
    numbers: np.ndarray
    image_size: tuple[int, int]
    view_size: tuple[int, int]
    source: Source | None = None
    view_cache: Path | None = None

    @property
    def labels(self):
        return [self.samples[number].label for number in self.numbers]

    def choose(self, numbers):
        return replace(self, numbers=self.numbers[numbers])

    def batches(self, inputs, batch_size, seed=None):
        shuffle = seed is not None
        if self.source is not None:  # for models that take both alone
            return view_dataset(
                self.source,
                self.view_size,
                [sample.label for sample in self.samples],
                batch_size,
                shuffle=shuffle,
                seed=seed,
                cache=self.view_cache,
                indices=self.numbers,
            )
        dataset = view_and_image_dataset(
            [self.samples[number].path for number in self.numbers],
            self.labels,
            self.image_size,
            self.view_size,
            batch_size,
            shuffle_seed=seed,
            augment=build_augmentation(seed) if shuffle else None,
        )

        def choose_inputs(both, label):
            made = dict(zip(("view", "image"), both, strict=True))
            return tuple(made[name] for name in inputs), label

        return dataset.map(choose_inputs)

    def picture(self, number):
        sample = self.samples[self.numbers[number]]
        with Image.open(sample.path) as image:
            pixels = np.asarray(image.convert("RGB"))
        return Picture(
            Path(sample.path).stem,
            pixels,
            boxes=[
                (sign.top, sign.left, sign.bottom, sign.right) for sign in sample.signs
            ],
        )


def build_augmentation(seed):
    """Return a random change of one image: place, contrast, brightness."""
    # The same seed in all would draw the same numbers: dark images would be flat.
    move, stretch, light = map(int, np.random.SeedSequence(seed).generate_state(3))
    layers = [
        keras.layers.RandomTranslation(0.05, 0.05, interpolation="nearest", seed=move),
        # One number would mean 1 to 1.2: Keras clips the lower end of (-0.2, 0.2) at 0.
        keras.layers.RandomContrast((0.2, 0.2), value_range=(0, 255), seed=stretch),
        keras.layers.RandomBrightness(0.1, value_range=(0, 255), seed=light),
    ]

    def augment(image):
        for layer in layers:
            image = layer(image)
        return image

    return augment
