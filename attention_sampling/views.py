"""tf.data datasets of low-resolution views beside their full-resolution images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

# What tf.io decodes inside the graph; the rest goes through Pillow.
_TENSORFLOW_FORMATS = {".jpeg", ".jpg", ".png"}


def view_and_image_dataset(
    paths: Sequence[str],
    labels: Sequence[int],
    image_size: tuple[int, int],
    view_size: tuple[int, int],
    batch_size: int,
    shuffle_seed: int | None = None,
    augment: Callable[[Any], Any] | None = None,
) -> tf.data.Dataset:
    """Read images from files and pair each with its low-resolution view.

    Files are read, decoded and augmented in parallel while the model trains; only the
    batches about to be used are in memory. The view is made after augmentation, so
    that both show the same picture.

    Args:
        paths: image files of one size; JPEG, PNG, BMP, or what Pillow reads.
        labels: one int for each path.
        image_size: (height, width) of the images, in pixels.
        view_size: (height, width) of the views, in pixels; each pixel is the mean of
            the area it covers.
        batch_size: images a batch; the last batch may be smaller.
        shuffle_seed: int to shuffle anew in every epoch, None to keep the order.
        augment: callable from one image (height, width, 3), uint8, to one of the same
            shape, in pixels 0 to 255 of any dtype.

    Returns:
        Dataset of ``((views, images), labels)``: (batch, low_height, low_width, 3)
        float32 in 0 to 255, (batch, height, width, 3) uint8, and (batch,) int32.

    Raises:
        ValueError: paths and labels of different number, or none; a view larger than
            the image.

    Example:

    >>> dataset = view_and_image_dataset(
    ...     ["a.jpg", "b.jpg"], [0, 1], (960, 1280), (288, 384), batch_size=2
    ... )
    >>> (view, image), label = dataset.element_spec
    >>> view.shape, image.shape, image.dtype.name
    (TensorShape([None, 288, 384, 3]), TensorShape([None, 960, 1280, 3]), 'uint8')

    Reference:
        Katharopoulos and Fleuret 2019, section 3.3, V(x, s).
    """
    if len(paths) != len(labels) or not paths:
        raise ValueError(
            "`paths` and `labels` must hold one entry for each image, and at least one. "
            f"Received: {len(paths)} paths, {len(labels)} labels"
        )
    if any(low > high for low, high in zip(view_size, image_size, strict=True)):
        raise ValueError(
            "The view must not be larger than the image. "
            f"Received: view_size={view_size}, image_size={image_size}"
        )
    decode = _decoder(paths)

    def read(path: Any, label: Any) -> Any:
        image = decode(tf.io.read_file(path))
        image = tf.ensure_shape(image, (*image_size, 3))
        if augment is not None:
            image = augment(image)
            image = tf.saturate_cast(tf.round(image), tf.uint8)
        view = tf.image.resize(image, view_size, method="area")
        return (view, image), label

    dataset = tf.data.Dataset.from_tensor_slices(
        (list(map(str, paths)), tf.constant(labels, "int32"))
    )
    if shuffle_seed is not None:
        dataset = dataset.shuffle(len(paths), seed=shuffle_seed)
    return (
        dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(1)
    )


def _decoder(paths: Sequence[str]) -> Callable[[Any], Any]:
    """Choose how to decode: inside the graph where TensorFlow knows every format."""
    if {Path(path).suffix.lower() for path in paths} <= _TENSORFLOW_FORMATS:
        return lambda data: tf.io.decode_image(data, 3, expand_animations=False)
    return lambda data: tf.numpy_function(_decode_with_pillow, [data], tf.uint8)


def _decode_with_pillow(data: bytes) -> Any:
    import io

    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
