"""tf.data datasets of low-resolution views, with what the patches are taken from."""

import io
import os
import random
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_choice, check_count, check_flag, check_pair
from attention_sampling.data.labels import encode_labels
from attention_sampling.data.source import Source
from attention_sampling.data.view_cache import view_reader

# What tf.io decodes inside the graph; the rest goes through Pillow.
_TENSORFLOW_FORMATS = {".jpeg", ".jpg", ".png"}

# Variants of ``Dihedral``.
_VARIANTS = {"flips": (0, 1, 2, 3), "dihedral": (0, 1, 2, 3, 4, 5, 6, 7)}

_Indices = npt.NDArray[np.int32]


def view_dataset(
    source: Source,
    size: int | tuple[int, int],
    labels: Any = None,
    batch_size: int = 32,
    shuffle: bool = False,
    seed: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    indices: Any = None,
    shard: tuple[int, int] | None = None,
    drop_remainder: bool = False,
    augment: str | None = None,
) -> Any:
    """Read low-resolution views of images that stay on disk.

    For models that read their patches on demand, ``attention_sampling(source=...)``:
    beside each view there is the index of its image. Views are read in parallel while
    the model trains; only the batches about to be used are in memory.

    Args:
        source: images, such as ``attention_sampling.data.open_source`` gives.
        size: height and width of the views in pixels, one int or two; each pixel is
            the mean of the area it covers.
        labels: one entry for each image of the source, whatever ``indices`` and
            ``shard`` leave of it: array-like (count, ...) of numbers, or names of
            classes, which become their indices. None for those of the source, if it has
            any.
        batch_size: images a batch; the last batch may be smaller.
        shuffle: whether to shuffle all images anew for every epoch.
        seed: int for the same orders every time, whatever the global seeds; None for
            others, unless ``keras.utils.set_random_seed`` was called.
        cache: None to read each view in every epoch. ``"memory"`` to keep views for as
            long as the dataset lives, height * width * channels * 4 bytes each. A
            directory to keep them there, for later runs and for several processes:
            views of a file that was changed since are made anew. A directory needs a
            source whose images are in files.
        indices: (chosen,) indices of the images to go through, such as the training
            part of a split; None for all.
        shard: (workers, index of this worker) to go through one worker's part: the
            parts have no image in common, are all images together, and stay the same
            in every epoch. tf.distribute does not divide such a dataset again.
        drop_remainder: whether to leave a smaller last batch out.
        augment: of a source ``Dihedral(images)``, from which the model reads its patches
            too: ``"dihedral"`` to flip and turn every image anew in every epoch,
            ``"flips"`` without quarter turns, which keeps height and width, None to take
            the images as they are. Everything else (``labels``, ``indices``) is about the
            images as they are.

    Returns:
        ``tf.data.Dataset`` of ``((views, index), labels)``: (batch, height, width, channels)
        float32 on the scale of the images, (batch,) int32 indices into the source, and
        (batch, ...) of the dtype of ``labels``. Without labels, of ``((views, index),)``,
        which ``model.predict`` takes for inputs alone. Its ``class_names`` are those that
        labels of text stand for, or None. Call ``model.fit`` with
        ``shuffle=False``, or Keras warns that it leaves the order to the dataset.

        An image that cannot be read ends the iteration with a
        ``tf.errors.UnknownError`` that holds the text of the ``SourceError``. A view
        that is kept is not read: its image may have gone.

    Raises:
        OSError: the directory of the cache cannot be made.
        TypeError: no source; a directory for a source that is not in files.
        ValueError: labels that are no numbers or not one for each image; a view larger
            than an image; wrong ``indices``, ``shard`` or ``seed``; no whole batch.

    Example:

    >>> from attention_sampling.data import ArraySource
    >>> source = ArraySource(np.zeros((5, 60, 80, 3), "uint8"))
    >>> dataset = view_dataset(source, (6, 8), [0, 1, 2, 3, 4], batch_size=2)
    >>> len(dataset)
    3
    >>> for (view, index), label in view_dataset(source, 6, range(5), indices=[3, 1]):
    ...     print(view.shape, index.numpy(), label.numpy())
    (2, 6, 6, 3) [3 1] [3 1]

    Reference:
        Katharopoulos and Fleuret 2019, section 3.3, V(x, s).
    """
    import tensorflow as tf

    if not isinstance(source, Source):
        raise TypeError(
            "`source` must be a Source: attention_sampling.data.open_source makes one of "
            f"files, ArraySource of arrays. Received: source of {type(source)}"
        )
    height, width = check_pair("size", size)
    count = len(source) // source.variants
    chosen = choose_images(count, indices, shard)
    variants = _check_augment(augment, source)
    check_count("batch_size", batch_size, smallest=1)
    check_flag("shuffle", shuffle)
    check_flag("drop_remainder", drop_remainder)
    _check_views(source, (height, width), chosen)
    if max(variants) >= 4:  # quarter turns
        _check_views(source, (width, height), chosen)
    if drop_remainder and len(chosen) < batch_size:
        raise ValueError(
            "With `drop_remainder`, there must be at least one whole batch. Received: "
            f"batch_size={batch_size}, {len(chosen)} images"
        )
    class_names = source.class_names
    if labels is None:
        labels = source.labels
    if labels is not None:
        labels, class_names = encode_labels(labels, class_names)
        labels = tf.constant(_check_labels(labels, count))
    next_epoch = _choose_variants(
        image_order(chosen, shuffle, seed), count, variants, seed
    )
    read_view = view_reader(source, (height, width), cache)
    # TensorFlow keeps functions for ever: the dataset keeps the views instead.
    kept = weakref.ref(read_view)

    def order(_: Any) -> Any:
        epoch = tf.numpy_function(next_epoch, [], tf.int32)
        return tf.data.Dataset.from_tensor_slices(
            tf.ensure_shape(epoch, (len(chosen),))
        )

    def read_kept(index: Any) -> Any:
        reader = kept()
        if reader is None:  # an iterator that has outlived its dataset
            return source.read_view(int(index), (height, width))
        return reader(int(index))

    def read(index: Any) -> Any:
        view = tf.numpy_function(read_kept, [index], tf.float32)
        inputs = tf.ensure_shape(view, (height, width, source.channels)), index
        if labels is None:
            return (inputs,)
        return inputs, tf.gather(labels, index % count)

    # The order comes first: indices are shuffled, not views.
    dataset = tf.data.Dataset.from_tensors(0).flat_map(order)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(chosen)))
    dataset = dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    dataset._attention_sampling_views = read_view
    dataset = dataset.batch(batch_size, drop_remainder=drop_remainder)
    if shard is not None:
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.OFF
        )
        dataset = dataset.with_options(options)
    dataset = without_autotuning(dataset.prefetch(1))
    dataset.class_names = class_names
    return dataset


