import gzip
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST, read_mnist

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
    assert data.size == (150, 210)
    assert (data.noise_patches, data.seed) == (5, 0)
    assert data.labels.shape == (7,)
    assert data.labels.dtype == np.int32
    assert data.image(3).shape == (150, 210, 1)
    images = data.images([4, 0, 4])
    assert images.shape == (3, 150, 210, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, [data.image(i) for i in (4, 0, 4)])


def test_default_is_that_of_the_paper(digits, digit_labels):
    data = MegapixelMNIST(digits, digit_labels, count=1)
    empty = MegapixelMNIST(digits, digit_labels, count=1, noise_patches=0)
    assert data.size == (1500, 1500)
    # Fifty patches of two strokes each have more ink than one, and are 28 pixels wide.
    noise = np.count_nonzero(data.image(0)) - np.count_nonzero(empty.image(0))
    assert 50 * 40 < noise < 50 * 130


@pytest.mark.parametrize("noise_patches", [0, 60])
def test_three_digits_are_of_the_label_and_two_of_others(
    make, digits, digit_labels, noise_patches
):
    data = make(count=50, noise_patches=noise_patches)
    same_others = 0
    for index in range(len(data)):
        image = data.image(index)
        boxes = data.boxes(index)
        # Pixel for pixel: no noise lies on a digit.
        found = [
            [
                int(label)
                for digit, label in zip(digits, digit_labels, strict=True)
                if np.array_equal(cut(image, box), digit)
            ]
            for box in boxes
        ]
        assert [len(labels) for labels in found] == [1] * 5
        first, second, third, fourth, fifth = (labels[0] for labels in found)
        assert first == second == third == data.labels[index]
        assert data.labels[index] not in (fourth, fifth)
        same_others += fourth == fifth
        for box in boxes:
            image[box[0] : box[2], box[1] : box[3]] = 0
        assert image.any() == (noise_patches > 0)
    assert set(data.labels) == set(range(10))
    assert 0 < same_others < 25


def test_every_digit_and_place_is_used(make):
    data = make(count=300, size=(100, 120))
    corners = np.array([box[:2] for i in range(300) for box in data.boxes(i)])
    np.testing.assert_array_equal(corners.min(axis=0), [0, 0])
    np.testing.assert_array_equal(corners.max(axis=0), [100 - 28, 120 - 28])
    assert len(np.unique(data._drawn)) == 40


@pytest.mark.parametrize(
    "size", [(28, 140), (140, 28), (56, 84), (57, 90), (85, 60), (60, 400)]
)
def test_digits_do_not_overlap_where_there_is_hardly_room(make, size):
    data = make(count=40, size=size)
    for index in range(len(data)):
        covered = np.zeros(size, int)
        for top, left, bottom, right in data.boxes(index):
            assert 0 <= top < bottom <= size[0]
            assert 0 <= left < right <= size[1]
            covered[top:bottom, left:right] += 1
        assert covered.max() == 1
        assert covered.sum() == 5 * 28 * 28


def test_images_depend_on_seed_and_index_alone(make):
    data, longer, other = make(count=4), make(count=9), make(count=4, seed=1)
    np.testing.assert_array_equal(data.labels, longer.labels[:4])
    np.testing.assert_array_equal(data.images(range(4)), longer.images(range(4)))
    images = longer.images(range(9))
    assert len(np.unique(images.reshape(9, -1), axis=0)) == 9
    assert all(
        not np.array_equal(data.image(i), other.image(j))
        for i in range(4)
        for j in range(4)
    )


def test_noise_is_strokes_of_nearly_full_brightness(make):
    with_noise, without = make(count=20, noise_patches=1), make(20, noise_patches=0)
    amounts = []
    for index in range(20):
        image = with_noise.image(index)[..., 0].copy()
        for top, left, bottom, right in without.boxes(index):
            image[top:bottom, left:right] = 0
        rows, columns = np.nonzero(image)
        if not len(rows):
            continue  # behind a digit
        assert np.ptp(rows) < 28
        assert np.ptp(columns) < 28
        assert image[rows, columns].min() >= 0.8 * 255 - 0.5
        assert len(np.unique(image[rows, columns])) > 5
        amounts.append(len(rows))
    assert len(amounts) > 15
    # Two strokes of about 28 pixels length and 2 width; parts may lie behind digits.
    assert 40 < np.median(amounts) < 130


