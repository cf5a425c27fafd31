"""Whole-slide images, in the formats of their scanners."""

import importlib.util
import os
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.data.errors import import_library
from attention_sampling.data.files import FileSource, Image, OpenFile
from attention_sampling.data.source import Size
from attention_sampling.data.tiff import is_tiff, open_tiff

# Slides whose first bytes tell nothing, or that their overview is a JPEG.
_SUFFIXES = (".mrxs", ".vms", ".vmu")

# Bytes of decoded tiles that openslide keeps, for all slides together: its own default
# is 32 MiB for each slide.
_TILE_BYTES = 2**27
# Bytes of a decoded tile: what a broken slide claims beyond that, openslide would try to
# have, and end the process.
_LARGEST_TILE = 2**30


class OpenSlideSource(FileSource):
    """Read slides by openslide: SVS, NDPI, MRXS, SCN, BIF, DICOM, tiled TIFF and others.

    Pixels are RGB of 8 bits, whatever the slide holds; what the scanner left out has the
    background colour that the slide names, or is white. Only the slide itself is read,
    no label or overview. A tiled TIFF of no scanner must have three channels of 8 bits:
    others are refused, instead of converted; ``TiffSource`` reads them.

    Windows are exact at full resolution. Views are averaged from smaller levels. If the
    factor between two levels is no integer, openslide interpolates, and a view is shifted
    by less than one pixel of its level: at most half a pixel of the view.

    Some formats spread a slide over several files (MRXS, VMS, DICOM): give the one that
    openslide asks for, and openslide finds the others. Only that one is watched for
    changes.

    Args:
        paths: a slide or several.
        on_error: ``"raise"``, or ``"skip"`` to leave out slides that cannot be opened, and
            list them in ``skipped``.
        threads: windows to read at once; None for twice the processors, at most 8.
        max_open: slides to keep open.

    Raises:
        ImportError: openslide is missing; extra ``slides``.
        SourceError: a slide cannot be opened; with ``on_error="skip"``, none can.
        ValueError: no files, or a wrong argument.

    Example:

    >>> import tifffile  # openslide reads any TIFF of tiles
    >>> image = np.zeros((100, 60, 3), "uint8")
    >>> image[50, 40:] = [200, 0, 100]
    >>> tifffile.imwrite("slide.tif", image, tile=(32, 32), photometric="rgb")
    >>> source = OpenSlideSource("slide.tif")
    >>> source.shape(0)
    (100, 60, 3)
    >>> source.read_patches([0], [[50, 39]], patch_size=(1, 2)).tolist()
    [[[[0, 0, 0], [200, 0, 100]]]]
    >>> source.close()
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        on_error: str = "raise",
        threads: int | None = None,
        max_open: int = 64,
    ) -> None:
        import_library("openslide")
        super().__init__(paths, on_error, threads, max_open)

    @classmethod
    def recognizes(cls, path: str, start: bytes) -> bool:
        """Tell a slide of a scanner."""
        if is_tiff(start):
            if importlib.util.find_spec("openslide") is None:
                return False
            vendor = import_library("openslide").OpenSlide.detect_format(path)
            return vendor not in (None, "generic-tiff")
        return (
            start[128:132] == b"DICM"
            or start.startswith(b"ZISRAWFILE")
            or path.lower().endswith(_SUFFIXES)
        )

    def open_file(self, path: str) -> "_Slide":
        """Open a slide."""
        return _Slide(path)

    def read(
        self, index: int, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        """Return a window of a level."""
        try:
            return super().read(index, level, origin, size)
        except import_library("openslide").OpenSlideError:
            # After an error openslide reads no more from an open slide, and repeats the
            # first error: it may come from another window, read by another thread.
            path = self.paths[index]
            self.cache.drop(path)
            slide = self.open_file(path)
            try:
                return slide.read(slide.images[0], level, origin, size)
            finally:
                slide.close()


@cache
def _tile_cache(process: int) -> Any:
    """Return the cache of tiles that all slides of a process have together."""
    return import_library("openslide").OpenSlideCache(_TILE_BYTES)


class _Slide(OpenFile):
    """An open slide."""

    def __init__(self, path: str) -> None:
        openslide = import_library("openslide")
        with open(path, "rb"):  # openslide does not say why it cannot open a file
            pass
        self._slide = openslide.OpenSlide(path)
        try:
            properties = self._slide.properties
            if properties.get(openslide.PROPERTY_NAME_VENDOR) == "generic-tiff":
                _check_samples(path)
            colour = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
            self._background = np.frombuffer(bytes.fromhex(colour), "uint8")
            self._downsamples = self._slide.level_downsamples
            levels = tuple(
                (rows, columns) for columns, rows in self._slide.level_dimensions
            )
            self.images: Sequence[Image] = [
                Image(None, levels, self._find_blocks(len(levels)), 3, "uint8")
            ]
            self._slide.set_cache(_tile_cache(os.getpid()))
        except BaseException:
            self.close()
            raise

    def _find_blocks(self, levels: int) -> tuple[Size, ...]:
        """Return (height, width) of the tiles of each level."""

        def side(level: int, name: str) -> int:
            key = f"openslide.level[{level}].tile-{name}"
            return int(self._slide.properties.get(key, 256))

        blocks = tuple((side(n, "height"), side(n, "width")) for n in range(levels))
        for height, width in blocks:
            if min(height, width) < 1 or height * width * 4 > _LARGEST_TILE:
                raise OSError(
                    f"tiles must have pixels, of at most {_LARGEST_TILE >> 20} MiB when "
                    f"decoded. Received: {height}x{width} pixels. The slide is broken, "
                    "or not stored in tiles"
                )
        return blocks

    def close(self) -> None:
        self._slide.close()

    def read(
        self, image: Image, level: int, origin: Size, size: Size
    ) -> npt.NDArray[np.uint8]:
        # openslide wants the corner in pixels of full resolution. Rounding down, because
        # what is beyond the right and the lower edge is transparent.
        row, column = (int(start * self._downsamples[level]) for start in origin)
        region = self._slide.read_region((column, row), level, (size[1], size[0]))
        pixels = np.asarray(region)
        colours, opacity = pixels[:, :, :3], pixels[:, :, 3:]
        if opacity.min() == 255:
            return colours
        fractions = opacity.astype("float32") / 255
        blended = colours * fractions + self._background * (1 - fractions)
        return np.rint(blended).astype("uint8")


def _check_samples(path: str) -> None:
    """Refuse a TIFF whose pixels openslide would silently convert."""
    with open_tiff(path) as file:
        page = file.pages.first
        channels, dtype = page.samplesperpixel, page.dtype
    if channels != 3 or dtype != "uint8":
        kind = f"{channels} channel" + ("s" if channels != 1 else "")
        raise OSError(
            f"its images have {kind} of {dtype}, slides give 3 of uint8. Use TiffSource"
        )
