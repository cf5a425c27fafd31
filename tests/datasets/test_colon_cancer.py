"""The published tree: what is read from it, and what is said about bad files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

import attention_sampling
from attention_sampling.data import ArraySource, ImageFilesSource
from attention_sampling.datasets.colon_cancer import (
    NUCLEUS_CLASSES,
    load_colon_cancer,
    read_images,
)
from attention_sampling.datasets.folds import stratified_folds

REPOSITORY = Path(attention_sampling.__file__).parents[1]
REAL = REPOSITORY.parent / "shared" / "data" / "crchisto"
RELEASE = "CRCHistoPhenotypes_2016_04_28"
SIZE = (40, 50)


def draw(path, number, size=SIZE, mode="RGB"):
    """Draw an image that differs from those of other numbers."""
    pixels = np.full((*size, 3), 200, "uint8")
    pixels[number % size[0], :, 0] = number
    Image.fromarray(pixels).convert(mode).save(path)


def mark(path, centres, **others):
    scipy.io.savemat(path, {"detection": centres, **others}, do_compression=True)


@pytest.fixture
def tree(tmp_path):
    """Return a release of 12 images, of which each third has epithelial nuclei."""
    root = tmp_path / RELEASE
    (root / "Readme.txt").parent.mkdir()
    (root / "Readme.txt").write_text("research only")
    for number in range(1, 13):
        folder = root / "Classification" / f"img{number}"
        folder.mkdir(parents=True)
        draw(folder / f"img{number}.bmp", number)
        for kind in NUCLEUS_CLASSES:
            centres = [[number + 0.25, 30], [45, 2]]
            if kind == "epithelial" and number % 3:
                centres = np.zeros((0, 2), "uint8")
            mark(folder / f"img{number}_{kind}.mat", centres)
    return root


def file_of(tree, number, kind=None):
    name = f"img{number}.bmp" if kind is None else f"img{number}_{kind}.mat"
    return tree / "Classification" / f"img{number}" / name


class TestLoading:
    def test_labels_and_nuclei(self, tree):
        data = load_colon_cancer(tree)
        assert data.size == SIZE
        assert data.numbers == list(range(1, 13))  # not as names sort
        assert data.labels.dtype == np.int32
        assert data.labels.tolist() == [0, 0, 1] * 4
        assert data.paths == [str(file_of(tree, number)) for number in range(1, 13)]
        image = data.samples[1]
        assert (image.number, image.label) == (2, 0)
        assert tuple(image.nuclei) == NUCLEUS_CLASSES
        assert image.nuclei["epithelial"].shape == (0, 2)
        # Rows before columns; the file has x before y.
        np.testing.assert_array_equal(image.nuclei["others"], [[30, 2.25], [2, 45]])
        assert all(points.dtype == np.float64 for points in image.nuclei.values())
        assert str(data) == (
            "12 images (1-12), 4 with epithelial nuclei, 40 x 50 pixels"
        )

    @pytest.mark.parametrize("place", ["", "..", "Classification"])
    def test_finds_the_tree(self, tree, place, monkeypatch):
        expected = load_colon_cancer(tree).labels
        np.testing.assert_array_equal(load_colon_cancer(tree / place).labels, expected)
        monkeypatch.chdir(tree / place)
        assert len(load_colon_cancer(".").samples) == 12

    def test_ignores_what_others_leave(self, tree):
        images = tree / "Classification"
        (images / "img3" / "Thumbs.db").touch()
        (images / "img3" / "._img3.bmp").touch()
        (images / ".DS_Store").touch()
        (images / "img.zip").touch()
        (images / "__MACOSX").mkdir()
        (tree.parent / "CRCHistoPhenotypes_2016_04_27").mkdir()
        (tree / "Detection" / "img1").mkdir(parents=True)
        assert len(load_colon_cancer(tree.parent).samples) == 12
        (tree / f"{RELEASE}.zip").touch()
        assert len(load_colon_cancer(tree).samples) == 12

    def test_loads_some(self, tree):
        file_of(tree, 5).unlink()  # is not wanted
        data = load_colon_cancer(tree, ids={10, 3, 9})
        assert data.numbers == [3, 9, 10]
        assert data.labels.tolist() == [1, 1, 0]
        assert str(data).startswith("3 images (3,9-10), 2 with")

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            ([1, 13, 14, 15], "the 12 found.*of 1-12. Received: ids=13-15"),
            ([], "some of 1-12. Received: ids=none"),
            (["1"], "Received: ids='1'"),
            ([-1], "Received: ids=-1"),
        ],
    )
    def test_refuses_ids(self, tree, ids, message):
        with pytest.raises(ValueError, match=message):
            load_colon_cancer(tree, ids=ids)

    def test_nuclei_at_a_border_are_moved_inside(self, tree):
        centres = [[0, 0], [50, 40], [50.9, -0.9], [49.5, 39.5]]
        mark(file_of(tree, 1, "others"), centres)
        points = load_colon_cancer(tree).samples[0].nuclei["others"]
        np.testing.assert_allclose(points, [[0, 0], [40, 50], [0, 50], [39.5, 49.5]])
        np.testing.assert_array_equal(
            points.astype(int), [[0, 0], [39, 49], [0, 49], [39, 49]]
        )

    def test_no_marks_in_another_form(self, tree):
        mark(file_of(tree, 3, "epithelial"), np.zeros((0, 0)))
        assert load_colon_cancer(tree).labels[2] == 0


class TestBadTree:
    def test_directory_is_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"is not there.*nowhere'"):
            load_colon_cancer(tmp_path / "nowhere")

    @pytest.mark.parametrize("folder", ["", RELEASE, f"{RELEASE}/Classification"])
    def test_empty_tree(self, tmp_path, folder):
        (tmp_path / folder / "epithelial").mkdir(parents=True)
        with pytest.raises(
            FileNotFoundError, match=r"lacks the images.*Classification/img1/img1\.bmp"
        ):
            load_colon_cancer(tmp_path)

    def test_files_are_missing(self, tree):
        file_of(tree, 2).unlink()
        file_of(tree, 4, "epithelial").unlink()
        with pytest.raises(
            FileNotFoundError,
            match=r"^2 files of the 12 images.*no \S+img2\.bmp, \S+epithelial\.mat$",
        ):
            load_colon_cancer(tree)

    def test_neither_a_folder_nor_a_dead_link_is_a_file(self, tree):
        for path in (file_of(tree, 2), file_of(tree, 4, "epithelial")):
            path.unlink()
        file_of(tree, 2).mkdir()
        file_of(tree, 4, "epithelial").symlink_to("nowhere")
        with pytest.raises(
            FileNotFoundError,
            match=r"^2 files of the 12 images.*no \S+img2\.bmp, \S+epithelial\.mat$",
        ):
            load_colon_cancer(tree)

    def test_ten_missing_files_are_named(self, tree):
        for number in range(1, 13):
            file_of(tree, number, "others").unlink()
        with pytest.raises(FileNotFoundError, match=r"img10_others\.mat and 2 more$"):
            load_colon_cancer(tree)

    @pytest.mark.parametrize("place", ["", "Classification"])
    def test_another_release(self, tree, place):
        other = tree.rename(tree.with_name("CRCHistoPhenotypes_2015_01_01"))
        for directory in (other / place, tree.parent):
            with pytest.raises(ValueError, match=f"another release.*{RELEASE}.*2015"):
                load_colon_cancer(directory)

    def test_nuclei_of_the_detection_task(self, tree):
        folder = tree / "Detection" / "img1"
        folder.mkdir(parents=True)
        draw(folder / "img1.bmp", 1)
        mark(folder / "img1_detection.mat", [[1, 2]])
        with pytest.raises(ValueError, match=r"have no class.*Classification.*Detec"):
            load_colon_cancer(tree / "Detection")

    @pytest.mark.parametrize("renamed", [False, True])
    def test_other_classes(self, tree, renamed):
        other = file_of(tree, 3, "malignant")
        shutil.copy(file_of(tree, 3, "others"), other)
        if renamed:
            file_of(tree, 3, "others").unlink()
        with pytest.raises(ValueError, match=r"epithelial, fibroblast.*malignant\.mat"):
            load_colon_cancer(tree)

    def test_one_number_twice(self, tree):
        file_of(tree, 3).parent.rename(tree / "Classification" / "img03")
        shutil.copytree(tree / "Classification" / "img1", file_of(tree, 3).parent)
        with pytest.raises(ValueError, match=r"there twice.*img03 and \S+img3$"):
            load_colon_cancer(tree)

    def test_one_image_twice(self, tree):
        shutil.copy(file_of(tree, 1), file_of(tree, 10))
        with pytest.raises(ValueError, match=r"are the same.*img1\.bmp.*img10\.bmp"):
            load_colon_cancer(tree)

    def test_folder_without_number(self, tree):
        (tree / "Classification" / "img1 (copy)").mkdir()
        with pytest.raises(ValueError, match=r"has no number.*img1 \(copy\)"):
            load_colon_cancer(tree)


class TestBadImage:
    @pytest.mark.parametrize("kept", [0, 1, 20, 54, 3000, -3])
    def test_cut(self, tree, kept):
        path = file_of(tree, 7)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(ValueError, match=r"does not decode.*BMP.*img7\.bmp \("):
            load_colon_cancer(tree)

    def test_another_format(self, tree):
        Image.new("RGB", SIZE[::-1]).save(file_of(tree, 7), "PNG")
        with pytest.raises(
            ValueError, match=r"does not decode.*img7\.bmp \(it is none"
        ):
            load_colon_cancer(tree)

    def test_grey(self, tree):
        draw(file_of(tree, 7), 7, mode="L")
        with pytest.raises(ValueError, match=r"Expected: RGB.*img7\.bmp with L"):
            load_colon_cancer(tree)

    def test_another_size(self, tree):
        draw(file_of(tree, 1), 1, size=(50, 40))
        with pytest.raises(
            ValueError, match=r"\(40, 50\), as 11 of 12.*img1\.bmp with \(50, 40\)"
        ):
            load_colon_cancer(tree)


class TestBadNuclei:
    def test_broken(self, tree):
        path = file_of(tree, 7, "others")
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(
            ValueError, match=r"cannot be read.*others\.mat \(it is cut"
        ):
            load_colon_cancer(tree)

    def test_version_of_hdf5(self, tree):
        path = file_of(tree, 7, "others")
        path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
        with pytest.raises(
            ValueError, match=r"others\.mat \(it is of version 7\.3.*v7"
        ):
            load_colon_cancer(tree)

    @pytest.mark.parametrize(
        ("variables", "found"),
        [({}, "no variable"), ({"centres": [[1, 2]], "n": 1}, "centres, n")],
    )
    def test_without_the_variable(self, tree, variables, found):
        scipy.io.savemat(file_of(tree, 7, "others"), variables)
        with pytest.raises(
            ValueError, match=rf"Expected: detection\. .*others\.mat with {found}$"
        ):
            load_colon_cancer(tree)

    @pytest.mark.parametrize(
        ("centres", "found"),
        [
            ([[1, 2, 3]], r"\(1, 3\)"),
            ([[1, 4, 5], [2, 4, 6]], r"\(2, 3\)"),
            (np.zeros((2, 0)), r"\(2, 0\)"),
            (np.zeros((3, 2, 2)), r"\(3, 2, 2\)"),
            ("1, 2", "no real numbers"),
            ({"x": 1.0}, "no real numbers"),
            ([[1j, 2]], "no real numbers"),
        ],
    )
    def test_other_shapes(self, tree, centres, found):
        mark(file_of(tree, 7, "others"), centres)
        with pytest.raises(
            ValueError, match=rf"\(n_nuclei, 2\).*others\.mat with {found}$"
        ):
            load_colon_cancer(tree)

    @pytest.mark.parametrize(
        "centre", [(51.5, 5), (5, 41.5), (-1.5, 5), (45, 45), (np.nan, 5), (5, np.inf)]
    )
    def test_outside(self, tree, centre):
        mark(file_of(tree, 7, "others"), [(1, 1), centre])
        with pytest.raises(
            ValueError,
            match=rf"1 of 2 nuclei are outside.*50, y from 0 to 40\. .*others\.mat with "
            rf"x={centre[0]:g}, y={centre[1]:g}$",
        ):
            load_colon_cancer(tree)


class TestReadImages:
    def test_in_the_order_that_is_wanted(self, tree):
        samples = load_colon_cancer(tree).samples
        images = read_images([samples[4], samples[0], samples[4]])
        assert images.shape == (3, *SIZE, 3)
        assert images.dtype == np.uint8
        for image, number in zip(images, (5, 1, 5), strict=True):
            assert image[number, 0].tolist() == [number, 200, 200]
        images[0] = 0  # they may be changed

    def test_sources_give_views(self, tree):
        data = load_colon_cancer(tree)
        images = read_images(data.samples)
        expected = images[11].reshape(8, 5, 10, 5, 3).mean(axis=(1, 3))
        in_memory = ArraySource(images)
        with ImageFilesSource(data.paths) as on_disk:
            for source in (in_memory, on_disk):
                np.testing.assert_allclose(source.read_view(11, (8, 10)), expected)
                assert source.read_view(0, (7, 9)).shape == (7, 9, 3)

    def test_refuses(self, tree):
        samples = load_colon_cancer(tree).samples
        with pytest.raises(ValueError, match="no image to read"):
            read_images([])
        draw(file_of(tree, 2), 2, size=(50, 40))
        file_of(tree, 3).write_bytes(b"BM")
        file_of(tree, 4).unlink()
        with pytest.raises(ValueError, match=r"\(40, 50\), as 2 of 3.*img2\.bmp"):
            read_images([samples[0], samples[1], samples[4]])
        with pytest.raises(ValueError, match=r"does not decode.*img3\.bmp"):
            read_images(samples)
        with pytest.raises(FileNotFoundError, match=r"img4\.bmp"):
            read_images(samples[3:])


def test_loads_no_keras():
    code = (
        "import sys, attention_sampling.datasets.colon_cancer\n"
        "print({'keras', 'tensorflow', 'scipy', 'PIL'} & set(sys.modules))"
    )
    output = subprocess.check_output(
        [sys.executable, "-c", code], cwd=REPOSITORY, text=True
    )
    assert output == "set()\n"


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
