"""Deep MIL: the features of every patch of a grid, pooled by attention."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from attention_sampling.checks import check_count, check_images, check_pair
from attention_sampling.ops import geometry
from attention_sampling.ops.patches import fold_patches


def deep_mil(
    feature: Callable[[Any], Any],
    patch_size: int | tuple[int, int],
    grid_size: int | tuple[int, int],
    units: int = 128,
    gated: bool = False,
) -> Callable[[Any], list[Any]]:
    """Stack the patches of a grid, a feature network and attention pooling.

    The baseline that looks at everything in full resolution, in time and memory that
    grow with the image. For a functional model: layers are made once, at this call.

    Args:
        feature: layer, model or callable from patches (any batch, patch_height,
            patch_width, channels) to features (any batch, dim), that of attention
            sampling. Integer pixels reach it as floats of the same values.
        patch_size: height and width of the patches in pixels, one int or two.
        grid_size: rows and columns of patches, one int or two.
        units: dimension of the hidden layer of the attention.
        gated: use the gated attention.

    Returns:
        Callable from images (batch, height, width, channels) to ``[features, attention,
        patches]``: the pooled feature (batch, dim), not normalized again, the attention
        map (batch, rows, columns), and the patches (batch, rows x columns,
        patch_height, patch_width, channels) in the dtype of the images.

    Example:

    >>> feature = keras.Sequential(
    ...     [keras.Input((27, 27, 3)), keras.layers.GlobalAveragePooling2D()]
    ... )
    >>> images = keras.Input((500, 500, 3), dtype="uint8")
    >>> features, attention, patches = deep_mil(feature, 27, (50, 50))(images)
    >>> features.shape, attention.shape, patches.shape
    ((None, 3), (None, 50, 50), (None, 2500, 27, 27, 3))

    Reference:
        Ilse et al. 2018, *Attention-based deep multiple instance learning*; the
        baseline of Katharopoulos and Fleuret 2019, section 4.1.1.
    """
    extract = ExtractGrid(patch_size, grid_size)
    pool = AttentionPooling(units, gated)
    rows, columns = extract.grid_size

    def apply(images: Any) -> list[Any]:
        patches = extract(images)
        features = feature(fold_patches(patches))
        features = ops.reshape(features, (-1, rows * columns, features.shape[-1]))
        pooled, attention = pool(features)
        return [pooled, ops.reshape(attention, (-1, rows, columns)), patches]

    return apply


@keras.saving.register_keras_serializable(package="attention_sampling")
class ExtractGrid(keras.layers.Layer):
    """Take the patches of a regular grid out of full-resolution images.

    The grid divides the image into equal cells, and a window is centred on each: the
    windows that ``SamplePatches`` would take for an attention map of that size. Pixels
    outside the image are zero. The images keep their dtype: uint8 images stay uint8.

    Args:
        patch_size: height and width of the windows in pixels, one int or two.
        grid_size: rows and columns of windows, one int or two.

    Input shape:
        (batch, height, width, channels) images of any dtype, height and width known.

    Output shape:
        (batch, rows x columns, patch_height, patch_width, channels), dtype of the input,
        row by row.

    Example:

    >>> images = keras.ops.ones((1, 500, 500, 3), dtype="uint8")
    >>> tuple(ExtractGrid(patch_size=27, grid_size=50)(images).shape)
    (1, 2500, 27, 27, 3)

    Reference:
        Katharopoulos and Fleuret 2019, section 4.1.1, the patches of Deep MIL.
    """

    def __init__(self, patch_size, grid_size, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.patch_size = check_pair("patch_size", patch_size)
        self.grid_size = check_pair("grid_size", grid_size)

    def call(self, inputs):
        shape = self.compute_output_shape(inputs.shape)
        starts = self.origins(inputs.shape[1:3])
        extents = zip(starts, inputs.shape[1:3], self.patch_size, strict=True)
        margins = [
            (max(0, -int(start[0])), max(0, int(start[-1]) + patch - extent))
            for start, extent, patch in extents
        ]
        images = ops.pad(inputs, [(0, 0), *margins, (0, 0)])
        tops, lefts = (
            start + margin[0] for start, margin in zip(starts, margins, strict=True)
        )
        # Whole rows are one run of memory each, and a few slices of all of them cost
        # less than a gather of short runs: 5 to 10 times faster than pixel by pixel.
        height, width = self.patch_size
        images = ops.take(images, tops[:, None] + np.arange(height), axis=1)
        patches = [images[:, :, :, left : left + width] for left in lefts.tolist()]
        return ops.reshape(ops.stack(patches, axis=2), (-1, *shape[1:]))

    def origins(self, image_size):
        """Return the top row of each row of windows, and the left column of each column.

        In pixels of images of (height, width) ``image_size``; they may be outside.
        """
        rows, columns = self.grid_size
        cells = np.arange(rows * columns).reshape(1, -1)
        size = tuple(image_size)
        origins = geometry.window_origins_by_image(
            cells, self.grid_size, size, np.array([size]), self.patch_size
        )[0]
        return origins[::columns, 0], origins[:columns, 1]

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), inputs.dtype)

    def compute_output_shape(self, input_shape):
        check_images("inputs", tuple(input_shape))
        if None in input_shape[1:]:
            raise ValueError(
                "A grid needs images of a known size. Expected: inputs of shape (batch, "
                "height, width, channels), None for the batch alone. "
                f"Received: inputs.shape={tuple(input_shape)}"
            )
        rows, columns = self.grid_size
        return (input_shape[0], rows * columns, *self.patch_size, input_shape[-1])

    def get_config(self):
        sizes = {"patch_size": self.patch_size, "grid_size": self.grid_size}
        return {**super().get_config(), **sizes}


@keras.saving.register_keras_serializable(package="attention_sampling")
class AttentionPooling(keras.layers.Layer):
    """Average the features of all patches, weighted by an attention on the features.

    The attention of Deep MIL. Unlike attention sampling it needs the features of every
    patch before it knows which of them count. Softmax and average are computed in
    float32 at least, also under mixed precision.

    Args:
        units: dimension of the hidden layer of the attention.
        gated: multiply the hidden layer by a sigmoid gate of the same size.

    Input shape:
        (batch, count, dim) features, any float dtype.

    Output shape:
        ``[pooled, attention]``: (batch, dim) and (batch, count), float32 at least. The
        attention of each sample sums to 1.

    Example:

    >>> features = keras.ops.ones((2, 2500, 512))
    >>> pooled, attention = AttentionPooling()(features)
    >>> tuple(pooled.shape), tuple(attention.shape)
    ((2, 512), (2, 2500))

    Reference:
        Ilse et al. 2018, *Attention-based deep multiple instance learning*, eq. 7 to 9.
    """

    def __init__(self, units=128, gated=False, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.units = check_count("units", units, smallest=1)
        self.gated = bool(gated)

    def build(self, input_shape):
        self.compute_output_shape(input_shape)
        shape = (input_shape[-1], self.units)
        self.hidden_kernel = self.add_weight(shape, name="hidden_kernel")
        if self.gated:
            self.gate_kernel = self.add_weight(shape, name="gate_kernel")
        self.score_kernel = self.add_weight((self.units, 1), name="score_kernel")
        self.built = True

    def call(self, inputs):
        features = ops.cast(inputs, self.compute_dtype)
        hidden = ops.tanh(self._project(features, self.hidden_kernel))
        if self.gated:
            hidden = hidden * ops.sigmoid(self._project(features, self.gate_kernel))
        scores = self._project(hidden, self.score_kernel)[..., 0]
        dtype = self._dtype(inputs)
        attention = ops.softmax(ops.cast(scores, dtype), axis=-1)
        pooled = ops.matmul(attention[:, None], ops.cast(inputs, dtype))[:, 0]
        return [pooled, attention]

    def _project(self, x, kernel):
        return ops.matmul(x, ops.cast(kernel, self.compute_dtype))

    def _dtype(self, inputs):
        return keras.backend.result_type(inputs.dtype, "float32")

    def compute_output_spec(self, inputs):
        shapes = self.compute_output_shape(inputs.shape)
        return [keras.KerasTensor(shape, self._dtype(inputs)) for shape in shapes]

    def compute_output_shape(self, input_shape):
        if len(input_shape) != 3 or input_shape[-1] is None:
            raise ValueError(
                "Attention pooling needs one vector a patch. Expected: inputs of shape "
                "(batch, count, dim), dim known. "
                f"Received: inputs.shape={tuple(input_shape)}"
            )
        batch, count, dim = input_shape
        return [(batch, dim), (batch, count)]

    def get_config(self):
        return {**super().get_config(), "units": self.units, "gated": self.gated}