def _check_augment(augment: str | None, source: Source) -> tuple[int, ...]:
    """Return the variants of an image to choose from."""
    check_choice("augment", augment, (None, *_VARIANTS))
    if augment is None:
        return (0,)
    if source.variants == 1:
        raise ValueError(
            "To augment, the views and the patches must come from the same flipped "
            "images: source = Dihedral(source), both for view_dataset and for "
            f"attention_sampling. Received: augment={augment!r}, source={source!r}"
        )
    return _VARIANTS[augment]


def _choose_variants(
    next_epoch: Callable[[], _Indices],
    count: int,
    variants: tuple[int, ...],
    seed: int | None,
) -> Callable[[], _Indices]:
    """Return what gives, for each image of an epoch, the index of one of its variants."""
    if variants == (0,):
        return next_epoch
    generator = np.random.default_rng(random.randrange(2**32) if seed is None else seed)

    def next_indices() -> _Indices:
        images = next_epoch()
        chosen = generator.choice(variants, size=len(images))
        return (images + count * chosen).astype("int32")

    return next_indices


def _check_views(source: Source, size: tuple[int, int], chosen: _Indices) -> None:
    """Refuse images smaller than their views before any is read."""
    for index in chosen.tolist():
        extents = source.levels(index)[0]
        if size[0] > extents[0] or size[1] > extents[1]:
            raise ValueError(
                "The view must not be larger than the image. Received: "
                f"size={size}, image {index}, {source.names[index]!r}, of {extents}"
            )


def _check_labels(labels: Any, count: int) -> Any:
    """Return labels as an array of one entry for each image of a source."""
    labels = np.asarray(labels)
    if labels.shape[:1] != (count,) or labels.dtype.kind not in "biuf":
        raise ValueError(
            "`labels` must be numbers, one entry for each image of the source, "
            f"{count} of them, also if `indices` or `shard` choose some. Received: "
            f"labels of shape {labels.shape}, {labels.dtype}"
        )
    return labels


