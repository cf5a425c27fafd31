"""Image files: modes, caches, and what is broken."""

import io
import pickle
import sys
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image
from source_contract import SourceContract, check_windows, draw_images

import attention_sampling
from attention_sampling.data import ImageFilesSource, SourceError
from attention_sampling.data import images as images_module

REPOSITORY = Path(attention_sampling.__file__).parents[1]
SCENES = REPOSITORY.parent / "shared/data/gtsdb/images"
needs_scenes = pytest.mark.skipif(not SCENES.is_dir(), reason=f"no scenes at {SCENES}")


def write_png(path, image):
    path.write_bytes(
        imagecodecs.png_encode(
            np.ascontiguousarray(image.squeeze(2) if image.shape[2] == 1 else image)
        )
    )
    return path


class TestImageFilesSource(SourceContract):
    dtypes = ("uint8", "uint16")
    channels = (1, 2, 4, 3)

    def make(self, directory, images, **keywords):
        paths = [write_png(directory / f"{i}.png", x) for i, x in enumerate(images)]
        return ImageFilesSource(paths, **keywords)


class TestImageFilesSourceOfTiff(SourceContract):
    dtypes = ("float32", "int16")
    channels = (1, 3)
    # Shown by another class of the same format; a process takes long.
    test_reads_in_a_spawned_process_and_its_fork = None

    def make(self, directory, images, **keywords):
        paths = []
        for number, image in enumerate(images):
            paths.append(directory / f"{number}.tif")
            photometric = "rgb" if image.shape[2] == 3 else "minisblack"
            image = image if image.shape[2] == 3 else image[:, :, 0]
            tifffile.imwrite(
                paths[-1], image, photometric=photometric, planarconfig="contig"
            ) if image.ndim == 3 else tifffile.imwrite(paths[-1], image)
        return ImageFilesSource(paths, **keywords)


@pytest.fixture
def picture(rng):
    return draw_images(rng, [(24, 40)], 3, "uint8")[0]


