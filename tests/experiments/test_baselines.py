"""What the paper compares with: layers, Deep MIL, and the network on whole images."""

import keras
import numpy as np
import pytest
from keras import ops

from attention_sampling import SamplePatches
from attention_sampling.experiments.baselines import (
    AreaDownsampling,
    AttentionPooling,
    ExtractGrid,
    UniformAttention,
    convolutional_network,
    deep_mil,
)

LAYERS = {
    "UniformAttention": (UniformAttention, (8, 9, 3), "float32"),
    "UniformAttention of a map": (lambda: UniformAttention((2, 3)), (8, 9, 3), "uint8"),
    "ExtractGrid": (lambda: ExtractGrid(5, (2, 3)), (8, 9, 3), "uint8"),
    "AttentionPooling": (AttentionPooling, (7, 4), "float32"),
    "AttentionPooling, gated": (lambda: AttentionPooling(3, True), (7, 4), "float32"),
    "AreaDownsampling": (lambda: AreaDownsampling(0.3), (20, 9, 3), "uint8"),
}


@pytest.fixture(params=LAYERS)
def case(request):
    return LAYERS[request.param]


def random_batch(rng, shape, dtype, batch=2):
    return rng.uniform(0, 255, (batch, *shape)).astype(dtype)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_symbolic_and_eager_calls_agree(case, policy, rng):
    make, shape, dtype = case
    keras.config.set_dtype_policy(policy)
    layer = make()
    symbolic = keras.tree.flatten(layer(keras.Input(shape, dtype=dtype)))
    eager = keras.tree.flatten(layer(ops.array(random_batch(rng, shape, dtype))))
    assert len(symbolic) == len(eager)
    for expected, computed in zip(symbolic, eager, strict=True):
        assert expected.shape == (None, *computed.shape[1:])
        assert computed.shape[0] == 2
        assert expected.dtype == keras.backend.standardize_dtype(computed.dtype)
        # Every output but pixels is at least float32, also under mixed precision.
        assert expected.dtype in ("float32", "uint8")


