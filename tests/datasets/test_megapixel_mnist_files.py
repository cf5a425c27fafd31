import errno
import json
import pickle
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from attention_sampling.data import HDF5Source, open_source
from attention_sampling.datasets._generated import locked
from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST, read_mnist
from attention_sampling.datasets.megapixel_mnist_files import (
    MegapixelMNISTFile,
    load_megapixel_mnist,
    write_megapixel_mnist,
    write_megapixel_mnist_splits,
)

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"
FILES = ["parameters.json", "test.h5", "train.h5"]


@pytest.fixture
def make(rng):
    digits = rng.integers(1, 256, (40, 28, 28), dtype="uint8")

    def make(count=4, size=(150, 211), noise_patches=3, seed=0):
        labels = np.arange(40, dtype="uint8") % 10
        return MegapixelMNIST(digits, labels, count, size, noise_patches, seed)

    return make


@pytest.fixture
def path(make, tmp_path):
    """Return a file, to be spoiled."""
    path = tmp_path / "data.h5"
    write_megapixel_mnist(path, make(), (30, 41), {"scale": 0.2})
    return path


@pytest.fixture
def directory(make, tmp_path):
    """Return a data set, to be spoiled."""
    directory = tmp_path / "data"
    write(directory, make, {"n_train": 4, "scale": 0.2})
    return directory


def write(directory, make, settings=None, view_size=30, overwrite=False, **keywords):
    splits = make(count=4, **keywords), make(count=3, seed=1, **keywords)
    write_megapixel_mnist_splits(directory, *splits, view_size, settings, overwrite)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# Reading what was written


def test_holds_all_of_the_data(make, path):
    made, data = make(), MegapixelMNISTFile(path)
    assert len(data) == 4
    assert (data.size, data.view_size) == ((150, 211), (30, 41))
    assert (data.noise_patches, data.seed) == (3, 0)
    assert data.settings == {"scale": 0.2}
    np.testing.assert_array_equal(data.labels, made.labels)
    np.testing.assert_array_equal(data.boxes, [made.boxes(i) for i in range(4)])
    assert data.labels.dtype == data.boxes.dtype == np.int32
    images = data.images([2, 0, 2])
    np.testing.assert_array_equal(images, made.images([2, 0, 2]))
    assert images.dtype == np.uint8
    assert data.images(np.array([], int)).shape == (0, 150, 211, 1)
    views = np.array([made.view(i, (30, 41)) for i in range(4)])
    assert views.max() > 128  # where 16-bit floats would be coarser
    assert data.views.dtype == np.float32
    assert data.views.shape == views.shape
    np.testing.assert_allclose(data.views, views, rtol=0, atol=1 / 512 + 1e-5)
    assert data.views is data.views


@pytest.mark.parametrize("size", [(30, 140), (128, 192), (129, 191)])
def test_sizes_beside_those_of_chunks(make, tmp_path, size):
    made = make(count=3, size=size)
    write_megapixel_mnist(tmp_path / "a.h5", made, size)
    data = MegapixelMNISTFile(tmp_path / "a.h5")
    np.testing.assert_array_equal(data.images(range(3)), made.images(range(3)))
    np.testing.assert_array_equal(data.views, made.images(range(3)))


def test_many_views(make, tmp_path):
    made = make(count=130, noise_patches=0)  # more than are read at once
    write_megapixel_mnist(tmp_path / "a.h5", made, 10)
    views = MegapixelMNISTFile(tmp_path / "a.h5").views
    expected = [made.view(i, 10) for i in range(130)]
    np.testing.assert_allclose(views, expected, rtol=0, atol=1 / 500)


def test_is_a_source_without_more_words(make, path):
    made = make()
    for source in (HDF5Source(path), open_source(path)):
        assert len(source) == 4
        assert source.shape(1) == (150, 211, 1)
        top, left, bottom, right = made.boxes(3)[4]
        patches = source.read_patches([3], [(top, left)], 28)
        expected = made.image(3)[top:bottom, left:right]
        np.testing.assert_array_equal(patches[0], expected)
        view = source.read_view(2, (30, 41))
        np.testing.assert_allclose(view, made.view(2, (30, 41)), rtol=1e-4, atol=1e-3)
        source.close()