def photo(height=256, width=400, seed=0):
    """Return noise with edges: a JPEG of it is not trivial."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 255, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
    noise = rng.integers(-20, 20, (height, width, 3))
    return np.clip(steps + noise, 0, 255).astype("uint8")


def encode_jpeg(image, **keywords):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", **keywords)
    return buffer.getvalue()


def read_all(source, index=0):
    return source.read_patches([index], [(0, 0)], source.shape(index)[:2])[0]


# What Pillow decodes, and how


@pytest.mark.parametrize("suffix", ["bmp", "ppm", "webp", "gif", "tif", "png", "jp2"])
def test_reads_what_pillow_reads(tmp_path, picture, suffix):
    path = tmp_path / "image.of.some.kind"
    image = Image.fromarray(picture)
    if suffix == "gif":
        image = image.quantize(8)
    kinds = {"tif": "tiff", "jp2": "jpeg2000"}
    image.save(path, kinds.get(suffix, suffix), lossless=True)
    with ImageFilesSource(path) as source:
        assert source.shape(0) == (24, 40, 3)
        np.testing.assert_array_equal(
            read_all(source), np.asarray(image.convert("RGB"))
        )


@pytest.mark.parametrize(
    ("mode", "keywords", "expected"),
    [
        ("1", {}, "L"),
        ("P", {}, "RGB"),
        ("P", {"transparency": 3}, "RGBA"),
        ("LA", {}, "LA"),
        ("RGBA", {}, "RGBA"),
    ],
)
def test_modes_of_png(tmp_path, picture, mode, keywords, expected):
    path = tmp_path / "image.png"
    image = Image.fromarray(picture).convert(mode)
    image.save(path, **keywords)
    with Image.open(path) as same:
        converted = np.asarray(same.convert(expected)).reshape(24, 40, -1)
    with ImageFilesSource(path) as source:
        assert source.shape(0) == converted.shape
        assert source.dtype == np.uint8
        np.testing.assert_array_equal(read_all(source), converted)


def test_orientation_in_exif_is_not_applied(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    with ImageFilesSource(tmp_path / "turned.png") as source:
        assert source.shape(0) == (24, 40, 3)
        np.testing.assert_array_equal(read_all(source), picture)


def test_three_channels_of_everything(tmp_path, picture):
    paths = []
    for mode in ("RGB", "L", "LA", "RGBA", "1"):
        paths.append(tmp_path / f"{mode}.png")
        Image.fromarray(picture).convert(mode).save(paths[-1])
    with ImageFilesSource(paths, channels=3) as source:
        for index, path in enumerate(paths):
            with Image.open(path) as image:
                grey = image.mode in ("L", "LA", "1")
                expected = np.asarray(image.convert("L" if grey else "RGB"))
            if grey:
                expected = np.stack([expected] * 3, axis=2)
            assert source.shape(index) == (24, 40, 3)
            np.testing.assert_array_equal(read_all(source, index), expected)


def test_grey_among_colours_is_refused_or_left_out(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(picture[:, :, 0]).save(tmp_path / "b.png")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    with pytest.raises(SourceError, match=r"b\.png: its images have 1 .*channels=3"):
        ImageFilesSource(paths)
    with ImageFilesSource(paths, on_error="skip") as source:
        assert source.names == (str(paths[0]),)
        assert source.skipped[0][0] == str(paths[1])


# What cannot be read without loss


def save_cmyk(path, picture):
    Image.fromarray(picture).convert("CMYK").save(path, "jpeg")


def save_animation(path, picture):
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    frames[0].save(path, "gif", save_all=True, append_images=frames[1:])


def save_deep_jpeg_2000(path, picture):  # Pillow would drop 8 of 16 bits
    pixels = picture.astype("uint16") * 257
    path.write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2"))


def save_jpeg_12_bit(path, picture):
    path.write_bytes(
        imagecodecs.jpeg_encode(picture.astype("uint16"), bitspersample=12)
    )


def save_text(path, picture):
    path.write_text("no image")


def save_nothing(path, picture):
    path.write_bytes(b"")


def save_deep_ppm(path, picture):
    path.write_bytes(b"P6 40 24 65535\n" + bytes(24 * 40 * 6))


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (save_cmyk, "colours are CMYK"),
        (save_animation, "series of images"),
        (save_deep_jpeg_2000, "its values are of 16 bits"),
        (save_jpeg_12_bit, "must be of 8 bits"),
        (save_text, "of an unknown format"),
        (save_nothing, "of an unknown format"),
        (save_deep_ppm, "would be scaled. Store it as PNG"),
    ],
)
def test_refuses_when_opened(tmp_path, picture, save, message):
    path = tmp_path / "image.png"
    save(path, picture)
    with pytest.raises(SourceError, match=message) as caught:
        ImageFilesSource(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("header", "dtype", "encode"),
    [
        ("P5 40 24 65535\n", ">u2", lambda pixels: pixels.tobytes()),
        ("P5 # a remark\n40 24\n255\n", "u1", lambda pixels: pixels.tobytes()),
        (
            "P2\n40 24 255\n",
            "u1",
            lambda pixels: " ".join(map(str, pixels.flat)).encode(),
        ),
    ],
)
def test_grey_of_the_ppm_family(tmp_path, rng, header, dtype, encode):
    largest = np.iinfo(dtype).max
    pixels = rng.integers(0, largest, (24, 40)).astype(dtype)
    (tmp_path / "image").write_bytes(header.encode() + encode(pixels))
    with ImageFilesSource(tmp_path / "image") as source:
        assert source.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(read_all(source)[:, :, 0], pixels)


def test_a_missing_library_is_no_fault_of_the_file(tmp_path, picture, monkeypatch):
    write_png(tmp_path / "b.png", picture.astype("uint16"))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    for on_error in ("raise", "skip"):
        with pytest.raises(ImportError, match=r"'keras-attention-sampling\[slides\]'"):
            ImageFilesSource(tmp_path / "b.png", on_error)


# Opening is quick, and large images are no attack


def write_huge_png(path, side=20000):
    """Write the header of a PNG of 400 megapixels, larger than Pillow allows."""
    header = b"IHDR" + side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    chunk = b"\x00\x00\x00\x0d" + header + zlib.crc32(header).to_bytes(4, "big")
    data = b"\x00\x00\x00\x04IDATabcd" + zlib.crc32(b"IDATabcd").to_bytes(4, "big")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + data)


def test_opening_reads_headers_alone_and_allows_large_images(tmp_path):
    write_huge_png(tmp_path / "huge.png")
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with ImageFilesSource(tmp_path / "huge.png", cache_bytes=2**31) as source:
            assert source.shape(0) == (20000, 20000, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_refuses_what_the_cache_cannot_keep(tmp_path):
    write_huge_png(tmp_path / "huge.png")
    message = (
        r"1200000000 bytes.*attention_sampling convert; or .* cache_bytes=1200000000$"
    )
    with pytest.raises(SourceError, match=message):
        ImageFilesSource(tmp_path / "huge.png")
    ImageFilesSource(tmp_path / "huge.png", cache_bytes=1200000000)


def test_without_a_limit_the_largest_image_is_kept(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(images_module, "_KEPT", 1)
    images = draw_images(rng, [(20, 30), (40, 30), (20, 30)], 3, "uint8")
    paths = [write_png(tmp_path / f"{i}.png", x) for i, x in enumerate(images)]
    decoded = count_decoding(monkeypatch)
    source = pickle.loads(pickle.dumps(ImageFilesSource(paths, cache_bytes=None)))
    with source:
        for index in (1, 1, 0, 2, 0, 1):
            source.read_patches([index], [(0, 0)], 4)
        assert decoded == ["1.png", "0.png", "2.png", "1.png"]


def count_decoding(monkeypatch):
    """Return a list that grows by the names of the files that are decoded."""
    decoded = []
    decode_image = images_module.decode_image

    def decode(path):
        decoded.append(Path(path).name)
        return decode_image(path)

    monkeypatch.setattr(images_module, "decode_image", decode)
    return decoded


def test_keeps_decoded_images_up_to_a_limit(tmp_path, rng, monkeypatch):
    images = draw_images(rng, [(20, 30)] * 3, 3, "uint8")
    paths = [write_png(tmp_path / f"{i}.png", x) for i, x in enumerate(images)]
    decoded = count_decoding(monkeypatch)
    with ImageFilesSource(paths, threads=1, cache_bytes=2 * 1800) as source:
        assert decoded == []
        for index in (0, 1, 0, 1, 2, 1, 2, 0):
            source.read_patches([index] * 2, [(0, 0), (5, 5)], 4)
        assert decoded == ["0.png", "1.png", "2.png", "0.png"]
        check_windows(source, images, rng)


# Broken files


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpeg", "tiff", "jpeg2000"])
@pytest.mark.parametrize("fraction", [0.5, 0.98])
def test_a_file_cut_off_is_an_error(tmp_path, suffix, fraction):
    path = tmp_path / "cut.image"
    Image.fromarray(photo()).save(path, suffix)
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(SourceError) as caught, ImageFilesSource(path) as source:
        source.read_patches([0], [(2, 3)], 4)
    assert str(caught.value).startswith(str(path))
    # The end of a TIFF tells where its pixels are, and a JPEG has an end: that is noticed
    # when it is opened.
    opened = "(image 0): rows 2 to 6, columns 3 to 7" in str(caught.value)
    assert opened == (suffix not in ("tiff", "jpeg"))


def break_scan(data, fault):
    start, middle = data.index(b"\xff\xda") + 14, len(data) // 2
    noise = np.random.default_rng(0).integers(0, 255, 1000, dtype="uint8").tobytes()
    assert start < middle - 1000
    return {
        "cut, with an end": data[:middle] + b"\xff\xd9",
        "noise": data[:middle] + noise + data[middle + 1000 :],
        "zeros": data[:middle] + bytes(1000) + data[middle + 1000 :],
    }[fault]


@pytest.mark.parametrize(
    "form", [{}, {"progressive": True}, {"restart_marker_rows": 1}]
)
@pytest.mark.parametrize("fault", ["cut, with an end", "noise", "zeros"])
def test_a_broken_scan_of_a_jpeg_is_an_error(tmp_path, form, fault):
    path = tmp_path / "broken.jpg"
    data = encode_jpeg(photo(), quality=90, **form)
    path.write_bytes(break_scan(data, fault))
    with Image.open(path) as image:
        image.load()  # Pillow notices nothing
    with ImageFilesSource(path) as source:
        with pytest.raises(SourceError, match=r"broken\.jpg \(image 0\): rows 0 to 9"):
            source.read_patches([0], [(0, 0)], 9)
        with pytest.raises(SourceError, match=r"broken\.jpg \(image 0\)"):
            source.read_view(0, 4)


def test_a_damaged_png_is_an_error(tmp_path):
    """Pillow does not check the pixels, and gives others."""
    path = tmp_path / "a.png"
    data = np.zeros((100, 100, 3), "uint8")
    data[30:60, 20:80] = 200
    Image.fromarray(data).save(path)
    whole = path.read_bytes()
    start = whole.index(b"IDAT") + 4
    for position in range(start, len(whole) - 12, 7):
        broken = bytearray(whole)
        broken[position] ^= 0xFF
        path.write_bytes(broken)
        source = ImageFilesSource(path)
        with pytest.raises(SourceError, match=r"a\.png \(image 0\): rows 0 to 100"):
            source.read_view(0, 10)
    path.write_bytes(whole[:-14])
    source = ImageFilesSource(path)
    with pytest.raises(SourceError, match=r"a\.png .*cut off"):
        source.read_view(0, 10)


def odd_scan(data):  # what some cameras write: an odd spectral selection
    start = data.index(b"\xff\xda")
    end = start + data[start + 3]
    return data[:end] + b"\x00" + data[end + 1 :]


def cut_exif(data):
    """An EXIF segment that is longer than it says."""
    content = b"Exif\0\0II*\0" + bytes(range(200))
    return data[:20] + b"\xff\xe1\x00\x20" + content + data[20:]


@pytest.mark.parametrize("form", [{}, {"progressive": True}, {"grey": True}])
@pytest.mark.parametrize(
    ("change", "warns"),
    [
        (lambda data: data, False),
        (lambda data: data + b"more, such as a film", False),
        (lambda data: data[:20] + b"\x00stray" + data[20:], True),
        (cut_exif, True),
        (lambda data: data.replace(b"JFIF\0\x01", b"JFIF\0\x02"), True),
        (odd_scan, True),
    ],
)
def test_a_harmless_jpeg_is_what_pillow_decodes(tmp_path, form, change, warns):
    image = photo(96, 104)
    image = image[:, :, 0] if "grey" in form else image
    progressive = "progressive" in form
    data = change(encode_jpeg(image, progressive=progressive))
    if warns and not (progressive and change is odd_scan):
        with pytest.raises(ValueError, match=r"extraneous|JFIF|SOS"):
            simplejpeg.decode_jpeg(data, strict=True)
    if progressive and change is odd_scan:
        return  # there it means something
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    with warnings.catch_warnings(action="ignore"), Image.open(path) as whole:
        expected = np.asarray(whole).reshape(96, 104, -1)
    with ImageFilesSource(path) as source:
        assert source.shape(0) == expected.shape
        np.testing.assert_array_equal(read_all(source), expected)


# Real photographs


@needs_scenes
def test_windows_of_road_scenes_are_what_pillow_decodes(rng):
    paths = sorted(SCENES.glob("*.jpg"))[:3]
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.asarray(image))
    with ImageFilesSource(paths) as source:
        check_windows(source, images, rng, count=40)
        for index, image in enumerate(images):
            np.testing.assert_array_equal(read_all(source, index), image)
