"""PatchReader: the kind of a source, and reading from it."""

import json

import keras
import numpy as np
import pytest
import reference
from keras import ops

from attention_sampling.data import ArraySource
from attention_sampling.ops.reading import PatchReader

SIZES = ((24, 20), (7, 31), (1, 1))


def images_of(dtype="uint8", channels=3):
    rng = np.random.default_rng(0)
    return [rng.integers(1, 256, (*size, channels)).astype(dtype) for size in SIZES]


def source_of(dtype="uint8", channels=3, **keywords):
    return ArraySource(images_of(dtype, channels), **keywords)


@pytest.mark.parametrize("receptive_field", [0, 3])
def test_windows_are_placed_in_the_image_of_each_sample(receptive_field):
    reader = PatchReader(source_of())
    index, cells = np.array([1, 0, 2]), np.array([[0, 29], [7, 8], [3, 3]], "int32")
    origins = reader.window_origins(
        ops.array(index, "int32"), ops.array(cells), (6, 5), (12, 10), (5, 6),
        receptive_field,
    )  # fmt: skip
    assert keras.backend.standardize_dtype(origins.dtype) == "int32"
    expected = [
        [
            [
                reference.window_origin(
                    position, cells_along, low, high, patch, receptive_field
                )
                for position, cells_along, low, high, patch in zip(
                    divmod(cell, 5), (6, 5), (12, 10), SIZES[image], (5, 6), strict=True
                )
            ]
            for cell in row
        ]
        for image, row in zip(index, cells.tolist(), strict=True)
    ]
    assert ops.convert_to_numpy(origins).tolist() == expected


def test_no_images_make_no_patches():
    """A device of several may be left without any by a last small batch."""
    reader = PatchReader(source_of())
    index, cells = ops.zeros((0,), "int32"), ops.zeros((0, 4), "int32")
    origins = reader.window_origins(index, cells, (6, 5), (12, 10), (5, 6), 0)
    assert tuple(origins.shape) == (0, 4, 2)
    assert tuple(reader.read_patches(index, origins, (5, 6)).shape) == (0, 4, 5, 6, 3)


def test_config_is_the_kind_alone_and_nothing_else():
    reader = PatchReader(source_of("uint16", channels=2))
    config = json.loads(json.dumps(reader.get_config()))
    assert config == {"channels": 2, "dtype": "uint16"}
    again = PatchReader(config)
    assert (again.channels, again.dtype) == (2, "uint16")
    assert again.get_config() == config


def test_reading_without_a_source_says_how_to_bind_one():
    reader = PatchReader({"channels": 3, "dtype": "uint8"})
    message = r"without its source.*attention_sampling\.set_source\(model, source\)"
    with pytest.raises(ValueError, match=message):
        reader.read_patches(ops.array([0]), ops.array([[[0, 0]]]), (2, 2))
    with pytest.raises(ValueError, match=message):
        reader.window_origins(
            ops.array([0]), ops.array([[0]]), (1, 1), (1, 1), (1, 1), 0
        )
    reader.bind(source_of())
    patches = reader.read_patches(ops.array([0]), ops.array([[[0, 0]]]), (2, 2))
    np.testing.assert_array_equal(
        ops.convert_to_numpy(patches)[0, 0], images_of()[0][:2, :2]
    )


def test_windows_are_placed_in_the_images_of_the_source_bound_last():
    reader = PatchReader(source_of())
    cell = ops.array([[0]], "int32")
    for height, origin in ((24, [10, 8]), (48, [22, 8])):
        reader.bind(ArraySource(np.zeros((1, height, 20, 3), "uint8")))
        origins = reader.window_origins(
            ops.array([0]), cell, (1, 1), (12, 10), (4, 4), 0
        )
        assert ops.convert_to_numpy(origins)[0, 0].tolist() == origin


NO_SOURCES = {
    "path": "slide.svs",
    "array": np.zeros((2, 4, 4, 3), "uint8"),
    "class": ArraySource,
    "other keys": {"channels": 3},
    "none": None,
}


@pytest.mark.parametrize("source", NO_SOURCES.values(), ids=NO_SOURCES.keys())
def test_refuses_what_is_no_source(source):
    message = (
        r"`source` must be an image source, such as .*open_source.*Received: source="
    )
    with pytest.raises(TypeError, match=message):
        PatchReader(source)
    with pytest.raises(TypeError, match=message):
        PatchReader(source_of()).bind(source)
