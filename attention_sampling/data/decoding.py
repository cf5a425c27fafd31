"""Describe and decode image files that are small enough to be decoded as a whole."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.data.formats import find_format
from attention_sampling.data.libraries import import_library
from attention_sampling.data.source import SourceError

# (height, width, channels) and the name of the dtype.
Description = tuple[tuple[int, int, int], str]

# The classes themselves: Pillow's Image.open warns of large images, or refuses them, by
# a setting of the whole process; and it would hand PostScript to an interpreter.
_READERS = {
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "PPM": ("PpmImagePlugin", "PpmImageFile"),
    "WebP": ("WebPImagePlugin", "WebPImageFile"),
}
IMAGE_FORMATS = (*_READERS, "TIFF")

# Mode of Pillow -> the mode to read it in, channels, dtype.
_MODES = {
    "1": ("L", 1, "uint8"),
    "L": ("L", 1, "uint8"),
    "LA": ("LA", 2, "uint8"),
    "I;16": ("I;16", 1, "uint16"),
    "I;16B": ("I;16B", 1, "uint16"),
    "I": ("I", 1, "int32"),
    "RGB": ("RGB", 3, "uint8"),
    "RGBA": ("RGBA", 4, "uint8"),
    "P": ("RGB", 3, "uint8"),
    "PA": ("RGBA", 4, "uint8"),
}


def describe_image(path: str) -> Description:
    """Return shape and dtype of an image from its header.

    Raises:
        OSError: it is no image, a broken one, or none that can be decoded losslessly.
    """
    image_format = _find_image_format(path)
    if image_format == "TIFF":
        return _read_tiff(path)[0]
    with _open_header(path, image_format) as header:
        _, channels, dtype = _find_mode(header, image_format)
        return (header.height, header.width, channels), dtype


def decode_image(path: str) -> npt.NDArray[Any]:
    """Return an image, (height, width, channels), as `describe_image` describes it.

    Raises:
        OSError: it is broken.
    """
    image_format = _find_image_format(path)
    if image_format == "TIFF":
        return _read_tiff(path, pixels=True)[1]
    with _open_header(path, image_format) as header:
        mode, channels, dtype = _find_mode(header, image_format)
        size = header.height, header.width, channels
        if image_format == "PNG":
            _check_png(Path(path).read_bytes())
        if image_format == "JPEG":
            pixels = _decode_jpeg(Path(path).read_bytes(), mode)
        elif _is_deep_colour(header, image_format):
            imagecodecs = import_library("imagecodecs")
            pixels = imagecodecs.png_decode(Path(path).read_bytes())
            # A colour that counts as transparent comes as a channel that no other has.
            pixels = pixels[..., :channels]
        else:
            pixels = np.asarray(header if header.mode == mode else header.convert(mode))
    return pixels.astype(dtype, copy=False).reshape(size)


def _find_image_format(path: str) -> str:
    image_format = find_format(path)
    if image_format not in IMAGE_FORMATS:
        raise OSError(
            f"the file is {image_format or 'of an unknown format'}. Expected: one of "
            f"{', '.join(IMAGE_FORMATS)}"
        )
    return image_format


@contextmanager
def _open_header(path: str, image_format: str) -> Iterator[Any]:
    """Open an image without decoding it."""
    module, name = _READERS[image_format]
    reader = getattr(import_library(f"PIL.{module}"), name)
    with open(path, "rb") as file:
        try:
            image = reader(file)
        except SyntaxError as error:  # what Pillow raises for a broken header
            raise OSError(f"the header of the {image_format} is broken") from error
        with image:
            yield image


def _find_mode(header: Any, image_format: str) -> tuple[str, int, str]:
    """Return the mode to read an image in, its channels and dtype."""
    if getattr(header, "is_animated", False):
        raise OSError("the file is a series of images. Store each in a file of its own")
    if header.mode not in _MODES:
        raise OSError(
            f"its colours are {header.mode}. Expected: grey or RGB, with or without "
            "alpha. Convert it with the colour profile that belongs to it"
        )
    if image_format == "JPEG":
        import_library("simplejpeg")  # now, not at the first window
    mode, channels, dtype = _MODES[header.mode]
    if header.mode == "P" and "transparency" in header.info:
        mode, channels = "RGBA", 4
    if image_format in ("PNG", "PPM") and mode == "I":
        dtype = "uint16"
    if _is_deep_colour(header, image_format):
        import_library("imagecodecs")  # now, not at the first window
        channels, dtype = len(_raw_mode(header).removesuffix(";16B")), "uint16"
    if image_format == "PPM" and header.tile[0][0] != "raw":
        raise OSError(
            "its values, other than up to 255, or 65535 for grey, would be scaled. "
            "Store it as PNG or TIFF"
        )
    return mode, channels, dtype


def _is_deep_colour(header: Any, image_format: str) -> bool:
    """Tell whether an image is a PNG of which Pillow would drop the lower 8 bits."""
    return (
        image_format == "PNG"
        and header.mode in ("LA", "RGB", "RGBA")
        and _raw_mode(header).endswith(";16B")
    )


def _raw_mode(header: Any) -> str:
    """Return how Pillow calls the pixels as they are stored."""
    arguments = header.tile[0][3] if header.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _check_png(data: bytes) -> None:
    """Refuse a PNG with a wrong checksum: Pillow decodes its pixels without a look."""
    position, kind = 8, b""  # behind the signature
    while kind != b"IEND":
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(data):
            raise OSError("the PNG is cut off, or the length of a part is wrong")
        checksum = zlib.crc32(memoryview(data)[position + 4 : end])
        if checksum != int.from_bytes(data[end : end + 4], "big"):
            raise OSError(f"the PNG is damaged: a {kind!r} part has a wrong checksum")
        position = end + 4


def _decode_jpeg(data: bytes, mode: str) -> npt.NDArray[np.uint8]:
    """Decode a JPEG and refuse one whose scan is broken, which Pillow does not notice.

    There is no checksum in a JPEG: what decodes to as many valid codes is not noticed.
    """
    simplejpeg = import_library("simplejpeg")
    colours = "GRAY" if mode == "L" else "RGB"
    try:
        return simplejpeg.decode_jpeg(data, colours, strict=True)
    except ValueError as error:
        if "Invalid SOS parameters" not in str(error):
            raise
    # What some cameras write, and every decoder reads.
    return simplejpeg.decode_jpeg(data, colours, strict=False)


def _read_tiff(path: str, pixels: bool = False) -> tuple[Description, Any]:
    """Return what a TIFF file holds, and its pixels if wanted."""
    from attention_sampling.data.tiff import TiffSource

    try:
        with TiffSource(path, threads=1) as source:
            shape = source.shape(0)
            image = source.read_patches([0], [(0, 0)], shape[:2])[0] if pixels else None
            return (shape, source.dtype.name), image
    except SourceError as error:
        raise error.__cause__ or error from None
