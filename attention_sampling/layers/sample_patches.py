"""Draw places from an attention map and take the full-resolution patches there."""

import keras
from keras import ops

from attention_sampling.checks import (
    check_count,
    check_images,
    check_inputs,
    check_pair,
    common_batch,
)
from attention_sampling.layers.extract_patches import ExtractPatches
from attention_sampling.sampling import draw_cells
from attention_sampling.windows import window_origins

_INPUTS = ("x_low", "x_high", "attention")


@keras.saving.register_keras_serializable(package="attention_sampling")
class SamplePatches(keras.layers.Layer):
    """Draw ``n_patches`` places from an attention map and extract the patches there.

    Follow it by a feature network on the patches and by ``Expectation``;
    ``attention_sampling()`` stacks all of them. Gradients reach the attention network
    through ``sampled_attention``.

    The state of its random numbers is saved with the model, so that a loaded model
    goes on with the draws the saved one would have made.

    Args:
        n_patches: places to draw for each sample.
        patch_size: height and width of the patches in full-resolution pixels, one int
            or two.
        receptive_field: pixels of the view that one cell of the attention map sees
            before any pooling, if the attention network has no padding; 0 if the map
            covers the whole view.
        replace: draw with replacement. Must be that of ``Expectation``.
        use_logits: the third input holds scores instead of probabilities; a softmax
            over the map is applied to them. Probabilities come out either way.
        seed: int for the random numbers, None for a random one.
        return_origins: also return where the patches were taken.

    Input shape:
        ``[x_low, x_high, attention]``: views (batch, low_height, low_width, channels),
        full-resolution images (batch, height, width, channels) of any float dtype,
        uint8 or uint16, and the attention map (batch, rows, columns), whose values sum
        to 1 for each sample. Sizes may be None in a symbolic call.

    Output shape:
        ``[patches, sampled_attention]``: (batch, n_patches, patch_height, patch_width,
        channels) of the dtype of ``x_high`` and (batch, n_patches) float32, in drawing
        order. With ``return_origins`` also (batch, n_patches, 2) int32, the row and
        column of each patch's top-left pixel in the full-resolution image.

    Raises:
        ValueError: ``n_patches`` or ``patch_size`` not positive, a negative
            ``receptive_field``; without replacement more patches than cells; ranks or
            batch sizes that do not match; a receptive field larger than the view.

    Example:

    >>> x_low = keras.ops.zeros((1, 50, 50, 3))
    >>> x_high = keras.ops.zeros((1, 500, 500, 3), dtype="uint8")
    >>> attention = keras.ops.full((1, 10, 10), 0.01)
    >>> layer = SamplePatches(n_patches=4, patch_size=32, seed=0)
    >>> patches, sampled_attention = layer([x_low, x_high, attention])
    >>> tuple(patches.shape), tuple(sampled_attention.shape)
    ((1, 4, 32, 32, 3), (1, 4))

    Reference:
        Katharopoulos and Fleuret 2019, sections 3.2.3 and 3.3.
    """

    def __init__(
        self,
        n_patches,
        patch_size,
        receptive_field=0,
        replace=False,
        use_logits=False,
        seed=None,
        return_origins=False,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.n_patches = check_count("n_patches", n_patches, smallest=1)
        self.patch_size = check_pair("patch_size", patch_size)
        self.receptive_field = check_count("receptive_field", receptive_field, 0)
        self.replace = replace
        self.use_logits = use_logits
        self.seed = seed
        self.return_origins = return_origins
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.extract_patches = ExtractPatches(self.patch_size)

    def build(self, input_shape):
        self._check_shapes(*check_inputs(input_shape, *_INPUTS))
        self.built = True

    def call(self, inputs):
        x_low, x_high, attention = check_inputs(inputs, *_INPUTS)
        self._check_shapes(x_low.shape, x_high.shape, attention.shape)
        _, rows, columns = ops.shape(attention)
        dtype = keras.backend.result_type(attention.dtype, "float32")
        attention = ops.reshape(ops.cast(attention, dtype), (-1, rows * columns))
        if self.use_logits:
            attention = ops.softmax(attention, axis=-1)
        cells = draw_cells(
            ops.stop_gradient(attention),
            self.n_patches,
            replace=self.replace,
            seed=self.seed_generator,
        )
        sampled_attention = ops.take_along_axis(attention, cells, axis=1)
        origins = window_origins(
            cells,
            (rows, columns),
            tuple(ops.shape(x_low)[1:3]),
            tuple(ops.shape(x_high)[1:3]),
            self.patch_size,
            self.receptive_field,
        )
        patches = self.extract_patches([x_high, origins])
        outputs = [patches, sampled_attention]
        return [*outputs, origins] if self.return_origins else outputs

    def compute_output_spec(self, inputs):
        x_low, x_high, attention = check_inputs(inputs, *_INPUTS)
        shapes = self.compute_output_shape([x_low.shape, x_high.shape, attention.shape])
        dtypes = [
            x_high.dtype,
            keras.backend.result_type(attention.dtype, "float32"),
            "int32",
        ]
        return [
            keras.KerasTensor(shape, dtype=dtype)
            for shape, dtype in zip(shapes, dtypes, strict=False)
        ]

    def compute_output_shape(self, input_shape):
        batch = self._check_shapes(*input_shape)
        shapes = [
            (batch, self.n_patches, *self.patch_size, input_shape[1][3]),
            (batch, self.n_patches),
        ]
        if self.return_origins:
            shapes.append((batch, self.n_patches, 2))
        return shapes

    def _check_shapes(self, x_low, x_high, attention):
        """Refuse shapes that do not fit; return the batch size, None if unknown."""
        x_low, x_high, attention = map(tuple, (x_low, x_high, attention))
        check_images("x_low", x_low)
        check_images("x_high", x_high)
        if len(attention) != 3:
            raise ValueError(
                "`attention` must have shape (batch, rows, columns). End the attention "
                "network in SampleSoftmax(squeeze_channels=True). "
                f"Received: attention.shape={attention}"
            )
        for extent in x_low[1:3]:
            if extent is not None and extent <= self.receptive_field:
                raise ValueError(
                    "The view must be larger than the receptive field of the attention "
                    f"network. Received: receptive_field={self.receptive_field}, "
                    f"x_low.shape={x_low}"
                )
        _, rows, columns = attention
        if not self.replace and None not in (rows, columns):
            if self.n_patches > rows * columns:
                raise ValueError(
                    f"Cannot draw {self.n_patches} different cells from an attention map "
                    f"of {rows} x {columns}. Use at most {rows * columns} patches, a "
                    "larger view, or replace=True. "
                    f"Received: n_patches={self.n_patches}"
                )
        return common_batch(x_low=x_low, x_high=x_high, attention=attention)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["seed_generator_state"] = self.seed_generator.state

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed_generator_state"])

    def get_config(self):
        return {
            **super().get_config(),
            "n_patches": self.n_patches,
            "patch_size": self.patch_size,
            "receptive_field": self.receptive_field,
            "replace": self.replace,
            "use_logits": self.use_logits,
            "seed": self.seed,
            "return_origins": self.return_origins,
        }
