"""HDF5 files: what is read, and what is refused."""

import subprocess

import h5py
import numpy as np
import pytest
from processes import start
from source_contract import SourceContract, area_average, check_windows, draw_images

from attention_sampling.data import HDF5Source, SourceError


def write_converted(path, images, names=None, **keywords):
    """Write our own layout as its definition says, not as `convert` does."""
    with h5py.File(path, "w") as file:
        file.attrs["attention_sampling_format"] = 1
        file.create_group("images")
        for number, image in enumerate(images):
            group = file.create_group(f"images/{number:06}")
            group.attrs["name"] = names[number] if names else f"photo {number}.png"
            for level, pixels in enumerate(pyramid(image)):
                chunks = tuple(map(min, pixels.shape, (32, 32, pixels.shape[2])))
                group.create_dataset(
                    str(level),
                    data=pixels,
                    chunks=chunks,
                    compression="gzip",
                    **keywords,
                )


def pyramid(image):
    levels = [image]
    while min(levels[-1].shape[:2]) >= 20:
        levels.append(halve(levels[-1]))
    return levels


def halve(image):
    height, width = (extent // 2 * 2 for extent in image.shape[:2])
    image = image[:height, :width]
    parts = [image[i::2, j::2].astype("float64") for i in (0, 1) for j in (0, 1)]
    mean = sum(parts) / 4
    return (np.rint(mean) if image.dtype.kind in "ui" else mean).astype(image.dtype)


class TestOneDatasetAFile(SourceContract):
    dtypes = ("uint8", "int16", "float16", "float64")
    channels = (1, 2, 4, 3)

    def make(self, directory, images, **keywords):
        paths = [directory / f"{number}.h5" for number in range(len(images))]
        for number, (path, image) in enumerate(zip(paths, images, strict=True)):
            with h5py.File(path, "w") as file:
                chunks = tuple(map(min, image.shape, (16, 32, 8)))
                chunks = {"chunks": chunks, "compression": "gzip"} if number else {}
                file.create_dataset("group/image", data=image, **chunks)
        return HDF5Source(paths, **keywords)


class TestStack(SourceContract):
    sizes = ((70, 290),) * 3
    # Shown by another class of the same format; a process takes long.
    test_reads_in_a_spawned_process_and_its_fork = None

    def make(self, directory, images, **keywords):
        with h5py.File(directory / "stack.h5", "w") as file:
            chunks = (2, 32, 32, images[0].shape[2])
            file.create_dataset("images", data=np.stack(images), chunks=chunks)
        return HDF5Source(directory / "stack.h5", **keywords)


class TestConvertedFiles(SourceContract):
    dtypes = ("uint8", "float32")
    channels = (1, 5)
    # Shown by another class of the same format; a process takes long.
    test_reads_in_a_spawned_process_and_its_fork = None

    def make(self, directory, images, **keywords):
        write_converted(directory / "images.h5", images)
        return HDF5Source(directory / "images.h5", **keywords)

    def expected_view(self, image, size):
        levels = pyramid(image)
        ratios = [min(np.divide(level.shape[:2], size)) for level in levels]
        (fitting,) = np.nonzero(np.array(ratios) >= 1)
        ample = [i for i in fitting if 2 <= ratios[i] <= 8]
        exact = levels[fitting[-1]].shape[:2] == tuple(size)
        chosen = fitting[-1] if exact or not ample else ample[-1]
        return area_average(levels[chosen], size)


@pytest.fixture
def image(rng):
    return draw_images(rng, [(90, 70)], 3, "uint8")[0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "images.h5"


def write(path, **datasets):
    """Write a file of datasets, those of keys with __ in groups."""
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file.create_dataset(name.replace("__", "/"), data=data)
    return path


# What is taken for images


def test_keys_and_names(path, image):
    write(path, image=image)
    assert HDF5Source(path).names == (str(path),)
    write(path, group__photos=[image, image])
    names = (f"{path}[group/photos[0]]", f"{path}[group/photos[1]]")
    assert HDF5Source(path).names == names
    write_converted(path, [image, image], ["a.tif", "b.tif"])
    source = HDF5Source(path)
    assert source.names == ("a.tif", "b.tif")
    assert source.levels(0) == ((90, 70), (45, 35), (22, 17))
    path.unlink()
    with pytest.raises(SourceError, match=r"images.h5\[1\] \(image 1\)"):
        source.read_patches([1], [(0, 0)], 4)


def test_grey_images_have_one_channel(path, image, rng):
    grey = image[:, :, 0]
    for name, others in (("image", {}), ("x", {"scalar": 1, "labels": [1, 2, 3]})):
        write(path, **{name: grey}, **others)
        with HDF5Source(path) as source:
            assert source.shape(0) == (90, 70, 1)
            check_windows(source, [image[:, :, :1]], rng)


def test_other_images_are_named(path, image, rng):
    write(path, train=[image, image], test=[255 - image], one_hot=np.eye(5))
    with pytest.raises(SourceError, match=r"`dataset`\. Received: 'test', 'train'"):
        HDF5Source(path)
    for name in ("test", "/test", "test/"):
        with HDF5Source(path, dataset=name) as source:
            check_windows(source, [255 - image], rng)
            assert source.names == (f"{path}[test[0]]",)


# What is refused

UNCLEAR = {
    "3-D stack": ({"x": np.zeros((8, 9, 10))}, r"Received: shape \(8, 9, 10\).*Store"),
    "channels first": ({"x": np.zeros((2, 3, 9, 10))}, r"shape \(2, 3, 9, 10\)"),
    "no images": ({"x": [1, 2], "y": ["a"]}, "no dataset of images"),
    "nothing": ({}, "no dataset of images"),
    "two grey": ({"x": np.eye(5), "y": np.eye(6)}, "name one.*Received: 'x', 'y'"),
    "no pixels": ({"x": np.zeros((9, 0, 3))}, "without pixels"),
    "no count": ({"x": np.zeros((0, 9, 9, 3))}, "holds no image"),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_what_is_unclear_is_refused(path, kind):
    datasets, message = UNCLEAR[kind]
    write(path, **datasets)
    with pytest.raises(SourceError, match=rf"images\.h5: .*{message}"):
        HDF5Source(path)


def test_a_named_dataset_must_be_images(path, image):
    with h5py.File(write(path, image=image, group__x=image), "r+") as file:
        file["text"] = ["a", "b"]
        file["flags"] = np.ones((4, 5), bool)
        file["pairs"] = np.zeros((4, 5), [("a", "u1"), ("b", "f4")])
        file["complex"] = np.zeros((4, 5), "complex64")
        file["long"] = np.zeros((4, 5), np.longdouble)
        file["empty"] = h5py.Empty("uint8")
        file.create_dataset("ragged", (4, 5), h5py.vlen_dtype("uint8"))
        file["references"] = np.full((2, 2), file["image"].ref, h5py.ref_dtype)
    names = ["text", "flags", "pairs", "complex", "ragged", "references", "empty"]
    if np.dtype(np.longdouble).itemsize > 8:  # there is no such dtype everywhere
        names.append("long")
    for name in names:
        with pytest.raises(SourceError, match=f"'{name}' must hold integers or floats"):
            HDF5Source(path, dataset=name)
    with pytest.raises(SourceError, match="'group' is a group"):
        HDF5Source(path, dataset="group")
    for name in ("nothing", "image/x", "group/nothing", "../images.h5"):
        with pytest.raises(SourceError, match=f"there is no '{name}'"):
            HDF5Source(path, dataset=name)


def test_pixels_of_other_files_are_refused(tmp_path, path, image):
    secret = write(tmp_path / "secret.h5", image=image, group__image=image)
    (tmp_path / "raw").write_bytes(image.tobytes())
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink(secret, "/image")
        file["soft"] = h5py.SoftLink("/link")
        file["folder"] = h5py.ExternalLink(secret, "/group")
        layout = h5py.VirtualLayout(image.shape, image.dtype)
        layout[:] = h5py.VirtualSource(secret, "image", image.shape)
        file.create_virtual_dataset("virtual", layout)
        places = [(tmp_path / "raw", 0, image.nbytes)]
        file.create_dataset("outside", image.shape, image.dtype, external=places)
    refused = {
        "link": "a link, which might",
        "soft": "a link, which might",
        "folder/image": "a link, which might",
        "virtual": "in other files, which is refused",
        "outside": "in other files, which is refused",
    }
    for name, message in refused.items():
        with pytest.raises(SourceError, match=message):
            HDF5Source(path, dataset=name)
    with h5py.File(path, "r+") as file:
        del file["outside"]
    with pytest.raises(SourceError, match="'virtual' are in other files"):
        HDF5Source(path)
    with h5py.File(path, "r+") as file:
        del file["virtual"]
    with pytest.raises(SourceError, match="no dataset of images"):
        HDF5Source(path)
    with h5py.File(path, "r+") as file:
        file["image"] = image
    assert HDF5Source(path).shape(0) == image.shape  # links are not looked at


def link_level(file):
    del file["images/000001/1"]
    file["images/000001/1"] = h5py.ExternalLink("secret.h5", "/image")


def link_image(file):
    del file["images/000001"]
    file["images/000001"] = h5py.ExternalLink("secret.h5", "/images/000000")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda file: file.attrs.modify("attention_sampling_format", 2),
            "attention_sampling_format=.*2.*, expected 1",
        ),
        (lambda file: file.pop("images"), "no 'images' in it"),
        (lambda file: file["images"].clear(), "holds no image"),
        (
            lambda file: file["images/000001"].attrs.create("name", 7),
            "has no levels, or no name",
        ),
        (lambda file: file["images/000001"].clear(), "has no levels, or no name"),
        (lambda file: file.pop("images/000001/0"), "there is no 'images/000001/0'"),
        (link_level, "a link, which might lead to other files"),
        (link_image, "a link, which might lead to other files"),
    ],
)
def test_damaged_converted_files_are_refused(path, image, damage, message):
    write_converted(path, [image, image])
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(SourceError, match=message):
        HDF5Source(path)


