"""JPEG tiles of TIFF files: pixels as of other decoders, and none of damaged tiles."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from source_contract import SLIDE, needs_slide

from attention_sampling.data import SourceError, TiffSource
from attention_sampling.data.jpeg import decode_jpeg_tile

RGB, YCBCR = {"outcolorspace": "rgb"}, {"outcolorspace": "ycbcr"}


def make_image(channels, height=150, width=210):
    """Return a smooth image: JPEG keeps it nearly as it is."""
    slope = np.add.outer(np.arange(height), np.arange(width))[:, :, None]
    return (slope * np.linspace(0.4, 0.7, channels)).astype("uint8")


def write(path, image, **keywords):
    keywords = {"tile": (64, 48), "compression": "jpeg", "metadata": None} | keywords
    keywords.setdefault("photometric", "rgb" if image.ndim == 3 else "minisblack")
    tifffile.imwrite(path, image, **keywords)
    return path


def read(path, *origin):
    with TiffSource(path, threads=1) as source:
        size = source.shape(0)[:2] if not origin else 10
        return source.read_patches([0], [origin or (0, 0)], size)[0]


@pytest.mark.parametrize("tile", [(64, 48), None])
@pytest.mark.parametrize(
    ("channels", "layout"),
    [
        (1, {}),
        (3, {"compressionargs": RGB}),
        (3, {"compressionargs": YCBCR, "subsampling": (1, 1)}),
        (3, {"compressionargs": YCBCR, "subsampling": (2, 1)}),
        (3, {"compressionargs": YCBCR, "subsampling": (2, 2)}),
        (3, {"compressionargs": {"lossless": True}}),
        (3, {"planarconfig": "separate"}),
    ],
)
def test_pixels_are_those_of_imagecodecs(tmp_path, tile, channels, layout):
    image = make_image(channels)
    stored = image[:, :, 0] if channels == 1 else image
    if "planarconfig" in layout:
        stored = np.ascontiguousarray(image.transpose(2, 0, 1))
    strips = {"tile": tile, "rowsperstrip": None if tile else 16}
    path = write(tmp_path / "a.tif", stored, **strips, **layout)
    decoded = tifffile.imread(path)
    if "planarconfig" in layout:
        decoded = decoded.transpose(1, 2, 0)
    pixels = read(path)
    np.testing.assert_array_equal(pixels, decoded.reshape(image.shape))
    assert np.abs(pixels.astype(int) - image).mean() < 4


@needs_slide
def test_pixels_of_a_real_slide_are_those_of_imagecodecs():
    # Its tiles lack their tables, and hold RGB without a marker that says so.
    np.testing.assert_array_equal(read(SLIDE), tifffile.imread(SLIDE))


def encode(image, **keywords):
    return imagecodecs.jpeg8_encode(image, level=90, **keywords)


def test_tables_may_be_in_the_page_and_a_beginning_in_the_file():
    tile = encode(make_image(3, 64, 48), colorspace="rgb", outcolorspace="rgb")
    size = 64, 48
    whole = decode_jpeg_tile(tile, None, None, size, size, 3, False)
    tables, frame = tile.index(b"\xff\xdb"), tile.index(b"\xff\xc0")
    page = tile[:2] + tile[tables:frame] + b"\xff\xd9"
    abbreviated = tile[:2] + tile[frame:]
    np.testing.assert_array_equal(
        decode_jpeg_tile(abbreviated, page, None, size, size, 3, False), whole
    )
    scan = tile.index(b"\xff\xda") + 14
    np.testing.assert_array_equal(  # as in NDPI: the end is missing as well
        decode_jpeg_tile(tile[scan:-2], None, tile[:scan], size, size, 3, False), whole
    )


def test_a_tile_may_be_padded_and_end_with_the_image():
    tile = encode(make_image(1, 64, 48)[:, :, 0])
    whole = decode_jpeg_tile(tile, None, None, (50, 48), (79, 63), 1, False)
    assert whole.shape == (64, 48, 1)
    for smallest, largest in (((65, 48), (80, 63)), ((20, 20), (64, 47))):
        with pytest.raises(OSError, match="it has 64x48 pixels of 1 channels"):
            decode_jpeg_tile(tile, None, None, smallest, largest, 1, False)


def test_four_channels_are_those_that_are_stored():
    image = make_image(4, 64, 48)
    for transform in (0, 2):  # also where a marker says that they are YCCK
        tile = encode(image, colorspace="cmyk", outcolorspace="cmyk")
        mark = tile.index(b"Adobe") + 11
        tile = tile[:mark] + bytes([transform]) + tile[mark + 1 :]
        pixels = decode_jpeg_tile(tile, None, None, (64, 48), (64, 48), 4, False)
        assert np.abs(pixels.astype(int) - image).max() < 9


def test_channels_that_jpeg_does_not_have_are_refused(tmp_path):
    image = make_image(2)
    path = write(
        tmp_path / "a.tif", image, photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(SourceError, match=r"1, 3 or 4 channels. Received: 2. Store"):
        read(path)


def test_more_than_8_bits_are_read_by_imagecodecs(tmp_path):
    image = make_image(1)[:, :, 0].astype("uint16") * 10
    path = write(tmp_path / "a.tif", image, compressionargs={"bitspersample": 12})
    np.testing.assert_array_equal(read(path)[:, :, 0], tifffile.imread(path))


def test_what_is_harmless_in_a_header_is_mended():
    tile = encode(make_image(3, 64, 48), colorspace="rgb", outcolorspace="rgb")
    scan = tile.index(b"\xff\xda")
    bad = tile[:2] + b"\0\1" + tile[2 : scan + 11] + bytes(3) + tile[scan + 14 :]
    np.testing.assert_array_equal(
        decode_jpeg_tile(bad, None, None, (64, 48), (64, 48), 3, False),
        decode_jpeg_tile(tile, None, None, (64, 48), (64, 48), 3, False),
    )


# Damaged tiles

DAMAGES = {
    "second half zero": lambda tile: tile[: len(tile) // 2] + bytes(len(tile) // 2),
    "zero in the middle": lambda tile: (
        tile[: len(tile) // 2] + bytes(40) + tile[len(tile) // 2 + 40 :]
    ),
    "cut off": lambda tile: tile[: len(tile) * 2 // 3],
    "end missing": lambda tile: tile[:-2],
    "header cut off": lambda tile: tile[:40],
    "no JPEG": lambda tile: bytes(len(tile)),
    "without frame": lambda tile: tile.replace(b"\xff\xc0", b"\xff\xe5"),
    "other size": lambda tile: resized(tile, 60),
    "huge": lambda tile: resized(tile, 65000),
}


def resized(tile, height):
    frame = tile.index(b"\xff\xc0") + 5
    return tile[:frame] + height.to_bytes(2) + tile[frame + 2 :]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("colours", [RGB, YCBCR])
def test_a_damaged_tile_is_refused(tmp_path, rng, damage, colours):
    noise = rng.integers(0, 40, (128, 144, 3), dtype="uint8")
    path = write(tmp_path / "a.tif", noise, compressionargs=colours)
    sound = read(path)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, count = page.dataoffsets[4], page.databytecounts[4]
        place = page.tags["TileByteCounts"].valueoffset + 4 * 4
    data = bytearray(path.read_bytes())
    tile = DAMAGES[damage](bytes(data[offset : offset + count]))
    data[offset : offset + len(tile)] = tile
    data[place : place + 4] = len(tile).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(SourceError, match="tile is damaged") as caught:
        read(path, 70, 60)
    assert str(caught.value).startswith(f"{path} (image 0): rows 70 to 80, columns 60")
    np.testing.assert_array_equal(read(path, 70, 20), sound[70:80, 20:30])


@needs_slide
def test_damaged_tiles_of_a_real_slide_are_refused(tmp_path, rng):
    path = tmp_path / "damaged.svs"
    data = SLIDE.read_bytes()
    with tifffile.TiffFile(SLIDE) as file:
        offsets, counts = file.pages[0].dataoffsets, file.pages[0].databytecounts
    for number in rng.choice(100, 12, replace=False).tolist():
        middle = offsets[number] + counts[number] // 2
        end = offsets[number] + counts[number]
        path.write_bytes(data[:middle] + bytes(end - middle) + data[end:])
        with pytest.raises(SourceError, match=r"damaged\.svs .*tile is damaged"):
            read(path, number // 10 * 240, number % 10 * 240)
