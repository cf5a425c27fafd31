"""Random changes of training images that leave their labels as they are."""

from typing import Any

import numpy as np
import tensorflow as tf

# Optical density of red, green and blue for a unit of each stain: haematoxylin, eosin
# and a third that is neither. Ruifrok and Johnston 2001, *Quantification of
# histochemical staining by color deconvolution*.
_STAINS = np.array(
    [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], "float32"
)
# Keywords of `augment`. Road scenes are never mirrored: signs would not be legible.
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "light": {"brightness": 0.1, "contrast": 0.1},
    "strong": {"brightness": 0.1, "contrast": 0.2, "stain": 0.2, "orient": True},
    "shift": {"brightness": 0.1, "contrast": 0.2, "shift": 0.05},
    "colour": {"brightness": 0.1, "contrast": 0.3, "colour": 0.1},
}


def augment(
    image: Any,
    seed: Any,
    brightness: float,
    contrast: float,
    stain: float = 0.0,
    orient: bool = False,
    shift: float = 0.0,
    colour: float = 0.0,
) -> Any:
    """Change an image at random.

    Args:
        image: (height, width, 3) uint8 tensor, square if it is to be turned.
        seed: (2,) int tensor; the same seed makes the same change.
        brightness: largest change, as a fraction of white.
        contrast: largest change, as a fraction of the contrast.
        stain: largest change of the amount of each stain, as a fraction of it.
        orient: whether to mirror, and to turn by quarters.
        shift: largest translation, as a fraction of height and width; what comes in at a
            border is mirrored.
        colour: largest change of each of red, green and blue, as a fraction of it.

    Returns:
        Tensor likewise.

    Example:

    >>> image = tf.fill((4, 6, 3), tf.constant(100, tf.uint8))
    >>> changed = augment(image, [0, 1], brightness=0.1, contrast=0.2, shift=0.5)
    >>> tuple(changed.shape), changed.dtype.name
    ((4, 6, 3), 'uint8')
    """
    shape = image.shape
    random = tf.random.stateless_uniform([10], seed, -1, 1)
    brightness, contrast = brightness * random[0], contrast * random[1]
    if shift:
        border = [(round(shift * extent),) * 2 for extent in shape[:2]]
        image = tf.pad(image, [*border, (0, 0)], "SYMMETRIC")
        image = tf.image.stateless_random_crop(image, shape, seed)
    if orient:
        image = tf.image.rot90(image, tf.cast(2 * (random[2] + 1), tf.int32))
        image = tf.where(random[3] > 0, tf.reverse(image, [1]), image)
    image = tf.cast(image, tf.float32)
    if stain:
        # Light that comes through: its logarithm is linear in the amount of stain.
        amounts = tf.linalg.diag(1 + stain * random[4:7])
        mixing = np.linalg.inv(_STAINS) @ amounts @ _STAINS
        density = tf.math.log((image + 1) / 256)
        image = 256 * tf.exp(tf.tensordot(density, mixing, 1)) - 1
    if colour:
        image *= 1 + colour * random[7:10]
    mean = tf.reduce_mean(image)
    image = mean + (image - mean) * (1 + contrast) + 255 * brightness
    return tf.ensure_shape(tf.saturate_cast(tf.round(image), tf.uint8), shape)
