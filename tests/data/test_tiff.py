"""TIFF files: every way to store an image, its levels, and files that are broken."""

import os
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image as PillowImage
from processes import run
from source_contract import (
    SLIDE,
    SourceContract,
    check_windows,
    draw_images,
    open_files,
)

from attention_sampling.data import SourceError, TiffSource, tiff_level


def write(path, image, **keywords):
    """Write an image (height, width, channels), for want of others in tiles."""
    keywords = {"tile": (32, 48), "compression": "deflate", "metadata": None} | keywords
    if image.shape[2] == 1:
        image, keywords["planarconfig"] = image[:, :, 0], None
    elif keywords.setdefault("planarconfig", "contig") == "separate":
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
    colours = image.ndim == 3 and 3 in (image.shape[0], image.shape[2])
    keywords = {"photometric": "rgb" if colours else "minisblack"} | keywords
    tifffile.imwrite(path, image, **keywords)
    return path


class TestTiffSource(SourceContract):
    dtypes = ("uint8", "uint16", "float32")
    channels = (1, 5, 3)

    def make(self, directory, images, **keywords):
        paths = [write(directory / f"{i}.tif", image) for i, image in enumerate(images)]
        return TiffSource(paths, **keywords)


# Ways to store an image

PLANES = {"photometric": "minisblack", "metadata": {"axes": "CYX"}}
RAW_STRIPS = {"tile": None, "compression": None, "rowsperstrip": 9}


@pytest.mark.parametrize(
    ("dtype", "channels", "layout"),
    [
        ("uint8", 3, {"compression": "lzw", "predictor": True}),
        ("uint8", 3, {"compression": "zstd"}),
        ("uint8", 3, {"compression": "jpeg2000"}),
        ("uint8", 3, {"compression": "webp", "compressionargs": {"lossless": True}}),
        ("uint8", 3, {"compression": "packbits", "tile": None, "rowsperstrip": 7}),
        ("uint8", 3, {"tile": None}),
        ("uint8", 3, {"planarconfig": "separate"}),
        ("uint8", 3, {"compression": None, "planarconfig": "separate"}),
        ("uint8", 4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        ("uint8", 3, {"ome": True, "metadata": {}}),
        ("int16", 3, RAW_STRIPS | {"bigtiff": True, "planarconfig": "separate"}),
        ("uint16", 3, {"compression": None, "byteorder": ">"}),
        ("uint16", 1, {"compression": "lzw", "predictor": True, "byteorder": ">"}),
        ("uint16", 5, {"planarconfig": None, **PLANES, "ome": True}),
        ("float32", 1, {"compression": "zstd", "predictor": True}),
        ("float64", 3, RAW_STRIPS | {"byteorder": ">"}),
        ("float16", 1, {"compression": None}),
    ],
)
def test_every_way_to_store_an_image(tmp_path, rng, dtype, channels, layout):
    images = draw_images(rng, [(150, 210)], channels, dtype)
    stored = images[0]
    if layout.get("planarconfig", 0) is None:  # channels in pages of their own
        stored = stored.transpose(2, 0, 1)
    path = write(tmp_path / "image.tif", stored, **layout)
    with TiffSource(path) as source:
        check_windows(source, images, rng)
        whole = source.read_patches([0], [(0, 0)], (150, 210))
    np.testing.assert_array_equal(whole[0], images[0])


@pytest.mark.parametrize("layout", [RAW_STRIPS, {}, {"compression": "jpeg"}])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_white_is_zero_is_inverted(tmp_path, rng, layout, dtype):
    if dtype == "uint16" and layout.get("compression") == "jpeg":
        layout = {"compression": "lzw"}
    image = draw_images(rng, [(150, 210)], 1, dtype)[0]
    path = write(tmp_path / "a.tif", image, photometric="miniswhite", **layout)
    stored = tifffile.imread(path)
    expected = np.iinfo(dtype).max - stored[:, :, None]
    with TiffSource(path) as source:
        check_windows(source, [expected], rng)
    if dtype == "uint8":
        np.testing.assert_array_equal(PillowImage.open(path), expected[:, :, 0])


def test_rows_of_a_wide_strip_are_read_one_by_one(tmp_path, rng, monkeypatch):
    images = draw_images(rng, [(40, 500)], 3, "uint16")
    path = write(tmp_path / "a.tif", images[0], tile=None, compression=None)
    monkeypatch.setattr(tiff_level, "_SKIPPED_BYTES", 64)
    read, pread = [], os.pread
    with TiffSource(path, threads=1) as source:
        check_windows(source, images, rng)
        monkeypatch.setattr(os, "pread", lambda *a: read.append(a[1]) or pread(*a))
        source.read_patches([0], [(7, 9)], (20, 10))
    assert read == [10 * 3 * 2] * 20


def test_a_large_strip_is_read_in_pieces(tmp_path):
    image = np.zeros((300, 5000, 1), "uint8")
    for compression, block in [(None, (256, 4096)), ("deflate", (300, 5000))]:
        layout = {"tile": None, "compression": compression, "rowsperstrip": 300}
        path = write(tmp_path / "a.tif", image, **layout)
        with TiffSource(path) as source:
            assert source.block(0, 0) == block
            assert source.read_view(0, 4).max() == 0


def test_reads_without_pread(tmp_path, rng, monkeypatch):  # as on Windows
    images = draw_images(rng, [(100, 120)], 3, "uint8")
    path = write(tmp_path / "a.tif", images[0])
    monkeypatch.delattr(os, "pread")
    with TiffSource(path, threads=4) as source, ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: check_windows(source, images, rng), range(12)):
            continue


