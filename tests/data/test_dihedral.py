import pickle

import numpy as np
import pytest
import tifffile
from source_contract import area_average

from attention_sampling.data import ArraySource, Dihedral, TiffSource

# The eight, written another way than in the package.
VARIANTS = (
    lambda x: x,
    np.fliplr,
    np.flipud,
    lambda x: np.rot90(x, 2),
    lambda x: np.swapaxes(x, 0, 1),
    lambda x: np.rot90(x, -1),
    np.rot90,
    lambda x: np.rot90(np.swapaxes(x, 0, 1), 2),
)


@pytest.fixture
def images(rng):
    return [
        rng.integers(256, size=(*size, 3), dtype="uint8")
        for size in [(50, 70), (64, 33)]
    ]


@pytest.fixture(params=["arrays", "files"])
def turned(request, images, tmp_path):
    if request.param == "arrays":
        return Dihedral(ArraySource(images))
    paths = [tmp_path / f"{number}.tif" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        tifffile.imwrite(path, image, tile=(16, 32), compression="deflate")
    return Dihedral(TiffSource(paths))


def test_windows_and_views_are_those_of_the_turned_image(turned, images, rng):
    assert len(turned) == 16
    for index in range(16):
        image = VARIANTS[index // 2](images[index % 2])
        assert turned.shape(index) == image.shape
        origins = rng.integers(-20, 70, size=(20, 2))
        patches = turned.read_patches([index] * 20, origins, (9, 14))
        padded = np.pad(image, ((20, 100), (20, 100), (0, 0)))
        for patch, (row, column) in zip(patches, origins + 20, strict=True):
            np.testing.assert_array_equal(
                patch, padded[row : row + 9, column : column + 14]
            )
        view = turned.read_view(index, (7, 11))
        np.testing.assert_allclose(view, area_average(image, (7, 11)), atol=1e-3)


def test_strips_cover_every_variant(turned, images):
    for index in range(16):
        image = VARIANTS[index // 2](images[index % 2])
        covered = np.zeros_like(image)
        for (top, left), (height, width) in turned.strips(index, 0):
            window = turned.read_window(index, 0, (top, left), (height, width))
            covered[top : top + height, left : left + width] = window
        np.testing.assert_array_equal(covered, image)


def test_variants_of_a_file_have_fingerprints_of_their_own(turned):
    fingerprints = [turned.fingerprint(index) for index in range(16)]
    if fingerprints[0] is not None:
        assert len({*fingerprints}) == 16
    again = pickle.loads(pickle.dumps(turned))
    np.testing.assert_array_equal(again.read_view(5, 8), turned.read_view(5, 8))


@pytest.mark.parametrize("source", [None, [np.zeros((4, 4, 1))], Dihedral])
def test_refuses_what_is_no_source(source):
    with pytest.raises(TypeError, match="`source` must be a source"):
        Dihedral(source)


def test_is_not_applied_twice(images):
    with pytest.raises(TypeError, match="as they are"):
        Dihedral(Dihedral(ArraySource(images)))
