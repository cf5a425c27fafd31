"""open_source: which files, in which order, and by which source."""

import errno
import importlib.util
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from source_contract import SLIDE, needs_slide

from attention_sampling.data import (
    HDF5Source,
    ImageFilesSource,
    OpenSlideSource,
    SourceError,
    TiffSource,
    open_source,
)
from attention_sampling.data import tiff as tiff_module
from attention_sampling.data.opening import find_files


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_image(path, shape=(30, 40, 3), kind="png"):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    Image.fromarray(np.full(shape, 7, "uint8").squeeze()).save(path, kind)
    return str(path)


def write_tiff(path, **keywords):
    image = np.full((64, 80, 3), 7, "uint8")
    tifffile.imwrite(path, image, photometric="rgb", **keywords)
    return str(path)


def write_pyramid(path):
    """Write a TIFF of strips whose smaller level is a SubIFD."""
    image = np.full((64, 80, 3), 7, "uint8")
    with tifffile.TiffWriter(path) as writer:
        writer.write(image, photometric="rgb", subifds=1)
        writer.write(image[::2, ::2], photometric="rgb", subfiletype=1)
    return str(path)


def write_hdf5(path, userblock=0):
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file["image"] = np.full((64, 80, 3), 7, "uint8")
    return str(path)


# By content


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (write_image, ImageFilesSource),
        (lambda path: write_image(path, kind="jpeg"), ImageFilesSource),
        (lambda path: write_image(path, kind="bmp"), ImageFilesSource),
        (lambda path: write_image(path, (30, 40), kind="ppm"), ImageFilesSource),
        (lambda path: write_image(path, kind="jpeg2000"), ImageFilesSource),
        (write_tiff, ImageFilesSource),
        (lambda path: write_tiff(path, bigtiff=True), ImageFilesSource),
        (lambda path: write_tiff(path, byteorder=">"), ImageFilesSource),
        (lambda path: write_tiff(path, tile=(16, 16)), TiffSource),
        (lambda path: write_tiff(path, tile=(16, 16), bigtiff=True), TiffSource),
        (write_pyramid, TiffSource),
        (write_hdf5, HDF5Source),
        (lambda path: write_hdf5(path, userblock=1024), HDF5Source),
    ],
)
def test_source_is_chosen_by_content(write, expected):
    write("file.of.some.kind")
    with open_source("file.of.some.kind") as source:
        assert type(source) is expected
        patch = source.read_patches([0], [(20, 20)], 4)
    assert (patch == 7).all()


@needs_slide
def test_tiff_in_tiles_among_slides_is_read_as_one():
    write_tiff("a.tif", tile=(16, 16))
    with open_source(["a.tif", SLIDE]) as source:
        assert type(source) is OpenSlideSource
        assert len(source) == 2


def test_a_large_tiff_is_not_decoded_as_a_whole(monkeypatch):
    write_tiff("a.tif")
    monkeypatch.setattr(tiff_module, "_LARGE", 1000)
    with open_source("a.tif") as source:
        assert type(source) is TiffSource


@needs_slide
def test_a_slide_is_read_by_openslide_or_else_as_tiff(monkeypatch):
    with open_source(SLIDE) as source:
        assert type(source) is OpenSlideSource
        by_openslide = source.read_patches([0], [(500, 700)], 50)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda n: None if n == "openslide" else find_spec(n),
    )
    with open_source(SLIDE) as source:
        assert type(source) is TiffSource
        by_tifffile = source.read_patches([0], [(500, 700)], 50)
    assert np.abs(by_openslide.astype(int) - by_tifffile).max() <= 3


