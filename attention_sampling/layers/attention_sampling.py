"""The whole method as one layer: look at a view, sample patches, average their features."""

import keras
from keras import ops

from attention_sampling import backend
from attention_sampling.checks import (
    check_choice,
    check_class_names,
    check_count,
    check_flag,
    check_images,
    check_inputs,
)
from attention_sampling.layers.activity_regularizer import ActivityRegularizer
from attention_sampling.layers.expectation import Expectation
from attention_sampling.layers.sample_patches import SamplePatches
from attention_sampling.layers.sampling_metrics import SamplingMetrics
from attention_sampling.ops import estimators
from attention_sampling.ops.patches import fold_patches

_INPUTS = ("x_low", "x_high")
_PREDICTIONS = ("sample", "top_k", "all")
# Of the arguments, those that are Keras objects and are saved as such.
_OBJECTS = ("attention", "feature", "attention_regularizer", "proposal")


@keras.saving.register_keras_serializable(package="attention_sampling")
class AttentionSampling(keras.layers.Layer):
    """Classify a large image from a few patches that a network chooses.

    The attention network looks at a low-resolution view and gives a probability to each
    of its cells. Cells are sampled from it, the full-resolution patches there go through
    the feature network, and their features are averaged to an unbiased estimate of the
    sum over all cells, ``sum_i a_i f_i``. Both networks train end to end.

    ``attention_sampling()`` makes this layer. It is one node of a functional model, or
    an attribute of a subclassed one.

    Args:
        attention, feature, ...: those of ``attention_sampling()``, described there.

    Input shape:
        ``[x_low, x_high]``: views (batch, low_height, low_width, channels) and images
        (batch, height, width, channels). With a source ``[x_low, index]``: views, and
        which image of the source each is, (batch,) of an int dtype.

    Output shape:
        ``[features, attention, patches]``: (batch, dim) float32, the attention map
        (batch, rows, columns), and the patches that were looked at (batch, n_patches,
        patch_height, patch_width, channels) in the dtype of ``x_high``.

    Raises:
        TypeError: a network is not a Keras layer or model; ``source`` is no source.
        ValueError: arguments or shapes that ``SamplePatches`` or ``Expectation`` refuse;
            ``patch_size`` is None and ``feature`` has no fixed input size.

    Example:

    >>> attention = keras.Sequential(
    ...     [keras.layers.Conv2D(1, 3), SampleSoftmax(squeeze_channels=True)]
    ... )
    >>> feature = keras.layers.GlobalAveragePooling2D()
    >>> layer = AttentionSampling(attention, feature, patch_size=32, n_patches=5)
    >>> x_low, x_high = keras.ops.ones((2, 50, 50, 3)), keras.ops.ones((2, 500, 500, 3))
    >>> features, attention_map, patches = layer([x_low, x_high])
    >>> tuple(features.shape), tuple(attention_map.shape), tuple(patches.shape)
    ((2, 3), (2, 48, 48), (2, 5, 32, 32, 3))

    Reference:
        Katharopoulos and Fleuret 2019, section 3.
    """

    def __init__(
        self,
        attention,
        feature,
        patch_size=None,
        n_patches=10,
        replace=False,
        attention_regularizer=None,
        receptive_field=0,
        *,
        seed=None,
        estimator=None,
        control_variate=None,
        prediction="sample",
        proposal=None,
        proposal_mix=0.5,
        self_normalize=True,
        metrics=False,
        source=None,
        class_names=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        if class_names is None and not isinstance(source, dict):
            class_names = getattr(source, "class_names", None)
        if class_names is not None:
            class_names = check_class_names(class_names)
        self.class_names = class_names
        self.attention = _check_network("attention", attention)
        self.feature = _check_network("feature", feature)
        self.proposal = None
        if proposal is not None:
            self.proposal = _check_network("proposal", proposal)
        self.prediction = check_choice("prediction", prediction, _PREDICTIONS)
        self.regularize = None
        if attention_regularizer is not None:
            self.regularize = ActivityRegularizer(attention_regularizer)
        self.sample_patches = SamplePatches(
            n_patches,
            _input_size(feature) if patch_size is None else patch_size,
            receptive_field,
            replace,
            seed=seed,
            return_origins=True,
            prediction=_prediction_of_sampling(prediction),
            proposal_mix=proposal_mix,
            source=source,
        )
        self.expectation = Expectation(
            replace,
            estimator=estimator,
            control_variate=control_variate,
            prediction=_prediction_of_sampling(prediction),
            self_normalize=self_normalize,
        )
        self.report = None
        if check_flag("metrics", metrics):
            self.report = SamplingMetrics(self.expectation)
        # Cells at a time where all are predicted from, of each image: memory grows with
        # it and not with the number of cells.
        self.chunk_size = 64
        # Callable that is given what every call looked at, such as list.append.
        self.observe = None

    def build(self, input_shape):
        """Call each network once, on symbolic tensors, to build it."""
        x_low, x_high = map(tuple, check_inputs(input_shape, *_INPUTS))
        check_images("x_low", x_low)
        self.channels = channels = self.sample_patches.extract_patches.check_images(
            x_high
        )
        patch_size, n_patches = self.sample_patches.patch_size, self.n_patches
        _check_sizes(x_low, self._image_size(x_high), patch_size)
        _check_network_input("attention", self.attention, x_low[1:])
        _check_network_input("feature", self.feature, (*patch_size, channels))
        self.view_size = x_low[1:3]
        view = keras.KerasTensor((None, *x_low[1:]))
        maps = [self.attention(view)]
        if self.proposal is not None:
            maps.append(self.proposal(view))
        self.sample_patches.build([x_low, x_high, *(x.shape for x in maps)])
        features = self.feature(keras.KerasTensor((None, *patch_size, channels)))
        if len(features.shape) != 2:
            raise ValueError(
                "`feature` must end in one vector a patch, of shape (batch, dim): with "
                "keras.layers.GlobalAveragePooling2D, for example. Received: feature "
                f"with output shape {tuple(features.shape)}"
            )
        self._feature_shape, self._feature_dtype = features.shape[1:], features.dtype
        self.expectation.build(
            [(None, n_patches, *features.shape[1:]), *[(None, n_patches)] * len(maps)]
        )
        self.built = True

    def _image_size(self, x_high):
        """Return (height, width) of the images, of a source the largest of each."""
        if self.sample_patches.extract_patches.reader is None:
            return x_high[1:3]
        if isinstance(self.source, dict):  # not bound yet
            return (None, None)
        sizes = [self.source.shape(index)[:2] for index in range(len(self.source))]
        return tuple(map(max, zip(*sizes, strict=True)))

    def call(self, inputs, training=None):
        x_low, x_high = check_inputs(inputs, *_INPUTS)
        # A distribution over the cells of the view, section 3.1.
        attention = self.attention(x_low)
        if self.regularize is not None:
            attention = self.regularize(attention)
        # Cells sampled from it, and the patches there: sections 3.2 and 3.3.
        saliency = [] if self.proposal is None else [self.proposal(x_low)]
        patches, *sampled, origins = self.sample_patches(
            [x_low, x_high, attention, *saliency]
        )
        # The expected feature, from the samples or exactly: section 3.2.
        if training or self.prediction != "all":
            features = self.expectation([self._features_of(patches), *sampled])
        else:
            features = self._sum_over_all_cells(x_low, x_high, attention)
        if self.report is not None:
            features = self.report([features, attention, *sampled])
        if self.observe is not None:
            self.observe((attention, patches, sampled[0], origins))
        return [features, attention, patches]

    def _features_of(self, patches):
        """Return the features of patches, (batch, patches, ...)."""
        features = self.feature(fold_patches(patches))
        return ops.reshape(features, (-1, patches.shape[1], *features.shape[1:]))

    def _sum_over_all_cells(self, x_low, x_high, attention):
        """Compute what is estimated elsewhere: the full model, chunk by chunk."""
        rows, columns = ops.shape(attention)[1:]
        low_size = tuple(ops.shape(x_low)[1:3])
        dtype = keras.backend.result_type(
            attention.dtype, self._feature_dtype, "float32"
        )

        def features_at(cells):
            patches, _ = self.sample_patches.extract_patches.at_cells(
                x_high, cells, (rows, columns), low_size, self.receptive_field
            )
            return self._features_of(patches)

        attention = ops.reshape(ops.cast(attention, dtype), (-1, rows * columns))
        return estimators.sum_over_all_cells(
            attention, features_at, self._feature_shape, self.chunk_size
        )

    def compute_output_spec(self, inputs, training=None):
        x_low, x_high = check_inputs(inputs, *_INPUTS)
        maps = [self.attention.compute_output_spec(x_low)]
        if self.proposal is not None:
            maps.append(self.proposal.compute_output_spec(x_low))
        patches, *_ = self.sample_patches.compute_output_spec([x_low, x_high, *maps])
        features = keras.KerasTensor(
            (patches.shape[0], *self._feature_shape),
            keras.backend.result_type(maps[0].dtype, self._feature_dtype, "float32"),
        )
        return [features, maps[0], patches]

    def compute_output_shape(self, input_shape):
        x_low, x_high = map(tuple, check_inputs(input_shape, *_INPUTS))
        dtype = keras.config.floatx() if self.source is None else "int32"
        inputs = [keras.KerasTensor(x_low), keras.KerasTensor(x_high, dtype)]
        return [output.shape for output in self.compute_output_spec(inputs)]

    @property
    def layers(self):
        """What is inside, in the order of the data: for ``model.summary()``."""
        layers = (self.attention, self.proposal, self.sample_patches)
        layers += (self.feature, self.expectation)
        return [layer for layer in layers if layer is not None]

    @property
    def metrics(self):
        """None of its own: Keras counts those of the layers inside by itself."""
        return []

    @property
    def n_patches(self):
        """Patches to sample for each image."""
        return self.sample_patches.n_patches

    @property
    def receptive_field(self):
        """Pixels of the view that a cell of the attention map sees."""
        return self.sample_patches.receptive_field

    @property
    def source(self):
        """What the patches are read from: see ``ExtractPatches.source``."""
        return self.sample_patches.extract_patches.source

    def set_sampling(self, n_patches=None, prediction=None):
        """Sample another number of patches, or predict in another way.

        For a layer that was never called. ``attention_sampling.with_sampling`` does it
        for a trained model.

        Args:
            n_patches: patches to sample for each image, None for as many as before.
            prediction: ``"sample"``, ``"top_k"`` or ``"all"``, None for that of before.

        Raises:
            ValueError: another number or way; the layer has been called.
        """
        if self.built:
            raise ValueError(
                "A layer that has been called keeps its sampling. Use "
                "attention_sampling.with_sampling(model, ...), which returns another "
                f"model with the same weights. Received: layer {self.name!r}"
            )
        if n_patches is not None:
            self.sample_patches.n_patches = check_count("n_patches", n_patches, 1)
        if prediction is not None:
            self.prediction = check_choice("prediction", prediction, _PREDICTIONS)
            for layer in (self.sample_patches, self.expectation):
                layer.prediction = _prediction_of_sampling(prediction)

    def copy(self):
        """Return a layer around the same networks, which was never called."""
        copy = type(self)(**self._arguments())
        if self.sample_patches.has_proposal:
            mix = ops.convert_to_numpy(self.sample_patches.mix)
            copy.sample_patches.set_mix(float(mix))
        return copy

    def _arguments(self):
        """Return what the layer was made with."""
        sample_patches, expectation = self.sample_patches, self.expectation
        return {
            **super().get_config(),
            "attention": self.attention,
            "feature": self.feature,
            "patch_size": sample_patches.patch_size,
            "n_patches": sample_patches.n_patches,
            "replace": sample_patches.replace,
            "attention_regularizer": self.regularize and self.regularize.regularizer,
            "receptive_field": sample_patches.receptive_field,
            "seed": sample_patches.seed,
            "estimator": expectation.estimator,
            "control_variate": expectation.control_variate,
            "prediction": self.prediction,
            "proposal": self.proposal,
            "proposal_mix": sample_patches.proposal_mix,
            "self_normalize": expectation.self_normalize,
            "metrics": self.report is not None,
            "source": self.source,
            "class_names": self.class_names,
        }

    def get_config(self):
        config = self._arguments()
        for name in _OBJECTS:
            config[name] = keras.saving.serialize_keras_object(config[name])
        config["source"] = self.sample_patches.get_config()["source"]
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in _OBJECTS:
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def sampling_layers(model):
    """Return the ``AttentionSampling`` layers of a model, at any depth."""
    layers = backend.all_layers(model)
    return [layer for layer in layers if isinstance(layer, AttentionSampling)]


def _check_network(name, network):
    """Refuse what is not a Keras layer; return it."""
    if not isinstance(network, keras.layers.Layer):
        raise TypeError(
            f"`{name}` must be a Keras layer or model. Make one of a function with "
            "keras.Model(inputs, outputs): weights that a plain callable holds would be "
            f"neither trained nor saved. Received: {name}={network!r}"
        )
    return network


def _check_sizes(x_low, image_size, patch_size):
    """Refuse a view larger than the image, and patches larger than it."""
    for low, high, patch in zip(x_low[1:3], image_size, patch_size, strict=True):
        if high is None:
            continue
        if low is not None and low > high:
            raise ValueError(
                "The view must not be larger than the image: the inputs are [x_low, "
                f"x_high], in this order. Received: x_low.shape={x_low}, images of "
                f"{image_size}"
            )
        if patch > high:
            raise ValueError(
                "Patches must not be larger than the image. Received: "
                f"patch_size={patch_size}, images of {image_size}"
            )


def _check_network_input(name, network, shape):
    """Refuse a network that was built for another input, such as other channels."""
    expected = getattr(network, "input_shape", None)
    if not isinstance(expected, tuple) or len(expected) != 4:
        return
    for built, given in zip(expected[1:], shape, strict=True):
        if None not in (built, given) and built != given:
            raise ValueError(
                f"`{name}` must take images of (height, width, channels) = {shape}. "
                f"Received: {name} with input_shape={expected}. Begin it with "
                f"keras.Input({shape})"
            )


def _input_size(feature):
    """Return the height and width that a feature model was built for."""
    shape = getattr(feature, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:3]:
        raise ValueError(
            "`patch_size=None` takes the patch size from the input of the feature model, "
            "which needs a fixed height and width. Pass patch_size, or begin the model "
            "with keras.Input((height, width, channels)). Received: feature with "
            f"input_shape={shape}"
        )
    return shape[1:3]


def _prediction_of_sampling(prediction):
    """Beside a prediction from all cells, the patches to look at are the best."""
    return "top_k" if prediction == "all" else prediction