def test_only_the_tiles_under_a_window_are_read(tmp_path, rng, monkeypatch):
    images = draw_images(rng, [(320, 480)], 3, "uint8")
    path = write(tmp_path / "a.tif", images[0])
    offsets = entry(path, "TileOffsets").value
    read, pread = [], os.pread
    with TiffSource(path, threads=1) as source:
        source.read_patches([0], [(0, 0)], 1)
        monkeypatch.setattr(os, "pread", lambda *a: read.append(a[2]) or pread(*a))
        source.read_patches([0], [(31, 95)], 2)
    assert [offsets.index(offset) for offset in read] == [1, 2, 11, 12]


@pytest.mark.parametrize(("nodata", "value"), [(None, 0), ("7", 7)])
def test_tiles_left_out_of_the_file(tmp_path, rng, nodata, value):
    image = draw_images(rng, [(96, 96)], 1, "uint8")[0]
    tag = [(42113, "s", 0, nodata, True)] if nodata else []
    path = write(tmp_path / "a.tif", image, tile=(48, 48), extratags=tag)
    set_entry(path, "TileByteCounts", 1, 0)
    image[:48, 48:] = value
    with TiffSource(path) as source:
        check_windows(source, [image], rng)


# Levels


SIZES = ((400, 600), (200, 300), (100, 150))


def write_pyramid(path, layout, sizes=SIZES, levels=None):
    """Write levels; for want of others, all pixels are the number of the level."""
    levels = levels or [
        np.full((*size, 3), number, "uint8") for number, size in enumerate(sizes)
    ]
    options = {"tile": (64, 64), "compression": "deflate"}
    label = np.full((50, 60, 3), 99, "uint8")
    with tifffile.TiffWriter(path, ome=layout == "ome") as file:
        if layout in ("ome", "subifds"):
            options |= {"metadata": {"axes": "YXS"} if layout == "ome" else None}
            file.write(levels[0], subifds=len(levels) - 1, **options)
            for level in levels[1:]:
                file.write(level, subfiletype=1, **options)
        elif layout == "pages":
            for level in levels:
                kind = 0 if level is levels[0] else 1
                file.write(level, subfiletype=kind, metadata=None, **options)
        elif layout == "svs":
            options |= {"metadata": None, "description": "Aperio Image Library v1"}
            strips = options | {"tile": None, "rowsperstrip": 16}
            file.write(levels[0], **options)
            file.write(label, **strips)  # the thumbnail
            for level in levels[1:]:
                file.write(level, **options)
            file.write(label, subfiletype=1, **strips)
            file.write(label[:40], subfiletype=9, **strips)
    return path


@pytest.mark.parametrize("layout", ["subifds", "pages", "ome", "svs"])
def test_views_use_the_level_that_suffices(tmp_path, layout):
    path = write_pyramid(tmp_path / "a.tif", layout)
    with TiffSource(path) as source:
        assert source.levels(0) == SIZES
        for size, level in [((10, 10), 2), ((101, 150), 0), ((60, 80), 1)]:
            assert (source.read_view(0, size) == level).all(), size
        assert (source.read_patches([0], [(50, 50)], 30) == 0).all()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((200, 300), "uint8"), ((200, 300, 3), "uint16"), ((200, 340, 3), "uint8")],
)
def test_levels_of_other_kind_are_left_out(tmp_path, shape, dtype):
    levels = [np.zeros((401, 601, 3), "uint8"), np.zeros(shape, dtype)]
    levels.append(np.zeros((100, 150, 3), "uint8"))
    path = write_pyramid(tmp_path / "a.tif", "svs", levels=levels)
    with TiffSource(path) as source:
        assert source.levels(0) == ((401, 601), (100, 150))


