"""Sample cells of an attention map and take the full-resolution patches there."""

import keras
from keras import ops

from attention_sampling.checks import (
    check_choice,
    check_count,
    check_flag,
    check_fraction,
    check_images,
    check_inputs,
    check_pair,
    common_batch,
)
from attention_sampling.layers.extract_patches import ExtractPatches
from attention_sampling.ops import geometry, sampling

_INPUTS = ("x_low", "x_high", "attention")
_OPTIONAL = ("saliency",)


@keras.saving.register_keras_serializable(package="attention_sampling")
class SamplePatches(keras.layers.Layer):
    """Sample ``n_patches`` cells of an attention map and take the patches there.

    Follow it by a feature network on the patches and by ``Expectation``;
    ``AttentionSampling`` holds all of them. Gradients reach the attention network
    through ``sampled_attention``.

    The state of its random numbers is saved with the model, so that a loaded model
    goes on with the samples of the saved one.

    With a saliency as fourth input, cells are sampled in training from a proposal instead
    of the attention: ``(1 - mix) a`` and, for the rest, in proportion to ``a`` times the
    saliency. ``Expectation`` then needs ``sampled_proposal`` too, and estimates the same
    as before. ``set_mix`` changes the mix while training; the callback ``ProposalMix``
    does. Outside training cells come from the attention.

    Args:
        n_patches: cells to sample for each image.
        patch_size: height and width of the patches in full-resolution pixels, one int
            or two.
        receptive_field: pixels of the view that one cell of the attention map sees
            before any pooling, if the attention network has no padding; 0 if the map
            covers the whole view.
        replace: sample with replacement. Must be that of ``Expectation``.
        use_logits: the third input holds scores instead of probabilities; a softmax
            over the map is applied to them. Probabilities come out either way.
        seed: int for the random numbers, None for a random one.
        return_origins: also return where the patches were taken.
        prediction: outside training, ``"sample"`` to sample as in training, or ``"top_k"``
            for the cells of most attention, the same every time. Must be that of
            ``Expectation``.
        proposal_mix: fraction of the saliency in the proposal, from 0 to 1, when training
            begins.
        source: ``attention_sampling.data.Source`` to read the patches from; the images
            then stay on disk. Not saved with the model: ``set_source``.

    Input shape:
        ``[x_low, x_high, attention]``: views (batch, low_height, low_width, channels),
        full-resolution images (batch, height, width, channels) of any float dtype,
        uint8 or uint16, and the attention map (batch, rows, columns), whose values sum
        to 1 for each sample. Sizes may be None in a symbolic call. Optionally a fourth,
        the saliency of the view (batch, any height, any width), or the same with one
        channel, not negative, on any scale: it is averaged over each cell, or taken as
        it is if it has the size of the attention map. With a source, the second is which
        image of it each is, (batch,) of an int dtype.

    Output shape:
        ``[patches, sampled_attention]``: (batch, n_patches, patch_height, patch_width,
        channels) of the dtype of ``x_high`` or of the source, and (batch, n_patches)
        float32, in sampling order. With a saliency, ``sampled_proposal`` comes third, (batch, n_patches)
        float32, the probability with which each cell was proposed. With
        ``return_origins`` also (batch, n_patches, 2) int32, the row and
        column of each patch's top-left pixel in the full-resolution image.

    Raises:
        ValueError: ``n_patches`` or ``patch_size`` not positive, a negative
            ``receptive_field`` or ``seed``; an unknown ``prediction``; without
            replacement more patches than cells; ranks or batch sizes that do not match;
            a receptive field larger than the view.

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
        *,
        seed=None,
        return_origins=False,
        prediction="sample",
        proposal_mix=0.5,
        source=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        self.n_patches = check_count("n_patches", n_patches, smallest=1)
        self.patch_size = check_pair("patch_size", patch_size)
        self.receptive_field = check_count("receptive_field", receptive_field, 0)
        self.replace = check_flag("replace", replace)
        self.use_logits = check_flag("use_logits", use_logits)
        self.seed = None if seed is None else check_count("seed", seed, smallest=0)
        self.return_origins = check_flag("return_origins", return_origins)
        self.prediction = check_choice("prediction", prediction, ("sample", "top_k"))
        self.proposal_mix = check_fraction("proposal_mix", proposal_mix)
        self._first_mix = self.proposal_mix
        self.mix = None
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.extract_patches = ExtractPatches(self.patch_size, source=source)

    @property
    def has_proposal(self):
        """Whether the layer was built for a saliency, and samples from a proposal."""
        return self.mix is not None

    def build(self, input_shape):
        check_inputs(input_shape, *_INPUTS, optional=_OPTIONAL)
        self._check_shapes(*input_shape)
        if len(input_shape) == 4:
            self.mix = self.add_weight(
                name="mix",
                shape=(),
                initializer=keras.initializers.Constant(self._first_mix),
                dtype="float32",
                trainable=False,
            )
        self.built = True

    def set_mix(self, mix):
        """Set the fraction of the saliency in the proposal, from now on.

        Args:
            mix: number from 0 to 1.

        Raises:
            ValueError: ``mix`` is no number, or outside.
        """
        self._first_mix = check_fraction("mix", mix)  # of a layer that is not built yet
        if self.has_proposal:
            self.mix.assign(self._first_mix)

    def call(self, inputs, training=None):
        inputs = check_inputs(inputs, *_INPUTS, optional=_OPTIONAL)
        self._check_shapes(*(x.shape for x in inputs))
        x_low, x_high, attention, *saliency = inputs
        _, rows, columns = ops.shape(attention)
        low_size = tuple(ops.shape(x_low)[1:3])
        dtype = keras.backend.result_type(attention.dtype, "float32")
        attention = ops.reshape(ops.cast(attention, dtype), (-1, rows * columns))
        if self.use_logits:
            attention = ops.softmax(attention, axis=-1)
        proposal = ops.stop_gradient(attention)
        if saliency and training:
            salient = geometry.cell_means(
                ops.cast(_without_channels(saliency[0]), "float32"),
                (rows, columns),
                low_size,
                self.receptive_field,
            )
            salient = ops.reshape(salient, (-1, rows * columns))
            proposal = sampling.mix_proposal(attention, salient, self.mix)
        cells = self._choose(proposal, training)
        patches, origins = self.extract_patches.at_cells(
            x_high, cells, (rows, columns), low_size, self.receptive_field
        )
        outputs = [patches, ops.take_along_axis(attention, cells, axis=1)]
        if saliency:
            outputs.append(ops.take_along_axis(proposal, cells, axis=1))
        return [*outputs, origins] if self.return_origins else outputs

    def _choose(self, probabilities, training):
        """Return the (batch, n_patches) cells to look at."""
        if self.prediction == "top_k" and not training:
            return sampling.top_cells(probabilities, self.n_patches)
        return sampling.sample_cells(
            probabilities, self.n_patches, self.replace, seed=self.seed_generator
        )

    def compute_output_spec(self, inputs, training=None):
        inputs = check_inputs(inputs, *_INPUTS, optional=_OPTIONAL)
        shapes = self.compute_output_shape([x.shape for x in inputs])
        attention = keras.backend.result_type(inputs[2].dtype, "float32")
        patches = self.extract_patches.patch_dtype(inputs[1])
        dtypes = [patches, attention, *[attention] * len(inputs[3:]), "int32"]
        return [
            keras.KerasTensor(shape, dtype=dtype)
            for shape, dtype in zip(shapes, dtypes, strict=False)
        ]

    def compute_output_shape(self, input_shape):
        input_shape = check_inputs(input_shape, *_INPUTS, optional=_OPTIONAL)
        batch = self._check_shapes(*input_shape)
        channels = self.extract_patches.check_images(tuple(input_shape[1]))
        shapes = [(batch, self.n_patches, *self.patch_size, channels)]
        shapes += [(batch, self.n_patches)] * len(input_shape[2:])
        if self.return_origins:
            shapes.append((batch, self.n_patches, 2))
        return shapes

    def _check_shapes(self, x_low, x_high, attention, *saliency):
        """Refuse shapes that do not fit; return the batch size, None if unknown."""
        x_low, x_high, attention = map(tuple, (x_low, x_high, attention))
        check_images("x_low", x_low)
        self.extract_patches.check_images(x_high)
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
        distinct = not self.replace or self.prediction == "top_k"
        if distinct and None not in (rows, columns):
            if self.n_patches > rows * columns:
                top = self.prediction == "top_k"
                remedy = "or a larger view" if top else "a larger view, or replace=True"
                raise ValueError(
                    f"Cannot sample {self.n_patches} different cells from an attention map "
                    f"of {rows} x {columns}. Use at most {rows * columns} patches, "
                    f"{remedy}. Received: n_patches={self.n_patches}"
                )
        shapes = {"x_low": x_low, "x_high": x_high, "attention": attention}
        if saliency:
            shapes["saliency"] = tuple(saliency[0])
            if len(shapes["saliency"]) != 3 and shapes["saliency"][3:] != (1,):
                raise ValueError(
                    "`saliency` must have shape (batch, height, width), one value a pixel. "
                    f"Received: saliency.shape={shapes['saliency']}"
                )
        return common_batch(**shapes)

    def save_own_variables(self, store):
        store["seed_generator_state"] = self.seed_generator.state
        if self.has_proposal:
            store["mix"] = self.mix

    def load_own_variables(self, store):
        self.seed_generator.state.assign(store["seed_generator_state"])
        if self.has_proposal:
            self.mix.assign(store["mix"])

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
            "prediction": self.prediction,
            "proposal_mix": self.proposal_mix,
            "source": self.extract_patches.get_config()["source"],
        }


def _without_channels(saliency):
    """Return (batch, height, width) of what may have an axis of one channel."""
    return saliency if len(saliency.shape) == 3 else ops.squeeze(saliency, axis=-1)
