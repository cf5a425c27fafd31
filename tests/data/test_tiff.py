"""TIFF files: every way to store an image, its levels, and files that are broken."""

import logging
import os
import struct
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from source_contract import SourceContract, check_windows, draw_images, open_files

import attention_sampling
from attention_sampling.data import SourceError, TiffSource, tiff_level

REPOSITORY = Path(attention_sampling.__file__).parents[1]
SLIDE = REPOSITORY.parent / "shared/data/slides/CMU-1-Small-Region.svs"
needs_slide = pytest.mark.skipif(not SLIDE.is_file(), reason=f"no slide at {SLIDE}")


@pytest.fixture(autouse=True)
def quiet_tifffile():
    """Tifffile logs what is wrong with a file before it raises."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("tifffile").setLevel(logging.NOTSET)


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


class TestTiffSourceOfStrips(SourceContract):
    dtypes = ("float64", "int16")
    channels = (1, 3)
    sizes = ((70, 90), (33, 101), (1, 1))

    def make(self, directory, images, **keywords):
        layout = {"tile": None, "compression": None, "rowsperstrip": 9, "bigtiff": True}
        layout |= {"byteorder": ">", "planarconfig": "separate"}
        paths = [
            write(directory / f"{i}.tif", image, **layout)
            for i, image in enumerate(images)
        ]
        return TiffSource(paths, **keywords)


# Ways to store an image

PLANES = {"photometric": "minisblack", "metadata": {"axes": "CYX"}}


@pytest.mark.parametrize(
    ("dtype", "channels", "layout"),
    [
        ("uint8", 3, {"compression": "lzw", "predictor": True}),
        ("uint8", 3, {"compression": "zstd"}),
        ("uint8", 3, {"compression": "jpeg2000"}),
        ("uint8", 3, {"compression": "webp", "compressionargs": {"lossless": True}}),
        ("uint8", 3, {"compression": "packbits", "tile": None, "rowsperstrip": 7}),
        ("uint8", 3, {"compression": "deflate", "tile": None}),
        ("uint8", 3, {"planarconfig": "separate"}),
        ("uint8", 3, {"compression": None, "planarconfig": "separate"}),
        ("uint8", 4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        ("uint8", 3, {"ome": True, "metadata": {}}),
        ("uint16", 3, {"compression": None, "byteorder": ">"}),
        ("uint16", 1, {"compression": "lzw", "predictor": True, "byteorder": ">"}),
        ("uint16", 1, {"compression": None, "bigtiff": True}),
        ("uint16", 5, {"planarconfig": None, **PLANES}),
        ("uint16", 5, {"planarconfig": None, **PLANES, "ome": True}),
        ("float32", 1, {"compression": "zstd", "predictor": True}),
        ("float32", 1, {"compression": None, "tile": None}),
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


@pytest.mark.parametrize("tile", [(64, 64), None])
@pytest.mark.parametrize("colours", ["rgb", "ycbcr"])
def test_jpeg_is_what_tifffile_decodes(tmp_path, rng, tile, colours):
    image = np.add.outer(np.arange(150), np.arange(210))[:, :, None] * [0.4, 0.6, 0.7]
    layout = {"tile": tile, "rowsperstrip": None if tile else 16}
    layout |= {"compression": "jpeg", "compressionargs": {"outcolorspace": colours}}
    path = write(tmp_path / "a.tif", image.astype("uint8"), **layout)
    assert entry(path, "PhotometricInterpretation").value.name.lower() == colours
    decoded = tifffile.imread(path)
    assert np.abs(decoded - image).mean() < 4
    with TiffSource(path) as source:
        check_windows(source, [decoded], rng)


def test_reads_rows_of_a_wide_strip_one_by_one(tmp_path, rng, monkeypatch):
    images = draw_images(rng, [(40, 500)], 3, "uint16")
    path = write(tmp_path / "a.tif", images[0], tile=None, compression=None)
    monkeypatch.setattr(tiff_level, "_SKIPPED_BYTES", 64)
    read = []
    pread = os.pread

    def watch(descriptor, count, offset):
        read.append(count)
        return pread(descriptor, count, offset)

    with TiffSource(path, threads=1) as source:
        check_windows(source, images, rng)
        monkeypatch.setattr(os, "pread", watch)
        source.read_patches([0], [(7, 9)], (20, 10))
    assert read == [10 * 3 * 2] * 20


def test_a_large_strip_is_read_in_pieces(tmp_path):
    image = np.zeros((300, 5000, 1), "uint8")
    for name, compression, block in [
        ("raw", None, (256, 4096)),
        ("compressed", "deflate", (300, 5000)),
    ]:
        layout = {"tile": None, "compression": compression, "rowsperstrip": 300}
        path = write(tmp_path / f"{name}.tif", image, **layout)
        with TiffSource(path) as source:
            assert source.block(0, 0) == block
            assert source.read_view(0, 4).max() == 0


def test_reads_without_pread(tmp_path, rng, monkeypatch):
    images = draw_images(rng, [(100, 120)], 3, "uint8")
    path = write(tmp_path / "a.tif", images[0])
    monkeypatch.delattr(os, "pread")
    seek = tifffile.FileHandle.seek

    def slow_seek(handle, *arguments):
        seek(handle, *arguments)
        time.sleep(1e-4)  # so that another thread has its turn

    monkeypatch.setattr(tifffile.FileHandle, "seek", slow_seek)
    with TiffSource(path, threads=4) as source, ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: check_windows(source, images, rng), range(12)):
            continue


def test_only_the_tiles_under_a_window_are_decoded(tmp_path, rng, monkeypatch):
    images = draw_images(rng, [(320, 480)], 3, "uint8")
    path = write(tmp_path / "a.tif", images[0])
    decoded = []
    with TiffSource(path, threads=1) as source:
        source.read_patches([0], [(0, 0)], 1)
        level = source.cache.get(str(path)).levels[0]
        decode = level._decode
        level._decode = lambda data, index, **tables: (
            decoded.append(index) or decode(data, index, **tables)
        )
        source.read_patches([0], [(31, 95)], 2)
    assert decoded == [1, 2, 11, 12]


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
        assert source.levels(0) == ((400, 600), (200, 300), (100, 150))
        for size, level in [
            ((10, 10), 2),
            ((100, 150), 2),
            ((101, 150), 0),
            ((60, 80), 1),
            ((200, 300), 1),
            ((10, 301), 0),
            ((400, 600), 0),
        ]:
            view = source.read_view(0, size)
            assert view.shape == (*size, 3)
            assert (view == level).all(), size
        assert (source.read_patches([0], [(50, 50)], 30) == 0).all()


def test_levels_of_odd_extents(tmp_path):
    path = write_pyramid(tmp_path / "a.tif", "pages", ((401, 601), (200, 300)))
    with TiffSource(path) as source:
        assert source.levels(0) == ((401, 601), (200, 300))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((200, 300), "uint8"), ((200, 300, 3), "uint16"), ((200, 340, 3), "uint8")],
)
def test_levels_of_other_kind_are_left_out(tmp_path, shape, dtype):
    levels = [np.zeros((400, 600, 3), "uint8"), np.zeros(shape, dtype)]
    levels.append(np.zeros((100, 150, 3), "uint8"))
    path = write_pyramid(tmp_path / "a.tif", "svs", levels=levels)
    with tifffile.TiffFile(path) as file:
        assert len(file.series[0].levels) == 3
    with TiffSource(path) as source:
        assert source.levels(0) == ((400, 600), (100, 150))


def test_the_largest_image_is_read(tmp_path, rng):
    small, large = draw_images(rng, [(60, 50), (130, 120)], 3, "uint8")
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for image in (small, large):
            file.write(image, photometric="rgb", metadata=None)
    with TiffSource(path) as source:
        check_windows(source, [large], rng)


def test_a_mask_is_no_image(tmp_path, rng):
    image = draw_images(rng, [(60, 50)], 3, "uint8")[0]
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(image, photometric="rgb", metadata=None)
        file.write(image[:, :, 0], subfiletype=1, metadata=None)
    with tifffile.TiffFile(path) as file:
        kind = file.pages[1].tags[254]
    put(path, kind.valueoffset, struct.pack("<I", 4))
    with TiffSource(path) as source:
        check_windows(source, [image], rng)


@pytest.mark.parametrize("kind", ["mmstack", "ndtiff"])
def test_formats_of_several_files_are_not_looked_for(tmp_path, monkeypatch, kind):
    def fail(file):
        raise AssertionError("looks for other files")

    monkeypatch.setattr(tifffile.TiffFile, f"is_{kind}", True)
    monkeypatch.setattr(tifffile.TiffFile, f"_series_{kind}", fail)
    path = write(tmp_path / "a.tif", np.zeros((40, 50, 3), "uint8"))
    with TiffSource(path) as source:
        assert source.shape(0) == (40, 50, 3)


def test_nothing_but_the_file_is_opened(tmp_path, monkeypatch):
    # An OME-TIFF of two files.
    planes = np.zeros((2, 40, 50), "uint8")
    names = ["a.ome.tif", "b.ome.tif"]
    path = tmp_path / names[0]
    tifffile.imwrite(path, planes, ome=True, metadata={"axes": "CYX"})
    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata
    data = "".join(
        f'<TiffData IFD="0" FirstC="{c}" PlaneCount="1"><UUID FileName="{name}">'
        f"urn:uuid:{c}</UUID></TiffData>"
        for c, name in enumerate(names)
    )
    start, end = xml.index("<TiffData"), xml.index("</Pixels>")
    xml = xml[:start] + data + xml[end:]
    for name in names:
        tifffile.imwrite(tmp_path / name, planes[0], description=xml, metadata=None)
    opened = []
    real_open = tifffile.FileHandle.open

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


# A real slide


@needs_slide
def test_windows_of_a_real_slide_are_those_of_its_decoding(rng):
    decoded = tifffile.imread(SLIDE)
    with TiffSource(SLIDE, threads=2) as source:
        assert source.levels(0) == ((2967, 2220),)
        assert source.block(0, 0) == (240, 240)
        check_windows(source, [decoded], rng, count=40)
        origins = [(0, 0), (2900, 2200), (-30, 1000), (230, 230)]
        patches = source.read_patches([0] * 4, origins, 100)
        view = source.read_view(0, (10, 8))
    np.testing.assert_array_equal(patches[3], decoded[230:330, 230:330])
    np.testing.assert_array_equal(patches[1][:67, :20], decoded[2900:, 2200:])
    np.testing.assert_allclose(view.mean(), decoded.mean(), rtol=1e-5)


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


def test_a_broken_tile_spoils_its_windows_only(tmp_path, rng):
    images = draw_images(rng, [(96, 144)], 3, "uint8")
    path = write(tmp_path / "a.tif", images[0])  # three by three tiles
    offset = entry(path, "TileOffsets").value[4]
    put(path, offset, b"\xff" * 40)
    for threads in (1, 3):
        with TiffSource(path, threads=threads) as source:
            with pytest.raises(SourceError) as caught:
                source.read_patches([0] * 3, [(0, 0), (30, 46), (64, 96)], 3)
            message = str(caught.value)
            assert message.startswith(f"{path} (image 0): rows 30 to 33, columns 46")
            for origin in [(0, 0), (29, 60), (64, 50), (40, 96)]:
                patch = source.read_patches([0], [origin], 3)[0]
                (row, column) = origin
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


def test_a_file_cut_off_is_refused(sound):
    whole = sound.read_bytes()
    for length in (0, 3, 7, 8, 60, len(whole) // 2, len(whole) - 1):
        sound.write_bytes(whole[:length])
        refuse(sound, "cut off|corrupted|no image|not a TIFF|ends inside its header")
    sound.write_bytes(whole)
    with TiffSource(sound) as source:
        source.read_view(0, 4)


def test_tiles_beyond_the_end_are_refused(sound):
    name = "TileOffsets" if "Tile" in tags(sound) else "StripOffsets"
    if entry(sound, name).count == 1:
        set_number(sound, name, 2**31)
    else:
        set_entry(sound, name, 0, 2**31)
    refuse(sound, "reach to byte 214[0-9]{7}, the file has")


def tags(path):
    with tifffile.TiffFile(path) as file:
        return " ".join(tag.name for tag in file.pages[0].tags)


def test_bogus_extents_are_refused_without_memory(sound):
    names = ["ImageWidth", "ImageLength"]
    shapes = [names, names[:1], names[1:]]
    extras = ["TileWidth", "TileLength"] if "Tile" in tags(sound) else ["RowsPerStrip"]
    whole = sound.read_bytes()
    for shape in shapes:
        for more in ([], extras):
            sound.write_bytes(whole)
            for name in [*shape, *more]:
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


def test_a_file_that_ends_while_it_is_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", np.ones((30, 40, 3), "uint8"), compression=None)
    with TiffSource(path) as source:
        monkeypatch.setattr(os, "pread", lambda descriptor, count, offset: b"")
        with pytest.raises(
            SourceError, match=r"rows 3 to 4.* ends inside the 144 byte"
        ):
            source.read_patches([0], [(3, 4)], 1)


def test_a_list_of_tiles_that_is_too_long_or_short(sound):
    name = "TileOffsets" if "Tile" in tags(sound) else "StripOffsets"
    place = entry(sound, name).offset + 4
    whole = sound.read_bytes()
    for count in (0, 2**31 - 1):
        sound.write_bytes(whole)
        put(sound, place, struct.pack("<I", count))
        refuse(sound, "it lists 0 of|IndexError|cut off|broken")


def next_page(path):
    """Return where the last page says that there is no other."""
    with tifffile.TiffFile(path) as file:
        return file.pages.next_page_offset


def test_pages_beyond_the_end_are_refused(sound):
    whole = sound.read_bytes()
    for place in (len(whole) - 1, len(whole), 2**32 - 1):
        put(sound, next_page(sound), struct.pack("<I", place))
        refuse(sound, f"the page at byte {place} reaches beyond its {len(whole)} bytes")
        sound.write_bytes(whole)
    put(sound, 4, struct.pack("<I", 2**31))
    refuse(sound, "cut off: it ends before its first image")


@pytest.mark.parametrize("big", [False, True])
def test_a_file_that_ends_inside_its_last_page_is_refused(tmp_path, big):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=big) as file:
        file.write(np.ones((90, 80), "uint8"))
        file.write(np.ones((30, 20), "uint8"))
        file.write(np.ones((10, 10), "uint8"))
    with tifffile.TiffFile(path) as file:
        last = file.pages[2].offset
    with TiffSource(path) as source:
        assert source.shape(0) == (90, 80, 1)
    whole = path.read_bytes()
    for length in (last, last + 1, last + 40, next_page(path) + 2):
        path.write_bytes(whole[:length])
        refuse(path, f"the page at byte {last} reaches beyond its {length} bytes")


def test_directories_in_a_circle_end(sound, rng):
    with tifffile.TiffFile(sound) as file:
        first = file.pages[0].offset
        end = first + 2 + 12 * len(file.pages[0].tags)
    put(sound, end, struct.pack("<I", first))
    with TiffSource(sound) as source:
        check_windows(source, [tifffile.imread(sound, key=0)], rng)


@pytest.mark.parametrize("layout", ["subifds", "ome"])
def test_levels_that_are_the_image_itself_end(tmp_path, layout):
    path = write_pyramid(tmp_path / "a.tif", layout, ((400, 600), (200, 300)))
    with tifffile.TiffFile(path) as file:
        first = file.pages[0].offset
    set_number(path, "SubIFDs", first)
    with TiffSource(path) as source:
        assert source.levels(0) == ((400, 600),)
    set_number(path, "SubIFDs", 2**31)
    if layout == "ome":
        refuse(path, "corrupted tag list")
    else:
        with TiffSource(path) as source:
            assert source.levels(0) == ((400, 600),)


@needs_slide
def test_a_slide_cut_in_half_is_refused(tmp_path):
    path = tmp_path / "half.svs"
    path.write_bytes(SLIDE.read_bytes()[: SLIDE.stat().st_size // 2])
    refuse(path, "half.svs: ")
    with TiffSource([path, SLIDE], on_error="skip") as source:
        assert source.paths == (str(SLIDE),)
        assert [name for name, _ in source.skipped] == [str(path)]


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "text.tif"
    path.write_text("This is no image. " * 50)
    refuse(path, "not a TIFF file")
    path.write_bytes(b"")
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
        ((40, 50), "bool", {}, "at least 8 bits. Received: 1 bits"),
        ((40, 50), "complex64", {}, "integers or floats"),
        ((5, 40, 50), "uint8", {}, r"Received: axes QYX of shape \(5, 40, 50\)"),
        ((5, 40, 50), "uint8", {"metadata": None}, "Received: axes IYX"),
        (
            (5, 40, 50),
            "uint8",
            {"imagej": True, "metadata": {"axes": "ZYX"}},
            "Received: axes ZYX",
        ),
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


def test_images_of_another_kind_are_skipped_or_refused(tmp_path, rng):
    kinds = [(3, "uint8"), (1, "uint8"), (3, "uint16"), (3, "uint8")]
    paths = [
        write(tmp_path / f"{i}.tif", draw_images(rng, [(40, 50)], *kind)[0])
        for i, kind in enumerate(kinds)
    ]
    with pytest.raises(SourceError, match=r"1\.tif: its images have 1 channels"):
        TiffSource(paths)
    with TiffSource(paths, on_error="skip") as source:
        assert source.paths == (str(paths[0]), str(paths[3]))
        assert [name for name, _ in source.skipped] == [str(p) for p in paths[1:3]]


# Open files, the library


def test_keeps_no_more_files_open_than_it_may(tmp_path, rng):
    images = draw_images(rng, [(80, 90)] * 6, 3, "uint8")
    paths = [write(tmp_path / f"{i}.tif", image) for i, image in enumerate(images)]
    with TiffSource(paths, max_open=2, threads=1) as source:
        assert open_files(tmp_path) == []
        for _ in range(2):
            check_windows(source, images, rng, count=24)
            assert len(open_files(tmp_path)) == 2
    with TiffSource(paths, max_open=2, threads=4) as source:
        check_windows(source, images, rng, count=60)
        assert len(open_files(tmp_path)) == 2
    assert open_files(tmp_path) == []


@pytest.mark.parametrize("library", ["tifffile", "imagecodecs"])
def test_a_missing_library_names_the_extra(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        ImportError, match=rf"{library} .*keras-attention-sampling\[slides\]"
    ):
        TiffSource(tmp_path / "a.tif")
