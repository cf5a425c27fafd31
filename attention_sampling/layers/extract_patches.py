"""Take full-resolution patches at given origins."""

import keras
from keras import ops

from attention_sampling import backend
from attention_sampling.checks import (
    check_images,
    check_inputs,
    check_pair,
    common_batch,
)
from attention_sampling.ops import geometry, patches, reading

_INPUTS = ("x_high", "origins")


@keras.saving.register_keras_serializable(package="attention_sampling")
class ExtractPatches(keras.layers.Layer):
    """Take windows of one size out of full-resolution images.

    Use it with origins of your own, or through ``SamplePatches``, which samples
    cells of an attention map. Pixels outside the image are zero. The images keep
    their dtype: uint8 images stay uint8.

    With a ``source`` the images stay on disk, and only the windows are read. A source is
    not saved with a model: ``set_source(model, source)`` after loading.

    Args:
        patch_size: height and width of the windows in pixels, one int or two.
        source: ``attention_sampling.data.Source`` to read the windows from.

    Input shape:
        ``[x_high, origins]``: images (batch, height, width, channels) of any float
        dtype, uint8 or uint16, and int32 origins (batch, n_patches, 2), row and column
        of each window's top-left pixel, which may be outside the image. With a source,
        ``[index, origins]``: which image of it each is, (batch,) of an int dtype.

    Output shape:
        (batch, n_patches, patch_height, patch_width, channels), dtype of ``x_high`` or
        of the source.

    Raises:
        TypeError: ``source`` is no source.
        ValueError: a patch size that is not positive; inputs of other ranks or of
            different batch; origins or indices that are no integers; channels-first
            images; in a call, no source is bound.
        SourceError: in an eager call, a window cannot be read. From inside a graph, an
            error of the backend with the same text.

    Example:

    >>> images = keras.ops.ones((1, 100, 100, 3), dtype="uint8")
    >>> origins = keras.ops.array([[[-5, 0], [90, 90]]])
    >>> patches = ExtractPatches(20)([images, origins])
    >>> tuple(patches.shape), keras.backend.standardize_dtype(patches.dtype)
    ((1, 2, 20, 20, 3), 'uint8')

    Reference:
        Katharopoulos and Fleuret 2019, section 3.3, P(x, i).
    """

    def __init__(self, patch_size, *, source=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.patch_size = check_pair("patch_size", patch_size)
        self.reader = None if source is None else reading.PatchReader(source)
        if source is not None:
            self.supports_jit = backend.supports_jit()

    @property
    def source(self):
        """The source to read from; None if patches are taken from tensors.

        Of a model that was loaded and has no source yet, a dict: which kind it takes.
        """
        return None if self.reader is None else self.reader.source

    def set_source(self, source):
        """Read from another source from now on. See ``attention_sampling.set_source``."""
        if self.reader is None:
            raise ValueError(
                f"The layer {self.name!r} was built to take patches from tensors. "
                "Build it with source=..."
            )
        self.reader.bind(source)

    def call(self, inputs):
        x_high, origins = check_inputs(inputs, *_INPUTS)
        self._check(x_high, origins)
        if self.reader is None:
            return patches.extract_patches(x_high, origins, self.patch_size)
        return self.reader.read_patches(x_high, origins, self.patch_size)

    def at_cells(self, x_high, cells, attention_size, low_size, receptive_field):
        """Take the patches at cells of the attention map.

        Args:
            x_high: images, or which images of the source.
            cells: (batch, n_patches) int32 tensor, flat indices into rows x columns.
            attention_size: (rows, columns) of the attention map.
            low_size: (height, width) of the view, in pixels.
            receptive_field: as of ``SamplePatches``.

        Returns:
            The patches, and (batch, n_patches, 2) int32, where they were taken.
        """
        sizes = (attention_size, low_size)
        if self.reader is None:
            high_size = tuple(ops.shape(x_high)[1:3])
            origins = geometry.window_origins(
                cells, *sizes, high_size, self.patch_size, receptive_field
            )
        else:
            origins = self.reader.window_origins(
                x_high, cells, *sizes, self.patch_size, receptive_field
            )
        return self([x_high, origins]), origins

    def compute_output_spec(self, inputs):
        x_high, origins = check_inputs(inputs, *_INPUTS)
        return keras.KerasTensor(
            self._check(x_high, origins), dtype=self.patch_dtype(x_high)
        )

    def compute_output_shape(self, input_shape):
        x_high, origins = map(tuple, check_inputs(input_shape, *_INPUTS))
        channels = self.check_images(x_high)
        if len(origins) != 3 or origins[2] != 2:
            raise ValueError(
                "`origins` must have shape (batch, n_patches, 2), the row and column of "
                f"each window. Received: origins.shape={origins}"
            )
        batch = common_batch(x_high=x_high, origins=origins)
        return (batch, origins[1], *self.patch_size, channels)

    def check_images(self, x_high):
        """Refuse a shape of images, or of indices of images; return their channels."""
        if self.reader is None:
            check_images("x_high", x_high)
            return x_high[3]
        if len(x_high) != 1:
            raise ValueError(
                "With a source, the full-resolution input is the index of each image, "
                "of shape (batch,): keras.Input((), dtype='int32'). "
                f"Received: index.shape={tuple(x_high)}"
            )
        return self.reader.channels

    def patch_dtype(self, x_high):
        """Refuse indices of images that are no integers; return the dtype of patches."""
        if self.reader is None:
            return x_high.dtype
        _check_integers("index", x_high, "which images of the source")
        return self.reader.dtype

    def _check(self, x_high, origins):
        """Refuse inputs that do not fit; return the shape of the patches."""
        shape = self.compute_output_shape([x_high.shape, origins.shape])
        _check_integers("origins", origins, "the row and column of a pixel")
        self.patch_dtype(x_high)
        return shape

    def get_config(self):
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "source": None if self.reader is None else self.reader.get_config(),
        }


def _check_integers(name, values, meaning):
    dtype = keras.backend.standardize_dtype(values.dtype)
    if "int" not in dtype:
        raise ValueError(
            f"`{name}` must be integers, {meaning}. Received: {name}.dtype={dtype}"
        )
