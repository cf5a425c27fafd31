"""Attention sampling in a few calls: the usual way in."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from attention_sampling import backend
from attention_sampling.layers import AttentionSampling, ExtractPatches
from attention_sampling.layers.attention_sampling import sampling_layers


def attention_sampling(
    attention: keras.Layer,
    feature: keras.Layer,
    patch_size: int | tuple[int, int] | None = None,
    n_patches: int = 10,
    replace: bool = False,
    attention_regularizer: Callable[[Any], Any] | None = None,
    receptive_field: int = 0,
    *,
    seed: int | None = None,
    estimator: str | None = None,
    control_variate: bool | None = None,
    prediction: str = "sample",
    proposal: keras.Layer | None = None,
    proposal_mix: float = 0.5,
    self_normalize: bool = True,
    metrics: bool = False,
    source: Any = None,
    class_names: Sequence[str] | None = None,
) -> AttentionSampling:
    """Make one layer of an attention network and a feature network.

    Args:
        attention: Keras layer or model from views to attention maps (batch, rows,
            columns) that sum to 1; end it in ``SampleSoftmax(squeeze_channels=True)``.
        feature: Keras layer or model from patches (any batch, patch_height,
            patch_width, channels) to features (any batch, dim). Features of equal norm
            (``keras.layers.UnitNormalization``) make the attention the sampling
            distribution of least variance. Integer pixels reach it as floats of the
            same values, 0 to 255 for uint8: begin with a ``Rescaling`` layer there.
        patch_size: height and width of the patches in full-resolution pixels, one int
            or two; None takes it from the input of the ``feature`` model.
        n_patches: patches to sample for each image.
        replace: sample with replacement.
        attention_regularizer: loss on the attention map, such as
            ``MultinomialEntropy(0.01)``.
        receptive_field: pixels of the view a cell of the attention map sees before any
            pooling, if the attention network has no padding.
        seed: int for the random numbers of the sampling, None for a random one.
        estimator: without replacement, ``"unordered"`` (None) or ``"ordered"``, that of
            the paper. See ``Expectation``.
        control_variate: in the gradient of the attention, subtract from each feature
            what the other patches say the sum is: the same on average, with less noise.
            Not with ``"ordered"``. None for True with a proposal and False without one.
            See ``Expectation``.
        prediction: what to predict from outside training: ``"sample"`` samples as in
            training, ``"top_k"`` takes the ``n_patches`` cells of most attention, and
            ``"all"`` every cell, which is the full model: exact, and as costly as it is.
            ``with_sampling`` changes it of a trained model.
        proposal: Keras layer or model from views to a saliency (batch, any height, any
            width), such as ``LocalContrast()``. In training, cells are then sampled
            where there is attention and saliency too, and the weights correct for it:
            sooner off the plateau where most of an image is empty. No gradient reaches it:
            set ``trainable = False`` on one with weights. None samples from the attention.
        proposal_mix: fraction of the saliency, from 0 to 1; the callback ``ProposalMix``
            changes it while training.
        self_normalize: with a proposal, divide by the sum of the weights: little bias for
            much less variance.
        metrics: report entropy of the attention, mass of the sampled cells and effective
            sample size while training. See ``SamplingMetrics``.
        source: ``attention_sampling.data.Source`` to read the patches from, so that the
            images stay on disk and may differ in size. Not saved with the model:
            ``set_source``.
        class_names: names of the classes, in the order of the model's answer, saved with
            the model so that ``visualize.explain`` answers by name. None for those of the
            source, if it has any.

    Returns:
        Layer from ``[x_low, x_high]``, views (batch, low_height, low_width, channels)
        and images (batch, height, width, channels), or with a source ``[x_low, index]``,
        views and which image of the source each is, (batch,) of an int dtype, to
        ``[features, attention, patches]``: the estimated feature (batch, dim), the
        attention map (batch, rows, columns), and the patches (batch, n_patches,
        patch_height, patch_width, channels) in the dtype of ``x_high``. In a subclassed
        model keep it as an attribute, so that Keras tracks what it holds.

    Raises:
        TypeError: a network is no Keras layer; ``source`` is no source.
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
    return AttentionSampling(
        attention,
        feature,
        patch_size,
        n_patches,
        replace,
        attention_regularizer,
        receptive_field,
        seed=seed,
        estimator=estimator,
        control_variate=control_variate,
        prediction=prediction,
        proposal=proposal,
        proposal_mix=proposal_mix,
        self_normalize=self_normalize,
        metrics=metrics,
        source=source,
        class_names=class_names,
    )


