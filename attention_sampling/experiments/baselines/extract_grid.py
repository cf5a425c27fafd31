"""All patches of a regular grid over an image."""

import keras
import numpy as np
from keras import ops

from attention_sampling.checks import check_images, check_pair
from attention_sampling.ops import geometry


@keras.saving.register_keras_serializable(package="attention_sampling")
class ExtractGrid(keras.layers.Layer):
    """Take the patches of a regular grid out of full-resolution images.

    The grid divides the image into equal cells, and a window is centred on each: the
    places ``SamplePatches`` would take for an attention map of that size. Pixels outside
    the image are zero. The images keep their dtype: uint8 images stay uint8.

    Args:
        patch_size: height and width of the windows in pixels, one int or two.
        grid_size: rows and columns of windows, one int or two.

    Input shape:
        (batch, height, width, channels) images of any dtype, height and width known.

    Output shape:
        (batch, rows x columns, patch_height, patch_width, channels), dtype of the input,
        row by row.

    Raises:
        ValueError: sizes that are not positive; an input that is no batch of
            channels-last images, or whose height, width or channels are not known.

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
        tops, lefts = self.origins(inputs.shape[1:3])
        extents = zip((tops, lefts), inputs.shape[1:3], self.patch_size, strict=True)
        margins = [_margin(*axis) for axis in extents]
        images = ops.pad(inputs, [(0, 0), *margins, (0, 0)])
        tops, lefts = tops + margins[0][0], lefts + margins[1][0]
        # Whole rows are one run of memory each, and a few slices of all of them cost
        # less than a gather of short runs: 5 to 10 times faster than pixel by pixel.
        height, width = self.patch_size
        images = ops.take(images, tops[:, None] + np.arange(height), axis=1)
        patches = [images[:, :, :, left : left + width] for left in lefts.tolist()]
        return ops.reshape(ops.stack(patches, axis=2), (-1, *shape[1:]))

    def origins(self, image_size):
        """Return where the windows begin.

        Args:
            image_size: (height, width) of the images, in pixels.

        Returns:
            Two int32 NumPy arrays: the top row of each row of windows, and the left
            column of each column, in pixels. They may lie outside the image.
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
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "grid_size": self.grid_size,
        }


def _margin(origins, extent, patch):
    """Return by how much the windows reach over the image at both ends of an axis."""
    return max(0, -int(origins[0])), max(0, int(origins[-1]) + patch - extent)
