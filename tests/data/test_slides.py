"""Slides: levels, backgrounds, one decoding against the other, broken slides."""

import struct
import sys

import numpy as np
import openslide
import pytest
import tifffile
from source_contract import (
    SLIDE,
    SourceContract,
    check_windows,
    draw_images,
    needs_slide,
    open_files,
)

from attention_sampling.data import OpenSlideSource, SourceError, TiffSource

TILED = {"tile": (64, 48), "photometric": "rgb", "metadata": None}


def write(path, *levels, **keywords):
    """Write the levels of an image as a TIFF file that openslide reads."""
    with tifffile.TiffWriter(path) as file:
        for level in levels:
            kind = 0 if level is levels[0] else 1
            options = {"compression": "deflate", "subfiletype": kind} | TILED | keywords
            file.write(level, **options)
    return path


class TestOpenSlideSource(SourceContract):
    def make(self, directory, images, **keywords):
        paths = [write(directory / f"{i}.tif", image) for i, image in enumerate(images)]
        return OpenSlideSource(paths, **keywords)


# Levels


def test_views_use_the_level_that_suffices(tmp_path):
    sizes = ((400, 600), (200, 300), (100, 150))
    levels = [np.full((*size, 3), 9 * n, "uint8") for n, size in enumerate(sizes)]
    with OpenSlideSource(write(tmp_path / "a.tif", *levels)) as source:
        assert source.levels(0) == sizes
        assert source.block(0, 2) == (64, 48)
        for size, level in [((10, 10), 2), ((101, 150), 0), ((60, 80), 1)]:
            assert (source.read_view(0, size) == 9 * level).all(), size
        assert (source.read_patches([0], [(50, 50)], 30) == 0).all()