def with_sampling(
    model: keras.Model, n_patches: int | None = None, prediction: str | None = None
) -> keras.Model:
    """Return the same trained model with another number of patches.

    One trained model serves any budget: few patches where it must be fast, many where
    it must be sure, ``prediction="all"`` for the full model.

    Args:
        model: model that holds layers of ``attention_sampling()``. It stays as it is.
        n_patches: patches to sample for each image, None for as many as before.
        prediction: ``"sample"``, ``"top_k"`` or ``"all"`` as of
            ``attention_sampling()``, None for that of before.

    Returns:
        Model of the same weights, compiled alike with a new optimizer; not compiled,
        with a warning, if its loss or metrics are functions that Keras does not know. A
        functional model shares its weights with the first: to train one trains the
        other. A subclassed model, or a layer of your own that holds the sampling, is
        made again from ``get_config()`` and its weights are copied; saved and loaded, it
        samples as its ``get_config()`` says.

    Raises:
        TypeError: this is no model.
        ValueError: ``n_patches`` or ``prediction`` that cannot be; a model without such
            a layer, or a subclassed one that cannot be copied.

    Example:

    >>> inputs = [keras.Input((10, 10, 3)), keras.Input((100, 100, 3))]
    >>> attention = keras.Sequential(
    ...     [keras.layers.Conv2D(1, 3), SampleSoftmax(squeeze_channels=True)]
    ... )
    >>> feature = keras.layers.GlobalAveragePooling2D()
    >>> sample = attention_sampling(attention, feature, patch_size=32, n_patches=5)
    >>> model = keras.Model(inputs, sample(inputs))
    >>> features, _, patches = with_sampling(model, n_patches=50).outputs
    >>> patches.shape
    (None, 50, 32, 32, 3)
    """
    if not sampling_layers(model):
        raise ValueError(
            "The model holds no layer of attention_sampling(), whose sampling could be "
            f"changed. Received: model={model.name!r}"
        )
    # Functional models, and only they, are made of operations.
    if not isinstance(model, keras.Sequential) and not hasattr(model, "operations"):
        return _copy_subclassed(model, n_patches, prediction)

    def replace(layer: Any) -> Any:
        if isinstance(layer, AttentionSampling):
            layer = layer.copy()
            layer.set_sampling(n_patches, prediction)
        elif isinstance(layer, keras.Layer) and sampling_layers(layer):
            layer = with_sampling(layer, n_patches, prediction)
        return layer

    compiled, model.compiled = model.compiled, False
    try:
        copy = keras.models.clone_model(model, clone_function=replace)
    finally:
        model.compiled = compiled
    _compile_alike(copy, model)
    return copy


def _compile_alike(copy: Any, model: Any) -> None:
    """Compile a model like another, if that can be made again from a config."""
    if not getattr(model, "compiled", False):
        return
    try:
        copy.compile_from_config(model.get_compile_config())
    except (TypeError, ValueError) as error:
        warnings.warn(
            "The model with another sampling predicts, but is not compiled: its loss or "
            f"metrics are not registered with Keras ({error}). Call compile() to "
            "evaluate or train it",
            stacklevel=3,
        )


def _copy_subclassed(model: Any, n_patches: Any, prediction: Any) -> Any:
    """Make a subclassed model again from its config, and give it the same weights."""
    try:
        copy = type(model).from_config(model.get_config())
        shapes = model.get_build_config()["input_shape"]
    except (KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "A subclassed model is made again from its config, as when it is loaded: its "
            "constructor must take what get_config() returns, with **kwargs, and the "
            "model must have been called, with one argument. Or make it again yourself, "
            "with another n_patches, and call set_weights(model.get_weights()). "
            f"Received: model={model.name!r} of class {type(model).__name__}"
        ) from error
    pairs = list(zip(sampling_layers(copy), sampling_layers(model), strict=True))
    for layer, old in pairs:
        layer.set_sampling(n_patches, prediction)
        if not isinstance(old.source, dict | None):
            layer.sample_patches.extract_patches.set_source(old.source)

    copy(_symbolic(shapes))  # which builds it
    copy.set_weights(model.get_weights())
    _compile_alike(copy, model)
    return copy


def _symbolic(shapes: Any) -> Any:
    """Return symbolic tensors of one image, for a shape or a list or dict of them."""
    if isinstance(shapes, dict):
        return {name: _symbolic(shape) for name, shape in shapes.items()}
    if shapes and isinstance(shapes[0], list | tuple):
        return [_symbolic(shape) for shape in shapes]
    # Of one axis alone is which image of a source it is.
    return keras.KerasTensor((1, *shapes[1:]), "int32" if len(shapes) == 1 else None)


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
        TypeError: this is no model, or no source.
        ValueError: the source is of another kind, or its labels are of other classes; no
            layer of the model takes one.

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
        for layer in backend.all_layers(model)
        if isinstance(layer, ExtractPatches) and layer.reader is not None
    ]
    if not layers:
        raise ValueError(
            "No layer of the model takes patches from a source. Build it with "
            f"attention_sampling(source=...). Received: model={model.name!r}"
        )
    names = getattr(source, "class_names", None)
    for layer in sampling_layers(model):
        if None not in (names, layer.class_names) and tuple(names) != layer.class_names:
            raise ValueError(
                "The labels of the source must count the classes of the model. Open it by "
                f"open_source(..., class_names={list(layer.class_names)}). Received: "
                f"class_names={list(names)}"
            )
    if any(isinstance(layer.source, dict) for layer in layers):
        # What Keras began to trace without a source cannot be traced again.
        model.train_function = model.test_function = model.predict_function = None
    for layer in layers:
        layer.set_source(source)
