"""Extracted windows against numpy slices."""

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from attention_sampling import extract_patches


def images_of(dtype, shape, rng):
    """Return images without a zero, so that zeros mean outside."""
    if np.issubdtype(dtype, np.integer):
        return rng.integers(1, np.iinfo(dtype).max, size=shape, endpoint=True).astype(
            dtype
        )
    return rng.uniform(0.5, 2, size=shape).astype(dtype)


NEAR = st.integers(-12, 20)
FAR = st.sampled_from([-(2**31), -(10**6), 10**6, 2**31 - 1])
ORIGIN = st.tuples(NEAR | FAR, NEAR | FAR)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([(1, 1), (7, 4), (5, 12)]),
    patch_size=st.sampled_from([(1, 1), (3, 2), (4, 14)]),
    origins=st.lists(ORIGIN, min_size=6, max_size=6),
)
def test_windows_are_zero_padded_slices(dtype, size, patch_size, origins):
    images = images_of(dtype, (2, *size, 3), np.random.default_rng(0))
    origins = np.array(origins, "int32").reshape(2, 3, 2)
    x_high = ops.convert_to_tensor(images)
    patches = extract_patches(x_high, ops.convert_to_tensor(origins), patch_size)
    assert keras.backend.standardize_dtype(patches.dtype) == (
        keras.backend.standardize_dtype(x_high.dtype)
    )
    patches = ops.convert_to_numpy(patches)
    assert patches.shape == (2, 3, *patch_size, 3)
    for image in range(2):
        for window in range(3):
            expected = reference.window(
                images[image], origins[image, window], patch_size
            )
            np.testing.assert_array_equal(patches[image, window], expected)


def test_outside_is_zero_even_where_the_image_is_not_finite():
    images = ops.full((1, 2, 2, 1), float("nan"))
    patches = extract_patches(images, ops.array([[[5, 5]]]), (2, 2))
    np.testing.assert_array_equal(ops.convert_to_numpy(patches), 0)


def test_in_a_functional_model_of_known_batch():
    images = keras.Input((7, 4, 3), batch_size=2, dtype="uint8")
    origins = keras.Input((3, 2), batch_size=2, dtype="int32")
    model = keras.Model([images, origins], extract_patches(images, origins, (2, 5)))
    rng = np.random.default_rng(0)
    values = [images_of("uint8", (2, 7, 4, 3), rng), rng.integers(-3, 8, (2, 3, 2))]
    expected = extract_patches(*map(ops.convert_to_tensor, values), (2, 5))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model(values)), ops.convert_to_numpy(expected)
    )


def test_gradient_reaches_the_pixels_of_the_window_only():
    images = np.ones((1, 3, 3, 1), "float32")
    _, (gradient,) = value_and_gradients(
        lambda x: extract_patches(x, ops.array([[[-1, 1], [0, 1]]]), (2, 2)), [images]
    )
    expected = [[0, 2, 2], [0, 1, 1], [0, 0, 0]]
    np.testing.assert_array_equal(gradient[0, :, :, 0], expected)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_origins_of_any_integer_dtype(dtype):
    images = np.arange(1, 17, dtype="float32").reshape(1, 4, 4, 1)
    origins = np.array([[[2, 3]]], dtype)
    patches = extract_patches(ops.array(images), ops.convert_to_tensor(origins), (2, 2))
    assert ops.convert_to_numpy(patches)[0, 0, :, :, 0].tolist() == [[12, 0], [16, 0]]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="sizes unknown before the graph runs occur on TensorFlow only",
)
def test_patches_of_images_of_unknown_size(rng):
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None] * 4, tf.uint8)])
    def graph(images):
        return extract_patches(images, tf.constant([[[-1, 2]], [[3, 3]]]), (3, 4))

    images = rng.integers(1, 256, size=(2, 6, 5, 3)).astype("uint8")
    patches = graph(tf.constant(images)).numpy()
    for i, origin in enumerate([(-1, 2), (3, 3)]):
        expected = reference.window(images[i], origin, (3, 4))
        np.testing.assert_array_equal(patches[i, 0], expected)


@pytest.mark.parametrize(
    ("origins", "patch_size", "message"),
    [
        (np.zeros((2, 2)), 8, r"origins \(batch, n_patches, 2\)"),
        (np.zeros((1, 2, 3)), 8, r"origins\.shape=\(1, 2, 3\)"),
        (np.zeros((1, 2, 2)), 0, "`patch_size` must be a positive int"),
    ],
)
def test_refuses_other_shapes(origins, patch_size, message):
    with pytest.raises(ValueError, match=message):
        extract_patches(ops.ones((1, 9, 9, 1)), ops.array(origins), patch_size)
