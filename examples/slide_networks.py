"""The model that classifies a slide, and its networks."""

import keras

import attention_sampling as ats
from attention_sampling.experiments.networks import residual_features

# Pixels of the view, each way, for one cell of the attention map.
POOL = 4
# Features of unit norm, averaged over patches, move the logits little: scaled up, the
# classifier need not grow its weights first.
FEATURE_SCALE = 4


def build_model(arguments, slides, total_steps):
    channels = slides.source.channels
    features, _, _ = ats.attention_sampling(
        build_attention(channels),
        build_features((arguments.patch_size, arguments.patch_size, channels)),
        n_patches=arguments.n_patches,
        # Most of a slide is empty: at first, patches come from where the view shows
        # anything at all.
        proposal=ats.LocalContrast(window=9),
        attention_regularizer=ats.MultinomialEntropy(0.01),
        seed=arguments.seed,
        source=slides.source,
    )(
        inputs := [
            keras.Input((arguments.view_size, arguments.view_size, channels)),
            keras.Input((), dtype="int32", name="index"),
        ]
    )
    scaled = keras.layers.Rescaling(FEATURE_SCALE)(features)
    answer = keras.layers.Dense(len(slides.classes), activation="softmax")(scaled)
    model = keras.Model(inputs, answer, name="slides")
    rate = arguments.learning_rate
    if arguments.decay:
        constant = constant_steps(arguments.decay, total_steps)
        rate = keras.optimizers.schedules.CosineDecay(
            rate,
            total_steps - constant,
            warmup_target=rate if constant else None,
            warmup_steps=constant,
        )
    model.compile(
        optimizer=keras.optimizers.Adam(rate, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        metrics=[
            "accuracy",
            # Alone: the loss holds the regularizer and the weights of the classes too.
            keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy"),
        ],
    )
    return model


def constant_steps(decay, total_steps):
    """Return after how many steps the learning rate begins to fall."""
    return int((1 - decay) * total_steps)


def build_attention(channels):
    """Return a small network that says where in a view to look."""
    view = keras.Input((None, None, channels))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(view)
    for filters in (8, 16):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(1, 3, padding="same")(x)
    x = keras.layers.MaxPooling2D(POOL)(x)
    x = ats.SampleSoftmax(squeeze_channels=True, smooth=1e-4)(x)
    return keras.Model(view, x, name="attention")


def build_features(patch_shape):
    """Return a residual network that sees each patch as it lies, or mirrored.

    View and patches are read apart, so that a slide cannot be augmented as a whole. Its
    patches can.
    """
    patch = keras.Input(patch_shape)
    x = keras.layers.RandomFlip("horizontal_and_vertical")(patch)
    x = residual_features(patch_shape, first_stride=2)(x)
    return keras.Model(patch, x, name="feature")
