"""Images in TIFF files, of which only the tiles that a window touches are decoded."""

import logging
import struct
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from attention_sampling.data.errors import describe_error
from attention_sampling.data.files import FileSource, Image, OpenFile
from attention_sampling.data.source import Size
from attention_sampling.data.tiff_level import TiffLevel

# The last two are BigTIFF.
_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00\x08\x00", b"MM\x00+\x00\x08")
# Bytes of an image beyond which it is not decoded as a whole.
_LARGE = 2**28

# What tifffile logs is for programs that set up logging: it is not printed.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def is_tiff(start: bytes) -> bool:
    """Tell a TIFF by its first bytes."""
    return start.startswith(_SIGNATURES)


def open_tiff(path: str) -> Any:
    """Return a ``tifffile.TiffFile`` that opens no other file, whatever it names."""
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


class TiffSource(FileSource):
    """Read TIFF files, pyramids among them: only the tiles that a window touches.

    One image is read from each file: the largest, with the smaller copies of it that the
    file holds (SVS, OME-TIFF, NDPI, and others that tifffile knows). Labels, overviews
    and thumbnails are left out. Tiles, strips, BigTIFF; channels together, one after the
    other, or in pages of their own. Values are as they are stored, except that JPEG
    becomes RGB, and that black is zero in every grey image. A grey image has one channel,
    an alpha channel is one more. Tiles that the file leaves out are zero, or what GDAL's
    tag says.

    Files without compression, with deflate or with JPEG need no further library, other
    compressions need imagecodecs. A JPEG tile that is damaged is refused; as a JPEG has
    no checksum, damage of few bytes may pass.

    Reading is as fast as the tiles are small: a compressed file of a single strip is
    decoded as a whole for every window. Refused are palettes, CMYK, CIELAB, pixels of
    less than 8 bits, and stacks of images.

    Nothing outside the file is opened, whatever it names: of an OME-TIFF of several
    files, only what this one holds.

    Args:
        paths: a file or several.
        on_error: ``"raise"``, or ``"skip"`` to leave out files that cannot be opened or
            have another channel count or dtype than most, and list them in ``skipped``.
        threads: windows to read at once; None for twice the processors, at most 8.
        max_open: files to keep open.

    Raises:
        ImportError: imagecodecs is missing, and a file needs it; extra ``slides``.
        SourceError: a file cannot be opened, or does not fit the others; with
            ``on_error="skip"``, none can.
        ValueError: no files, or a wrong argument.

    Example:

    >>> import tifffile
    >>> image = np.arange(64 * 64, dtype="uint16").reshape(64, 64)
    >>> tifffile.imwrite("tiles.tif", image, tile=(16, 16), compression="deflate")
    >>> source = TiffSource("tiles.tif")
    >>> source
    <TiffSource: 1 image, 1 channels, uint16>
    >>> source.read_patches([0], [[1, 62]], patch_size=3)[0, :, :, 0].tolist()
    [[126, 127, 0], [190, 191, 0], [254, 255, 0]]
    >>> source.close()
    """

    @classmethod
    def recognizes(cls, path: str, start: bytes) -> bool:
        """Tell a TIFF that is not to be decoded as a whole: in tiles, a pyramid, large."""
        if not is_tiff(start):
            return False
        try:
            with open_tiff(path) as file:
                page = file.pages.first
                large = page.is_tiled or page.nbytes > _LARGE
                return large or any(len(series.levels) > 1 for series in file.series)
        except OSError:
            raise
        except Exception as error:  # whatever tifffile stumbles on
            raise OSError(f"the TIFF is broken: {describe_error(error)}") from error

    def open_file(self, path: str) -> "_TiffPyramid":
        """Open a file."""
        return _TiffPyramid(path)


class _TiffPyramid(OpenFile):
    """An open TIFF file and the levels of its largest image."""

    def __init__(self, path: str) -> None:
        self._file = open_tiff(path)
        try:
            self._levels = levels = self._find_levels()
            self.images: Sequence[Image] = [
                Image(
                    key=None,
                    levels=tuple(level.size for level in levels),
                    blocks=tuple(level.block for level in levels),
                    channels=levels[0].channels,
                    dtype=levels[0].dtype.name,
                )
            ]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def read(
        self, image: Image, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        return self._levels[level].read(origin, size)

    def _find_levels(self) -> list[TiffLevel]:
        handle = self._file.filehandle
        baseline, *smaller = self._find_image().levels
        levels = [TiffLevel(baseline, handle)]
        for series in smaller:
            if _is_smaller_copy(series, baseline, levels[-1].size):
                levels.append(TiffLevel(series, handle))
        return levels

    def _find_image(self) -> Any:
        """Return the series of the largest image."""
        images = [
            series
            for series in self._file.series
            if len(series) and not series.keyframe.is_mask
        ]
        if not images:
            raise OSError("the file holds no image")
        first, *others = sorted(images, key=_extents, reverse=True)
        if others and _extents(others[0]) == _extents(first):
            sizes = ", ".join(f"{series.axes} {series.shape}" for series in images)
            raise OSError(
                "one image must be the largest of the file. Received: "
                f"{len(images)} images, {sizes}. Store one in each file"
            )
        if first.kind == "bif":
            raise OSError(
                "tiles must not overlap. Received: a slide of Ventana, whose tiles do. "
                "Use OpenSlideSource"
            )
        return first


def _extents(series: Any) -> tuple[int, int, int]:
    page = series.keyframe
    height, width = page.imagelength, page.imagewidth
    return height * width, height, width


def _is_smaller_copy(series: Any, baseline: Any, above: Size) -> bool:
    """Tell whether a level shows the whole image, smaller than the level above."""
    page, first = series.keyframe, baseline.keyframe
    height, width = page.imagelength, page.imagewidth
    rows, columns = first.imagelength, first.imagewidth
    # Both extents may have been rounded, by less than a pixel.
    same_shape = abs(height * columns - width * rows) <= rows + columns
    return (
        same_shape
        and height <= above[0]
        and width <= above[1]
        and (height, width) != above
        and page.dtype == first.dtype
        and page.samplesperpixel == first.samplesperpixel
        and len(series) == len(baseline)
    )
