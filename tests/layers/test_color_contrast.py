"""ColorContrast: centers against surrounds of opponent colors, and its checks."""

import keras
import numpy as np
import pytest
from gradients import value_and_gradients
from keras import ops
from scipy.ndimage import uniform_filter

from attention_sampling import ColorContrast


def expected_of(image, windows, power):
    """Return the contrast of one image of 0 to 255, in float64."""
    red, green, blue = np.moveaxis(image.astype("float64") / 255, -1, 0)
    intensity = (red + green + blue) / 3 + 0.1
    contrast = 0
    for window in windows:
        square = 0
        for opponent in (red - green, blue - (red + green) / 2):
            color = opponent / intensity
            # For odd windows scipy and the layer center alike.
            center = uniform_filter(color, window, mode="nearest")
            around = uniform_filter(color, 3 * window, mode="nearest")
            square = square + (center - around) ** 2
        contrast = contrast + np.sqrt(square)
    return (contrast / len(windows)) ** power


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("windows", "power"), [((1,), 1), ((1, 3), 2), ((5,), 0.5)])
def test_is_the_difference_of_center_and_surround(windows, power, dtype, rng):
    images = rng.integers(0, 256, size=(2, 12, 9, 3)).astype(dtype)
    layer = ColorContrast(windows, power=power)
    contrast = layer(ops.convert_to_tensor(images))
    assert keras.backend.standardize_dtype(contrast.dtype) == "float32"
    for sample in range(2):
        np.testing.assert_allclose(
            ops.convert_to_numpy(contrast)[sample],
            expected_of(images[sample], windows, power),
            rtol=1e-3,
            atol=1e-5,
        )


def test_finds_the_color_and_not_the_edge():
    """A small red square has more of it than a black and white border."""
    view = np.full((1, 40, 40, 3), 90, "uint8")
    view[:, :, 20:] = 250
    view[0, 10:13, 5:8] = (200, 30, 40)
    contrast = ops.convert_to_numpy(ColorContrast()(ops.convert_to_tensor(view)))[0]
    near_square = contrast[6:17, 1:12].sum()
    assert near_square > 0.99 * contrast.sum()


def test_refuses_what_it_cannot_take():
    for keywords in ({"windows": ()}, {"windows": 0}, {"power": 0}, {"white": -1}):
        with pytest.raises(ValueError, match="must"):
            ColorContrast(**keywords)
    with pytest.raises(ValueError, match=r"RGB images.*\(2, 9, 9, 1\)"):
        ColorContrast()(keras.KerasTensor((2, 9, 9, 1)))


def test_the_gradient_of_a_constant_view_is_zero():
    view = np.full((1, 6, 6, 3), 7, "float32")
    _, (gradient,) = value_and_gradients(ColorContrast(), [view])
    np.testing.assert_array_equal(gradient, 0)
