import keras
import numpy as np
import pytest
from keras import ops

from attention_sampling.networks import (
    SPEED_LIMITS_RECEPTIVE_FIELD,
    residual_features,
    speed_limits_attention,
)


@pytest.fixture
def attention_network():
    return speed_limits_attention()


def test_attention_covers_the_view_less_its_receptive_field(attention_network):
    view = np.zeros((2, 288, 384, 3), "float32")
    attention = ops.convert_to_numpy(attention_network(view))
    assert attention.shape == (2, (288 - 8) // 8, (384 - 8) // 8)
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, rtol=1e-5)


def test_receptive_field_is_that_of_the_convolutions(attention_network):
    sizes = [
        layer.kernel_size[0]
        for layer in attention_network.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    assert 1 + sum(size - 1 for size in sizes) == SPEED_LIMITS_RECEPTIVE_FIELD


def test_a_cell_sees_the_place_its_window_is_centred_on(attention_network, rng):
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


def test_features_have_unit_norm(rng):
    network = residual_features((24, 24, 3), filters=(8, 16), strides=(1, 2))
    patches = rng.uniform(0, 255, (5, 24, 24, 3)).astype("float32")
    features = ops.convert_to_numpy(network(patches))
    assert features.shape == (5, 16)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)


def test_blocks_and_strides_must_match():
    with pytest.raises(ValueError, match="shorter"):
        residual_features((24, 24, 3), filters=(8, 8), strides=(1,))
