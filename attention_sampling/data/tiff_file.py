"""Open a TIFF file, and refuse one that is cut off or holds what cannot be read."""

import logging
import struct
from typing import Any

# TIFF's numbers of compressions.
JPEG_COMPRESSIONS = (6, 7, 33007, 34892)
_JPEG_2000_COMPRESSIONS = (33004, 33005, 34712)
# JPEG 2000 of Aperio whose colours no decoder converts.
_APERIO_YCBCR = 33003
# TIFF's numbers for what pixels are (PhotometricInterpretation).
_PHOTOMETRIC, _WHITE_IS_ZERO, _YCBCR = 262, 0, 6
_UNREADABLE_COLOURS = {
    3: "numbers of a palette",
    4: "a mask",
    5: "CMYK",
    8: "CIELAB",
    9: "CIELAB of ICC",
    10: "CIELAB of ITU",
    32803: "a colour filter array",
    32844: "LogL",
    32845: "LogLuv",
}

# What tifffile logs is for programs that set up logging: it is not printed.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def open_tiff(path: str) -> Any:
    """Return a ``tifffile.TiffFile`` that opens no other file, whatever it names.

    Raises:
        OSError: it is no TIFF file, or cut off.
    """
    import tifffile

    try:
        # `_multifile` is private to tifffile, and nothing public does the same.
        file = tifffile.TiffFile(
            path, _multifile=False, is_mmstack=False, is_ndtiff=False
        )
    except struct.error as error:
        raise OSError("the file ends inside its header") from error
    try:
        file.filehandle.set_lock(True)
        _check_page_chain(file)
    except BaseException:
        file.close()
        raise
    return file


def _check_page_chain(file: Any) -> None:
    """Refuse a file that ends before the last of its pages.

    Pages are a chain: each says where the next one is. Tifffile reads what there is.
    """
    handle, numbers = file.filehandle, file.tiff

    def read(position: int, number: str) -> int:
        size = struct.calcsize(number)
        if position + size > handle.size:
            raise OSError(
                f"the file is cut off or broken: the page at byte {offset} reaches "
                f"beyond its {handle.size} bytes"
            )
        handle.seek(position)
        return int(struct.unpack(number, handle.read(size))[0])

    try:
        offset = file.pages.first.offset
    except IndexError:
        raise OSError("the file is cut off: it ends before its first image") from None
    seen = set()
    while offset and offset not in seen:  # a circle ends as well
        seen.add(offset)
        tags = read(offset, numbers.tagnoformat) * numbers.tagsize
        offset = read(offset + numbers.tagnosize + tags, numbers.offsetformat)


def find_pages(level: Any) -> list[Any]:
    """Return the pages of an image whose channels may be in several.

    Args:
        level: a ``tifffile.TiffPageSeries``.

    Raises:
        OSError: it has other axes than rows, columns and channels, or lacks a page.
    """
    axes = {axis: n for axis, n in zip(level.axes, level.shape, strict=True) if n > 1}
    if not set(axes) <= set("YXSC"):
        raise OSError(
            "the image must have rows, columns and channels only. Received: axes "
            f"{level.axes} of shape {level.shape}. Store one image in each file"
        )
    pages = list(level.pages)
    planes = axes.get("S", 1) * axes.get("C", 1)
    page = level.keyframe
    if None in pages or page.shaped[0] * page.shaped[4] * len(pages) != planes:
        raise OSError(
            f"its {planes} channels are not all listed as pages of the file. Received: "
            f"{len(pages)} pages of {page.shape}. Store them as one image"
        )
    return pages


def check_pixels(page: Any) -> None:
    """Refuse pixels that are neither grey values nor RGB, or that cannot be decoded.

    Args:
        page: a ``tifffile.TiffPage``.

    Raises:
        OSError: for these reasons.
    """
    if page.shaped[1] != 1 or page.tiledepth != 1:
        raise OSError(f"the image must have two dimensions. Received: {page.shape}")
    colours = _UNREADABLE_COLOURS.get(page.photometric)
    if colours:
        raise OSError(
            f"pixels must be grey values or RGB. Received: {colours}. Convert the image "
            "to RGB"
        )
    bits = page.bitspersample
    if page.dtype is None or not isinstance(bits, int) or bits < 8:
        raise OSError(
            "channels must be numbers of at least 8 bits. Received: "
            f"{bits} bits, sample format {page.sampleformat}"
        )
    dtype, samples = page.dtype, page.samplesperpixel
    whole = dtype.kind == "u" and bits == 8 * dtype.itemsize
    if is_white_zero(page) and not (samples == 1 and whole):
        raise OSError(
            "an image in which zero is white must have one channel of integers of 8, 16 "
            f"or 32 bits. Received: {samples} channels of {dtype}, {bits} bits. Convert "
            "it to one in which zero is black"
        )
    if is_ycbcr(page) or page.compression == _APERIO_YCBCR:
        decoded_to_rgb = (*JPEG_COMPRESSIONS, *_JPEG_2000_COMPRESSIONS)
        together = page.planarconfig == 1 and samples == 3
        if page.compression not in decoded_to_rgb or not together:
            raise OSError(
                "pixels must be grey values or RGB. Received: YCbCr with compression "
                f"{page.compression}, which is not converted. For a slide, use "
                "OpenSlideSource"
            )


def is_white_zero(page: Any) -> bool:
    """Tell whether the values of a page are inverted: zero is white."""
    # Where the tag is missing, tifffile says 0.
    return page.photometric == _WHITE_IS_ZERO and _PHOTOMETRIC in page.tags


def is_ycbcr(page: Any) -> bool:
    """Tell whether a page says that its pixels are luma and chroma."""
    return bool(page.photometric == _YCBCR)
