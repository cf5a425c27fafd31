"""Decode the JPEG tiles of TIFF files, and refuse a tile that is damaged.

Decoders give pixels for a damaged tile, and warn at best. Here a warning is an error.
"""

import numpy as np
import numpy.typing as npt
import simplejpeg

_START, _END = b"\xff\xd8", b"\xff\xd9"
# Adobe's marker: the channels are stored as they are, not as luma and chroma. A JFIF
# marker overrules it.
_CHANNELS_AS_THEY_ARE = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5)
# The markers that begin a frame: coded by Huffman or arithmetically; 0xC4, 0xC8 and 0xCC
# are tables.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA
_COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}  # as they are, if there are four


def decode_jpeg_tile(
    data: bytes,
    tables: bytes | None,
    header: bytes | None,
    sizes: tuple[set[int], set[int]],
    channels: int,
    luma_and_chroma: bool,
) -> npt.NDArray[np.uint8]:
    """Decode a tile of 8 bits.

    Args:
        data: the tile as it is stored.
        tables: the JPEG tables of the page, which its tiles lack; None without.
        header: what the tile lacks at its beginning, in NDPI files; None otherwise.
        sizes: heights and widths that the tile may have.
        channels: channels that the tile must have.
        luma_and_chroma: the page says that its pixels are YCbCr; they become RGB.

    Returns:
        (height, width, channels).

    Raises:
        OSError: it is damaged, or of another size or channel count.

    Example:

    >>> import simplejpeg
    >>> tile = simplejpeg.encode_jpeg(np.full((8, 16, 1), 9, "uint8"), colorspace="GRAY")
    >>> decode_jpeg_tile(tile, None, None, ({8}, {16}), 1, False).shape
    (8, 16, 1)
    """
    if channels not in _COLOURS:
        raise OSError(
            f"JPEG tiles must have 1, 3 or 4 channels. Received: {channels}. Store the "
            'image with compression="deflate"'
        )
    if header is not None:
        data = header + data + _END
    if not data.startswith(_START):
        raise OSError("the JPEG tile is damaged: it does not begin like one")
    scan, (height, width, found) = _find_scan(data)
    if height not in sizes[0] or width not in sizes[1] or found != channels:
        raise OSError(
            f"the JPEG tile is damaged: it has {height}x{width} pixels of {found} "
            f"channels, expected {min(sizes[0])}x{min(sizes[1])} of {channels}"
        )
    parts = [_START, (tables or b"").removeprefix(_START).removesuffix(_END)]
    parts.append(data[2:scan])
    if not luma_and_chroma:
        parts.append(_CHANNELS_AS_THEY_ARE)
    parts.append(data[scan:])
    try:
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(
            b"".join(parts), _COLOURS[channels], strict=True
        )
    except ValueError as error:
        raise OSError(f"the JPEG tile is damaged: {error}") from error
    return pixels


def _find_scan(data: bytes) -> tuple[int, tuple[int, int, int]]:
    """Return where the pixels begin, and (height, width, channels) from the header."""
    place, shape = 2, None
    while place + 4 <= len(data) and data[place] == 0xFF:
        kind = data[place + 1]
        if kind == 0xFF:  # markers may be padded
            place += 1
            continue
        if kind == _SCAN and shape:
            return place, shape
        segment = data[
            place + 4 : place + 2 + int.from_bytes(data[place + 2 : place + 4])
        ]
        if kind in _FRAMES and len(segment) >= 6:
            height, width = (int.from_bytes(segment[n : n + 2]) for n in (1, 3))
            shape = height, width, segment[5]
        place += 4 + len(segment)
    raise OSError("the JPEG tile is damaged: its header is broken")