def test_keywords_are_those_of_the_source():
    write_image("a.png", (30, 40))
    with open_source("a.png", channels=3, threads=1) as source:
        assert source.shape(0) == (30, 40, 3)
    write_tiff("a.tif", tile=(16, 16))
    for path, name, accepted in [
        (
            "a.png",
            "max_open",
            "by ImageFilesSource, whose keywords are .*channels.* thr",
        ),
        ("a.tif", "cache_bytes", "by TiffSource, whose keywords are max_open, threads"),
    ]:
        with pytest.raises(TypeError, match=rf"{accepted}.*\. Received: {name}$"):
            open_source(path, **{name: 3, "threads": 1})
    with pytest.raises(ValueError, match="`on_error` must be one of"):
        open_source("a.png", on_error="ignore")


# Which files


def test_directories_are_sorted_by_numbers_and_without_hidden_files():
    for name in ("d/10.png", "d/9.png", "d/b2.png", "d/b10.png", "d/inside/1.png"):
        write_image(name)
    for name in ("d/.DS_Store", "d/Thumbs.db", "d/.hidden.png", "d/desktop.ini"):
        Path(name).write_text("x")
    expected = [f"d/{name}.png" for name in ("9", "10", "b2", "b10")]
    assert find_files("d") == expected
    assert find_files(Path("d")) == expected
    with open_source("d") as source:
        assert list(source.names) == expected


def test_patterns_and_lists():
    for name in ("d/2.png", "d/10.png", "d/e/3.png", "d/note.txt", "d/[1].png"):
        write_image(name)
    assert find_files("d/*[0-9].png") == ["d/2.png", "d/10.png"]
    assert find_files("d/**/[0-9]*.png") == ["d/2.png", "d/10.png", "d/e/3.png"]
    assert find_files("d/[1].png") == ["d/[1].png"]
    # As they are given: labels may belong to them. Each once.
    assert find_files(["d/10.png", "d/e", "d/2.png", "d/10.png"]) == [
        "d/10.png",
        "d/e/3.png",
        "d/2.png",
    ]
    os.rename("d", "[d]")
    assert len(find_files("[d]")) == 4


@needs_slide
def test_what_is_no_image_is_left_out_of_folders():
    write_image("d/1.png")
    write_image("d/photo_without_suffix", kind="jpeg")
    Path("d/empty.JPG").touch()
    Path("d/cut.png").write_bytes(Path("d/1.png").read_bytes()[:30])
    Path("d/page.tif").write_text("<html>not found</html>")
    Path("d/slide").symlink_to(SLIDE)
    Path("d/labels.csv").write_text("file,label\n1.png,0\n")
    Path("d/Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    Path("d/patients.csv").write_text("BMI,age\n22,50\n24,61\n")
    Path("d/genes.tsv").write_text("P1\tP2\n1\t2\n")
    for name in ("README", "notes.txt", "regions.xml", "zeros"):
        Path("d", name).write_bytes(bytes(5) if name == "zeros" else b"words")
    images = ["1.png", "cut.png", "empty.JPG", "page.tif"]
    images += ["photo_without_suffix", "slide"]
    for paths in ("d", "d/*", "**/*", ["d/*"]):
        assert [Path(path).name for path in find_files(paths)] == images
    assert find_files(["d/*.png", "d/notes.txt"])[-1] == "d/notes.txt"


def test_parts_of_a_mrxs_slide_are_left_out():
    write_image("s/a.mrxs", kind="jpeg")
    for name in ("s/a/Slidedat.ini", "s/a/Data0000.dat", "s/b/other.dat"):
        os.makedirs(os.path.dirname(name), exist_ok=True)
        Path(name).write_text("x")
    assert find_files("s/**/*") == ["s/a.mrxs"]
    # No image of its own, although it is a JPEG.
    with pytest.raises(SourceError, match=r"a\.mrxs"):
        open_source("s/a.mrxs")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ("none/*.png", r"none/\*\.png: no image fits this pattern"),
        ("empty", "empty: this is a directory without images"),
        (Path("only_hidden"), "only_hidden: this is a directory without images"),
        ("outer", r"outer: .* images deeper inside, .* 'outer/\*\*/\*\.png'"),
        (["empty", "outer", "none/*"], "empty: this is a directory without images"),
        ("words", "words: this is a directory without images"),
        ("words/*.csv", r"words/\*\.csv: no image fits this pattern"),
        ([], "Received: none"),
    ],
)
def test_no_files_at_all(paths, message):
    os.mkdir("empty")
    os.makedirs("outer/inner")
    os.mkdir("words")
    Path("words/labels.csv").write_text("file,label")
    os.mkdir("only_hidden")
    Path("only_hidden/.note").write_text("x")
    for on_error in ("raise", "skip"):
        with pytest.raises(SourceError, match=message):
            open_source(paths, on_error=on_error)


