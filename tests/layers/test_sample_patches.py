"""SamplePatches: the right places, repeatable draws, and its checks."""

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradients
from keras import ops

from attention_sampling import SamplePatches


def peaked_map(rows, columns, *cells):
    """Return attention maps, (samples, rows, columns), each with one sure cell."""
    attention = np.zeros((len(cells), rows * columns), "float32")
    attention[np.arange(len(cells)), cells] = 1
    return attention.reshape(-1, rows, columns)


def inputs_of(samples=2, low=10, high=40, rows=5, columns=4, dtype="float32"):
    """Return views, images without a zero and attention, as numpy arrays."""
    rng = np.random.default_rng(3)
    attention = rng.dirichlet(np.ones(rows * columns), size=samples)
    return [
        np.zeros((samples, low, low, 3), "float32"),
        rng.integers(1, 256, size=(samples, high, high, 3)).astype(dtype),
        attention.reshape(samples, rows, columns).astype("float32"),
    ]


def tensors(arrays):
    return [ops.convert_to_tensor(array) for array in arrays]


def numpy(tensors):
    return [ops.convert_to_numpy(tensor) for tensor in tensors]


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_patches_lie_where_the_geometry_says(dtype, replace):
    """The drawn cell, its window and its pixels, all from the outside."""
    inputs = inputs_of(dtype=dtype)
    inputs[2] = peaked_map(5, 4, 7, 18)
    layer = SamplePatches(
        2 if replace else 1,
        (6, 9),
        receptive_field=2,
        replace=replace,
        return_origins=True,
    )
    patches, attention, origins = layer(tensors(inputs))
    assert keras.backend.standardize_dtype(patches.dtype) == dtype
    patches, attention, origins = numpy([patches, attention, origins])
    np.testing.assert_array_equal(attention, 1)
    for sample, cell in enumerate([7, 18]):
        expected = (
            reference.window_origin(cell // 4, 5, 10, 40, 6, receptive_field=2),
            reference.window_origin(cell % 4, 4, 10, 40, 9, receptive_field=2),
        )
        for patch, origin in zip(patches[sample], origins[sample], strict=True):
            assert tuple(origin) == expected
            np.testing.assert_array_equal(
                patch, reference.window(inputs[1][sample], expected, (6, 9))
            )


def test_sampled_attention_is_that_of_the_drawn_cells():
    """Cells of a map as large as the view are told apart by their origins."""
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.ones(48), size=3).reshape(3, 6, 8).astype("float32")
    images = rng.uniform(size=(3, 6, 8, 1)).astype("float32")
    layer = SamplePatches(20, 1, return_origins=True)
    patches, sampled, origins = numpy(layer(tensors([images, images, attention])))
    for sample in range(3):
        rows, columns = origins[sample].T
        np.testing.assert_array_equal(sampled[sample], attention[sample, rows, columns])
        np.testing.assert_array_equal(
            patches[sample, :, 0, 0], images[sample, rows, columns]
        )
        assert len(set(zip(rows, columns, strict=True))) == 20


def test_logits_give_the_same_draws_and_probabilities():
    inputs = inputs_of()
    of_attention = SamplePatches(3, 5, seed=4)(tensors(inputs))
    inputs[2] = np.log(inputs[2]) + 3
    of_logits = SamplePatches(3, 5, seed=4, use_logits=True)(tensors(inputs))
    np.testing.assert_array_equal(*numpy([of_attention[0], of_logits[0]]))
    np.testing.assert_allclose(*numpy([of_attention[1], of_logits[1]]), rtol=1e-4)


@pytest.mark.parametrize("use_logits", [False, True])
@pytest.mark.parametrize("replace", [False, True])
def test_gradient_reaches_the_drawn_cells_of_the_map(replace, use_logits):
    x_low, x_high, attention = inputs_of(samples=1)
    layer = SamplePatches(3, 1, replace=replace, use_logits=use_logits, seed=0)
    value, (gradient,) = value_and_gradients(
        lambda a: layer([ops.array(x_low), ops.array(x_high), a])[1], [attention]
    )
    if use_logits:
        assert np.count_nonzero(gradient) == 20
        assert gradient.sum() == pytest.approx(0, abs=1e-6)
    else:
        drawn = np.isin(attention, value)
        assert np.count_nonzero(drawn) == len(np.unique(value))
        assert gradient.sum() == pytest.approx(3)
        np.testing.assert_array_equal(gradient != 0, drawn)


def test_float64_attention_and_views():
    """Symbolic and eager dtypes agree, whatever the backend makes of float64."""
    inputs = tensors([x.astype("float64") for x in inputs_of()])
    layer = SamplePatches(3, 5)
    outputs = layer(inputs)
    symbolic = layer([keras.KerasTensor(x.shape, x.dtype) for x in inputs])
    for output, spec in zip(outputs, symbolic, strict=True):
        assert keras.backend.standardize_dtype(output.dtype) == spec.dtype


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_attention_gives_float32(dtype):
    x_low, x_high, attention = tensors(inputs_of())
    _, sampled = SamplePatches(3, 5)([x_low, x_high, ops.cast(attention, dtype)])
    assert keras.backend.standardize_dtype(sampled.dtype) == "float32"


def test_same_seed_same_patches_and_each_call_others():
    inputs = tensors(inputs_of())
    one, two = SamplePatches(4, 5, seed=9), SamplePatches(4, 5, seed=9)
    first = [numpy(one(inputs))[1] for _ in range(3)]
    second = [numpy(two(inputs))[1] for _ in range(3)]
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(np.reshape(first, (3, -1)), axis=0)) == 3
    other = numpy(SamplePatches(4, 5, seed=10)(inputs))[1]
    assert not np.array_equal(other, first[0])