def test_windows_of_a_level_are_exact(tmp_path, rng):
    levels = draw_images(rng, [(600, 800), (300, 400), (75, 100)], 3, "uint8")
    with OpenSlideSource(write(tmp_path / "a.tif", *levels)) as source:
        for number, level in enumerate(levels):
            for row, column in rng.integers(0, (30, 50), (40, 2)).tolist():
                window = source.read(0, number, (row, column), (45, 50))
                expected = level[row : row + 45, column : column + 50]
                np.testing.assert_array_equal(window, expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_windows_of_a_level_smaller_by_no_whole_factor(tmp_path, monkeypatch, axis):
    # A slope of 0.3 a pixel of full resolution: by so much a window may be lower.
    size, origins = [403, 403], [(0, 0), (1, 1), (97, 98), (128, 64), (161, 160)]
    size[axis], small_size = 801, [201, 201]
    small_size[axis] = 400
    place = np.indices((*size, 3))[axis]
    image = np.rint(place * 0.3).astype("uint8")
    small = image[1::2, 1::2][: small_size[0], : small_size[1]]
    with OpenSlideSource(write(tmp_path / "a.tif", image, small)) as source:
        assert source.levels(0) == (tuple(size), tuple(small_size))
        for row, column in [*origins, (small_size[0] - 40, small_size[1] - 40)]:
            window = source.read(0, 1, (row, column), (40, 40))
            expected = small[row : row + 40, column : column + 40]
            difference = window.astype("float32") - expected
            assert -0.35 < difference.mean() < 0.05
            # The last pixels are as opaque as the others.
            assert np.abs(difference).max() <= 1
        whole = source.read_view(0, (67, 67))
        monkeypatch.setattr("attention_sampling.data.source._STRIP_PIXELS", 64 * 64)
        pieces = source.read_view(0, (67, 67))
    assert np.abs(whole - pieces).max() < 0.7
    assert abs((whole - pieces).mean()) < 0.3


# Backgrounds


def test_what_was_not_scanned_has_the_background(tmp_path, rng, monkeypatch):
    image = draw_images(rng, [(90, 70)], 3, "uint8")[0]
    opacity = np.full((90, 70, 1), 255, "uint8")
    opacity[:40], opacity[40:50] = 0, 128
    # Colours in TIFF are stored times their opacity, as they are here.
    stored = np.where(opacity == 0, 0, np.minimum(image, opacity)).astype("uint8")
    stored = np.concatenate([stored, opacity], axis=2)
    # As a scanner's: a TIFF of no scanner must have three channels.
    options = {"extrasamples": ["assocalpha"], "description": "Aperio"}
    path = write(tmp_path / "a.tif", stored, **options)

    def check(background):
        with OpenSlideSource(path) as source:
            whole = source.read_patches([0], [(0, 0)], (90, 70))[0]
        assert (whole[:40] == background).all()
        np.testing.assert_array_equal(whole[50:], image[50:])
        expected = stored[40:50, :, :3] + np.array(background) * (127 / 255)
        assert np.abs(whole[40:50] - expected).max() <= 1.5

    check((255, 255, 255))
    monkeypatch.setattr(
        openslide.OpenSlide,
        "properties",
        property(lambda slide: {"openslide.background-color": "10FF02"}),
    )
    check((16, 255, 2))


# A real slide


@needs_slide
def test_windows_of_a_real_slide_are_those_of_its_decoding(rng):
    with openslide.OpenSlide(SLIDE) as slide:
        whole = slide.read_region((0, 0), 0, slide.dimensions)
        decoded = np.asarray(whole.convert("RGB"))
    with OpenSlideSource(SLIDE, threads=2) as source:
        assert source.levels(0) == ((2967, 2220),)
        assert source.block(0, 0) == (240, 240)
        check_windows(source, [decoded], rng, count=40)
        view = source.read_view(0, (100, 80))
        patches = source.read_patches([0, 0], [(2900, 2200), (700, 800)], 100)
    np.testing.assert_array_equal(patches[0][:67, :20], decoded[2900:, 2200:])
    np.testing.assert_array_equal(patches[1], decoded[700:800, 800:900])
    with TiffSource(SLIDE) as source:
        check_windows(source, [decoded], rng, count=40)
        np.testing.assert_array_equal(source.read_view(0, (100, 80)), view)


# Broken slides


def spoil(path, tile):
    """Overwrite the beginning of a tile."""
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[tile]
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 40)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_broken_tile_spoils_its_windows_only(tmp_path, rng, threads):
    images = draw_images(rng, [(192, 144)], 3, "uint8")
    path = write(tmp_path / "a.tif", images[0])  # three by three tiles
    spoil(path, tile=4)
    origins = [(0, 0), (60, 40), (128, 96), (0, 100)]
    with OpenSlideSource(path, threads=threads) as source:
        for _ in range(2):
            with pytest.raises(SourceError) as caught:
                source.read_patches([0] * 4, origins, 9)
            message = str(caught.value)
            assert message.startswith(f"{path} (image 0): rows 60 to 69, columns 40")
            with pytest.raises(SourceError, match="rows 70 to 79, columns 60 to 69"):
                source.read_patches([0], [(70, 60)], 9)
            assert len(source.cache) == 0  # the slide that failed is opened anew
            for row, column in [(0, 0), (128, 96), (0, 100)]:
                patch = source.read_patches([0], [(row, column)], 9)[0]
                expected = images[0][row : row + 9, column : column + 9]
                np.testing.assert_array_equal(patch, expected)
        with pytest.raises(SourceError, match="rows 0 to 192, columns 0 to 144"):
            source.read_view(0, 5)
    assert open_files(tmp_path) == []


def test_a_window_does_not_fail_for_an_error_of_another(tmp_path, rng):
    images = draw_images(rng, [(192, 144)], 3, "uint8")
    path = write(tmp_path / "a.tif", images[0])
    spoil(path, tile=8)
    with OpenSlideSource(path) as source:
        slide = source.cache.get(str(path))
        with pytest.raises(openslide.OpenSlideError):
            slide.read(slide.images[0], 0, (130, 100), (10, 10))
        with pytest.raises(openslide.OpenSlideError):
            slide.read(slide.images[0], 0, (0, 0), (10, 10))  # it reads no more
        patch = source.read_patches([0], [(0, 0)], 100)[0]
        np.testing.assert_array_equal(patch, images[0][:100, :100])


def refuse(path, match):
    with pytest.raises(SourceError, match=match) as caught:
        OpenSlideSource(path)
    assert str(path) in str(caught.value)
    assert open_files(path.parent) == []


