"""ExtractPatches: windows of images, and its checks."""

import keras
import numpy as np
import pytest
import reference
from keras import ops

from attention_sampling import ExtractPatches
from attention_sampling.data import ArraySource


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
    ("x_high", "origins", "message"),
    [
        ((2, 9, 9, 3), (2, 3), r"`origins` must have shape .*, 2\)"),
        ((2, 9, 9, 3), (2, 3, None), r"`origins` must have shape .*, 2\)"),
        ((2, 9, 9), (2, 3, 2), r"`x_high` must have shape .* x_high.shape=\(2, 9, 9"),
        ((2, 9, 9, 3), (3, 3, 2), "x_high and origins must hold the same number"),
    ],
)
def test_refuses_inputs_that_do_not_fit(x_high, origins, message):
    inputs = [keras.KerasTensor(x_high), keras.KerasTensor(origins, "int32")]
    with pytest.raises(ValueError, match=message):
        ExtractPatches(4)(inputs)


def test_refuses_other_arguments_and_inputs():
    with pytest.raises(ValueError, match=r"`patch_size` must be .* Received: patch_s"):
        ExtractPatches((5, 0))
    images, origins = keras.Input((9, 9, 3)), keras.Input((3, 2), dtype="float32")
    with pytest.raises(ValueError, match=r"integers.*origins\.dtype=float32"):
        ExtractPatches(4)([images, origins])
    with pytest.raises(ValueError, match=r"2 inputs, \[x_high, origins\]\. Received: "):
        ExtractPatches(4)([images] * 3)
    keras.config.set_image_data_format("channels_first")
    with pytest.raises(ValueError, match="channels-last images"):
        ExtractPatches(4)([ops.ones((2, 9, 9, 3)), ops.ones((2, 1, 2), dtype="int32")])


class TestFromASource:
    images = (
        np.arange(1, 91, dtype="uint8").reshape(6, 5, 3),
        np.arange(1, 25, dtype="uint8").reshape(2, 4, 3),
    )

    def layer(self):
        return ExtractPatches((2, 3), source=ArraySource(list(self.images), threads=2))

    @pytest.mark.parametrize("dtype", ["uint8", "int64"])
    def test_numbers_of_any_integer_dtype(self, dtype):
        index = ops.convert_to_tensor(np.array([1], dtype))
        patches = self.layer()([index, np.zeros((1, 1, 2), "int32")])
        np.testing.assert_array_equal(
            ops.convert_to_numpy(patches)[0, 0], self.images[1][:2, :3]
        )

    @pytest.mark.parametrize("shape", [(2, 1), (2, 9, 9, 3), ()])
    def test_refuses_numbers_of_another_shape(self, shape):
        index, origins = keras.KerasTensor(shape), keras.KerasTensor((2, 3, 2), "int32")
        message = r"of shape \(batch,\).*keras\.Input\(\(\), dtype='int32'\)\. Received"
        with pytest.raises(ValueError, match=message):
            self.layer()([index, origins])

    @pytest.mark.parametrize("call", [keras.KerasTensor, np.ones])
    def test_refuses_numbers_that_are_no_integers(self, call):
        inputs = [call((2,), "float32"), call((2, 3, 2), "int32")]
        with pytest.raises(ValueError, match=r"`index` must be integers.*float32"):
            self.layer()(inputs)

    def test_refuses_another_batch(self):
        with pytest.raises(ValueError, match="must hold the same number of samples"):
            self.layer()([np.zeros(3, "int32"), np.zeros((2, 1, 2), "int32")])

    def test_a_layer_of_tensors_can_be_compiled_on_any_backend(self):
        on_tensorflow = keras.backend.backend() == "tensorflow"
        assert ExtractPatches(2).supports_jit
        assert self.layer().supports_jit == (not on_tensorflow)
