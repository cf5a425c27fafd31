import pickle

import numpy as np
import pytest
from source_contract import SourceContract, check_windows, draw_images

from attention_sampling.data import ArraySource


class TestArraySource(SourceContract):
    dtypes = ("uint8", "uint16", "int16", "int32", "float16", "float32", "float64")
    channels = (1, 2, 4, 3)

    def make(self, directory, images, **keywords):
        return ArraySource(images, **keywords)


class TestMemoryMaps(SourceContract):
    dtypes = ("uint8", "float32")

    def make(self, directory, images, **keywords):
        maps = []
        for number, image in enumerate(images):
            np.save(directory / f"{number}.npy", image)
            maps.append(np.load(directory / f"{number}.npy", mmap_mode="r"))
        return ArraySource(maps, **keywords)

    # np.memmap keeps the file open for as long as its array lives: the user's.
    test_leaves_nothing_open_and_writes_nothing = None


def test_one_array_is_a_stack_of_images(rng):
    stack = np.stack(draw_images(rng, [(20, 30)] * 4, 3, "uint8"))
    with ArraySource(stack) as source:
        assert len(source) == 4
        assert source.names == ("array 0", "array 1", "array 2", "array 3")
        check_windows(source, list(stack), rng)


def test_arrays_of_the_other_byte_order(rng):
    images = draw_images(rng, [(20, 30)] * 2, 2, "uint16")
    with ArraySource([images[0].astype(">u2"), images[1]]) as source:
        assert source.dtype.isnative
        check_windows(source, images, rng)


def test_images_are_not_copied():
    image = np.zeros((4, 5, 1), "uint8")
    source = ArraySource([image])
    image[2, 3] = 9
    assert source.read_patches([0], [(2, 3)], 1).item() == 9


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([], ValueError, "at least one image"),
        (np.zeros((0, 4, 5, 3)), ValueError, "at least one image"),
        (np.zeros((4, 5, 3)), ValueError, r"Put a single image into a list"),
        ([np.zeros((4, 5))], ValueError, r"images\[0\] of shape \(4, 5\)"),
        ([np.zeros((1, 4, 5, 3))], ValueError, r"images\[0\] of shape \(1, 4, 5, 3\)"),
        (np.zeros((2, 0, 5, 3)), ValueError, r"images\[0\] of shape \(0, 5, 3\)"),
        ([[[[1]]]], TypeError, r"images\[0\] of type list"),
        ("text", TypeError, r"images\[0\] of type str"),
        ([np.zeros((4, 5, 1), bool)], ValueError, "dtype bool"),
        ([np.zeros((4, 5, 1), object)], ValueError, "dtype object"),
        (
            [np.zeros((4, 5, 1)), np.zeros((4, 5, 2))],
            ValueError,
            r"1 of float64. Received: images\[1\] of 2 of float64",
        ),
        (
            [np.zeros((4, 5, 1), "uint8"), np.zeros((4, 5, 1), "int8")],
            ValueError,
            r"1 of uint8. Received: images\[1\] of 1 of int8",
        ),
    ],
)
def test_refuses_what_is_no_image(images, error, message):
    with pytest.raises(error, match=message):
        ArraySource(images)


# Memory maps


@pytest.fixture(params=["stack", "raw", "fortran"])
def mapped(request, tmp_path, rng):
    """A whole memory map of (5, 200, 300, 3)."""
    pixels = rng.integers(0, 256, (5, 200, 300, 3), dtype="uint8")
    if request.param == "raw":
        (tmp_path / "a.raw").write_bytes(bytes(17) + pixels.tobytes())
        return np.memmap(tmp_path / "a.raw", "uint8", "r", 17, pixels.shape)
    if request.param == "fortran":
        pixels = np.asfortranarray(pixels)
    np.save(tmp_path / "a.npy", pixels)
    return np.load(tmp_path / "a.npy", mmap_mode="r")


def test_a_map_is_pickled_as_its_file(mapped, rng):
    for images in (mapped, [mapped[0].copy(), mapped[1].copy()]):
        source = ArraySource(images)
        data = pickle.dumps(source)
        assert (len(data) < 2000) == (images is mapped)
        check_windows(pickle.loads(data), list(images), rng)
        again = pickle.loads(pickle.dumps(pickle.loads(data)))
        check_windows(again, list(images), rng)


def test_part_of_a_map_is_pickled_as_pixels(mapped, tmp_path, rng):
    parts = [mapped[2], mapped[3][20:90]]
    data = pickle.dumps(ArraySource(parts))
    for file in tmp_path.iterdir():
        file.unlink()
    check_windows(pickle.loads(data), parts, rng)


def test_a_map_with_changes_of_its_own_is_pickled_with_them(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 4, 5, 1), "uint8"))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="c")
    mapped[0, 1, 2] = 9
    copy = pickle.loads(pickle.dumps(ArraySource(mapped)))
    assert copy.read_patches([0], [(1, 2)], 1).item() == 9
