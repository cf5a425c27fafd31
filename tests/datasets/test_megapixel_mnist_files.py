"""Megapixel MNIST on disk."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from processes import names_in, run

from attention_sampling.data import HDF5Source, open_source
from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.datasets.megapixel_mnist_files import (
    load_megapixel_mnist,
    write_megapixel_mnist,
)

VIEW_SIZE = 30, 41


@pytest.fixture
def make(rng):
    digits = rng.integers(1, 256, (40, 28, 28), dtype="uint8")

    def make(count=4, size=(150, 211), noise_patches=3, seed=0):
        labels = np.arange(40, dtype="uint8") % 10
        return MegapixelMNIST(digits, labels, count, size, noise_patches, seed)

    return make


@pytest.fixture
def directory(make, tmp_path):
    """Return a data set, to be spoiled."""
    write_megapixel_mnist(tmp_path, make(), make(3, seed=1), VIEW_SIZE)
    return tmp_path


# Reading what was written


def test_holds_all_of_the_data(make, directory):
    for data, made in zip(
        load_megapixel_mnist(str(directory)), (make(), make(3, seed=1)), strict=True
    ):
        assert len(data) == len(made)
        assert (data.size, data.view_size) == ((150, 211), VIEW_SIZE)
        assert (data.noise_patches, data.seed) == (3, made.seed)
        np.testing.assert_array_equal(data.labels, made.labels)
        np.testing.assert_array_equal(data.boxes, made.boxes)
        assert data.labels.dtype == data.boxes.dtype == np.int32
        images = data.images([2, 0, 2])
        np.testing.assert_array_equal(images, [made.image(i) for i in (2, 0, 2)])
        assert images.dtype == np.uint8
        assert data.images(np.array([], int)).shape == (0, 150, 211, 1)
        views = np.array([made.view(i, VIEW_SIZE) for i in range(len(made))])
        assert views.max() > 128  # where 16-bit floats would be coarser
        assert data.views.dtype == np.float32
        np.testing.assert_allclose(data.views, views, rtol=0, atol=1 / 512 + 1e-5)
        with pytest.raises(IndexError):
            data.images([4])
    assert names_in(directory) == ["test.h5", "train.h5"]


@pytest.mark.parametrize("size", [(30, 140), (128, 192), (129, 191)])
def test_sizes_beside_those_of_chunks(make, tmp_path, size):
    made = make(size=size)
    write_megapixel_mnist(tmp_path, made, make(size=size, seed=1), size)
    data, _ = load_megapixel_mnist(tmp_path)
    images = [made.image(i) for i in range(4)]
    np.testing.assert_array_equal(data.images(range(4)), images)
    np.testing.assert_array_equal(data.views, images)


@pytest.mark.parametrize("open_file", [HDF5Source, open_source])
def test_is_a_source_without_more_words(make, directory, open_file):
    made, source = make(), open_file(directory / "train.h5")
    assert len(source) == 4
    assert source.shape(1) == (150, 211, 1)
    top, left, bottom, right = made.boxes[3, 4]
    patches = source.read_patches([3], [(top, left)], 28)
    np.testing.assert_array_equal(patches[0], made.image(3)[top:bottom, left:right])
    view = source.read_view(2, VIEW_SIZE)
    np.testing.assert_allclose(view, made.view(2, VIEW_SIZE), rtol=1e-4, atol=1e-3)
    source.close()


def test_empty_background_takes_no_space(make, tmp_path):
    kinds = {"size": 1000, "noise_patches": 0}
    write_megapixel_mnist(tmp_path, make(2, **kinds), make(1, seed=1, **kinds), 100)
    with h5py.File(tmp_path / "train.h5") as file:
        # Five digits of 28 x 28 pixels touch four chunks each at most.
        assert 2 * 5 <= file["images"].id.get_num_chunks() <= 2 * 5 * 4


def test_pickles_and_reads_from_threads(make, directory):
    made, (data, _) = make(), load_megapixel_mnist(directory)
    copy = pickle.loads(pickle.dumps(data))
    with ThreadPoolExecutor(4) as threads:
        for index, images in enumerate(threads.map(copy.images, [[0], [1], [2]] * 5)):
            np.testing.assert_array_equal(images[0], made.image(index % 3))


# Broken files


def flip_a_byte(path, name):
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(0)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 255
    path.write_bytes(bytes(data))


def edit(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"\x93NUMPY, as the reference implementation"),
        lambda path: flip_a_byte(path, "images"),
        lambda path: flip_a_byte(path, "views"),
        lambda path: edit(path, lambda file: file.attrs.modify("version", 2)),
        lambda path: edit(path, lambda file: file.attrs.modify("format", "mnist")),
        lambda path: edit(path, lambda file: file.__delitem__("boxes")),
        lambda path: edit(path, lambda file: file.attrs.__delitem__("seed")),
    ],
)
def test_broken_files_are_named_with_the_remedy(directory, spoil):
    spoil(directory / "test.h5")

    def read_all():
        _, data = load_megapixel_mnist(directory)
        return data.views, data.images(range(3))

    with pytest.raises(ValueError, match=r"damaged, no file.*Make it again.*test\.h5"):
        read_all()


def test_a_missing_file_names_the_command_that_makes_it(directory):
    (directory / "test.h5").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"python examples/make_mnist.py {directory}.*test.h5"
    ):
        load_megapixel_mnist(directory)


# Writing


def test_replaces_what_was_there_and_says_how_far_it_is(make, directory):
    seen = []
    write_megapixel_mnist(
        directory,
        make(2, seed=2),
        make(1, seed=3),
        30,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    train, test = load_megapixel_mnist(directory)
    assert (train.seed, test.seed, train.view_size) == (2, 3, (30, 30))


def test_interrupted_leaves_what_was_there(make, directory):
    before = [path.read_bytes() for path in sorted(directory.iterdir())]

    def interrupt(done, total):
        if done == 5:  # in the second file
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_megapixel_mnist(directory, make(seed=2), make(seed=3), 30, interrupt)
    assert [path.read_bytes() for path in sorted(directory.iterdir())] == before


DISK_FULL = """
import resource, sys
import numpy as np
from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.datasets.megapixel_mnist_files import write_megapixel_mnist

digits = np.random.default_rng(0).integers(0, 256, (20, 28, 28), "uint8")
splits = [MegapixelMNIST(digits, np.arange(20) % 10, 90, 300, 9, s) for s in (0, 1)]
resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
try:
    write_megapixel_mnist(sys.argv[1], *splits, 30)
except OSError as error:
    print(error)
"""


def test_full_disk(tmp_path):
    code, printed, errors = run("-c", DISK_FULL, tmp_path)
    assert code == 0, errors
    assert "File too large" in printed
    assert "Make room on the disk" in printed
    assert "Error" not in errors  # nor from HDF5, when the process ends
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("seed", "view_size", "message"),
    [
        (1, (30, 212), r"must not be larger.*\(30, 212\).*\(150, 211\)"),
        (1, 0, r"`view_size` must be a positive int or a pair.*=0"),
        (0, 30, r"different seeds.*seed=0 for both"),
    ],
)
def test_what_cannot_be_written(make, tmp_path, seed, view_size, message):
    with pytest.raises(ValueError, match=message):
        write_megapixel_mnist(tmp_path, make(), make(seed=seed), view_size)
    assert names_in(tmp_path) == []