def test_digits_stay_where_they_are_without_noise(make):
    assert make(noise_patches=50).boxes(3) == make(noise_patches=0).boxes(3)


# Views


def average_slowly(image, size):
    """Average areas with exact borders, pixel by pixel."""
    weights = []
    for length, low in zip(image.shape, size, strict=True):
        scale = Fraction(length, low)
        weights.append(
            np.array(
                [
                    [
                        max(min((i + 1) * scale, j + 1) - max(i * scale, j), 0) / scale
                        for j in range(length)
                    ]
                    for i in range(low)
                ],
                "float64",
            )
        )
    return weights[0] @ image.astype("float64") @ weights[1].T


@pytest.mark.parametrize(
    ("size", "low"),
    [
        (200, 50),  # whole factor
        (200, 36),  # any factor
        ((150, 211), (37, 60)),  # another for each axis
        ((90, 100), (90, 100)),  # the image itself
        ((90, 100), (89, 3)),
        ((90, 100), 1),  # the mean
    ],
)
def test_view_is_the_mean_of_each_area(make, size, low):
    data = make(count=3, size=size, noise_patches=20)
    for index in range(3):
        view = data.view(index, low)
        expected = average_slowly(
            data.image(index)[..., 0], (low, low) if isinstance(low, int) else low
        )
        assert view.shape == (*expected.shape, 1)
        assert view.dtype == np.float32
        np.testing.assert_allclose(view[..., 0], expected, rtol=1e-6, atol=1e-10)


def test_view_of_the_papers_size(make):
    data = make(count=1, size=1500, noise_patches=50)
    expected = average_slowly(data.image(0)[..., 0], (180, 180))
    view = data.view(0, 180)[..., 0]
    np.testing.assert_allclose(view, expected, rtol=1e-6, atol=1e-10)
    assert (view >= 0).all()