@pytest.mark.parametrize("mask", [False, True])
def test_the_largest_image_is_read_and_no_mask(tmp_path, rng, mask):
    small, large = draw_images(rng, [(60, 50), (130, 120)], 3, "uint8")
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(small, photometric="rgb", metadata=None)
        file.write(large, photometric="rgb", metadata=None, subfiletype=1)
    if mask:
        with tifffile.TiffFile(path) as file:
            kind = file.pages[1].tags[254]
        put(path, kind.valueoffset, struct.pack("<I", 4))
    with TiffSource(path) as source:
        check_windows(source, [small if mask else large], rng)


# Other files, other programs


def test_nothing_but_the_file_is_opened(tmp_path, monkeypatch):
    # An OME-TIFF of two files.
    names = ["a.ome.tif", "b.ome.tif"]
    path = tmp_path / names[0]
    planes = np.zeros((2, 40, 50), "uint8")
    tifffile.imwrite(path, planes, ome=True, metadata={"axes": "CYX"})
    xml = entry(path, "ImageDescription").value
    data = "".join(
        f'<TiffData IFD="0" FirstC="{c}" PlaneCount="1"><UUID FileName="{name}">'
        f"urn:uuid:{c}</UUID></TiffData>"
        for c, name in enumerate(names)
    )
    xml = xml[: xml.index("<TiffData")] + data + xml[xml.index("</Pixels>") :]
    for name in names:
        tifffile.imwrite(tmp_path / name, planes[0], description=xml, metadata=None)
    opened, real_open = [], tifffile.FileHandle.open

    def watch(handle):
        real_open(handle)
        opened.append(handle.name)

    monkeypatch.setattr(tifffile.FileHandle, "open", watch)
    with tifffile.TiffFile(path) as file:
        assert file.series[0].shape == (2, 40, 50)
    assert set(opened) == set(names)  # tifffile by itself follows the name
    opened.clear()
    with TiffSource(path) as source:
        assert source.shape(0) == (40, 50, 1)
        source.read_view(0, 10)
    assert set(opened) == {names[0]}


PLAIN_INSTALL = """
import sys
for extra in ("imagecodecs", "openslide"):
    sys.modules[extra] = None  # an import of it fails
import numpy as np
from attention_sampling.data import TiffSource
expected = np.load("image.npy")
for path in sys.argv[1:]:
    with TiffSource(path) as source:
        image = source.read_patches([0], [(0, 0)], source.shape(0)[:2])[0]
    if path.endswith(".svs"):
        continue  # no error is enough
    assert image.shape == expected.shape
    assert abs(image.astype(int) - expected).mean() <= 2 * path.startswith("jpeg"), path
try:
    TiffSource("lzw.tif", on_error="skip")
except ImportError as error:
    print(error)
"""


def test_a_plain_install_reads_without_a_word_all_but_rare_compressions(
    tmp_path, caplog
):
    slope = np.add.outer(np.arange(150), np.arange(210))[:, :, None] // [2, 3, 4]
    image = slope.astype("uint8")
    np.save(tmp_path / "image.npy", image)
    layouts = {
        "raw": {"compression": None},
        "strips": RAW_STRIPS,
        "deflate": {},
        "predictor": {"predictor": True},
        "big": {"bigtiff": True},
        "planes": {"planarconfig": "separate", "predictor": True},
        "jpeg": {"compression": "jpeg", "compressionargs": {"level": 98}},
        "odd": {"software": "of which the tag is broken"},
    }
    names = [f"{name}.tif" for name in [*layouts, "pyramid"]]
    for name, layout in zip(names, layouts.values(), strict=False):
        write(tmp_path / name, image, **layout)
    write_pyramid(
        tmp_path / "pyramid.tif", "subifds", levels=[image, image[::2, ::2].copy()]
    )
    write(tmp_path / "lzw.tif", image, compression="lzw")
    put(tmp_path / "odd.tif", entry(tmp_path / "odd.tif", "Software").offset + 2, b"cc")
    tifffile.imread(tmp_path / "odd.tif")
    assert "invalid data type" in caplog.text  # which tifffile by itself prints
    slides = [str(SLIDE)] if SLIDE.is_file() else []
    words = "-W", "error", "-c", PLAIN_INSTALL, *names, *slides
    status, printed, errors = run(*words, cwd=tmp_path)
    assert (status, errors) == (0, "")
    assert "imagecodecs is missing" in printed
    assert "pip install 'keras-attention-sampling[slides]'" in printed


