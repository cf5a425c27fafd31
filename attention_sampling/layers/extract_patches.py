"""Take full-resolution patches at given places."""

import keras

from attention_sampling import windows
from attention_sampling.checks import check_pair
from attention_sampling.input_checks import check_images, check_inputs, common_batch

_INPUTS = ("x_high", "origins")


@keras.saving.register_keras_serializable(package="attention_sampling")
class ExtractPatches(keras.layers.Layer):
    """Take windows of one size out of full-resolution images.

    Use it with origins of your own, or through ``SamplePatches``, which draws the
    places from an attention map. Pixels outside the image are zero. The images keep
    their dtype: uint8 images stay uint8.

    Args:
        patch_size: height and width of the windows in pixels, one int or two.

    Input shape:
        ``[x_high, origins]``: images (batch, height, width, channels) of any float
        dtype, uint8 or uint16, and int32 origins (batch, n_patches, 2), row and column
        of each window's top-left pixel, which may lie outside the image.

    Output shape:
        (batch, n_patches, patch_height, patch_width, channels), dtype of ``x_high``.

    Raises:
        ValueError: a patch size that is not positive; inputs of other ranks or of
            different batch; origins that are no integers; channels-first images.

    Example:

    >>> images = keras.ops.ones((1, 100, 100, 3), dtype="uint8")
    >>> origins = keras.ops.array([[[-5, 0], [90, 90]]])
    >>> patches = ExtractPatches(20)([images, origins])
    >>> tuple(patches.shape), keras.backend.standardize_dtype(patches.dtype)
    ((1, 2, 20, 20, 3), 'uint8')

    Reference:
        Katharopoulos and Fleuret 2019, section 3.3, P(x, i).
    """

    def __init__(self, patch_size, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.patch_size = check_pair("patch_size", patch_size)

    def call(self, inputs):
        x_high, origins = check_inputs(inputs, *_INPUTS)
        self.compute_output_shape([x_high.shape, origins.shape])
        self._check_dtype(origins)
        return windows.extract_patches(x_high, origins, self.patch_size)

    def compute_output_spec(self, inputs):
        x_high, origins = check_inputs(inputs, *_INPUTS)
        shape = self.compute_output_shape([x_high.shape, origins.shape])
        self._check_dtype(origins)
        return keras.KerasTensor(shape, dtype=x_high.dtype)

    def compute_output_shape(self, input_shape):
        x_high, origins = map(tuple, check_inputs(input_shape, *_INPUTS))
        check_images("x_high", x_high)
        if len(origins) != 3 or origins[2] != 2:
            raise ValueError(
                "`origins` must have shape (batch, n_patches, 2), the row and column of "
                f"each window. Received: origins.shape={origins}"
            )
        batch = common_batch(x_high=x_high, origins=origins)
        return (batch, origins[1], *self.patch_size, x_high[3])

    def _check_dtype(self, origins):
        dtype = keras.backend.standardize_dtype(origins.dtype)
        if "int" not in dtype:
            raise ValueError(
                "`origins` must be integers, the row and column of a pixel. "
                f"Received: origins.dtype={dtype}"
            )

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size}