def test_empty_background_takes_no_space(make, tmp_path):
    made = make(count=2, size=1000, noise_patches=0)
    write_megapixel_mnist(tmp_path / "a.h5", made, 100)
    with h5py.File(tmp_path / "a.h5") as file:
        # Five digits of 28 x 28 pixels touch four chunks each at most.
        assert 2 * 5 <= file["images"].id.get_num_chunks() <= 2 * 5 * 4


@pytest.mark.skipif(not MNIST.is_dir(), reason=f"MNIST is not in {MNIST}")
def test_six_thousand_images_of_the_paper_take_less_than_150_mb(tmp_path):
    made = MegapixelMNIST(*read_mnist(MNIST, "train"), count=8)
    write_megapixel_mnist(tmp_path / "a.h5", made, 180)
    assert (tmp_path / "a.h5").stat().st_size / 8 < 150e6 / 6000


def test_same_seed_same_bytes(make, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_megapixel_mnist(tmp_path / name, make(seed=seed), 30)
        time.sleep(1.1)  # HDF5 would note the second
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_pickles_and_reads_from_threads(make, path):
    made, data = make(), MegapixelMNISTFile(path)
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy.images([1]), made.images([1]))
    with ThreadPoolExecutor(4) as threads:
        for index, images in enumerate(threads.map(data.images, [[0], [1], [2]] * 5)):
            np.testing.assert_array_equal(images, made.images([index % 3]))


def test_both_splits(make, directory):
    train, test = load_megapixel_mnist(str(directory))
    assert (len(train), len(test)) == (4, 3)
    assert (train.seed, test.seed) == (0, 1)
    assert train.path == str(directory / "train.h5")
    assert train.settings == test.settings == {"n_train": 4, "scale": 0.2}
    assert json.loads((directory / "parameters.json").read_text()) == train.settings
    np.testing.assert_array_equal(test.images([2]), make(count=3, seed=1).images([2]))
    assert names(directory) == FILES


@pytest.mark.parametrize("index", [-1, 4])
def test_no_such_image(path, index):
    with pytest.raises(IndexError, match=rf"images 0 to 3 in .*data.h5.*index={index}"):
        MegapixelMNISTFile(path).images([0, index])


def test_no_number_of_an_image(path):
    with pytest.raises(TypeError):
        MegapixelMNISTFile(path).images([0.5])


# Broken files


def test_missing(directory, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing.*make_mnist.py.*'.*none"):
        MegapixelMNISTFile(tmp_path / "none")
    (directory / "test.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing.*test.h5"):
        load_megapixel_mnist(directory)
    with pytest.raises(FileNotFoundError, match="missing"):
        MegapixelMNISTFile(directory)


@pytest.mark.parametrize("kept", [0, 4, 100, 2000, -1])
def test_cut(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        ValueError, match=r"no HDF5 file, not whole.*Make it again.*data.h5"
    ):
        MegapixelMNISTFile(path)


def test_no_hdf5_file(path):
    path.write_bytes(b"\x93NUMPY, as the reference implementation writes")
    with pytest.raises(ValueError, match=r"no HDF5 file.*data.h5"):
        MegapixelMNISTFile(path)


@pytest.mark.parametrize("name", ["images", "views", "labels", "boxes"])
def test_damaged_pixels_and_labels(path, name):
    with h5py.File(path) as file:
        offset = file[name].id.get_chunk_info(0).byte_offset
        size = file[name].id.get_chunk_info(0).size
    data = bytearray(path.read_bytes())
    data[offset + size // 2] ^= 255
    path.write_bytes(bytes(data))

    def read():
        opened = MegapixelMNISTFile(path)
        return opened.images(range(4)), opened.views

    with pytest.raises(ValueError, match=r"damaged.*data.h5"):
        read()


def test_nothing_lies_in_a_heap(path):
    # It has no checksum, and HDF5 searches a damaged one for ever.
    assert b"GCOL" not in path.read_bytes()


def test_a_flipped_bit_is_found_or_harmless(make, path, rng):
    def read(path):
        opened = MegapixelMNISTFile(path)
        return [opened.labels, opened.boxes, opened.views, opened.images(range(4))]

    whole, data = read(path), path.read_bytes()
    found = 0
    for position in rng.integers(len(data), size=150):
        spoiled = bytearray(data)
        spoiled[position] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(spoiled))
        try:
            values = read(path)
        except ValueError:
            found += 1
        else:
            for value, expected in zip(values, whole, strict=True):
                np.testing.assert_array_equal(value, expected)
    assert found > 75


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("labels", lambda values: values - 9),
        ("boxes", lambda values: spoiled_boxes(values, "top", -1)),
        ("boxes", lambda values: spoiled_boxes(values, "right", 212)),
        ("boxes", lambda values: spoiled_boxes(values, "bottom", 0)),
    ],
)
def test_values_that_cannot_be(path, name, spoil):
    with h5py.File(path, "r+") as file:
        values = spoil(file[name][...])
        del file[name]
        file[name] = values
    with pytest.raises(ValueError, match=r"labels below 0, or digits outside.*data.h5"):
        MegapixelMNISTFile(path)