# Broken files


def test_a_file_cut_in_half(tmp_path, path, image):
    good = write(tmp_path / "good.h5", x=np.ones((9, 9, 3), "uint8"))
    content = write(path, x=image).read_bytes()
    for length in (len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(SourceError, match="it has been cut, or not been written"):
            HDF5Source(path)
    with HDF5Source([path, good], on_error="skip") as source:
        assert source.paths == (str(good),)


def test_pixels_that_do_not_decode_are_named(path, image):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", data=image, chunks=(30, 70, 3), compression=4)
        place = data.id.get_chunk_info(1)
    with open(path, "r+b") as file:
        file.seek(place.byte_offset)
        file.write(bytes(range(256)))
    with HDF5Source(path) as source:
        source.read_patches([0], [(0, 0)], 30)
        for _ in range(2):
            with pytest.raises(SourceError, match=r"rows 20 to 50, columns 0 to 30.*"):
                source.read_patches([0], [(20, 0)], 30)
        with pytest.raises(
            SourceError, match=r"images.h5 \(image 0\): .*filter returned"
        ):
            source.read_view(0, 5)
        source.read_patches([0], [(60, 0)], 30)


WRITER = """
import sys, h5py, numpy as np
file = h5py.File(sys.argv[1], "w", libver="latest")
data = file.create_dataset("x", (300, 300, 3), "u1", chunks=(64, 64, 3))
if sys.argv[2] == "swmr":
    file.swmr_mode = True
data[:150] = 7
file.flush()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("mode", ["flush", "swmr"])
def test_a_file_open_for_writing(path, mode):
    locking = {"HDF5_USE_FILE_LOCKING": "TRUE"}
    words = "-c", WRITER, path, mode
    with start(*words, environment=locking, stdin=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == "ready\n"
        with pytest.raises(SourceError, match=r"images\.h5: it is open for writing"):
            HDF5Source(path)
    with pytest.raises(SourceError, match="writer was killed"):
        HDF5Source(path)