def test_layer_is_saved_and_loaded(case, rng, tmp_path):
    make, shape, dtype = case
    inputs = keras.Input(shape, dtype=dtype)
    model = keras.Model(inputs, make()(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    batch = random_batch(rng, shape, dtype, batch=3)
    for before, after in zip(
        keras.tree.flatten(model.predict(batch, batch_size=2, verbose=0)),
        keras.tree.flatten(loaded.predict(batch, batch_size=2, verbose=0)),
        strict=True,
    ):
        assert before.shape[0] == 3
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("map_size", "rows", "columns"), [(None, 4, 5), ((2, 3), 2, 3), (7, 7, 7)]
)
def test_uniform_attention_is_the_same_everywhere(map_size, rows, columns):
    attention = UniformAttention(map_size)(ops.ones((2, 4, 5, 3)))
    expected = np.full((2, rows, columns), 1 / (rows * columns), "float32")
    np.testing.assert_allclose(ops.convert_to_numpy(attention), expected, rtol=1e-6)


GRIDS = [
    # height, width, patch, grid
    (50, 50, (27, 27), (5, 5)),  # windows reach over each border
    (96, 128, (20, 24), (6, 8)),
    (40, 30, (3, 4), (2, 3)),  # gaps between the windows, none reaches over
    (10, 10, (16, 25), (1, 2)),  # windows larger than the image
    (13, 17, (5, 2), (13, 17)),  # one a pixel
]


@pytest.mark.parametrize(("height", "width", "patch", "grid"), GRIDS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_grid_equals_slices_of_the_padded_image(height, width, patch, grid, dtype, rng):
    images = random_batch(rng, (height, width, 3), dtype)
    patches = ops.convert_to_numpy(ExtractGrid(patch, grid)(ops.array(images)))
    padded = np.pad(images, [(0, 0), (99, 99), (99, 99), (0, 0)])
    expected = []
    for row in range(grid[0]):
        for column in range(grid[1]):
            top = 99 + round((row + 0.5) * height / grid[0] - patch[0] / 2)
            left = 99 + round((column + 0.5) * width / grid[1] - patch[1] / 2)
            expected.append(padded[:, top : top + patch[0], left : left + patch[1]])
    np.testing.assert_array_equal(patches, np.stack(expected, axis=1))


def test_grid_is_where_attention_sampling_takes_patches(rng):
    """As many patches as cells: every window, in some order."""
    images = ops.array(random_batch(rng, (30, 40, 1), "uint8", batch=1))
    view, attention = ops.zeros((1, 3, 4, 1)), ops.full((1, 3, 4), 1 / 12)
    sampled = SamplePatches(12, (11, 8), seed=0)([view, images, attention])[0][0]
    grid = ExtractGrid((11, 8), (3, 4))(images)[0]
    sampled, grid = (
        sorted(ops.convert_to_numpy(patches).reshape(12, -1).tolist())
        for patches in (sampled, grid)
    )
    assert sampled == grid


@pytest.mark.parametrize("layer", [ExtractGrid(3, 2), AreaDownsampling(0.5)])
def test_images_must_be_a_batch_of_a_known_size(layer):
    with pytest.raises(ValueError, match=r"known size\. Expected: .*Received: .*None"):
        layer(keras.Input((None, 20, 3)))
    with pytest.raises(ValueError, match=r"`inputs` must have shape \(batch, height"):
        layer(ops.zeros((20, 20, 3)))


def pooled_in_numpy(features, gated, hidden_kernel, *others):
    """Attention pooling in float64, one sample and one patch at a time."""
    *gate_kernel, score_kernel = others
    pooled, attention = [], []
    for sample in features.astype("float64"):
        scores = []
        for patch in sample:
            hidden = np.tanh(hidden_kernel.T @ patch)
            if gated:
                hidden *= 1 / (1 + np.exp(-(gate_kernel[0].T @ patch)))
            scores.append(score_kernel[:, 0] @ hidden)
        weights = np.exp(scores) / np.sum(np.exp(scores))
        attention.append(weights)
        pooled.append(weights @ sample)
    return np.array(pooled), np.array(attention)


@pytest.mark.parametrize("gated", [False, True])
def test_pooling_equals_the_equations(gated, rng):
    layer = AttentionPooling(units=6, gated=gated)
    layer.build((None, 5, 4))
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))
    features = rng.normal(size=(3, 5, 4)).astype("float32")
    computed = [ops.convert_to_numpy(x) for x in layer(ops.array(features))]
    weights = [ops.convert_to_numpy(w).astype("float64") for w in layer.weights]
    expected = pooled_in_numpy(features, gated, *weights)
    for x, y in zip(computed, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_pooling_needs_one_vector_a_patch():
    with pytest.raises(ValueError, match=r"Expected: inputs of shape \(batch, count"):
        AttentionPooling()(ops.zeros((2, 4)))
    with pytest.raises(ValueError, match="`units` must be an int of at least 1"):
        AttentionPooling(units=0)


def mean_colours(patch_shape):
    patch = keras.Input(patch_shape)
    return keras.Model(patch, keras.layers.GlobalAveragePooling2D()(patch))


@pytest.mark.parametrize("gated", [False, True])
def test_deep_mil_is_grid_features_and_pooling(gated, rng):
    images = random_batch(rng, (12, 20, 3), "uint8", batch=3)
    inputs = keras.Input((12, 20, 3), dtype="uint8")
    outputs = deep_mil(mean_colours((6, 4, 3)), (6, 4), (2, 5), 8, gated)(inputs)
    model = keras.Model(inputs, outputs)
    features, attention, patches = model.predict(images, batch_size=2, verbose=0)
    assert model.count_params() == (1 + gated) * 3 * 8 + 8
    assert attention.shape == (3, 2, 5)
    assert patches.dtype == np.uint8
    # Without overlap the windows are the blocks of the image.
    blocks = images.reshape(3, 2, 6, 5, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    np.testing.assert_array_equal(patches, blocks.reshape(3, 10, 6, 4, 3))
    means = blocks.mean(axis=(3, 4))
    expected = (attention[..., None] * means).sum(axis=(1, 2))
    np.testing.assert_allclose(features, expected, rtol=1e-4)
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("scale", "height", "width"),
    [(0.5, 8, 6), (0.3, 20, 30), (0.75, 8, 12), (1, 3, 4), (0.3, 9, 11), (0.01, 9, 5)],
)
def test_downsampling_averages_over_the_area(scale, height, width, rng):
    images = random_batch(rng, (height, width, 2), "uint8")
    rows, columns = (max(1, round(scale * extent)) for extent in (height, width))
    # Each pixel as many times as there are new ones: then every new one covers whole.
    fine = images.astype("float64").repeat(rows, axis=1).repeat(columns, axis=2)
    blocks = fine.reshape(2, rows, height, columns, width, 2)
    computed = ops.convert_to_numpy(AreaDownsampling(scale)(ops.array(images)))
    assert computed.shape == (2, rows, columns, 2)
    np.testing.assert_allclose(computed, blocks.mean(axis=(2, 4)), rtol=1e-5)


@pytest.mark.parametrize("scale", [0, -0.5, 1.5, float("nan")])
def test_downsampling_refuses_other_scales(scale):
    with pytest.raises(ValueError, match=f"above 0 and at most 1. Received: .*{scale}"):
        AreaDownsampling(scale)


def test_convolutional_network_sees_the_image_at_its_scale(rng):
    """An image and the same with every pixel four times look alike to it."""
    image = random_batch(rng, (16, 24, 3), "uint8")
    large = image.repeat(2, axis=1).repeat(2, axis=2)
    whole = convolutional_network((16, 24, 3))
    scaled = convolutional_network((32, 48, 3), scale=0.5)
    scaled.set_weights(whole.get_weights())
    features = ops.convert_to_numpy(whole(image))
    assert features.shape == (2, 32)
    np.testing.assert_allclose(
        ops.convert_to_numpy(scaled(large)), features, rtol=1e-4, atol=1e-5
    )