def spoiled_boxes(boxes, field, value):
    boxes[field][0, 0] = value
    return boxes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 1),
        ("format", "mnist"),
        ("format", np.bytes_(b"mnist")),
        ("format", "megapixel_mnist"),  # of variable length, as version 1 had it
        ("version", None),
        ("version", [2, 2]),
    ],
)
def test_another_format_or_version(path, name, value):
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value
    with pytest.raises(
        ValueError,
        match=r"of another version. Expected: .*version=2.*Received: .*data.h5",
    ):
        MegapixelMNISTFile(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("view_size", 30),
        ("seed", "none"),
        ("noise_patches", None),
        ("settings", "{"),
        ("settings", "[1]"),
        ("settings", 3),
    ],
)
def test_lacks_an_attribute(path, name, value):
    with h5py.File(path, "r+") as file:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value
    with pytest.raises(ValueError, match=r"lacks an attribute.*settings.*data.h5"):
        MegapixelMNISTFile(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", None),
        ("labels", None),
        ("boxes", None),
        ("views", None),
        ("images", np.zeros((4, 150, 211, 3), "uint8")),
        ("images", np.zeros((4, 150, 211, 1), "float32")),
        ("labels", np.zeros((4, 10), "int32")),
        ("boxes", np.zeros((4, 5), "int32")),
        ("views", np.zeros((4, 30 * 41), "float16")),
        ("labels", h5py.SoftLink("/other")),
        ("labels", h5py.ExternalLink("other.h5", "labels")),
        ("labels", "group"),
    ],
)
def test_lacks_a_dataset(path, name, value):
    shutil.copy(path, path.with_name("other.h5"))
    with h5py.File(path, "r+") as file:
        file["other"] = file["labels"]
        del file[name]
        if isinstance(value, str):
            file.create_group(name)
        elif value is not None:
            file[name] = value
    with pytest.raises(ValueError, match=rf"lacks a dataset.*'{name}'.*data.h5"):
        MegapixelMNISTFile(path)


def test_virtual_dataset(path):
    layout = h5py.VirtualLayout((4,), "<i4")
    layout[:] = h5py.VirtualSource("other.h5", "labels", (4,))
    with h5py.File(path, "r+") as file:
        del file["labels"]
        file.create_virtual_dataset("labels", layout)
    with pytest.raises(ValueError, match=r"lacks a dataset.*'labels'"):
        MegapixelMNISTFile(path)


@pytest.mark.parametrize("name", ["images", "labels", "boxes", "views"])
def test_lengths_that_disagree(path, name):
    with h5py.File(path, "r+") as file:
        values = file[name][1:]
        del file[name]
        file[name] = values
    with pytest.raises(ValueError, match=r"not fit together.*labels \(.*data.h5"):
        MegapixelMNISTFile(path)


