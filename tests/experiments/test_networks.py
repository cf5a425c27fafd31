import keras
import numpy as np
import pytest
from keras import ops

from attention_sampling.experiments.networks import (
    SPEED_LIMITS_RECEPTIVE_FIELD,
    colon_cancer_attention,
    colon_cancer_features,
    megapixel_mnist_attention,
    megapixel_mnist_features,
    residual_features,
    speed_limits_attention,
)
from attention_sampling.ops import geometry


@pytest.fixture
def attention_network():
    return speed_limits_attention()


def test_attention_covers_the_view_less_its_receptive_field(attention_network):
    view = np.zeros((2, 288, 384, 3), "float32")
    attention = ops.convert_to_numpy(attention_network(view))
    assert attention.shape == (2, (288 - 8) // 8, (384 - 8) // 8)
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, rtol=1e-5)


def test_a_cell_sees_what_its_window_is_centred_on(attention_network, rng):
    view = rng.uniform(0, 255, (1, 72, 72, 3)).astype("float32")
    changed = view.copy()
    # Cell (3, 5) pools rows 24 to 31 and columns 40 to 47, each of which sees 9 pixels.
    changed[:, 24 : 32 + 8, 40 : 48 + 8] = 0
    scores = keras.Model(attention_network.input, attention_network.layers[-1].input)
    before, after = (
        ops.convert_to_numpy(scores(x))[0, :, :, 0] for x in (view, changed)
    )
    differing = np.argwhere(before != after)
    assert [3, 5] in differing.tolist()
    assert np.abs(differing - [3, 5]).max() <= 1
    origins = geometry.window_origins(
        ops.array([[3 * 8 + 5]]),
        (8, 8),
        (72, 72),
        (72, 72),
        (16, 16),
        SPEED_LIMITS_RECEPTIVE_FIELD,
    )
    # The window is in the middle of what was changed.
    assert ops.convert_to_numpy(origins).tolist() == [[[24, 40]]]


def test_blocks_and_strides_must_match():
    with pytest.raises(ValueError, match="shorter"):
        residual_features((24, 24, 3), filters=(8, 8), strides=(1,))


@pytest.mark.parametrize(
    ("build", "channels"), [(megapixel_mnist_attention, 1), (colon_cancer_attention, 3)]
)
def test_attention_covers_every_pixel_of_the_view(build, channels, rng):
    view = rng.uniform(0, 255, (2, 20, 35, channels)).astype("float32")
    attention = ops.convert_to_numpy(build()(view))
    assert attention.shape == (2, 20, 35)
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, rtol=1e-5)
    assert attention.std() > 0


def test_mnist_features_do_not_depend_on_where_the_digit_is(rng):
    network = megapixel_mnist_features((50, 50, 1))
    digit = rng.uniform(0, 255, (20, 20, 1))
    patches = np.zeros((2, 50, 50, 1), "float32")
    patches[0, 14:34, 15:35] = patches[1, 16:36, 14:34] = digit
    features = ops.convert_to_numpy(network(patches))
    np.testing.assert_allclose(features[0], features[1], rtol=1e-4, atol=1e-5)


def test_mnist_networks_have_the_sizes_of_the_paper():
    # Three layers of 8, 8 and 1 filters; 32 filters of 7x7 and three times of 3x3.
    assert megapixel_mnist_attention().count_params() == 80 + 584 + 73
    assert colon_cancer_attention().count_params() == 224 + 584 + 73
    assert megapixel_mnist_features((50, 50, 1)).count_params() == 1600 + 3 * 9248


def test_colon_cancer_features_are_those_of_ilse_et_al(rng):
    network = colon_cancer_features((27, 27, 3))
    shapes = [
        layer.output.shape[1:]
        for layer in network.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    ]
    assert shapes == [(24, 24, 36), (10, 10, 48), (512,), (512,)]
    assert network.count_params() == 1764 + 15600 + 1200 * 512 + 512 + 513 * 512


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
    "build", [colon_cancer_features, megapixel_mnist_features, residual_features]
)
def test_centred_features_differ_in_direction(build, center, rng):
    patches = rng.uniform(0, 255, (8, 20, 20, 1)).astype("float32")
    network = build((20, 20, 1), center=center)
    features = ops.convert_to_numpy(network(patches, training=True))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    shared = np.linalg.norm(features.mean(axis=0))
    assert shared < 0.5 if center else shared > 0.5


@pytest.mark.parametrize(
    "build", [colon_cancer_features, megapixel_mnist_features, residual_features]
)
def test_norms_are_exact_under_mixed_precision(build, rng):
    keras.config.set_dtype_policy("mixed_bfloat16")
    patches = rng.uniform(0, 255, (4, 20, 20, 3)).astype("float32")
    features = build((20, 20, 3), center=True)(patches)
    assert keras.backend.standardize_dtype(features.dtype) == "float32"
    norms = np.linalg.norm(ops.convert_to_numpy(features), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)
