"""NumPy functions called from graphs, on every backend."""

import os

import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from keras import ops
from processes import run_code

from attention_sampling import backend
from attention_sampling.backend import gather_rows

BACKEND = keras.backend.backend()


class Doubles(keras.layers.Layer):
    """Double numbers in NumPy; it leaves shapes and dtypes to Keras to find out."""

    def __init__(self, fails=False):
        super().__init__(dtype="int32")
        self.calls, self.fails = [], fails

    def call(self, inputs):
        def double(numbers):
            assert type(numbers) is np.ndarray
            self.calls.append(numbers)
            if self.fails:
                raise FileNotFoundError("page 7 of the book")
            return 2 * numbers

        return backend.call_numpy(double, [inputs], inputs.shape, "int32")


def model_of(layer, **settings):
    inputs = keras.Input((3,), dtype="int32")
    model = keras.Model(inputs, layer(inputs))
    model.compile(**settings)
    return model


def test_eager_values_shapes_and_dtypes():
    rows, columns = ops.array([[1], [2]], "int32"), ops.array([[3, 4]], "int32")
    result = backend.call_numpy(np.add, [rows, columns], (2, 2), "float32")
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_array_equal(ops.convert_to_numpy(result), [[4, 5], [5, 6]])


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_in_a_model_with_a_last_smaller_batch(run_eagerly):
    layer = Doubles()
    model = model_of(layer, run_eagerly=run_eagerly)
    x = np.arange(15, dtype="int32").reshape(5, 3)
    np.testing.assert_array_equal(model.predict(x, batch_size=2, verbose=0), 2 * x)
    assert sorted(len(numbers) for numbers in layer.calls) == [1, 2, 2]


@pytest.mark.parametrize("batch", [None, 4])
def test_nothing_is_called_where_only_shapes_are_asked_for(batch):
    """Also where Keras has no graph, and calls layers on tensors full of ones."""
    layer = Doubles(fails=True)
    outputs = layer(keras.KerasTensor((batch, 3), "int32"))
    assert (outputs.shape, outputs.dtype) == ((batch, 3), "int32")
    assert layer.calls == []


def test_errors_keep_their_type_in_an_eager_call():
    with pytest.raises(FileNotFoundError, match="page 7 of the book"):
        backend.call_numpy(Doubles(fails=True), [ops.array([1])], (1,), "int32")
    with pytest.raises(FileNotFoundError, match="page 7 of the book"):
        Doubles(fails=True)(np.zeros((2, 3), "int32"))


def test_errors_keep_their_text_out_of_a_graph():
    with pytest.raises(Exception, match="page 7 of the book") as caught:
        model_of(Doubles(fails=True)).predict(np.zeros((2, 3), "int32"), verbose=0)
    assert (caught.type is FileNotFoundError) == (BACKEND == "torch")


@pytest.mark.parametrize("compiled", [False, True])
def test_sixty_four_bits_where_the_backend_has_them(compiled):
    def halve(numbers):
        return numbers / 2

    class Halves(keras.layers.Layer):
        def call(self, inputs):
            return backend.call_numpy(halve, [inputs], inputs.shape, "float64")

    expected = "float32" if BACKEND == "jax" else "float64"
    halves = Halves()
    model = model_of(halves)
    assert model.outputs[0].dtype == expected
    call = model.predict_on_batch if compiled else halves
    result = call(np.array([[1, 2, 3]], "int32"))
    assert keras.backend.standardize_dtype(result.dtype) == expected
    np.testing.assert_array_equal(ops.convert_to_numpy(result), [[0.5, 1, 1.5]])


ONE_PROCESSOR = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import keras, numpy as np
from attention_sampling import ExtractPatches
from attention_sampling.data import ArraySource

images = np.full((2, 9, 9, 1), 7, "uint8")
index, origins = keras.Input((), dtype="int32"), keras.Input((None, 2), dtype="int32")
patches = ExtractPatches(1, source=ArraySource(images, threads=4))([index, origins])
model = keras.Model([index, origins], patches)
x = [np.zeros(2, "int32"), np.zeros((2, 20_000, 2), "int32")]
assert (model.predict(x, verbose=0) == 7).all()
"""


@pytest.mark.skipif(
    BACKEND != "jax" or not hasattr(os, "sched_setaffinity"),
    reason="only callbacks of JAX can wait for a thread they hold",
)
def test_a_callback_of_many_numbers_ends_on_one_processor():
    run_code(ONE_PROCESSOR)


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


def test_all_layers_finds_layers_inside_of_layers():
    class Outer(keras.Layer):
        def __init__(self):
            super().__init__()
            self.inner = [keras.layers.Dense(1)]

        def call(self, x):
            return self.inner[0](x)

    outer = Outer()
    model = keras.Sequential([keras.Sequential([keras.Input((2,)), outer])])
    assert {model, model.layers[0], outer, outer.inner[0]} <= set(
        backend.all_layers(model)
    )
