"""Attention sampling as one callable: the usual way in."""

from collections.abc import Callable
from typing import Any

import keras

from attention_sampling.checks import check_choice, check_images, check_inputs
from attention_sampling.layers import (
    ActivityRegularizer,
    Expectation,
    ExtractPatches,
    FullExpectation,
    SamplePatches,
    SamplingMetrics,
    UnfoldPatches,
)
from attention_sampling.layers.unfold_patches import fold_patches


def attention_sampling(
    attention: Callable[[Any], Any],
    feature: Callable[[Any], Any],
    patch_size: int | tuple[int, int] | None = None,
    n_patches: int = 10,
    replace: bool = False,
    attention_regularizer: Callable[[Any], Any] | None = None,
    receptive_field: int = 0,
    seed: int | None = None,
    estimator: str | None = None,
    control_variate: bool | None = None,
    prediction: str = "sample",
    predict_samples: int = 1,
    proposal: Callable[[Any], Any] | None = None,
    proposal_mix: float = 0.5,
    self_normalize: bool = True,
    metrics: bool = False,
    source: Any = None,
) -> Callable[[Any], list[Any]]:
    """Stack attention network, sampling, feature network and expectation.

    Args:
        attention: layer, model or callable from views to attention maps (batch, rows,
            columns) that sum to 1; end it in ``SampleSoftmax(squeeze_channels=True)``.
        feature: layer, model or callable from patches (any batch, patch_height,
            patch_width, channels) to features (any batch, dim). Features of equal norm
            (``keras.layers.UnitNormalization``) make the attention the sampling
            distribution of least variance. Integer pixels reach it as floats of the
            same values, 0 to 255 for uint8: begin with a ``Rescaling`` layer there.
        patch_size: height and width of the patches in full-resolution pixels, one int
            or two; None takes it from the input of the ``feature`` model.
        n_patches: patches to draw for each sample.
        replace: draw with replacement.
        attention_regularizer: loss on the attention map, such as
            ``MultinomialEntropy(0.01)``.
        receptive_field: pixels of the view a cell of the attention map sees before any
            pooling, if the attention network has no padding.
        seed: int for the random numbers of the draws, None for a random one.
        estimator: without replacement, ``"unordered"`` (None) or ``"ordered"``, that of
            the paper. See ``Expectation``.
        control_variate: take the noise out of the gradient of the attention that the
            other patches tell of. Not with ``"ordered"``. None for True with a proposal
            and False without one. See ``Expectation``.
        prediction: what to classify outside training: ``"sample"`` draws as in
            training, ``"top_k"`` takes the ``n_patches`` cells of most attention, and
            ``"all"`` every cell, which is the full model: exact, and as costly as it is.
        predict_samples: outside training, average over this many sets of draws, with
            ``prediction="sample"``.
        proposal: layer, model or callable from views to a saliency (batch, any height,
            any width), such as ``LocalContrast()``. In training, cells are then drawn
            where there is attention and saliency too, and the weights correct for it:
            sooner off the plateau where most of an image is empty. No gradient reaches it:
            set ``trainable = False`` on one with weights. None draws from the attention.
        proposal_mix: share of the saliency, from 0 to 1; the callback ``ProposalMix``
            changes it while training.
        self_normalize: with a proposal, divide by the sum of the weights: little bias for
            much less variance.
        metrics: report entropy of the attention, mass of the drawn cells and effective
            sample size while training. See ``SamplingMetrics``.
        source: ``attention_sampling.data.Source`` to read the patches from, so that the
            images stay on disk and may differ in size. Not saved with the model:
            ``set_source``.

    Returns:
        Callable from ``[x_low, x_high]``, views (batch, low_height, low_width, channels)
        and images (batch, height, width, channels), or with a source ``[x_low, index]``,
        views and int numbers of images (batch,), to ``[features, attention, patches]``:
        the estimated feature (batch, dim), the attention map (batch, rows,
        columns), and the patches (batch, n_patches, patch_height, patch_width,
        channels) in the dtype of ``x_high``, ``predict_samples`` times as many outside
        training. In a subclassed model keep it as an attribute, so that Keras tracks
        what it holds. The attention at the drawn cells and where the patches lie are the
        other outputs of the model's ``SamplePatches`` layer.

    Raises:
        TypeError: ``proposal`` cannot be called; ``source`` is no source.
        ValueError: ``patch_size`` is None and ``feature`` has no fixed input size;
            arguments or shapes that ``SamplePatches`` or ``Expectation`` refuse.

    Example:

    >>> attention = keras.Sequential([
    ...     keras.layers.Conv2D(1, 3, padding="same"),
    ...     SampleSoftmax(squeeze_channels=True),
    ... ])
    >>> feature = keras.Sequential([
    ...     keras.Input((32, 32, 3)),
    ...     keras.layers.Conv2D(8, 3, activation="relu"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.UnitNormalization(),
    ... ])
    >>> x_low = keras.Input((50, 50, 3))
    >>> x_high = keras.Input((500, 500, 3))
    >>> sample = attention_sampling(attention, feature, n_patches=5)
    >>> features, attention_map, patches = sample([x_low, x_high])
    >>> features.shape, attention_map.shape, patches.shape
    ((None, 8), (None, 50, 50), (None, 5, 32, 32, 3))

    Reference:
        Katharopoulos and Fleuret 2019, eq. 19-20.
    """
    if patch_size is None:
        patch_size = _input_size(feature)
    check_choice("prediction", prediction, ("sample", "top_k", "all"))
    of_all = prediction == "all"
    if of_all and predict_samples != 1:
        raise ValueError(
            "All cells are the same every time: `predict_samples` is for "
            "prediction='sample'. Received: prediction='all', "
            f"predict_samples={predict_samples}"
        )
    if isinstance(proposal, type) or not (proposal is None or callable(proposal)):
        raise TypeError(
            "`proposal` must be a layer, model or callable from views to a saliency, "
            f"such as LocalContrast(). Received: proposal={proposal!r}"
        )
    draws = {
        "replace": replace,
        # Beside the prediction from all cells, the patches to look at are the best.
        "prediction": "top_k" if of_all else prediction,
        "predict_samples": predict_samples,
    }
    sample_patches = SamplePatches(
        n_patches,
        patch_size,
        receptive_field=receptive_field,
        seed=seed,
        return_origins=True,
        proposal_mix=proposal_mix,
        source=source,
        **draws,
    )
    expectation = Expectation(
        estimator=estimator,
        control_variate=control_variate,
        self_normalize=self_normalize,
        **draws,
    )
    return _AttentionSampling(
        attention,
        feature,
        sample_patches,
        expectation,
        FullExpectation(
            feature, patch_size, expectation, receptive_field, source=source
        )
        if of_all
        else None,
        proposal,
        ActivityRegularizer(attention_regularizer) if attention_regularizer else None,
        SamplingMetrics(expectation) if metrics else None,
    )


