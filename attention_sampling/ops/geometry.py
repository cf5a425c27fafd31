"""Geometry: from a cell of the attention map to a window of the full-resolution image.

Rows before columns everywhere. Window positions are exact: they are computed in
integers, with one rounding at the end.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops


def window_origins(
    cells: Any,
    attention_size: tuple[Any, Any],
    low_size: tuple[Any, Any],
    high_size: tuple[Any, Any],
    patch_size: tuple[int, int],
    receptive_field: int = 0,
) -> Any:
    """Place the window of each sampled cell in the full-resolution image.

    The attention map covers the low-resolution view less the border that a network
    without padding loses (``receptive_field`` pixels in all, half at each side). The
    window is centred on the centre of the cell, scaled to full resolution.

    Args:
        cells: (batch, n_patches) int32 tensor, flat indices into rows x columns.
        attention_size: (rows, columns) of the attention map.
        low_size: (height, width) of the low-resolution view, in pixels.
        high_size: (height, width) of the full-resolution image, in pixels.
        patch_size: (height, width) of the window, in full-resolution pixels.
        receptive_field: pixels of the view that one cell of the attention map sees
            before any pooling; 0 if the map covers the whole view.

    Each size may hold ints, or scalar tensors where it is not known before the graph
    runs.

    Returns:
        (batch, n_patches, 2) int32 tensor: row and column of each window's top-left
        pixel, in full-resolution pixels. May be negative.

    Example:

    >>> cells = keras.ops.array([[12, 0]])
    >>> origins = window_origins(cells, (25, 25), (100, 100), (1000, 1000), (50, 50))
    >>> keras.ops.convert_to_numpy(origins).tolist()
    [[[-5, 475], [-5, -5]]]

    Reference:
        Katharopoulos and Fleuret 2019, section 3.3, P(x, i).
    """
    columns = attention_size[1]
    axes = [
        _axis_origins(attention, low, high, patch, receptive_field)
        for attention, low, high, patch in zip(
            attention_size, low_size, high_size, patch_size, strict=True
        )
    ]
    return ops.stack(
        [ops.take(axes[0], cells // columns), ops.take(axes[1], cells % columns)],
        axis=-1,
    )


def _axis_origins(
    attention: Any, low: Any, high: Any, patch: int, receptive_field: int
) -> Any:
    """Return the (attention,) int32 origins of the windows along one axis.

    With z = high / low and step = (low - q) z / attention, cell i starts its window at
    q/2 z + i step + step/2 - patch/2. Over the common denominator 2 low attention:
    """
    if all(isinstance(extent, int) for extent in (attention, low, high)):
        cell = np.arange(attention, dtype="int64")
    else:
        # Sizes unknown before the graph runs occur on TensorFlow only, whose
        # integers have 64 bits where asked for.
        attention, low, high = (
            ops.cast(extent, "int64") for extent in (attention, low, high)
        )
        cell = ops.arange(attention, dtype="int64")
    return ops.cast(
        _origin(cell, attention, low, high, patch, receptive_field), "int32"
    )


def window_origins_by_image(
    cells: npt.NDArray[Any],
    attention_size: tuple[int, int],
    low_size: tuple[int, int],
    high_sizes: npt.NDArray[Any],
    patch_size: tuple[int, int],
    receptive_field: int = 0,
) -> npt.NDArray[np.int32]:
    """Place the windows in images of different sizes, in NumPy.

    Args:
        cells: (batch, n_patches) int array, flat indices into rows x columns.
        attention_size: (rows, columns) of the attention map.
        low_size: (height, width) of the views, in pixels.
        high_sizes: (batch, 2) int array, height and width of each image in pixels.
        patch_size: (height, width) of the windows, in full-resolution pixels.
        receptive_field: as of ``window_origins``.

    Returns:
        (batch, n_patches, 2) array as of ``window_origins``.

    Example:

    >>> cells, sizes = np.array([[12], [12]]), np.array([[1000, 1000], [500, 2000]])
    >>> window_origins_by_image(cells, (25, 25), (100, 100), sizes, (50, 50)).tolist()
    [[[-5, 475]], [[-15, 975]]]
    """
    cells, sizes = cells.astype("int64"), high_sizes.astype("int64")
    positions = (cells // attention_size[1], cells % attention_size[1])
    axes = [
        _origin(position, attention, low, high[:, None], patch, receptive_field)
        for position, attention, low, high, patch in zip(
            positions, attention_size, low_size, sizes.T, patch_size, strict=True
        )
    ]
    return np.stack(axes, axis=-1).astype("int32")


def _origin(
    cell: Any, attention: Any, low: Any, high: Any, patch: int, receptive_field: int
) -> Any:
    """Return where along an axis the window of a cell begins, in 64-bit integers."""
    numerator = (
        receptive_field * high * attention
        + (2 * cell + 1) * ((low - receptive_field) * high)
        - patch * low * attention
    )
    return _divide_half_even(numerator, 2 * low * attention)


def _divide_half_even(numerator: Any, denominator: Any) -> Any:
    """Divide integers and round to nearest, halves to even."""
    quotient = numerator // denominator
    remainder = 2 * (numerator - quotient * denominator)
    up = (remainder > denominator) | ((remainder == denominator) & (quotient % 2 == 1))
    if isinstance(quotient, np.ndarray):
        return quotient + up
    return quotient + ops.cast(up, quotient.dtype)


def cell_means(
    values: Any,
    attention_size: tuple[Any, Any],
    low_size: tuple[Any, Any],
    receptive_field: int = 0,
) -> Any:
    """Average an image over each cell of the attention map.

    Args:
        values: (batch, any height, any width) float tensor that covers the view. Along
            an axis where it has the size of the attention map, its pixels are taken for
            the cells.
        attention_size: (rows, columns) of the attention map.
        low_size: (height, width) of the low-resolution view, in pixels.
        receptive_field: pixels of the view that one cell of the attention map sees
            before any pooling; 0 if the map covers the whole view.

    Returns:
        (batch, rows, columns) tensor.

    Example:

    >>> values = keras.ops.array([[[1.0, 3.0, 5.0, 7.0]]])
    >>> keras.ops.convert_to_numpy(cell_means(values, (1, 2), (1, 4)))
    array([[[2., 6.]]], dtype=float32)
    """
    known = all(isinstance(size, int) for size in attention_size)
    if known and tuple(values.shape[1:]) == tuple(attention_size):
        return values
    rows, columns = (
        _axis_shares(extent, attention, low, receptive_field)
        for extent, attention, low in zip(
            ops.shape(values)[1:], attention_size, low_size, strict=True
        )
    )
    return ops.matmul(ops.matmul(rows, values), ops.transpose(columns))


def _axis_shares(extent: Any, attention: Any, low: Any, receptive_field: int) -> Any:
    """Return the (attention, extent) shares of each cell that lie in each pixel."""
    pixel = ops.cast(ops.arange(extent), "float32")
    cell = ops.cast(ops.arange(attention), "float32")[:, None]
    extent, attention, low = (
        ops.cast(size, "float32") for size in (extent, attention, low)
    )
    # Without a border, values of the size of the map are the cells themselves.
    border = ops.where(extent == attention, 0.0, float(receptive_field))
    step = (low - border) / attention
    scale = extent / low
    start = (border / 2.0 + cell * step) * scale
    end = start + step * scale
    overlap = ops.minimum(end, pixel + 1.0) - ops.maximum(start, pixel)
    overlap = ops.maximum(overlap, 0.0)
    return overlap / ops.sum(overlap, axis=1, keepdims=True)


def means_around(x: Any, window: tuple[int, int]) -> Any:
    """Average images over a window around each pixel.

    Args:
        x: (batch, height, width, channels) float tensor.
        window: (height, width) of the window, in pixels.

    Returns:
        Tensor of the shape of ``x``; pixels outside count as the nearest inside.
    """
    for axis, length in zip((1, 2), window, strict=True):
        extent = ops.shape(x)[axis]
        position = ops.arange(extent + length - 1, dtype="int32") - (length - 1) // 2
        x = ops.take(x, ops.clip(position, 0, extent - 1), axis=axis)
    return ops.average_pool(x, window, strides=1, padding="valid")