def test_layers_without_a_seed_differ():
    inputs = tensors(inputs_of())
    first, second = (numpy(SamplePatches(8, 5)(inputs))[1] for _ in range(2))
    assert not np.array_equal(first, second)


def test_samples_of_any_size_one_after_the_other():
    layer = SamplePatches(3, 5)
    for samples, low, high, rows in [(2, 10, 40, 5), (1, 12, 33, 6), (3, 10, 40, 5)]:
        patches, _ = layer(tensors(inputs_of(samples, low, high, rows)))
        assert tuple(patches.shape) == (samples, 3, 5, 5, 3)


def test_one_cell_and_one_pixel():
    inputs = inputs_of(samples=1, low=1, high=1, rows=1, columns=1)
    patches, attention = numpy(SamplePatches(1, 1)(tensors(inputs)))
    np.testing.assert_array_equal(patches[0, 0, 0, 0], inputs[1][0, 0, 0])
    np.testing.assert_allclose(attention, 1)


@pytest.mark.parametrize("n_patches", [0, -3, 2.0, "3", None])
def test_refuses_numbers_of_patches_that_are_not_positive_ints(n_patches):
    with pytest.raises(ValueError, match=f"Received: n_patches={n_patches!r}"):
        SamplePatches(n_patches, 5)


@pytest.mark.parametrize("patch_size", [0, (5, -1), 2.5])
def test_refuses_patch_sizes_that_are_not_positive_ints(patch_size):
    with pytest.raises(ValueError, match="`patch_size` must be a positive int"):
        SamplePatches(3, patch_size)


def test_refuses_a_negative_receptive_field():
    with pytest.raises(ValueError, match="Received: receptive_field=-1"):
        SamplePatches(3, 5, receptive_field=-1)


def symbolic(x_low=(2, 10, 10, 3), x_high=(2, 40, 40, 3), attention=(2, 5, 4)):
    return [keras.KerasTensor(shape) for shape in (x_low, x_high, attention)]


def test_refuses_more_patches_than_cells():
    message = (
        "Cannot draw 21 different cells from an attention map of 5 x 4. "
        "Use at most 20 patches"
    )
    with pytest.raises(ValueError, match=message):
        SamplePatches(21, 5)(symbolic())
    with pytest.raises(ValueError, match=message):
        SamplePatches(21, 5)(tensors(inputs_of()))
    SamplePatches(20, 5)(tensors(inputs_of()))
    SamplePatches(21, 5, replace=True)(tensors(inputs_of()))


@pytest.mark.parametrize(
    "attention", [(2, 20), (2, 5, 4, 1), (2,), (None, None, None, 1)]
)
def test_refuses_attention_that_is_no_map(attention):
    with pytest.raises(
        ValueError, match=r"`attention` must have shape \(batch, rows, columns\)"
    ):
        SamplePatches(3, 5)(symbolic(attention=attention))


@pytest.mark.parametrize(
    "shapes",
    [
        {"x_low": (3, 10, 10, 3)},
        {"x_high": (3, 40, 40, 3)},
        {"attention": (3, 5, 4)},
        {"x_low": (None, 10, 10, 3), "attention": (3, 5, 4)},
    ],
)
def test_refuses_inputs_of_different_batch(shapes):
    message = "x_low, x_high and attention must hold the same number of samples"
    with pytest.raises(ValueError, match=message):
        SamplePatches(3, 5)(symbolic(**shapes))


def test_refuses_inputs_of_different_batch_when_eager():
    inputs = inputs_of()
    inputs[2] = inputs[2][:1]
    with pytest.raises(ValueError, match="must hold the same number of samples"):
        SamplePatches(3, 5)(tensors(inputs))


@pytest.mark.parametrize("name", ["x_low", "x_high"])
def test_refuses_images_of_another_rank(name):
    with pytest.raises(ValueError, match=f"`{name}` must have shape"):
        SamplePatches(3, 5)(symbolic(**{name: (2, 10, 10)}))


def test_refuses_channels_first():
    keras.config.set_image_data_format("channels_first")
    with pytest.raises(ValueError, match="set_image_data_format"):
        SamplePatches(3, 5)(symbolic())


@pytest.mark.parametrize("receptive_field", [10, 11])
def test_refuses_a_receptive_field_as_large_as_the_view(receptive_field):
    with pytest.raises(
        ValueError, match=f"larger than .* Received: receptive_field={receptive_field}"
    ):
        SamplePatches(3, 5, receptive_field=receptive_field)(
            symbolic(x_low=(None, 12, 10, 3))
        )


def test_refuses_before_training():
    """A functional model with bad shapes is not even built."""
    x_low, x_high = keras.Input((4, 4, 3)), keras.Input((None, None, 3))
    attention = keras.layers.Reshape((4, 4))(keras.layers.Conv2D(1, 1)(x_low))
    with pytest.raises(ValueError, match="Cannot draw 17 different cells"):
        SamplePatches(17, 5)([x_low, x_high, attention])


def test_refuses_another_number_of_inputs():
    images = [keras.Input((9, 9, 3))] * 2
    with pytest.raises(ValueError, match=r"3 inputs, \[x_low, x_high, attention\]"):
        SamplePatches(2, 4)(images)


@pytest.mark.parametrize("number", [2.5, None, True])
def test_refuses_receptive_fields_that_are_no_ints(number):
    with pytest.raises(ValueError, match=f"Received: receptive_field={number}"):
        SamplePatches(2, 4, receptive_field=number)


def test_takes_numbers_of_numpy():
    config = SamplePatches(np.int64(2), 4, receptive_field=np.int32(3)).get_config()
    assert (type(config["n_patches"]), type(config["receptive_field"])) == (int, int)