class _AttentionSampling(keras.layers.Layer):
    """The layers composed.

    A functional model sees the layers inside, as this calls them on its tensors and
    makes no node of its own. To a subclassed model that holds it as an attribute it is
    a layer, whose weights, losses and random state Keras tracks.
    """

    def __init__(
        self,
        attention: Callable[[Any], Any],
        feature: Callable[[Any], Any],
        sample_patches: SamplePatches,
        expectation: Expectation,
        full_expectation: FullExpectation | None,
        proposal: Callable[[Any], Any] | None,
        regularize: ActivityRegularizer | None,
        report: SamplingMetrics | None,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feature = feature
        self.sample_patches = sample_patches
        self.expectation = expectation
        self.full_expectation = full_expectation
        self.unfold_patches = UnfoldPatches()
        self.proposal = proposal
        self.regularize = regularize
        self.report = report
        self.built = True

    def __call__(self, inputs: Any) -> list[Any]:
        x_low, x_high = check_inputs(inputs, "x_low", "x_high")
        check_images("x_low", x_low.shape)
        self.sample_patches.extract_patches.check_images(tuple(x_high.shape))
        attention_map = self.attention(x_low)
        if self.regularize is not None:
            attention_map = self.regularize(attention_map)
        saliency = [] if self.proposal is None else [self.proposal(x_low)]
        patches, *drawn, _ = self.sample_patches(
            [x_low, x_high, attention_map, *saliency]
        )
        if self.full_expectation is None:
            features = self.feature(fold_patches(patches))
            features = self.unfold_patches([features, drawn[0]])
            expected = self.expectation([features, *drawn])
        else:
            sampled_attention, *proposed = drawn
            expected = self.full_expectation(
                [patches, sampled_attention, x_low, x_high, attention_map, *proposed]
            )
        if self.report is not None:
            expected = self.report([expected, attention_map, *drawn])
        return [expected, attention_map, patches]


def _input_size(feature: Any) -> tuple[int, int]:
    """Return the height and width a feature model was built for."""
    shape = getattr(feature, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or None in shape[1:3]:
        raise ValueError(
            "`patch_size=None` takes the patch size from the input of the feature model, "
            "which needs a fixed height and width. Pass patch_size, or begin the model "
            "with keras.Input((height, width, channels)). Received: feature with "
            f"input_shape={shape}"
        )
    return shape[1], shape[2]


def set_source(model: keras.Model, source: Any) -> None:
    """Let a model read its patches from a source.

    A source is not saved with a model, and ``keras.models.clone_model`` leaves it behind
    too. The new one may hold other images, such as those to predict.

    Args:
        model: model that was built with ``attention_sampling(source=...)``, or with
            other layers that take a source.
        source: ``attention_sampling.data.Source`` of the same channels and dtype as the
            one the model was built with.

    Raises:
        TypeError: this is no source.
        ValueError: the source is of another kind; no layer of the model takes one.

    Example:

    >>> from attention_sampling.data import ArraySource
    >>> index = keras.Input((), dtype="int32")
    >>> origins = keras.Input((4, 2), dtype="int32")
    >>> source = ArraySource([np.zeros((100, 200, 3), "uint8")])
    >>> patches = ExtractPatches(32, source=source)([index, origins])
    >>> model = keras.models.clone_model(keras.Model([index, origins], patches))
    >>> set_source(model, source)
    >>> model.predict([np.array([0]), np.zeros((1, 4, 2), "int32")], verbose=0).shape
    (1, 4, 32, 32, 3)
    """
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, ExtractPatches) and layer.reader is not None
    ]
    if not layers:
        raise ValueError(
            "No layer of the model takes patches from a source. Build it with "
            f"attention_sampling(source=...). Received: model={model.name!r}"
        )
    for layer in layers:
        layer.set_source(source)
