"""Describe and decode image files that are small enough to be decoded as a whole."""

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.data.errors import SourceError, import_library
from attention_sampling.data.jpeg import decode_jpeg, describe_jpeg
from attention_sampling.data.tiff import TiffSource, is_tiff

# (height, width, channels) and the name of the dtype.
Description = tuple[tuple[int, int, int], str]

# Format -> what a file begins with. No text is a BMP or PPM: a table may begin with BMI,
# or with P1 and P2.
_SIGNATURES = {
    "BMP": rb"BM.{10}\0\0",
    "GIF": rb"GIF8[79]a",
    "JPEG": rb"\xff\xd8\xff",
    "JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "PPM": rb"P[1-6]\s*(\s\d|#)",
    "WebP": rb"RIFF.{4}WEBP",
}
# The classes themselves: Pillow's Image.open warns of large images, or refuses them, by
# a setting of the whole process; and it would hand PostScript to an interpreter.
_READERS = {
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "JPEG 2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "PPM": ("PpmImagePlugin", "PpmImageFile"),
    "WebP": ("WebPImagePlugin", "WebPImageFile"),
}
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


def find_format(start: bytes) -> str | None:
    """Return the format of an image file, such as ``"JPEG"``, told by its first bytes."""
    if is_tiff(start):
        return "TIFF"
    for name, pattern in _SIGNATURES.items():
        if re.match(pattern, start, re.DOTALL):
            return name
    return None


def describe_image(path: str) -> Description:
    """Return shape and dtype of an image from its header."""
    image_format = _format_of(path)
    if image_format == "TIFF":
        return _read_tiff(path)[0]
    if image_format == "JPEG":
        return describe_jpeg(path), "uint8"
    with _open_header(path, image_format) as header:
        _, channels, dtype = _find_mode(header, image_format)
        return (header.height, header.width, channels), dtype


def decode_image(path: str) -> npt.NDArray[Any]:
    """Return an image, (height, width, channels), as `describe_image` describes it."""
    image_format = _format_of(path)
    if image_format == "TIFF":
        return _read_tiff(path, pixels=True)[1]
    if image_format == "JPEG":
        return decode_jpeg(path)
    with _open_header(path, image_format) as header:
        mode, channels, dtype = _find_mode(header, image_format)
        size = header.height, header.width, channels
        if image_format == "PNG":
            _check_png(path)
        if _is_deep_colour(header, image_format):
            imagecodecs = import_library("imagecodecs")
            pixels = imagecodecs.png_decode(Path(path).read_bytes())
            # A colour that counts as transparent comes as a channel that no other has.
            pixels = pixels[..., :channels]
        else:
            pixels = np.asarray(header if header.mode == mode else header.convert(mode))
    return pixels.astype(dtype, copy=False).reshape(size)


def _format_of(path: str) -> str:
    with open(path, "rb") as file:
        image_format = find_format(file.read(16))
    if image_format is None:
        expected = ", ".join([*_SIGNATURES, "TIFF"])
        raise OSError(f"the file is of an unknown format. Expected: one of {expected}")
    return image_format


@contextmanager
def _open_header(path: str, image_format: str) -> Iterator[Any]:
    """Open an image without decoding it."""
    module, name = _READERS[image_format]
    reader = getattr(importlib.import_module(f"PIL.{module}"), name)
    with open(path, "rb") as file:
        try:
            image = reader(file, path)
            image.filename = path
        except (SyntaxError, ValueError) as error:  # of Pillow, for a broken header
            reason = f": {error}" if isinstance(error, ValueError) else ""
            raise OSError(
                f"the header of the {image_format} is broken{reason}"
            ) from error
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
    mode, channels, dtype = _MODES[header.mode]
    if header.mode == "P" and "transparency" in header.info:
        mode, channels = "RGBA", 4
    if image_format in ("PNG", "PPM") and mode == "I":
        dtype = "uint16"
    if _is_deep_colour(header, image_format):
        import_library("imagecodecs")  # now, not at the first window
        channels, dtype = len(_raw_mode(header).removesuffix(";16B")), "uint16"
    if image_format == "PPM" and _is_scaled(header):
        raise OSError(
            "its values, other than up to 255, or 65535 for grey, would be scaled. "
            "Store it as PNG or TIFF"
        )
    if image_format == "JPEG 2000":
        _check_precision(str(header.filename))
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


def _is_scaled(header: Any) -> bool:
    """Tell whether Pillow would change the values of a PPM."""
    decoder, arguments = header.tile[0][0], header.tile[0][3]
    if decoder == "raw":
        return False
    largest = 65535 if header.mode == "I" else 255
    return header.mode != "1" and arguments[-1] != largest


def _check_precision(path: str) -> None:
    """Refuse a JPEG 2000 of values that Pillow would scale to 8 or 16 bits."""
    with open(path, "rb") as file:
        start = file.read(2**16)
    sizes = start.find(b"\xff\x4f\xff\x51")  # the segment that describes the image
    channels = int.from_bytes(start[sizes + 40 : sizes + 42], "big")
    precisions = {bits + 1 for bits in start[sizes + 42 :][: 3 * channels : 3]}
    if precisions != {8} and (precisions != {16} or channels > 1):
        bits = " and ".join(map(str, sorted(precisions)))
        raise OSError(
            f"its values are of {bits} bits, and would be scaled: JPEG 2000 is read with 8 "
            "bits, or 16 for grey. Store it as PNG or TIFF"
        )


def _check_png(path: str) -> None:
    """Refuse a PNG with a wrong checksum: Pillow decodes its pixels without a look."""
    try:
        with _open_header(path, "PNG") as header:
            header.verify()
    except (OSError, SyntaxError) as error:
        raise OSError(f"the PNG is cut off or damaged: {error}") from error


def _read_tiff(path: str, pixels: bool = False) -> tuple[Description, Any]:
    """Return what a TIFF file holds, and its pixels if wanted."""
    try:
        with TiffSource(path, threads=1) as source:
            shape = source.shape(0)
            image = source.read_patches([0], [(0, 0)], shape[:2])[0] if pixels else None
            return (shape, source.dtype.name), image
    except SourceError as error:
        raise error.__cause__ or error from None
