"""Images of Megapixel MNIST, and the files of MNIST that they are made from."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from source_contract import area_average

from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.datasets.mnist import read_mnist

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"
NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@pytest.fixture
def digits(rng):
    return rng.integers(1, 256, (40, 28, 28), dtype="uint8")


@pytest.fixture
def digit_labels():
    return np.arange(40, dtype="uint8") % 10


@pytest.fixture
def make(digits, digit_labels):
    def make(count=6, size=200, noise_patches=5, seed=0):
        return MegapixelMNIST(digits, digit_labels, count, size, noise_patches, seed)

    return make


def cut(image, box):
    top, left, bottom, right = box
    return image[top:bottom, left:right, 0]


# Images


def test_shapes_and_dtypes(make):
    data = make(count=7, size=(150, 210))
    assert len(data) == 7
    assert (data.size, data.noise_patches, data.seed) == ((150, 210), 5, 0)
    assert (data.labels.shape, data.labels.dtype) == ((7,), np.int32)
    assert (data.boxes.shape, data.boxes.dtype) == ((7, 5, 4), np.int32)
    assert data.image(3).shape == (150, 210, 1)
    assert data.image(3).dtype == np.uint8
    with pytest.raises(IndexError):
        data.image(7)


@pytest.mark.parametrize("noise_patches", [0, 60])
def test_three_digits_are_of_the_label_and_two_of_others(
    make, digits, digit_labels, noise_patches
):
    data = make(count=50, noise_patches=noise_patches)
    same_others = 0
    for index in range(len(data)):
        image = data.image(index)
        # Pixel for pixel: no noise is on a digit.
        found = [
            digit_labels[(digits == cut(image, box)).all(axis=(1, 2))]
            for box in data.boxes[index]
        ]
        first, second, third, fourth, fifth = (int(labels.item()) for labels in found)
        assert first == second == third == data.labels[index]
        assert data.labels[index] not in (fourth, fifth)
        same_others += fourth == fifth
        for box in data.boxes[index]:
            cut(image, box)[:] = 0
        assert image.any() == (noise_patches > 0)
    assert set(data.labels) == set(range(10))
    assert 0 < same_others < 25


def test_digits_may_be_anywhere_and_stay_there_without_noise(make):
    data = make(count=300, size=(100, 120), noise_patches=2)
    np.testing.assert_array_equal(data.boxes.min(axis=(0, 1)), [0, 0, 28, 28])
    np.testing.assert_array_equal(data.boxes.max(axis=(0, 1)), [72, 92, 100, 120])
    without = make(count=9, size=(100, 120), noise_patches=0)
    np.testing.assert_array_equal(without.boxes, data.boxes[:9])


@pytest.mark.parametrize("size", [(28, 140), (140, 28), (57, 90), (60, 400)])
def test_digits_do_not_overlap_where_there_is_hardly_room(make, size):
    for boxes in make(count=40, size=size).boxes:
        covered = np.zeros((*size, 1), int)
        for box in boxes:
            cut(covered, box)[:] += 1
        assert covered.max() == 1
        assert covered.sum() == 5 * 28 * 28


def test_images_depend_on_seed_and_index_alone(make):
    data, longer, other = make(count=4), make(count=9), make(count=4, seed=1)
    np.testing.assert_array_equal(data.labels, longer.labels[:4])
    for index in range(4):
        np.testing.assert_array_equal(data.image(index), longer.image(index))
    images = [longer.image(i).tobytes() for i in range(9)]
    images += [other.image(i).tobytes() for i in range(4)]
    assert len(set(images)) == 13


def test_noise_is_strokes_of_nearly_full_brightness(make):
    data = make(count=20, noise_patches=1)
    amounts = []
    for index in range(20):
        image = data.image(index)
        for box in data.boxes[index]:
            cut(image, box)[:] = 0
        rows, columns, _ = np.nonzero(image)
        if not len(rows):
            continue  # behind a digit
        assert max(np.ptp(rows), np.ptp(columns)) < 28
        assert image[rows, columns].min() >= 0.8 * 255 - 0.5
        assert len(np.unique(image[rows, columns])) > 5
        amounts.append(len(rows))
    # Two strokes of about 28 pixels length and 2 width; parts may be behind digits.
    assert len(amounts) > 15
    assert 40 < np.median(amounts) < 130


# Views


@pytest.mark.parametrize(
    ("size", "low"),
    [
        (100, (25, 25)),  # whole factor
        ((60, 101), (37, 25)),  # any factor, another for each axis
        ((90, 100), (90, 100)),  # the image itself
    ],
)
def test_view_is_the_mean_of_each_area(make, size, low):
    data = make(count=2, size=size, noise_patches=20)
    view = data.view(1, low)
    assert view.dtype == np.float32
    expected = area_average(data.image(1), low)
    np.testing.assert_allclose(view, expected, rtol=1e-6, atol=1e-10)


# Mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, r"`count` must be an int of at least 1.*count=0"),
        ({"noise_patches": -1}, r"`noise_patches` .* at least 0.*noise_patches=-1"),
        ({"seed": -1}, r"`seed` must be an int of at least 0.*seed=-1"),
        ({"size": 0}, r"`size` must be a positive int or a pair.*size=0"),
        ({"size": (27, 1000)}, r"`size` must leave room for 5 digits.*\(27, 1000\)"),
    ],
)
def test_bad_settings(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda digits, labels: (digits / 255, labels), "Received: float64"),
        (lambda digits, labels: (digits[..., 1:], labels), r"\(40, 28, 27\)"),
        (lambda digits, labels: (digits, labels[1:]), r"one int for each.*\(39,\)"),
        (lambda digits, labels: (digits, labels / 1.0), "float64 of shape"),
        (lambda digits, labels: (digits, 0 * labels), r"two classes.*\[0\]"),
    ],
)
def test_bad_digits(digits, digit_labels, spoil, message):
    with pytest.raises(ValueError, match=message):
        MegapixelMNIST(*spoil(digits, digit_labels), count=1)


def test_view_larger_than_the_image(make):
    with pytest.raises(ValueError, match=r"not be larger.*view_size=\(50, 201\)"):
        make().view(0, (50, 201))


# Files of MNIST


def write_mnist(directory, digits, labels, split="train", compress=False):
    for name, array in zip(NAMES[split], (digits, labels), strict=True):
        shape = b"".join(extent.to_bytes(4, "big") for extent in array.shape)
        data = bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()
        path = directory / (f"{name}.gz" if compress else name)
        path.write_bytes(gzip.compress(data) if compress else data)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
def test_reads_files(tmp_path, digits, digit_labels, split, compress):
    write_mnist(tmp_path, digits, digit_labels, split, compress)
    read_digits, read_labels = read_mnist(str(tmp_path), split)
    np.testing.assert_array_equal(read_digits, digits)
    np.testing.assert_array_equal(read_labels, digit_labels)
    assert read_digits.dtype == read_labels.dtype == np.uint8


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"MNIST is not in {MNIST}")
def test_reads_the_real_files():
    digits, labels = read_mnist(MNIST, "test")
    assert digits.shape == (10000, 28, 28)
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]  # published


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:3], "no idx file of bytes with 3 axes"),
        (lambda data: data[:1000], "1000 bytes are not those of shape"),
        (lambda data: data + b"\0", "bytes are not those of shape"),
        (lambda data: gzip.compress(data), "no idx file of bytes with 3 axes"),
        (lambda data: data[:9], "damaged, or something else"),
    ],
)
def test_damaged_files(tmp_path, digits, digit_labels, spoil, message):
    write_mnist(tmp_path, digits, digit_labels)
    path = tmp_path / NAMES["train"][0]
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{message}.*Download it again.*images-idx3"):
        read_mnist(tmp_path, "train")


@pytest.mark.parametrize("spoil", [lambda data: data[:-9], lambda data: b"\0" + data])
def test_damaged_gzip_files(tmp_path, digits, digit_labels, spoil):
    write_mnist(tmp_path, digits, digit_labels, compress=True)
    path = tmp_path / f"{NAMES['train'][0]}.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=r"Download it again.*idx3-ubyte.gz"):
        read_mnist(tmp_path, "train")


def test_files_that_are_missing_or_do_not_fit(tmp_path, digits, digit_labels):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3.* from https"):
        read_mnist(tmp_path, "train")
    with pytest.raises(ValueError, match=r"\['test', 'train'\].*split='valid'"):
        read_mnist(tmp_path, "valid")
    write_mnist(tmp_path, digits, digit_labels[:-1])
    with pytest.raises(ValueError, match=r"label for each.*\(40, 28, 28\).*\(39,\)"):
        read_mnist(tmp_path, "train")