# Broken files


def entry(path, name):
    """Return the tag of the first page."""
    with tifffile.TiffFile(path) as file:
        return file.pages[0].tags[name]


def put(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def set_entry(path, name, index, value):
    """Change one number of a tag of several."""
    tag = entry(path, name)
    code = {3: "<H", 4: "<I"}[int(tag.dtype)]
    put(path, tag.valueoffset + index * struct.calcsize(code), struct.pack(code, value))


def set_number(path, name, value):
    """Replace a tag by one number of 32 bits."""
    put(path, entry(path, name).offset + 2, struct.pack("<HII", 4, 1, value))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_broken_tile_spoils_its_windows_only(tmp_path, rng, threads):
    images = draw_images(rng, [(96, 144)], 3, "uint8")
    path = write(tmp_path / "a.tif", images[0])  # three by three tiles
    put(path, entry(path, "TileOffsets").value[4], b"\xff" * 40)
    with TiffSource(path, threads=threads) as source:
        with pytest.raises(SourceError) as caught:
            source.read_patches([0] * 3, [(0, 0), (30, 46), (64, 96)], 3)
        message = str(caught.value)
        assert message.startswith(f"{path} (image 0): rows 30 to 33, columns 46")
        for row, column in [(0, 0), (29, 60), (64, 50), (40, 96)]:
            patch = source.read_patches([0], [(row, column)], 3)[0]
            expected = images[0][row : row + 3, column : column + 3]
            np.testing.assert_array_equal(patch, expected)
        with pytest.raises(SourceError, match="rows 0 to 96, columns 0 to 144"):
            source.read_view(0, 5)


LAYOUTS = {
    "tiles": {},
    "raw tiles": {"compression": None},
    "strips": {"tile": None, "rowsperstrip": 16},
    "raw strip": {"tile": None, "compression": None},
}


@pytest.fixture(params=LAYOUTS)
def sound(request, tmp_path, rng):
    """Return a sound file of 150x210 pixels of noise."""
    image = draw_images(rng, [(150, 210)], 3, "uint8")[0]
    return write(tmp_path / "sound.tif", image, **LAYOUTS[request.param])


def refuse(path, match):
    with pytest.raises(SourceError, match=match) as caught:
        TiffSource(path)
    assert str(path) in str(caught.value)
    assert open_files(path.parent) == []


def tile_tag(path, kind):
    with tifffile.TiffFile(path) as file:
        return ("Tile" if file.pages[0].is_tiled else "Strip") + kind


def test_a_file_cut_off_is_refused(sound):
    whole = sound.read_bytes()
    for length in (0, 3, 7, 8, 60, len(whole) // 2, len(whole) - 1):
        sound.write_bytes(whole[:length])
        refuse(sound, "cut off|corrupted|no image|not a TIFF|ends inside its header")


def test_tiles_beyond_the_end_are_refused(sound):
    name = tile_tag(sound, "Offsets")
    if entry(sound, name).count == 1:
        set_number(sound, name, 2**31)
    else:
        set_entry(sound, name, 0, 2**31)
    refuse(sound, "reach to byte 214[0-9]{7}, the file has")


@pytest.mark.parametrize("names", ["ImageLength", "ImageWidth ImageLength", "all"])
def test_bogus_extents_are_refused_without_memory(sound, names):
    tiled = tile_tag(sound, "") == "Tile"
    block = "TileWidth TileLength" if tiled else "RowsPerStrip"
    names = f"ImageWidth ImageLength {block}" if names == "all" else names
    for name in names.split():
        set_number(sound, name, 2**31 - 16)
    tracemalloc.start()
    try:
        refuse(sound, "broken|must not exceed|negative")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**25


def test_an_image_without_tiles_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", np.ones((30, 40, 1), "uint8"))
    set_number(path, "TileByteCounts", 0)
    refuse(path, "no tile of the image is in it")


def test_a_list_of_tiles_that_is_too_long_or_short(sound):
    place = entry(sound, tile_tag(sound, "Offsets")).offset + 4
    whole = sound.read_bytes()
    for count in (0, 2**31 - 1):
        sound.write_bytes(whole)
        put(sound, place, struct.pack("<I", count))
        refuse(sound, "it lists 0 of|IndexError|cut off|broken")


@pytest.mark.parametrize("big", [False, True])
def test_a_chain_of_pages_that_breaks_is_refused(tmp_path, big):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=big) as file:
        for size in ((90, 80), (30, 20), (10, 10)):
            file.write(np.ones(size, "uint8"))
    with tifffile.TiffFile(path) as file:
        last, end = file.pages[2].offset, file.pages.next_page_offset
        first = file.pages[0].offset
    whole = path.read_bytes()
    for length in (last, last + 1, last + 40, end + 2):
        path.write_bytes(whole[:length])
        refuse(path, f"the page at byte {last} reaches beyond its {length} bytes")
    path.write_bytes(whole)
    put(path, end, struct.pack("<I", len(whole)))
    refuse(path, f"the page at byte {len(whole)} reaches beyond its {len(whole)} bytes")
    put(path, end, struct.pack("<I", first))  # a circle ends
    with TiffSource(path) as source:
        assert source.shape(0) == (90, 80, 1)
    put(path, 8 if big else 4, struct.pack("<I", 2**31))
    refuse(path, "cut off: it ends before its first image")


@pytest.mark.parametrize("layout", ["subifds", "ome"])
def test_levels_that_are_the_image_itself_end(tmp_path, layout):
    path = write_pyramid(tmp_path / "a.tif", layout, ((400, 600), (200, 300)))
    with tifffile.TiffFile(path) as file:
        first = file.pages[0].offset
    set_number(path, "SubIFDs", first)
    with TiffSource(path) as source:
        assert source.levels(0) == ((400, 600),)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "text.tif"
    for text in ("This is no image. " * 50, ""):
        path.write_text(text)
        refuse(path, "not a TIFF file")
    with pytest.raises(SourceError, match=r"missing\.tif"):
        TiffSource(tmp_path / "missing.tif")


# Images that are refused


@pytest.mark.parametrize(
    ("shape", "dtype", "layout", "message"),
    [
        (
            (40, 50),
            "uint8",
            {"photometric": "palette", "colormap": np.zeros((3, 256), "uint16")},
            "numbers of a palette. Convert the image to RGB",
        ),
        ((40, 50, 4), "uint8", {"photometric": "separated"}, "Received: CMYK. Convert"),
        ((40, 50, 3), "uint8", {"photometric": "cielab"}, "Received: CIELAB. Convert"),
        ((40, 50, 3), "uint16", {"photometric": "icclab"}, "CIELAB of ICC. Convert"),
        (
            (40, 50),
            "float32",
            {"photometric": "miniswhite"},
            "integers of 8, 16 or 32 bits. Received: 1 channels of float32",
        ),
        ((40, 50), "bool", {}, "at least 8 bits. Received: 1 bits"),
        ((40, 50), "complex64", {}, "integers or floats"),
        ((5, 40, 50), "uint8", {}, r"Received: axes QYX of shape \(5, 40, 50\)"),
        (
            (2, 5, 40, 50),
            "uint8",
            {"ome": True, "metadata": {"axes": "TCYX"}},
            "Received: axes TCYX",
        ),
        ((40, 50, 3), "uint8", {"photometric": "ycbcr"}, "YCbCr with compression 1"),
        (
            (32, 32, 32),
            "uint8",
            {"volumetric": True, "tile": (16, 16, 16)},
            "axes [A-Z]+|two dimensions",
        ),
    ],
)
def test_other_images_are_refused(tmp_path, shape, dtype, layout, message):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.zeros(shape, dtype), **{"photometric": "minisblack"} | layout
    )
    refuse(path, message)


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "P"])
def test_colours_of_pillow_that_are_not_rgb_are_refused(tmp_path, mode):
    path = tmp_path / "a.tif"
    PillowImage.new(mode, (50, 40)).save(path)
    refuse(path, "must be grey values or RGB. Received: .* Convert the image to RGB")


def test_what_only_openslide_reads_is_refused(tmp_path, rng):
    image = draw_images(rng, [(60, 50)], 3, "uint8")[0]
    path = write(tmp_path / "a.tif", image, compression="jpeg2000")
    set_number(path, "Compression", 33003)
    refuse(path, "YCbCr with compression 33003, .* use OpenSlideSource")
    xmp = (700, "B", 1, 32, True)  # a slide of Ventana
    write(path, image, software="ScanOutputManager 1", extratags=[xmp])
    refuse(path, "tiles must not overlap.* Use OpenSlideSource")


def test_images_of_the_same_size_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((40, 50, 3), "uint8"), photometric="rgb", metadata=None)
        file.write(np.zeros((40, 50), "uint16"), metadata=None)
    refuse(path, "must be the largest of the file. Received: 2 images")
