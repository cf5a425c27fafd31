"""UnfoldPatches and fold_patches: there and back again."""

import keras
import numpy as np
import pytest
from keras import ops

from attention_sampling import UnfoldPatches
from attention_sampling.layers.unfold_patches import fold_patches


@pytest.mark.parametrize("trailing", [(4,), (2, 5), ()])
def test_every_sample_gets_its_own_features_back(trailing, rng):
    features = rng.normal(size=(2, 3, *trailing)).astype("float32")
    unfolded = UnfoldPatches()(
        [ops.array(features.reshape(6, *trailing)), ops.ones((2, 3))]
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(unfolded), features)


def test_is_the_inverse_of_fold_patches(rng):
    patches = rng.normal(size=(2, 3, 4, 5, 1)).astype("float32")
    folded = fold_patches(ops.array(patches))
    assert tuple(folded.shape) == (6, 4, 5, 1)
    unfolded = UnfoldPatches()([folded, ops.ones((2, 3))])
    np.testing.assert_array_equal(ops.convert_to_numpy(unfolded), patches)


def test_the_number_of_patches_may_change_from_call_to_call():
    layer = UnfoldPatches()
    for n_patches in (3, 6):
        unfolded = layer([ops.zeros((2 * n_patches, 4)), ops.ones((2, n_patches))])
        assert tuple(unfolded.shape) == (2, n_patches, 4)


@pytest.mark.parametrize(
    ("features", "attention", "unfolded"),
    [
        ((None, 4), (None, 3), (None, 3, 4)),
        ((None, 4), (None, None), (None, None, 4)),
        ((6, 4, 5), (2, 3), (2, 3, 4, 5)),
    ],
)
def test_symbolic_shapes(features, attention, unfolded):
    inputs = [keras.KerasTensor(features, "float16"), keras.KerasTensor(attention)]
    output = UnfoldPatches()(inputs)
    assert (output.shape, output.dtype) == (unfolded, "float16")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
def test_integer_pixels_are_folded_to_floats_of_the_same_value(dtype):
    patches = np.arange(200, 212).reshape(2, 3, 1, 2, 1).astype(dtype)
    folded = fold_patches(ops.convert_to_tensor(patches))
    assert keras.backend.standardize_dtype(folded.dtype) == "float32"
    np.testing.assert_array_equal(
        ops.convert_to_numpy(folded).ravel(), np.arange(200, 212)
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_float_pixels_keep_their_dtype(dtype):
    folded = fold_patches(ops.ones((2, 3, 4, 4, 1), dtype=dtype))
    assert keras.backend.standardize_dtype(folded.dtype) == dtype


def test_refuses_another_number_of_inputs():
    with pytest.raises(ValueError, match=r"2 inputs, \[features, sampled_attention\]"):
        UnfoldPatches()([keras.Input((4,))] * 3)
