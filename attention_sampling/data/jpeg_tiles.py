"""Decode the JPEG tiles of TIFF files, and refuse a tile that is damaged.

Decoders give pixels for a damaged tile, and warn at best. Here a warning is an error.
"""

import numpy as np
import numpy.typing as npt
import simplejpeg

from attention_sampling.data.jpeg import split_jpeg

_START, _END = b"\xff\xd8", b"\xff\xd9"
# Adobe's marker: the channels are stored as they are, not as luma and chroma. A JFIF
# marker overrules it.
_CHANNELS_AS_THEY_ARE = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5)
# What to decode so many channels to; four stay as they are.
_COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}
_CHANNELS = {"Gray": 1, "RGB": 3, "YCbCr": 3, "CMYK": 4, "YCCK": 4}


def decode_jpeg_tile(
    data: bytes,
    tables: bytes | None,
    header: bytes | None,
    smallest: tuple[int, int],
    largest: tuple[int, int],
    channels: int,
    luma_and_chroma: bool,
) -> npt.NDArray[np.uint8]:
    """Decode a tile of 8 bits.

    Args:
        data: the tile as it is stored.
        tables: the JPEG tables of the page, which its tiles lack; None without.
        header: what the tile lacks at its beginning, in NDPI files; None otherwise.
        smallest: (height, width) that the tile must have at least.
        largest: (height, width) that it must not exceed.
        channels: channels that the tile must have.
        luma_and_chroma: the page says that its pixels are YCbCr; they become RGB.

    Returns:
        (height, width, channels).

    Raises:
        OSError: it is damaged, or of another size or channel count.

    Example:

    >>> import simplejpeg
    >>> tile = simplejpeg.encode_jpeg(np.full((8, 16, 1), 9, "uint8"), colorspace="GRAY")
    >>> decode_jpeg_tile(tile, None, None, (8, 16), (8, 16), 1, False).shape
    (8, 16, 1)
    """
    if channels not in _COLOURS:
        raise OSError(
            f"JPEG tiles must have 1, 3 or 4 channels. Received: {channels}. Store the "
            'image with compression="deflate"'
        )
    if header is not None:
        data = header + data + _END
    try:
        frame, scan = split_jpeg(data)
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