def test_views_of_another_size(path):
    with h5py.File(path, "r+") as file:
        file.attrs["view_size"] = (30, 40)
    with pytest.raises(ValueError, match=r"views of 30 x 40 pixels.*\(4, 1230\)"):
        MegapixelMNISTFile(path)


def test_replaced_or_removed_while_in_use(make, path):
    data = MegapixelMNISTFile(path)
    write_megapixel_mnist(path, make(seed=1), (30, 41), overwrite=True)
    with pytest.raises(OSError, match=r"replaced or changed.*data.h5.*Load it again"):
        data.images([0])
    with pytest.raises(OSError, match="replaced or changed"):
        _ = data.views
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"data.h5"):
        data.images([0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 160}, r"same size.*\(150, 211\) in .*train.h5.*\(160, 160\) in"),
        ({"view_size": 29}, r"same view_size.*\(29, 29\) in .*test.h5"),
        ({"noise_patches": 0}, r"same noise_patches.*3 in .*train.h5.*0 in .*test.h5"),
        ({"settings": {"n_train": 5}}, r"same settings.*'n_train': 5} in .*test.h5"),
    ],
)
def test_files_of_different_data_sets(make, directory, tmp_path, settings, message):
    given = {"settings": {"n_train": 4, "scale": 0.2}} | settings
    write(tmp_path / "other", make, **given)
    shutil.copy(tmp_path / "other" / "test.h5", directory)
    with pytest.raises(ValueError, match=message):
        load_megapixel_mnist(directory)


def test_test_images_that_are_training_images(directory):
    shutil.copy(directory / "train.h5", directory / "test.h5")
    with pytest.raises(ValueError, match=r"another seed.*seed=0 in .*test.h5"):
        load_megapixel_mnist(directory)


# Writing


def test_refuses_what_exists(make, directory, path):
    with pytest.raises(FileExistsError, match=r"must not exist.*overwrite.*data.h5"):
        write_megapixel_mnist(path, make(), 30)
    before = contents(directory)
    with pytest.raises(FileExistsError, match=r"--overwrite.*which holds train.h5, te"):
        write(directory, make)
    for name in FILES[1:]:
        (directory / name).unlink()
    with pytest.raises(FileExistsError, match=r"holds parameters.json"):
        write(directory, make)
    assert contents(directory) == {FILES[0]: before[FILES[0]]}
    with pytest.raises(FileExistsError, match=r"directory is to be written.*a file"):
        write(path, make, overwrite=True)


def test_overwrites_the_data_set_and_nothing_else(make, directory):
    (directory / "notes.txt").write_text("mine")
    write(directory, make, {"n_train": 5}, noise_patches=0, overwrite=True)
    train, test = load_megapixel_mnist(directory)
    assert train.noise_patches == test.noise_patches == 0
    assert json.loads((directory / "parameters.json").read_text()) == {"n_train": 5}
    assert names(directory) == ["notes.txt", *FILES]


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OSError),
        (RuntimeError("Can't decrement id ref count"), OSError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_fails_in_the_middle(make, directory, monkeypatch, exists, error, raised):
    before = contents(directory)
    target = directory if exists else directory.with_name("new")
    write_to = h5py.Dataset.__setitem__
    n_views = 0

    def fail(dataset, where, values):
        nonlocal n_views
        n_views += dataset.name == "/views"
        if n_views == 6:  # in the second file
            raise error
        write_to(dataset, where, values)

    with monkeypatch.context() as patch:
        patch.setattr(h5py.Dataset, "__setitem__", fail)
        with pytest.raises(raised) as caught:
            write(target, make, overwrite=True, noise_patches=0)
    if raised is OSError:
        assert "test.h5" in str(caught.value)
        assert str(error) in str(caught.value)
        assert "Make room on the disk" in str(caught.value)
    assert contents(directory) == before
    assert exists or not target.exists()
    write(target, make, overwrite=True)
    assert len(load_megapixel_mnist(target).test) == 3


def test_interrupted_in_a_callback_of_hdf5(make, tmp_path, monkeypatch):
    def fail(dataset, where, values):
        error = RuntimeError("Operation not defined")  # as h5py does
        error.__context__ = KeyboardInterrupt()
        raise error

    monkeypatch.setattr(h5py.Dataset, "__setitem__", fail)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "new", make)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_one_file(make, path, monkeypatch):
    before = path.read_bytes()
    made = make()
    monkeypatch.setattr(made, "view", lambda index, size: [][index])
    with pytest.raises(IndexError):
        write_megapixel_mnist(path, made, 30, overwrite=True)
    assert contents(path.parent) == {"data.h5": before}