# Errors of images


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, r"`count` must be an int of at least 1.*count=0"),
        ({"count": 2.0}, r"`count` must be an int.*count=2.0"),
        ({"noise_patches": -1}, r"`noise_patches` .* at least 0.*noise_patches=-1"),
        ({"seed": -1}, r"`seed` must be an int of at least 0.*seed=-1"),
        ({"seed": True}, r"`seed` must be an int.*seed=True"),
        ({"size": 0}, r"`size` must be a positive int or a pair.*size=0"),
        ({"size": (100, 100, 1)}, r"`size` must be .*size=\(100, 100, 1\)"),
        ({"size": "large"}, r"`size` must be .*size='large'"),
        ({"size": 80}, r"`size` must leave room for 5 digits.*size=80"),
        ({"size": (27, 1000)}, r"`size` must leave room"),
    ],
)
def test_bad_settings(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_bad_digits(digits, digit_labels):
    with pytest.raises(ValueError, match=r"`digits` must be uint8.*float64"):
        MegapixelMNIST(digits / 255, digit_labels, 1)
    with pytest.raises(ValueError, match=r"`digits` must be .*\(40, 28, 27\)"):
        MegapixelMNIST(digits[..., 1:], digit_labels, 1)
    with pytest.raises(ValueError, match=r"one int for each digit.*\(39,\) for 40"):
        MegapixelMNIST(digits, digit_labels[1:], 1)
    with pytest.raises(ValueError, match=r"one int for each digit.*float64"):
        MegapixelMNIST(digits, digit_labels / 1.0, 1)
    with pytest.raises(ValueError, match=r"at least two classes.*\[3\]"):
        MegapixelMNIST(digits, np.full(40, 3), 1)


@pytest.mark.parametrize("index", [-1, 6])
def test_no_such_image(make, index):
    data = make(count=6)
    for read in (data.image, data.boxes, lambda i: data.view(i, 50)):
        with pytest.raises(IndexError, match=rf"images 0 to 5.*index={index}"):
            read(index)


def test_view_larger_than_the_image(make):
    with pytest.raises(ValueError, match=r"not be larger.*size=\(50, 201\)"):
        make().view(0, (50, 201))
    with pytest.raises(ValueError, match=r"`size` must be .*size=0"):
        make().view(0, 0)


def test_needs_neither_keras_nor_tensorflow():
    program = (
        "import sys, attention_sampling.datasets.megapixel_mnist\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# Files


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
    for directory in (tmp_path, str(tmp_path)):
        read_digits, read_labels = read_mnist(directory, split)
        np.testing.assert_array_equal(read_digits, digits)
        np.testing.assert_array_equal(read_labels, digit_labels)
        assert read_digits.dtype == read_labels.dtype == np.uint8


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"MNIST is not in {MNIST}")
@pytest.mark.parametrize(("split", "count"), [("train", 60000), ("test", 10000)])
def test_reads_the_real_files(split, count):
    digits, labels = read_mnist(MNIST, split)
    assert digits.shape == (count, 28, 28)
    # Published: the first digits of each file.
    first = {"train": [5, 0, 4, 1, 9], "test": [7, 2, 1, 0, 4]}
    assert labels[:5].tolist() == first[split]
    assert np.bincount(labels).min() > 0.08 * count
    data = MegapixelMNIST(digits, labels, count=20, size=300, noise_patches=3)
    image, box = data.image(0), data.boxes(0)[0]
    known = digits[labels == data.labels[0]]
    assert (known == cut(image, box)).all(axis=(1, 2)).any()


def test_unknown_split(tmp_path):
    with pytest.raises(ValueError, match=r"\['test', 'train'\].*split='valid'"):
        read_mnist(tmp_path, "valid")


def test_missing_file(tmp_path, digits, digit_labels):
    with pytest.raises(
        FileNotFoundError,
        match=r"train-images-idx3-ubyte.gz or train-images-idx3-ubyte, .* from https",
    ):
        read_mnist(tmp_path, "train")
    write_mnist(tmp_path, digits, digit_labels)
    (tmp_path / NAMES["train"][1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"train-labels-idx1-ubyte.gz or"):
        read_mnist(tmp_path, "train")


@pytest.mark.parametrize("kept", [0, 3, 9, 1000])
@pytest.mark.parametrize("compress", [False, True])
def test_truncated_file(tmp_path, digits, digit_labels, kept, compress):
    write_mnist(tmp_path, digits, digit_labels, compress=compress)
    path = tmp_path / (NAMES["train"][0] + (".gz" if compress else ""))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"(not whole|no whole|no idx).*idx3"):
        read_mnist(tmp_path, "train")


def test_file_that_is_too_long(tmp_path, digits, digit_labels):
    write_mnist(tmp_path, digits, digit_labels)
    path = tmp_path / NAMES["train"][1]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"not whole.*8 \+ 40 bytes.*49 bytes"):
        read_mnist(tmp_path, "train")


def test_damaged_gzip_file(tmp_path, digits, digit_labels):
    write_mnist(tmp_path, digits, digit_labels, compress=True)
    path = tmp_path / f"{NAMES['train'][0]}.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"no whole gzip file.*https.*idx3-ubyte.gz"):
        read_mnist(tmp_path, "train")


def test_wrong_magic(tmp_path, digits, digit_labels):
    write_mnist(tmp_path, digits, digit_labels)
    images, labels = (tmp_path / name for name in NAMES["train"])
    labels.write_bytes(images.read_bytes())
    with pytest.raises(
        ValueError, match=r"begins with 00 00 08 01.*00 00 08 03 in .*labels-idx1"
    ):
        read_mnist(tmp_path, "train")
    images.write_bytes(b"\x1f\x8b\x08\x00 a gzip file under the wrong name")
    with pytest.raises(ValueError, match=r"00 00 08 03.*1f 8b 08 00"):
        read_mnist(tmp_path, "train")


def test_files_that_do_not_belong_together(tmp_path, digits, digit_labels):
    write_mnist(tmp_path, digits, digit_labels[:-1])
    with pytest.raises(ValueError, match=r"label for each.*\(40, 28, 28\).*\(39,\)"):
        read_mnist(tmp_path, "train")
    write_mnist(tmp_path, digits[:, 1:], digit_labels)
    with pytest.raises(ValueError, match=r"28 x 28 pixels.*\(40, 27, 28\)"):
        read_mnist(tmp_path, "train")