@needs_slide
def test_a_damaged_tile_of_a_real_slide_is_refused(tmp_path):
    path = tmp_path / "damaged.svs"
    data = bytearray(SLIDE.read_bytes())
    with tifffile.TiffFile(SLIDE) as file:
        end = file.pages[0].dataoffsets[0] + file.pages[0].databytecounts[0]
    data[end - 2000 : end] = bytes(2000)
    path.write_bytes(data)
    with (
        OpenSlideSource(path) as source,
        pytest.raises(SourceError, match=r"damaged\.svs .image 0.: rows 200"),
    ):
        source.read_patches([0], [(200, 0)], 20)


def test_other_files_are_refused(tmp_path, rng):
    path = tmp_path / "text.svs"
    path.write_text("This is no slide. " * 50)
    refuse(path, "OpenSlideUnsupportedFormatError")
    path.write_bytes(b"")
    refuse(path, "OpenSlideUnsupportedFormatError")
    strips = tmp_path / "strips.tif"
    tifffile.imwrite(strips, draw_images(rng, [(50, 40)], 3, "uint8")[0])
    refuse(strips, "OpenSlideUnsupportedFormatError")
    with pytest.raises(SourceError, match=r"missing\.svs"):
        OpenSlideSource(tmp_path / "missing.svs")


def test_a_file_cut_off_is_refused(tmp_path, rng):
    path = write(tmp_path / "a.tif", draw_images(rng, [(192, 144)], 3, "uint8")[0])
    whole = path.read_bytes()
    for length in (3, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refuse(path, "OpenSlide[a-zA-Z]*Error")


@pytest.mark.parametrize("code", [322, 323])
def test_tiles_that_no_memory_holds_are_refused(tmp_path, rng, monkeypatch, code):
    # GLib would end the process at the first reading.
    path = write(tmp_path / "a.tif", draw_images(rng, [(40, 30)], 3, "uint8")[0])
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags[code].offset
    with open(path, "r+b") as file:
        file.seek(place + 2)
        file.write(struct.pack("<HII", 4, 1, 2**30))
    closed = []
    close = openslide.OpenSlide.close
    monkeypatch.setattr(
        openslide.OpenSlide, "close", lambda slide: closed.append(close(slide))
    )
    refuse(path, r"at most 1024 MiB.* Received: \d+x\d+ pixels\. The slide is broken")
    assert closed


@pytest.mark.parametrize(
    ("shape", "dtype", "received"),
    [
        ((), "uint8", "1 channel of uint8"),
        ((3,), "uint16", "3 channels of uint16"),
        ((3,), "float32", "3 channels of float32"),
        ((3,), "int8", "3 channels of int8"),
        ((4,), "uint8", "4 channels of uint8"),
    ],
)
def test_tiff_that_would_be_converted_is_refused(tmp_path, shape, dtype, received):
    colours = "rgb" if shape else "minisblack"
    image = np.ones((90, 70, *shape), dtype)
    path = write(tmp_path / "a.tif", image, photometric=colours)
    refuse(path, f"its images have {received}, slides give 3 of uint8")
    sound = write(tmp_path / "b.tif", np.ones((90, 70, 3), "uint8"))
    with OpenSlideSource([path, sound], on_error="skip") as source:
        assert source.paths == (str(sound),)


def test_a_slide_that_must_not_be_read_says_so(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", np.ones((90, 70, 3), "uint8"))

    def forbid(path, mode):
        raise PermissionError(13, "Permission denied")

    # In its module only: root may read all files.
    monkeypatch.setattr("attention_sampling.data.slides.open", forbid, raising=False)
    refuse(path, "Permission denied")


# Open files, the library


def test_slides_share_one_cache_of_tiles(tmp_path, rng, monkeypatch):
    images = draw_images(rng, [(80, 90)] * 3, 3, "uint8")
    paths = [write(tmp_path / f"{i}.tif", image) for i, image in enumerate(images)]
    caches = []
    monkeypatch.setattr(
        openslide.OpenSlide, "set_cache", lambda slide, cache: caches.append(cache)
    )
    with OpenSlideSource(paths) as source:
        check_windows(source, images, rng)
    assert len(caches) >= 3
    assert len(set(map(id, caches))) == 1


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(
        ImportError, match=r"openslide .*'keras-attention-sampling\[slides\]'"
    ):
        OpenSlideSource(tmp_path / "a.svs")
