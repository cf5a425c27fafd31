"""ExtractPatches: windows of images, and its checks."""

import keras
import numpy as np
import pytest
import reference
from keras import ops

from attention_sampling import ExtractPatches


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("patch_size", [3, (2, 5), [4, 1], np.int64(2)])
def test_windows_are_zero_padded_slices(patch_size, dtype, rng):
    images = rng.integers(1, 256, size=(2, 6, 5, 3)).astype(dtype)
    origins = np.array([[[-2, 0], [4, 3]], [[0, -1], [9, 9]]], "int32")
    layer = ExtractPatches(patch_size)
    patches = layer([ops.convert_to_tensor(images), ops.convert_to_tensor(origins)])
    assert keras.backend.standardize_dtype(patches.dtype) == dtype
    for image in range(2):
        for window in range(2):
            np.testing.assert_array_equal(
                ops.convert_to_numpy(patches[image, window]),
                reference.window(
                    images[image], origins[image, window], layer.patch_size
                ),
            )


def test_numpy_inputs_keep_their_dtype():
    images = np.full((1, 4, 4, 1), 200, "uint8")
    patches = ExtractPatches(2)([images, np.array([[[1, 1]]], "int32")])
    assert keras.backend.standardize_dtype(patches.dtype) == "uint8"
    np.testing.assert_array_equal(ops.convert_to_numpy(patches), 200)


@pytest.mark.parametrize(
    "patch_size",
    [0, -1, (5, 0), (5,), (5, 5, 5), 2.5, (2.0, 2), "50", None, True, (True, 5)],
)
def test_refuses_patch_sizes_that_are_not_positive_ints(patch_size):
    with pytest.raises(ValueError, match=r"`patch_size` must be .* Received: patch_s"):
        ExtractPatches(patch_size)


@pytest.mark.parametrize("origins", [(2, 3), (2, 3, 3), (2, 3, 2, 1), (2, 3, None)])
def test_refuses_origins_of_another_shape(origins):
    with pytest.raises(ValueError, match=r"`origins` must have shape .*, 2\)"):
        ExtractPatches(4)([keras.KerasTensor((2, 9, 9, 3)), keras.KerasTensor(origins)])


def test_refuses_images_of_another_rank():
    with pytest.raises(
        ValueError,
        match=r"`x_high` must have shape .* Received: x_high.shape=\(2, 9, 9",
    ):
        ExtractPatches(4)([keras.KerasTensor((2, 9, 9)), keras.KerasTensor((2, 3, 2))])


def test_refuses_another_batch():
    with pytest.raises(
        ValueError, match="x_high and origins must hold the same number of samples"
    ):
        ExtractPatches(4)([ops.ones((2, 9, 9, 3)), ops.ones((3, 1, 2), dtype="int32")])


def test_refuses_channels_first():
    keras.config.set_image_data_format("channels_first")
    with pytest.raises(ValueError, match="channels-last images"):
        ExtractPatches(4)([ops.ones((2, 9, 9, 3)), ops.ones((2, 1, 2), dtype="int32")])


def test_refuses_origins_between_pixels():
    images, origins = keras.Input((9, 9, 3)), keras.Input((3, 2), dtype="float32")
    with pytest.raises(ValueError, match=r"integers.*origins\.dtype=float32"):
        ExtractPatches(4)([images, origins])


@pytest.mark.parametrize("inputs", [1, 3])
def test_refuses_another_number_of_inputs(inputs):
    images = [keras.Input((9, 9, 3))] * inputs
    with pytest.raises(ValueError, match=r"2 inputs, \[x_high, origins\]\. Received: "):
        ExtractPatches(4)(images)
