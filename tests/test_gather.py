import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from keras import ops

from attention_sampling.gather import gather_rows

INDICES = np.array([[[4], [0]], [[0], [3]], [[2], [2]]], "int32")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32"])
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
@pytest.mark.parametrize("trailing", [(), (3,), (2, 3)])
def test_rows_are_those_of_numpy(dtype, index_dtype, trailing):
    x = np.arange(1, 1 + 5 * int(np.prod(trailing))).reshape(5, *trailing).astype(dtype)
    indices = ops.convert_to_tensor(INDICES.astype(index_dtype))
    tensor = ops.convert_to_tensor(x)  # int32 for uint16 on PyTorch
    rows = gather_rows(tensor, indices)
    assert rows.dtype == tensor.dtype
    np.testing.assert_array_equal(ops.convert_to_numpy(rows), x[INDICES])


def test_gradient_adds_up_where_a_row_is_taken_twice():
    weights = ops.reshape(ops.arange(1.0, 7.0), (3, 2, 1))
    x = np.ones(5, "float32")
    _, (gradient,) = value_and_gradients(
        lambda x: gather_rows(x, ops.convert_to_tensor(INDICES)) * weights, [x]
    )
    np.testing.assert_array_equal(gradient, [2 + 3, 0, 5 + 6, 4, 1])


def test_symbolic():
    x = keras.KerasTensor((5, 3), dtype="uint8")
    indices = keras.KerasTensor((2, 7), dtype="int32")
    rows = gather_rows(x, indices)
    assert (rows.shape, rows.dtype) == ((2, 7, 3), "uint8")
