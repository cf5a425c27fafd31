"""One level of a TIFF file: what can be read of it, and windows out of its tiles."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.data.errors import import_library
from attention_sampling.data.jpeg import decode_jpeg_tile
from attention_sampling.data.source import Size

# Bytes of a decoded tile. A larger one is broken, or too large to read windows from.
_LARGEST_TILE = 2**30
# Bytes of a row: reading so many costs less than one more call of the system.
_SKIPPED_BYTES = 2**14
# Pixels to a multiple of which a JPEG tile may be padded.
_JPEG_BLOCK = 16
# TIFF's numbers of compressions; the first two need no library.
_NONE, _DEFLATE = 1, (8, 32946)
_JPEG_COMPRESSIONS = (6, 7, 33007, 34892)
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


class TiffLevel:
    """Windows of one level of a pyramid.

    Strips are tiles as wide as the image. What is not compressed is read by rows, the
    rest by tiles.

    Args:
        level: a ``tifffile.TiffPageSeries``.
        handle: the ``tifffile.FileHandle`` that it was read from.
    """

    def __init__(self, level: Any, handle: Any) -> None:
        self._handle = handle
        self._descriptor = handle.fileno()
        self._page = page = level.keyframe
        self._pages = _find_pages(level)
        _check_pixels(page)
        separate, _, height, width, samples = page.shaped
        self.size: Size = (height, width)
        self.channels = separate * samples * len(self._pages)
        self.dtype = np.dtype(page.dtype).newbyteorder("=")
        self._separate, self._samples = separate, samples
        self._stored_dtype = self.dtype.newbyteorder(page.parent.byteorder)
        self._tile: Size = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (page.rowsperstrip, width)
        )
        if min(height, width, *self._tile) < 1:
            raise OSError(f"an image of {height}x{width} in tiles of {self._tile}")
        self._across = -(-width // self._tile[1])
        self._tiles = -(-height // self._tile[0]) * self._across
        self._pixel_bytes = samples * self.dtype.itemsize
        whole_bytes = page.bitspersample == 8 * self.dtype.itemsize
        self._is_raw = (
            page.compression == _NONE
            and page.predictor == 1
            and page.fillorder == 1
            and whole_bytes
        )
        self._is_jpeg = (
            page.compression in _JPEG_COMPRESSIONS and self.dtype == np.uint8
        )
        plain = page.compression in (_NONE, *_DEFLATE) and page.predictor in (1, 2)
        if not self._is_jpeg and not (plain and whole_bytes):
            # Now: without it, tifffile fails at the first tile.
            import_library("imagecodecs")
        self._check_tiles()
        # Made here: first access is not thread-safe.
        self._decode = page.decode

    @property
    def block(self) -> Size:
        """(height, width) of what is best read together."""
        if self._is_raw and not self._page.is_tiled:
            return min(self._tile[0], 256), min(self._tile[1], 4096)
        return self._tile

    def read(self, origin: Size, size: Size) -> npt.NDArray[Any]:
        """Return a window that is inside the level, (height, width, channels)."""
        window = np.empty((*size, self.channels), dtype=self.dtype)
        (top, left), (height, width) = origin, size
        tile_height, tile_width = self._tile
        for row in range(top // tile_height, -(-(top + height) // tile_height)):
            rows = _overlap(row * tile_height, tile_height, top, height)
            for column in range(left // tile_width, -(-(left + width) // tile_width)):
                columns = _overlap(column * tile_width, tile_width, left, width)
                tile = row * self._across + column
                self._read_tile(window[rows[1], columns[1]], tile, rows[0], columns[0])
        if _is_white_zero(self._page):
            np.invert(window, out=window)
        return window

    def _read_tile(
        self, target: npt.NDArray[Any], tile: int, rows: slice, columns: slice
    ) -> None:
        """Fill an array with pixels of a tile, of every plane."""
        channel = 0
        for page in self._pages:
            for plane in range(self._separate):
                target[:, :, channel : channel + self._samples] = self._read_plane(
                    page, plane * self._tiles + tile, rows, columns
                )
                channel += self._samples

    def _read_plane(self, page: Any, index: int, rows: slice, columns: slice) -> Any:
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not offset or not count:
            return self._page.nodata
        if self._is_raw:
            return self._read_rows(offset, rows, columns)
        data = self._read_bytes(offset, count)
        if not self._is_jpeg:
            # The tables: of JPEG with more than 8 bits.
            tile = self._decode(data, index, jpegtables=page.jpegtables)[0]
            return tile[0, rows, columns]
        decoded = decode_jpeg_tile(
            data,
            page.jpegtables,
            self._page.jpegheader,
            self._visible_size(index % self._tiles),
            (self._tile[0] + _JPEG_BLOCK - 1, self._tile[1] + _JPEG_BLOCK - 1),
            self._samples,
            luma_and_chroma=_is_ycbcr(self._page),
        )
        return decoded[rows, columns]

    def _visible_size(self, tile: int) -> Size:
        """Return (height, width) of what of a tile is inside the image."""
        row, column = divmod(tile, self._across)
        height, width = self._tile
        return (
            min(height, self.size[0] - row * height),
            min(width, self.size[1] - column * width),
        )

    def _read_rows(self, offset: int, rows: slice, columns: slice) -> npt.NDArray[Any]:
        """Return a part of a tile that is not compressed, reading little else."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        stride = self._tile[1] * self._pixel_bytes
        first = offset + rows.start * stride
        length = width * self._pixel_bytes
        if stride - length > _SKIPPED_BYTES:
            first += columns.start * self._pixel_bytes
            lines = [
                self._read_bytes(first + row * stride, length) for row in range(height)
            ]
            data, columns = b"".join(lines), slice(None)
        else:
            data = self._read_bytes(first, height * stride)
        pixels = np.frombuffer(data, self._stored_dtype)
        return pixels.reshape(height, -1, self._samples)[:, columns]

    def _read_bytes(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            data = os.pread(self._descriptor, count, offset)
        else:
            with self._handle.lock:
                self._handle.seek(offset)
                data = self._handle.read(count)
        if len(data) != count:
            raise OSError(f"the file ends inside the {count} bytes at {offset}")
        return data

    def _check_tiles(self) -> None:
        """Refuse tiles that are not all in the file, or too large."""
        tile_bytes = self._tile[0] * self._tile[1] * self._pixel_bytes
        if not self._is_raw and tile_bytes > _LARGEST_TILE:
            raise OSError(
                f"tiles or strips must not exceed {_LARGEST_TILE >> 20} MiB when "
                f"decoded. Received: {self._tile[0]}x{self._tile[1]} pixels, "
                f"{tile_bytes >> 20} MiB. Store the image in tiles"
            )
        expected = self._tiles * self._separate
        for page in self._pages:
            found = min(len(page.dataoffsets), len(page.databytecounts))
            if found < expected:
                raise OSError(
                    f"the file is broken: it lists {found} of {expected} tiles"
                )
            offsets = np.asarray(page.dataoffsets[:expected], dtype="int64")
            counts = np.asarray(page.databytecounts[:expected], dtype="int64")
            stored = (offsets != 0) & (counts != 0)
            if not stored.any():
                raise OSError("the file is broken: no tile of the image is in it")
            ends = offsets + counts
            if min(offsets.min(), counts.min(), ends.min()) < 0:
                raise OSError("the file is broken: tiles at negative offsets")
            if ends[stored].max() > self._handle.size:
                raise OSError(
                    "the file is cut off or broken: tiles are said to reach to byte "
                    f"{ends[stored].max()}, the file has {self._handle.size}"
                )
            if self._is_raw and (counts[stored] < self._raw_bytes()[stored]).any():
                raise OSError("the file is broken: tiles of too few bytes")

    def _raw_bytes(self) -> npt.NDArray[np.int64]:
        """Return the bytes that each tile must have if it is not compressed."""
        rows, columns = self._tile
        whole = rows * columns * self._pixel_bytes
        needed = np.full(self._tiles * self._separate, min(whole, 2**62), "int64")
        if not self._page.is_tiled:
            rows -= -self.size[0] % rows
            last = rows * columns * self._pixel_bytes
            needed[self._tiles - 1 :: self._tiles] = min(last, 2**62)
        return needed


def _overlap(start: int, length: int, first: int, count: int) -> tuple[slice, slice]:
    """Return what a tile and a window share, in the tile and in the window."""
    low, high = max(start, first), min(start + length, first + count)
    return slice(low - start, high - start), slice(low - first, high - first)


def _find_pages(level: Any) -> list[Any]:
    """Return the pages of a level, whose channels may be in several."""
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


def _check_pixels(page: Any) -> None:
    """Refuse pixels that are neither grey values nor RGB, or that cannot be decoded."""
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
    if _is_white_zero(page) and not (samples == 1 and whole):
        raise OSError(
            "an image in which zero is white must have one channel of integers of 8, 16 "
            f"or 32 bits. Received: {samples} channels of {dtype}, {bits} bits. Convert "
            "it to one in which zero is black"
        )
    if _is_ycbcr(page) or page.compression == _APERIO_YCBCR:
        decoded_to_rgb = (*_JPEG_COMPRESSIONS, *_JPEG_2000_COMPRESSIONS)
        together = page.planarconfig == 1 and samples == 3
        if page.compression not in decoded_to_rgb or not together:
            raise OSError(
                "pixels must be grey values or RGB. Received: YCbCr with compression "
                f"{page.compression}, which is not converted. For a slide, use "
                "OpenSlideSource"
            )


def _is_white_zero(page: Any) -> bool:
    """Tell whether the values of a page are inverted: zero is white."""
    # Where the tag is missing, tifffile says 0.
    return page.photometric == _WHITE_IS_ZERO and _PHOTOMETRIC in page.tags


def _is_ycbcr(page: Any) -> bool:
    """Tell whether a page says that its pixels are luma and chroma."""
    return bool(page.photometric == _YCBCR)
