"""Patches: windows out of full-resolution images in a tensor."""

from typing import Any

import keras
from keras import ops

from attention_sampling import backend
from attention_sampling.checks import check_pair


def extract_patches(
    x_high: Any, origins: Any, patch_size: int | tuple[int, int]
) -> Any:
    """Take windows out of full-resolution images; pixels outside are zero.

    Args:
        x_high: (batch, height, width, channels) tensor of any float dtype, uint8 or
            uint16.
        origins: (batch, n_patches, 2) int tensor: row and column of each window's
            top-left pixel, in pixels. May lie outside the image.
        patch_size: height and width of the windows in pixels, one int or two.

    Returns:
        (batch, n_patches, patch_height, patch_width, channels) tensor of the dtype of
        ``x_high``.

    Raises:
        ValueError: other shapes; a patch size that is not positive; a batch of 2**31 pixels or more on a backend without 64-bit
            integers.

    Example:

    >>> image = keras.ops.reshape(keras.ops.arange(16), (1, 4, 4, 1))
    >>> patches = extract_patches(image, keras.ops.array([[[2, 3]]]), (2, 2))
    >>> keras.ops.convert_to_numpy(patches)[0, 0, :, :, 0].tolist()
    [[11, 0], [15, 0]]
    """
    patch_size = check_pair("patch_size", patch_size)
    if len(x_high.shape) != 4 or len(origins.shape) != 3 or origins.shape[2] != 2:
        raise ValueError(
            "Expected: images (batch, height, width, channels) and origins (batch, "
            f"n_patches, 2). Received: x_high.shape={tuple(x_high.shape)}, "
            f"origins.shape={tuple(origins.shape)}"
        )
    batch, height, width, channels = ops.shape(x_high)
    origins = ops.cast(origins, "int32")
    rows = origins[..., 0, None] + ops.arange(patch_size[0], dtype="int32")
    columns = origins[..., 1, None] + ops.arange(patch_size[1], dtype="int32")
    # Columns and channels as one axis: to broadcast along a short last axis is slow.
    inside = (
        _inside(rows, height)[..., :, None],
        ops.repeat(_inside(columns, width), channels, axis=-1)[..., None, :],
    )
    # A batched gather of pixels: one flat index into all pixels of the batch.
    dtype = _index_dtype(batch, height, width)
    image = ops.reshape(ops.arange(batch, dtype=dtype), (-1, 1, 1))
    if keras.backend.standardize_dtype(image.dtype) != dtype:
        raise ValueError(
            "A batch of 2**31 pixels or more needs 64-bit integers, which this backend "
            "has switched off. Use a smaller batch. "
            f"Received: x_high.shape={tuple(x_high.shape)}"
        )
    rows = ops.cast(ops.clip(rows, 0, height - 1), dtype)
    columns = ops.cast(ops.clip(columns, 0, width - 1), dtype)
    height, width = ops.cast(height, dtype), ops.cast(width, dtype)
    pixels = ((rows + image * height) * width)[..., :, None] + columns[..., None, :]
    patches = backend.gather_rows(ops.reshape(x_high, (-1, channels)), pixels)
    shape = (-1, *ops.shape(pixels)[1:], channels)
    patches = ops.reshape(patches, (*shape[:3], patch_size[1] * channels))
    return ops.reshape(_zero_outside(patches, *inside), shape)


def fold_patches(patches: Any) -> Any:
    """Return the patches of all images as one batch for a feature network.

    Args:
        patches: (batch, n_patches, patch_height, patch_width, channels) tensor.

    Returns:
        (batch x n_patches, patch_height, patch_width, channels) tensor of floats;
        integer pixels become floats of the same values.

    Example:

    >>> patches = fold_patches(keras.ops.ones((2, 3, 8, 8, 1), dtype="uint8"))
    >>> tuple(patches.shape), keras.backend.standardize_dtype(patches.dtype)
    ((6, 8, 8, 1), 'float32')
    """
    folded = ops.reshape(patches, (-1, *patches.shape[2:]))
    if "int" in keras.backend.standardize_dtype(folded.dtype):
        folded = ops.cast(folded, keras.config.floatx())
    return folded


def _zero_outside(values: Any, inside_rows: Any, inside_columns: Any) -> Any:
    """Return the values, and zero where the row or the column is not inside."""
    if keras.backend.standardize_dtype(values.dtype) == "uint8":
        # Faster than to choose. In floats 0 times infinity is not 0.
        for inside in (inside_rows, inside_columns):
            values = values * ops.cast(inside, values.dtype)
        return values
    inside = inside_rows & inside_columns
    return ops.where(inside, values, ops.zeros((), dtype=values.dtype))


def _inside(positions: Any, extent: Any) -> Any:
    return (positions >= 0) & (positions < extent)


def _index_dtype(batch: Any, height: Any, width: Any) -> str:
    """Return the narrowest int dtype that counts all pixels of a batch."""
    if not all(isinstance(extent, int) for extent in (batch, height, width)):
        return "int64"
    return "int32" if batch * height * width < 2**31 else "int64"
