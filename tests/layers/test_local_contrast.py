"""LocalContrast: a standard deviation around each pixel, and its checks."""

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradients
from keras import ops

from attention_sampling import LocalContrast


def contrast_of(images, window):
    layer = LocalContrast(window)
    return ops.convert_to_numpy(layer(ops.convert_to_tensor(images)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("window", [1, 3, 5, (2, 3), (1, 4), (9, 20)])
def test_is_the_standard_deviation_around_each_pixel(window, channels, rng):
    """Also with windows of even size, and larger than the view."""
    images = rng.normal(size=(2, 7, 9, channels)).astype("float32")
    pair = (window, window) if isinstance(window, int) else window
    contrast = contrast_of(images, window)
    assert contrast.shape == (2, 7, 9)
    for sample in range(2):
        expected = reference.local_contrast(images[sample], pair)
        np.testing.assert_allclose(contrast[sample], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float16", "float32"])
def test_of_any_pixels(dtype, rng):
    images = rng.integers(0, 256, size=(1, 8, 6, 2)).astype(dtype)
    layer = LocalContrast(3)
    contrast = layer(ops.convert_to_tensor(images))
    assert keras.backend.standardize_dtype(contrast.dtype) == "float32"
    assert layer(keras.KerasTensor(images.shape, dtype)).dtype == "float32"
    np.testing.assert_allclose(
        ops.convert_to_numpy(contrast)[0],
        reference.local_contrast(images[0], (3, 3)),
        rtol=1e-3,
    )


@pytest.mark.parametrize("pixel", [0, 7, 255])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_constant_image_has_none(dtype, pixel):
    images = np.full((2, 9, 8, 3), pixel, dtype)
    np.testing.assert_array_equal(contrast_of(images, 5), 0)


def test_a_large_offset_does_not_lose_what_is_there(rng):
    """Noise of 0.5 upon 4096: squares of the raw pixels would be off by as much."""
    images = rng.normal(4096, 0.5, size=(1, 20, 20, 1)).astype("float32")
    contrast = contrast_of(images, 5)[0]
    expected = reference.local_contrast(images[0], (5, 5))
    np.testing.assert_allclose(contrast, expected, rtol=1e-2)


def test_refuses_what_is_no_batch_of_images():
    with pytest.raises(ValueError, match=r"`window` must be .* Received: window="):
        LocalContrast((3, -1))
    for shape in ((2, 9, 9), (2, 9, 9, 3, 1)):
        for x in (keras.KerasTensor(shape), ops.zeros(shape)):
            with pytest.raises(ValueError, match="`inputs` must have shape"):
                LocalContrast()(x)


def test_the_gradient_of_a_constant_view_is_zero():
    view = np.full((1, 6, 6, 1), 7, "float32")
    _, (gradient,) = value_and_gradients(LocalContrast(3), [view])
    np.testing.assert_array_equal(gradient, 0)