def test_clears_what_a_killed_run_has_left(make, tmp_path):
    part = tmp_path / ".megapixel_mnist.part"
    part.mkdir()
    (part / "train.h5").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    write(tmp_path, make)
    assert names(tmp_path) == ["notes.txt", *FILES]


def test_writers_wait_for_each_other(make, directory):
    for name in FILES:
        (directory / name).unlink()
    errors = []

    def write_second():
        try:
            write(directory, make)
        except FileExistsError as error:
            errors.append(error)

    second = threading.Thread(target=write_second)
    with locked(directory):
        second.start()
        second.join(0.3)
        assert names(directory) == []
        (directory / "test.h5").write_bytes(b"what the first has written")
    second.join(60)
    assert len(errors) == 1
    assert names(directory) == ["test.h5"]


DISK_FULL = """
import resource, sys
import numpy as np
from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.datasets.megapixel_mnist_files import (
    write_megapixel_mnist_splits,
)

digits = np.random.default_rng(0).integers(0, 256, (20, 28, 28), "uint8")
splits = [MegapixelMNIST(digits, np.arange(20) % 10, 90, 300, 9, s) for s in (0, 1)]
resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
for _ in range(2):
    try:
        write_megapixel_mnist_splits(sys.argv[1], *splits, 30, progress=True)
    except OSError as error:
        print(error)
"""


def test_full_disk(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, tmp_path / "new"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The file cannot be written") == 2
    assert "File too large" in done.stdout
    assert "Make room on the disk" in done.stdout
    assert "Error" not in done.stderr  # nor from HDF5, when the process ends
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("view_size", "message"),
    [
        ((30, 212), r"`view_size` must not be larger.*\(30, 212\).*\(150, 211\)"),
        (0, r"`view_size` must be a positive int or a pair.*=0"),
    ],
)
def test_view_sizes_that_are_none(make, tmp_path, view_size, message):
    with pytest.raises(ValueError, match=message):
        write_megapixel_mnist(tmp_path / "a.h5", make(), view_size)
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "new", make, view_size=view_size)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 0}, r"different seeds.*seed=0 for both"),
        ({"size": 160}, r"same kind.*size=\(150, 211\) and \(160, 160\)"),
        ({"noise_patches": 0}, r"same kind.*noise_patches=3 and 0"),
    ],
)
def test_splits_that_do_not_go_together(make, tmp_path, settings, message):
    test = make(**{"seed": 1, **settings})
    with pytest.raises(ValueError, match=message):
        write_megapixel_mnist_splits(tmp_path / "new", make(), test, 30)
    assert list(tmp_path.iterdir()) == []


def test_directory_of_the_file_is_missing(make, tmp_path):
    with pytest.raises(OSError, match=r"cannot be written.*none.*a.h5"):
        write_megapixel_mnist(tmp_path / "none" / "a.h5", make(), 30)


def test_needs_neither_keras_nor_tensorflow_but_h5py():
    program = (
        "import sys\n"
        "sys.modules['h5py'] = None\n"
        "name = 'attention_sampling.datasets.megapixel_mnist_files'\n"
        "try:\n"
        "    __import__(name)\n"
        "except ImportError as error:\n"
        "    assert 'attention-sampling[hdf5]' in str(error)\n"
        "else:\n"
        "    raise AssertionError\n"
        "del sys.modules['h5py']\n"
        "__import__(name)\n"
        "assert not {'keras', 'tensorflow', 'attention_sampling.data'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