def choose_images(
    count: int,
    indices: npt.ArrayLike | None = None,
    shard: tuple[int, int] | None = None,
) -> _Indices:
    """Return the indices of the images of a subset, or of one worker's part of it.

    The parts of all workers are together everything; sizes differ by one at most.

    Example:

    >>> choose_images(5, shard=(2, 1)).tolist()
    [1, 3]
    """
    chosen = np.arange(count) if indices is None else np.asarray(indices)
    if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
        raise ValueError(
            "`indices` must be integers of shape (chosen,), for one image or more; of a "
            "mask, np.flatnonzero gives them. Received: indices of shape "
            f"{chosen.shape}, {chosen.dtype}"
        )
    if chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(
            f"`indices` must be 0 to {count - 1}. Received: indices from "
            f"{chosen.min()} to {chosen.max()}"
        )
    if shard is None:
        return chosen.astype("int32")
    if not isinstance(shard, tuple | list) or len(shard) != 2:
        raise ValueError(
            "`shard` must be a pair: how many workers there are, and the index of this "
            f"one. Received: shard={shard!r}"
        )
    workers = check_count("shard[0]", shard[0], smallest=1)
    worker = check_count("shard[1]", shard[1], smallest=0)
    if worker >= workers or workers > len(chosen):
        raise ValueError(
            "Workers count from 0, and each needs an image. Received: "
            f"shard={(workers, worker)}, {len(chosen)} images"
        )
    return chosen[worker::workers].astype("int32")


def image_order(
    indices: _Indices, shuffle: bool = False, seed: int | None = None
) -> Callable[[], _Indices]:
    """Return a function that gives the images of the next epoch in their order.

    Without a seed, one is taken from Python's ``random``, which
    ``keras.utils.set_random_seed`` seeds.

    Example:

    >>> next_epoch = image_order(np.arange(4, dtype="int32"), shuffle=True, seed=0)
    >>> next_epoch().tolist(), next_epoch().tolist()
    ([2, 0, 1, 3], [3, 2, 1, 0])
    """
    if not shuffle:
        return lambda: indices
    if seed is None:
        seed = random.randrange(2**32)
    generator = np.random.default_rng(check_count("seed", seed, smallest=0))
    return lambda: generator.permutation(indices)


def view_and_image_dataset(
    paths: Sequence[str],
    labels: Sequence[int],
    image_size: tuple[int, int],
    view_size: tuple[int, int],
    batch_size: int,
    shuffle_seed: int | None = None,
    augment: Callable[[Any], Any] | None = None,
) -> Any:
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
        ``tf.data.Dataset`` of ``((views, images), labels)``: (batch, low_height, low_width, 3)
        float32 in 0 to 255, (batch, height, width, 3) uint8, and (batch,) int32.

    Raises:
        ValueError: not as many labels as paths, or none; a view larger than
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
    import tensorflow as tf

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
    decode = image_decoder(paths)

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
    dataset = dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE)
    return without_autotuning(dataset.batch(batch_size).prefetch(1))


def without_autotuning(dataset: Any) -> Any:
    """Return a ``tf.data.Dataset`` that does not tune itself.

    In TensorFlow 2.21 the end of an epoch may wait for the thread that tunes, about as long
    as the epoch took, up to a minute. Without it ``AUTOTUNE`` is the number of processors.

    Args:
        dataset: of which a training takes its batches.

    Example:

    >>> import tensorflow as tf
    >>> dataset = without_autotuning(tf.data.Dataset.range(3).batch(2))
    >>> dataset.options().autotune.enabled
    False
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def image_decoder(paths: Sequence[str]) -> Callable[[Any], Any]:
    """Choose how to decode image files: in the graph where TensorFlow knows every format.

    Args:
        paths: the files; JPEG, PNG, or what Pillow reads.

    Returns:
        Callable from the bytes of a file, a string tensor, to its pixels (height, width, 3)
        uint8. It raises an error of TensorFlow for what cannot be decoded.

    Example:

    >>> decode = image_decoder(["photo.jpg", "scan.ppm"])
    """
    import tensorflow as tf

    if {Path(path).suffix.lower() for path in paths} <= _TENSORFLOW_FORMATS:
        return lambda data: tf.io.decode_image(data, 3, expand_animations=False)
    return lambda data: tf.numpy_function(_decode_with_pillow, [data], tf.uint8)


def _decode_with_pillow(data: Any) -> Any:
    from PIL import Image

    # Bytes in a graph, and an array of them outside of one. Not one of NumPy's strings,
    # which end before the zeros at the end of a file.
    with Image.open(io.BytesIO(np.asarray(data, object).item())) as image:
        return np.asarray(image.convert("RGB"))