@pytest.mark.parametrize("paths", [5, None, ["a.png", 5], b"a.png"])
def test_paths_that_are_none(paths):
    with pytest.raises(TypeError, match=r"`paths` must be a path, .* Received: "):
        open_source(paths)


# One kind


def test_a_broken_image_is_refused_or_left_out():
    write_image("d/b.png")
    Path("d/a.jpg").touch()
    Path("d/README").write_text("what the images show")
    message = "this is no image of a known format"
    with pytest.raises(SourceError, match=rf'd/a\.jpg: {message}.* on_error="skip"'):
        open_source("d")
    with open_source("d", on_error="skip") as source:
        assert source.names == ("d/b.png",)
        assert source.skipped == (("d/a.jpg", message),)
        assert pickle.loads(pickle.dumps(source)).skipped == source.skipped
    Path("d/b.png").unlink()
    Path("d/a.jpg").unlink()
    for on_error in ("skip", "raise"):  # no others to open instead
        with pytest.raises(SourceError, match=rf"d/README: {message}$"):
            open_source("d/README", on_error=on_error)


def test_a_shortage_of_the_process_is_never_skipped(monkeypatch):
    write_image("a.png")
    write_tiff("b.tif")

    def fail(path, **keywords):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(tifffile, "TiffFile", fail)
    with pytest.raises(SourceError, match=r"b\.tif: .*Too many open files.*ulimit"):
        open_source(["a.png", "b.tif"], on_error="skip")


def test_most_files_tell_the_kind_of_all():
    """However they are sorted: another file that comes first spoils nothing."""
    os.mkdir("d")
    write_hdf5("d/a.h5")
    write_image("d/b.png")
    Path("d/c.jpg").write_text("a note")
    write_image("d/d.png", (30, 40))
    write_tiff("d/e.tif", tile=(16, 16))
    write_image("d/f.png")
    with pytest.raises(
        SourceError, match=r"a\.h5: this is for HDF5Source, d/b\.png for ImageFiles"
    ):
        open_source("d")
    with open_source("d", on_error="skip") as source:
        assert source.names == ("d/b.png", "d/f.png")
        skipped = [Path(path).name for path, _ in source.skipped]
        assert skipped == ["c.jpg", "a.h5", "e.tif", "d.png"]
        assert "2 images, 3 channels, uint8, 4 skipped" in repr(source)


@pytest.mark.parametrize("tiled", ["a.tif", "b.tif"])
def test_tiff_with_and_without_tiles_go_together(tiled):
    for name in ("a.tif", "b.tif"):
        write_tiff(name, **({"tile": (16, 16)} if name == tiled else {}))
    with open_source("*.tif") as source:
        assert type(source) is TiffSource
        assert len(source) == 2


@needs_slide
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_slide_cut_off_is_an_error_or_left_out(share):
    data = SLIDE.read_bytes()
    Path("a.svs").write_bytes(data[: int(share * len(data))])
    Path("b.svs").write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.svs: "):
        open_source("*.svs")
    with open_source("*.svs", on_error="skip") as source:
        assert type(source) is OpenSlideSource
        assert source.names == ("b.svs",)
        assert source.skipped[0][0] == "a.svs"
