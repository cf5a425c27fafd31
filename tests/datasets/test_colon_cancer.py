"""The published tree: what is read from it, and what is said about broken ones."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from attention_sampling.data import ArraySource, ImageFilesSource
from attention_sampling.datasets.colon_cancer import (
    NUCLEUS_CLASSES,
    load_colon_cancer,
    read_images,
)
from attention_sampling.datasets.folds import stratified_folds

REAL = Path(__file__).parents[3] / "shared" / "data" / "crchisto"
RELEASE = "CRCHistoPhenotypes_2016_04_28"
SIZE = (40, 50)


def save_image(path, number, size=SIZE):
    pixels = np.full((*size, 3), 200, "uint8")
    pixels[number, :, 0] = number
    Image.fromarray(pixels).save(path)


def save_nuclei(path, centres):
    scipy.io.savemat(path, {"detection": centres}, do_compression=True)


@pytest.fixture
def tree(tmp_path):
    """Return a release of 12 images, of which each third has epithelial nuclei."""
    root = tmp_path / RELEASE
    for number in range(1, 13):
        folder = root / "Classification" / f"img{number}"
        folder.mkdir(parents=True)
        save_image(folder / f"img{number}.bmp", number)
        for kind in NUCLEUS_CLASSES:
            centres = [[number + 0.25, 30], [45, 2]]
            if kind == "epithelial" and number % 3:
                centres = np.zeros((0, 2), "uint8")
            save_nuclei(folder / f"img{number}_{kind}.mat", centres)
    return root


def file_of(tree, number, kind=None):
    name = f"img{number}.bmp" if kind is None else f"img{number}_{kind}.mat"
    return tree / "Classification" / f"img{number}" / name


def test_labels_and_nuclei(tree):
    data = load_colon_cancer(tree)
    assert data.size == SIZE
    assert data.numbers == list(range(1, 13))  # not as names sort
    assert data.labels.dtype == np.int32
    assert data.labels.tolist() == [0, 0, 1] * 4
    paths = [sample.path for sample in data.samples]
    assert paths == [str(file_of(tree, number)) for number in range(1, 13)]
    image = data.samples[1]
    assert (image.number, image.label) == (2, 0)
    assert tuple(image.nuclei) == NUCLEUS_CLASSES
    assert image.nuclei["epithelial"].shape == (0, 2)
    # Rows before columns; the file has x before y.
    np.testing.assert_array_equal(image.nuclei["others"], [[30, 2.25], [2, 45]])
    assert all(points.dtype == np.float64 for points in image.nuclei.values())
    assert str(data) == "12 images (1-12), 4 with epithelial nuclei, 40 x 50 pixels"


@pytest.mark.parametrize("inside", ["", "..", "Classification"])
def test_finds_the_images_among_what_else_is_there(tree, inside):
    images = tree / "Classification"
    for stray in ("img3/Thumbs.db", "img3/._img3.bmp", ".DS_Store", "img.zip", "img13"):
        (images / stray).touch()
    (images / "img1 (copy)").mkdir()
    (tree / "Detection" / "img1").mkdir(parents=True)
    assert load_colon_cancer(tree / inside).numbers == list(range(1, 13))


def test_nuclei_at_a_border_are_moved_inside(tree):
    centres = [[0, 0], [50, 40], [50.9, -0.9], [49.5, 39.5]]
    save_nuclei(file_of(tree, 1, "others"), centres)
    save_nuclei(file_of(tree, 3, "epithelial"), np.zeros((0, 0)))
    data = load_colon_cancer(tree)
    points = data.samples[0].nuclei["others"]
    np.testing.assert_allclose(points, [[0, 0], [40, 50], [0, 50], [39.5, 49.5]])
    np.testing.assert_array_equal(
        points.astype(int), [[0, 0], [39, 49], [0, 49], [39, 49]]
    )
    assert data.labels[2] == 0


def test_images_in_the_order_that_is_wanted(tree):
    data = load_colon_cancer(tree)
    images = read_images([data.samples[number] for number in (4, 0, 4)])
    assert images.shape == (3, *SIZE, 3)
    assert images.dtype == np.uint8
    for image, number in zip(images, (5, 1, 5), strict=True):
        assert image[number, 0].tolist() == [number, 200, 200]
    with pytest.raises(ValueError, match="no image to read"):
        read_images([])
    expected = images[0].reshape(8, 5, 10, 5, 3).mean(axis=(1, 3))
    with ImageFilesSource([sample.path for sample in data.samples]) as on_disk:
        for view in (
            on_disk.read_view(4, (8, 10)),
            ArraySource(images).read_view(0, (8, 10)),
        ):
            np.testing.assert_allclose(view, expected)


def remove(path):
    path.unlink()


def link_to_nothing(path):
    path.unlink()
    path.symlink_to("nowhere")


def make_folder(path):
    path.unlink()
    path.mkdir()


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def empty(path):
    path.write_bytes(b"")


def save_as_png(path):
    Image.new("RGB", SIZE[::-1]).save(path, "PNG")


def change_size(path):
    save_image(path, 7, size=(50, 40))


def save_version_7_3(path):
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(384))


def rename_variable(path):
    scipy.io.savemat(path, {"centres": [[1, 2]]})


def save(centres):
    return lambda path: save_nuclei(path, centres)


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        *(
            (kind, spoil, "is missing, or a link to nothing")
            for kind in (None, "others")
            for spoil in (remove, link_to_nothing, make_folder)
        ),
        (None, cut, "cannot be decoded.*a whole BMP"),
        (None, empty, "cannot be decoded.*a whole BMP"),
        (None, save_as_png, "cannot be decoded.*a whole BMP"),
        (None, change_size, r"differ in size.*\(40, 50\).*img1\.bmp"),
        ("others", cut, "cannot be decoded.*a whole MATLAB"),
        ("others", empty, "cannot be decoded.*a whole MATLAB"),
        ("others", save_version_7_3, r"5 to 7\.2, as save -v7.*7\.3"),
        ("others", rename_variable, "a variable detection.*with centres"),
        ("others", save([[1, 2, 3]]), r"of shape \(1, 3\)"),
        ("others", save(np.zeros((3, 2, 2))), r"of shape \(3, 2, 2\)"),
        ("others", save("1, 2"), "of real numbers"),
        ("others", save([[1j, 2]]), "of real numbers.*complex"),
        ("others", save([(1, 1), (51.5, 5)]), r"1 of 2.*outside.*x=51\.5, y=5"),
        ("others", save([(5, -1.5)]), r"outside.*x=5, y=-1\.5"),
        ("others", save([(np.nan, 5)]), "outside.*x=nan"),
    ],
)
def test_a_broken_file_is_named(tree, kind, spoil, message):
    path = file_of(tree, 7, kind)
    spoil(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_colon_cancer(tree)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("folder", ["nowhere", "", RELEASE])
def test_a_directory_without_images_is_named(tmp_path, folder):
    (tmp_path / RELEASE / "Classification" / "Detection").mkdir(parents=True)
    message = (
        "is not there" if folder == "nowhere" else r"Classification/img1/img1\.bmp"
    )
    with pytest.raises(FileNotFoundError, match=f"{message}.*{tmp_path / folder}'"):
        load_colon_cancer(tmp_path / folder)


def test_images_that_changed_since_they_were_loaded(tree):
    samples = load_colon_cancer(tree).samples
    change_size(file_of(tree, 2))
    with pytest.raises(ValueError, match=r"differ in size.*img2\.bmp with \(50, 40\)"):
        read_images(samples)
    shutil.rmtree(tree)
    with pytest.raises(FileNotFoundError, match=r"img1\.bmp"):
        read_images(samples)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the colon cancer set is not at {REAL}")
def test_the_real_images():
    data = load_colon_cancer(os.fspath(REAL))
    assert str(data).startswith("70 images (1-70), 41 with epithelial nuclei")
    assert data.size == (500, 500)
    images = read_images(data.samples[:9])
    assert images.shape == (9, 500, 500, 3)
    # Nuclei are dark, where rows and columns are not exchanged.
    at, exchanged = [], []
    for image, sample in zip(images, data.samples, strict=False):
        points = np.concatenate(list(sample.nuclei.values())).astype(int)
        at += image[points[:, 0], points[:, 1]].mean(axis=-1).tolist()
        exchanged += image[points[:, 1], points[:, 0]].mean(axis=-1).tolist()
    assert np.mean(at) < np.mean(exchanged) - 30
    for fold in stratified_folds(data.labels, 5, names=data.numbers):
        assert len(fold.test) == 14
        assert data.labels[fold.test].sum() in (8, 9)
