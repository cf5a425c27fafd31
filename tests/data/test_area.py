import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_contract import area_average

from attention_sampling.data.area import AreaAverage


def cut(extent, lengths):
    """Return (start, length) of pieces of an extent, of these lengths and the rest."""
    pieces, start = [], 0
    for length in lengths:
        if start + length >= extent:
            break
        pieces.append((start, length))
        start += length
    return [*pieces, (start, extent - start)]


@st.composite
def views(draw):
    """Draw extents, a view not larger, and how the image is cut into blocks."""
    extents = draw(st.tuples(st.integers(1, 50), st.integers(1, 50)))
    size = tuple(draw(st.integers(1, extent)) for extent in extents)
    lengths = st.lists(st.integers(1, 20), max_size=8)
    return extents, size, cut(extents[0], draw(lengths)), cut(extents[1], draw(lengths))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(views(), st.sampled_from(["uint8", "uint16", "int16", "float32"]))
def test_equals_the_exact_average_however_it_is_cut(view, dtype):
    extents, size, rows, columns = view
    rng = np.random.default_rng(0)
    image = (rng.random((*extents, 2)) * 200).astype(dtype)
    average = AreaAverage(extents, size, channels=2)
    blocks = [(row, column) for row in rows for column in columns]
    for number in rng.permutation(len(blocks)):
        (top, height), (left, width) = blocks[number]
        average.add(top, left, image[top : top + height, left : left + width])
    result = average.result()
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, area_average(image, size), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32"])
def test_largest_values_do_not_overflow(dtype):
    highest = np.iinfo(dtype).max
    image = np.full((600, 70, 1), highest, dtype)
    average = AreaAverage((600, 70), (2, 3), channels=1)
    average.add(0, 0, image)
    np.testing.assert_allclose(average.result(), highest, rtol=1e-6)


def test_bounds_of_very_large_images_are_exact():
    """A pixel is shared between two of the view as integers say, 2**31 pixels away."""
    extent, size = 2**31 + 1, 3
    average = AreaAverage((1, extent), (1, size), channels=1)
    bound = extent // size  # (2**31 + 1) / 3 = 715827883 exactly
    block = np.zeros((1, 4, 1))
    block[0, 1] = 1  # the last pixel before the bound
    average.add(0, bound - 2, block)
    first, second, third = average.result()[0, :, 0] * (extent / size)
    assert first == pytest.approx(1)
    assert second == pytest.approx(0, abs=1e-6)
    assert third == 0
