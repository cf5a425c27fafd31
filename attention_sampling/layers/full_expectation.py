"""The expected feature over every cell of the attention map."""

import keras
from keras import ops

from attention_sampling.checks import check_count, check_inputs, check_pair
from attention_sampling.layers.expectation import Expectation
from attention_sampling.layers.extract_patches import ExtractPatches
from attention_sampling.layers.unfold_patches import UnfoldPatches, fold_patches

_INPUTS = ("patches", "sampled_attention", "x_low", "x_high", "attention")
_OPTIONAL = ("sampled_proposal",)


@keras.saving.register_keras_serializable(package="attention_sampling")
class FullExpectation(keras.layers.Layer):
    """Train on drawn patches, predict from all of them.

    In training it applies the feature network to the drawn patches and estimates the
    expectation from them. Outside training it computes what is estimated there: the
    attention-weighted sum of the features at every cell, chunk by chunk. For small
    images, and to see what sampling costs: ``attention_sampling(prediction="all")``.

    Args:
        feature: Keras layer or model from patches (any batch, patch_height, patch_width,
            channels) to features (any batch, ...).
        patch_size: height and width of the patches in full-resolution pixels, one int
            or two.
        expectation: the ``Expectation`` layer of training.
        receptive_field: as of ``SamplePatches``.
        chunk_size: cells at a time, of each sample. Memory grows with it and not with
            the number of cells.
        source: as of ``SamplePatches``.

    Input shape:
        ``[patches, sampled_attention, x_low, x_high, attention]`` as of
        ``SamplePatches``, and ``sampled_proposal`` if there is one.

    Output shape:
        (batch, ...), float32.

    Raises:
        TypeError: ``feature`` is not a Keras layer, which alone can be saved.

    Example:

    >>> feature = keras.Sequential(
    ...     [keras.Input((32, 32, 3)), keras.layers.GlobalAveragePooling2D()]
    ... )
    >>> layer = FullExpectation(feature, patch_size=32)
    >>> x_low, x_high = keras.ops.ones((1, 10, 10, 3)), keras.ops.ones((1, 100, 100, 3))
    >>> attention = keras.ops.full((1, 10, 10), 0.01)
    >>> patches, sampled_attention = SamplePatches(2, 32)([x_low, x_high, attention])
    >>> tuple(layer([patches, sampled_attention, x_low, x_high, attention]).shape)
    (1, 3)

    Reference:
        Katharopoulos and Fleuret 2019, eq. 19.
    """

    def __init__(
        self,
        feature,
        patch_size,
        expectation=None,
        receptive_field=0,
        chunk_size=64,
        source=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        if not isinstance(feature, keras.layers.Layer):
            raise TypeError(
                "`feature` must be a Keras layer or model where every cell is predicted "
                f"from. Received: feature={feature!r}"
            )
        self.feature = feature
        self.patch_size = check_pair("patch_size", patch_size)
        self.expectation = Expectation() if expectation is None else expectation
        self.receptive_field = check_count("receptive_field", receptive_field, 0)
        self.chunk_size = check_count("chunk_size", chunk_size, smallest=1)
        self.extract_patches = ExtractPatches(self.patch_size, source)
        self.unfold = UnfoldPatches()

    def build(self, input_shape):
        check_inputs(input_shape, *_INPUTS, optional=_OPTIONAL)
        if not self.feature.built:
            channels = self.extract_patches.check_images(tuple(input_shape[3]))
            self.feature.build((None, *self.patch_size, channels))
        self.built = True

    def call(self, inputs, training=None):
        inputs = check_inputs(inputs, *_INPUTS, optional=_OPTIONAL)
        patches, sampled_attention, x_low, x_high, attention, *proposal = inputs
        if training:
            features = self.feature(fold_patches(patches))
            features = self.unfold([features, sampled_attention])
            return self.expectation(
                [features, sampled_attention, *proposal], training=True
            )
        return self._sum_of_all(x_low, x_high, attention)

    def _sum_of_all(self, x_low, x_high, attention):
        batch, rows, columns = ops.shape(attention)
        dtype = keras.backend.result_type(attention.dtype, "float32")
        attention = ops.reshape(ops.cast(attention, dtype), (-1, rows * columns))
        sizes = ((rows, columns), tuple(ops.shape(x_low)[1:3]))

        def add_chunk(number, total):
            cells = number * self.chunk_size + ops.arange(
                self.chunk_size, dtype="int32"
            )
            inside = ops.cast(cells < rows * columns, dtype)
            cells = ops.minimum(cells, rows * columns - 1)
            shares = inside * ops.take(attention, cells, axis=1)
            cells = ops.broadcast_to(cells[None], (batch, self.chunk_size))
            patches, _ = self.extract_patches.at_cells(
                x_high, cells, *sizes, self.receptive_field
            )
            features = self.feature(fold_patches(patches))
            features = ops.cast(self.unfold([features, shares]), dtype)
            shares = ops.reshape(shares, (-1, self.chunk_size, *[1] * len(trailing)))
            return total + ops.sum(shares * features, axis=1)

        trailing = self._feature_shape(x_high.shape)
        chunks = -(-(rows * columns) // self.chunk_size)
        total = ops.zeros((batch, *trailing), dtype=dtype)
        return ops.fori_loop(0, chunks, add_chunk, total)

    def _feature_shape(self, x_high):
        """Return the shape of the feature of one patch."""
        channels = self.extract_patches.check_images(tuple(x_high))
        shape = (1, *self.patch_size, channels)
        return tuple(self.feature.compute_output_shape(shape)[1:])

    def compute_output_spec(self, inputs, training=None):
        inputs = check_inputs(inputs, *_INPUTS, optional=_OPTIONAL)
        shape = self.compute_output_shape([x.shape for x in inputs])
        dtype = keras.backend.result_type(inputs[4].dtype, "float32")
        return keras.KerasTensor(shape, dtype=dtype)

    def compute_output_shape(self, input_shape):
        check_inputs(input_shape, *_INPUTS, optional=_OPTIONAL)
        return (input_shape[1][0], *self._feature_shape(input_shape[3]))

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "feature": serialize(self.feature),
            "patch_size": self.patch_size,
            "expectation": serialize(self.expectation),
            "receptive_field": self.receptive_field,
            "chunk_size": self.chunk_size,
            "source": self.extract_patches.get_config()["source"],
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in ("feature", "expectation"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)
