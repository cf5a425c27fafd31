"""Images of stained tissue in memory, in batches, augmented as a whole."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from experiment import Images, Picture

# Optical density of red, green and blue for a unit of each stain: haematoxylin, eosin
# and a third that is neither. Ruifrok and Johnston 2001, *Quantification of
# histochemical staining by color deconvolution*.
_STAINS = np.array(
    [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], "float32"
)


@dataclass(frozen=True)
class Augmentation:
    """How a training image may be changed.

    Args:
        brightness: largest change, as a share of white.
        contrast: largest change, as a share of the contrast.
        stain: largest change of the amount of each stain, as a share of it.
        orient: whether to mirror, and to turn by quarters.
    """

    brightness: float
    contrast: float
    stain: float = 0.0
    orient: bool = False


AUGMENTATIONS = {
    "none": None,
    "light": Augmentation(brightness=0.1, contrast=0.1),
    "strong": Augmentation(brightness=0.1, contrast=0.2, stain=0.2, orient=True),
}


def augment(image, change, seed):
    """Change an image at random.

    Args:
        image: (height, width, 3) uint8 tensor, square if it is to be turned.
        change: an `Augmentation`.
        seed: (2,) int tensor; the same seed makes the same change.

    Returns:
        Tensor likewise.
    """
    random = tf.random.stateless_uniform([8], seed, -1, 1)
    brightness, contrast, stains, turns = tf.split(random, [1, 1, 3, 3])
    if change.orient:
        image = tf.image.rot90(image, tf.cast(2 * (turns[0] + 1), tf.int32))
        image = tf.cond(turns[1] > 0, lambda: tf.reverse(image, [1]), lambda: image)
    image = tf.cast(image, tf.float32)
    if change.stain:
        # Light that comes through: its logarithm is linear in the amount of stain.
        amounts = tf.linalg.diag(1 + change.stain * stains)
        mixing = np.linalg.inv(_STAINS) @ amounts @ _STAINS
        density = tf.math.log((image + 1) / 256)
        image = 256 * tf.exp(tf.tensordot(density, mixing, 1)) - 1
    mean = tf.reduce_mean(image)
    image = mean + (image - mean) * (1 + change.contrast * contrast)
    image += 255 * change.brightness * brightness
    return tf.saturate_cast(tf.round(image), tf.uint8)


class TissueImages(Images):
    """Images of a `ColonCancer` data set.

    Args:
        samples: `ColonCancerImage` of each image in memory.
        pixels: (n_images, height, width, 3) uint8 tensor.
        view_size: (height, width) of the views, in pixels.
        change: `Augmentation` of the training images, or None.
        numbers: of the images that these are, all by default.
    """

    def __init__(self, samples, pixels, view_size, change, numbers=None):
        self.samples, self.pixels = samples, pixels
        self.view_size, self.change = view_size, change
        self.numbers = np.arange(len(samples)) if numbers is None else numbers
        self.labels = [samples[number].label for number in self.numbers]

    def choose(self, numbers):
        return TissueImages(
            self.samples,
            self.pixels,
            self.view_size,
            self.change,
            self.numbers[numbers],
        )

    def batches(self, inputs, batch_size, seed=None):
        labelled = (self.numbers, tf.constant(self.labels, "int32"))
        dataset = tf.data.Dataset.from_tensor_slices(labelled)
        if seed is not None:
            dataset = dataset.shuffle(len(self.labels), seed=seed)
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)

        def read(labelled, image_seed):
            number, label = labelled
            image = self.pixels[number]
            if seed is not None and self.change is not None:
                image = augment(image, self.change, image_seed)
                image = tf.ensure_shape(image, self.pixels.shape[1:])
            # After the change, so that both show the same tissue.
            view = tf.image.resize(image, self.view_size, method="area")
            made = {"view": view, "image": image}
            return tuple(made[name] for name in inputs), label

        dataset = tf.data.Dataset.zip(dataset, seeds)
        dataset = dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.batch(batch_size).prefetch(1)

    def picture(self, number):
        place = self.numbers[number]
        sample = self.samples[place]
        return Picture(
            Path(sample.path).stem,
            self.pixels[place].numpy(),
            points=sample.nuclei["epithelial"],
        )
