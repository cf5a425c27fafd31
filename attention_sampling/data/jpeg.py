"""Decode JPEG strictly: what is harmless is mended, what is damaged is refused."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

# Markers: start of image, start of a scan, end of image.
_SOI, _SOS, _EOI = 0xD8, 0xDA, 0xD9
_END = b"\xff\xd9"
# Segments that pixels depend on: frames, tables, restart interval, Adobe's colours.
_NEEDED = {*range(0xC0, 0xD0), 0xDB, 0xDD, 0xEE}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Filling, and markers without a segment.
_BARE = {0xFF, _SOI, *range(0xD0, 0xD8)}
_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def decode_jpeg(path: str) -> npt.NDArray[np.uint8]:
    """Decode a JPEG file, and refuse one whose scan is broken, which Pillow does not notice.

    There is no checksum in a JPEG: what decodes to as many valid codes is not noticed.

    Args:
        path: the file.

    Returns:
        (height, width, channels).

    Raises:
        OSError: it is broken.
    """
    data = b"".join(split_jpeg(Path(path).read_bytes()))
    is_grey = simplejpeg.decode_jpeg_header(data)[2] == "Gray"
    return simplejpeg.decode_jpeg(data, "GRAY" if is_grey else "RGB", strict=True)


def describe_jpeg(path: str) -> tuple[int, int, int]:
    """Return (height, width, channels) of a JPEG file, from its header.

    Raises:
        OSError: its header is broken, of a kind that is not decoded, or it is cut off.
    """
    with open(path, "rb") as file:
        data = b""
        while True:
            more = file.read(max(2**16, len(data)))
            data += more
            try:
                mended = b"".join(split_jpeg(data))
                header = simplejpeg.decode_jpeg_header(mended, strict=True)
                break
            except (OSError, ValueError):
                if not more:
                    raise
        file.seek(max(0, os.path.getsize(path) - 2))
        whole = file.read() == _END or _END in split_jpeg(Path(path).read_bytes())[1]
    if not whole:
        raise OSError("the JPEG is cut off: it has no end")
    height, width, colours, _ = header
    if colours not in ("Gray", "RGB", "YCbCr"):
        raise OSError(
            f"its colours are {colours}. Expected: grey or RGB. Convert it with the colour "
            "profile that belongs to it"
        )
    return height, width, 1 if colours == "Gray" else 3


def split_jpeg(data: bytes) -> tuple[bytes, bytes]:
    """Return the header of a JPEG, mended, and the rest from its first scan on.

    The header holds what pixels depend on, and nothing else.

    Left out are bytes between segments, and segments such as EXIF, however broken. The first
    scan says what every scan of its kind says; some cameras write something else there.

    Raises:
        OSError: no scan begins.
    """
    kept, position, is_sequential = [b"\xff\xd8"], 2, False
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            raise OSError("the header of the JPEG is broken, or the file is cut off")
        marker = data[position + 1]
        if marker < 0xC0 or marker in _BARE:  # no marker, or one without a segment
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position:end]
        if marker == _SOS:
            if is_sequential and len(segment) > 6:
                segment = segment[:-3] + b"\x00\x3f\x00"
            return b"".join(kept), segment + data[end:]
        if marker == _EOI:
            raise OSError("the JPEG ends before its first scan")
        if marker in _FRAMES and segment[4:5] != b"\x08":
            raise OSError(
                "the values of a JPEG must be of 8 bits. Store it as PNG or TIFF"
            )
        is_sequential |= marker in (0xC0, 0xC1)
        if marker in _NEEDED:
            kept.append(segment)
        elif marker == 0xE0 and segment[4:9] == b"JFIF\x00":
            kept.append(_JFIF)
        position = end
