"""Decode JPEG files, and JPEG tiles of TIFF files; damaged ones are refused.

Other decoders give pixels for a damaged JPEG, and warn at best. Here a warning is an error.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import simplejpeg

# Markers: start of image, start of a scan, end of image.
_SOI, _SOS, _EOI = 0xD8, 0xDA, 0xD9
_START, _END = b"\xff\xd8", b"\xff\xd9"
# Segments that pixels depend on: frames, tables, restart interval, Adobe's colours.
_NEEDED = {*range(0xC0, 0xD0), 0xDB, 0xDD, 0xEE}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Filling, and markers without a segment.
_BARE = {0xFF, _SOI, *range(0xD0, 0xD8)}
_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
# Adobe's marker: the channels are stored as they are, not as luma and chroma. A JFIF
# marker overrules it.
_CHANNELS_AS_THEY_ARE = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5)
# What to decode so many channels to; four stay as they are.
_COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}
_CHANNELS = {"Gray": 1, "RGB": 3, "YCbCr": 3, "CMYK": 4, "YCCK": 4}


def decode_jpeg(path: str) -> npt.NDArray[np.uint8]:
    """Decode a JPEG file, (height, width, channels), and refuse a damaged one.

    A JPEG has no checksum: damage that gives as many valid codes is not noticed.
    """
    data = b"".join(_split(Path(path).read_bytes()))
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
                mended = b"".join(_split(data))
                header = simplejpeg.decode_jpeg_header(mended, strict=True)
                break
            except (OSError, ValueError):
                if not more:
                    raise
        file.seek(max(0, os.path.getsize(path) - 2))
        whole = file.read() == _END or _END in _split(Path(path).read_bytes())[1]
    if not whole:
        raise OSError("the JPEG is cut off: it has no end")
    height, width, colours, _ = header
    if colours not in ("Gray", "RGB", "YCbCr"):
        raise OSError(
            f"its colours are {colours}. Expected: grey or RGB. Convert it with the colour "
            "profile that belongs to it"
        )
    return height, width, 1 if colours == "Gray" else 3


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return the header of a JPEG without its harmless faults, and the rest of the file.

    The header keeps the segments that pixels depend on; others, such as EXIF, and bytes
    between segments are left out. The rest begins with the first scan. A sequential JPEG
    allows one value only in three bytes of its scan header, where some cameras write others:
    it is put there.

    Raises:
        OSError: no scan begins.
    """
    kept, position, is_sequential = [_START], 2, False
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


def decode_jpeg_tile(
    data: bytes,
    tables: bytes | None,
    header: bytes | None,
    smallest: tuple[int, int],
    largest: tuple[int, int],
    channels: int,
    luma_and_chroma: bool,
) -> npt.NDArray[np.uint8]:
    """Decode a tile of 8 bits, (height, width, channels).

    Args:
        data: the tile as it is stored.
        tables: the JPEG tables of the page, which its tiles lack; None without.
        header: what the tile lacks at its beginning, in NDPI files; None otherwise.
        smallest: (height, width) that the tile must have at least.
        largest: (height, width) that it must not exceed.
        channels: channels that the tile must have.
        luma_and_chroma: the page says that its pixels are YCbCr; they become RGB.

    Raises:
        OSError: it is damaged, or of another size or channel count.
    """
    if channels not in _COLOURS:
        raise OSError(
            f"JPEG tiles must have 1, 3 or 4 channels. Received: {channels}. Store the "
            'image with compression="deflate"'
        )
    if header is not None:
        data = header + data + _END
    try:
        frame, scan = _split(data)
        own_tables = (tables or b"").removeprefix(_START).removesuffix(_END)
        colours = b"" if luma_and_chroma else _CHANNELS_AS_THEY_ARE
        whole = b"".join([_START, own_tables, frame[2:], colours, scan])
        height, width, kind, _ = simplejpeg.decode_jpeg_header(whole)
        found = _CHANNELS[kind]
        fits = all(
            least <= extent <= most
            for least, extent, most in zip(
                smallest, (height, width), largest, strict=True
            )
        )
        if not fits or found != channels:
            raise OSError(
                f"it has {height}x{width} pixels of {found} channels, expected "
                f"{smallest[0]}x{smallest[1]} of {channels}"
            )
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            whole, _COLOURS[channels], strict=True
        )
    except (OSError, ValueError) as error:
        raise OSError(f"the JPEG tile is damaged: {error}") from error
    return pixels
