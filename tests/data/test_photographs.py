"""Photographs of any size, upright and scaled for a model."""

import numpy as np
import pytest
from PIL import Image

from attention_sampling.data import SourceError
from attention_sampling.data.photographs import read_photograph

ORIENTATION = 0x0112


@pytest.fixture
def upright(rng):
    return rng.integers(256, size=(64, 48, 3), dtype="uint8")


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_is_upright_and_its_view_is_of_whole_pixels(
    upright, orientation, turns, tmp_path
):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "photo.png"
    Image.fromarray(np.rot90(upright, turns)).save(path, exif=exif)
    view, image = read_photograph(path, (None, 48))
    np.testing.assert_array_equal(image, upright)
    means = upright.reshape(16, 4, 12, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(view, means, rtol=1e-6)
    assert (view.dtype, image.dtype) == ("float32", "uint8")


def test_is_scaled_by_area_and_smoothly_enlarged(upright, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(upright).save(path)
    means = upright.reshape(32, 2, 24, 2, 3).mean(axis=(1, 3))
    view, image = read_photograph(path, (None, 24))
    np.testing.assert_allclose(image, means, atol=1)  # rounded along each axis
    assert view.shape == (8, 6, 3)
    view, image = read_photograph(path, (40, 96), view_size=(5, 7))
    assert (view.shape, image.shape) == ((5, 7, 3), (40, 96, 3))
    ramp = np.repeat(np.arange(0, 240, 40, "uint8")[None], 8, axis=0)
    Image.fromarray(ramp).save(path)
    _, image = read_photograph(path, (8, 24))
    assert np.abs(np.diff(image[0, :, 0].astype(int))).max() < 20  # no steps of 40


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK"])
def test_becomes_rgb(mode, tmp_path):
    path = tmp_path / "photo.tif"
    Image.new("RGB", (40, 32), (255, 255, 255)).convert(mode).save(path)
    _, image = read_photograph(path, (None, 40))
    assert image.shape == (32, 40, 3)
    assert (image == 255).all()


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff broken", b"\x89PNG\r\n\x1a\n"])
def test_a_broken_file_is_named(content, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"photo\.jpg cannot be read: "):
        read_photograph(path, (None, 1360))
