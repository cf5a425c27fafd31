"""Images in files that are decoded as a whole, and kept for the next windows."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_choice, check_count
from attention_sampling.data.decoding import decode_image, describe_image, find_format
from attention_sampling.data.files import FileSource, Image, OpenFile
from attention_sampling.data.source import Size

# Bytes to keep where the user sets no limit, if no image is larger.
_KEPT = 2**30


class ImageFilesSource(FileSource):
    """Read JPEG, PNG, BMP, TIFF, and others that Pillow knows, one image a file.

    Such a file has to be decoded as a whole for the smallest of windows. Decoded images
    are kept up to ``cache_bytes``; the least recently used one goes first. If the images
    of a batch do not fit, convert them: ``python -m attention_sampling convert``.

    Pixels are as they are stored: an orientation in the EXIF data is not applied, as
    coordinates of annotations refer to the stored pixels. Grey images have 1 channel,
    with alpha 2; colours have 3, with alpha 4; a palette becomes colours. 16 bits stay
    16 bits. Refused are animations and CMYK.

    Opening reads the headers alone; ``python -m attention_sampling check`` decodes
    everything. A JPEG has no checksum: damage of a few bytes may not be noticed.

    Args:
        paths: a file or several.
        on_error: ``"raise"``, or ``"skip"`` to leave out files that cannot be opened or
            have another channel count or dtype than most, and list them in ``skipped``.
        threads: windows to read at once; None for twice the processors, at most 8.
        cache_bytes: bytes of decoded images to keep. Images that threads are reading
            come on top. None for 1 GiB, or what the largest image takes, which may be
            half of the memory.
        channels: 3 to repeat the channel of grey images, and to leave out alpha; None
            for the channels of the first image.

    Raises:
        SourceError: a file cannot be opened, does not fit the others, or its image is
            larger than ``cache_bytes``; with ``on_error="skip"``, this holds for all.
        ValueError: no files, or a wrong argument.

    Example:

    >>> from PIL import Image as PillowImage
    >>> PillowImage.new("L", (40, 30), 7).save("grey.png")
    >>> PillowImage.new("RGB", (50, 20), (1, 2, 3)).save("colours.png")
    >>> source = ImageFilesSource(["grey.png", "colours.png"], channels=3)
    >>> source.shape(0)
    (30, 40, 3)
    >>> source.read_patches([0, 1], [[0, 0], [5, 5]], patch_size=1).tolist()
    [[[[7, 7, 7]]], [[[1, 2, 3]]]]
    """

    misfit_remedy = (
        ". To repeat the channel of grey images and leave out alpha: channels=3"
    )

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        on_error: str = "raise",
        threads: int | None = None,
        cache_bytes: int | None = 2**30,
        channels: int | None = None,
    ) -> None:
        if cache_bytes is not None:
            cache_bytes = check_count("cache_bytes", cache_bytes, smallest=1)
        self._cache_bytes = cache_bytes
        self._wanted_channels = check_choice("channels", channels, (None, 3))
        super().__init__(paths, on_error, threads)

    @classmethod
    def recognizes(cls, path: str, start: bytes) -> bool:
        """Tell an image that is decoded as a whole."""
        return find_format(start) is not None

    def open_file(self, path: str) -> "_DecodedFile":
        """Decode a file."""
        return _DecodedFile(self._convert(decode_image(path)))

    def inspect(self, path: str) -> Sequence[Image]:
        """Return the image of a file, read from its header."""
        (height, width, channels), dtype = describe_image(path)
        if self._wanted_channels and channels > 4:
            raise OSError(
                f"its {channels} channels cannot become {self._wanted_channels}"
            )
        channels = self._wanted_channels or channels
        # Rows are what is together in memory.
        image = Image(None, ((height, width),), ((1, width),), channels, dtype)
        self._check_size(_decoded_bytes(image))
        return [image]

    def _check_size(self, size: int) -> None:
        if self._cache_bytes is None:
            if size > _half_of_memory():
                raise OSError(
                    f"decoded it takes {size} bytes. Expected: no more than half of the "
                    f"memory of this machine, {_half_of_memory()}. Store it as a TIFF in "
                    "tiles"
                )
        elif size > self._cache_bytes:
            raise OSError(
                f"decoded it takes {size} bytes and would not be kept for the next "
                f"window. Expected: no more than cache_bytes={self._cache_bytes}. "
                "Convert it by: python -m attention_sampling convert; or keep it in "
                f"memory by cache_bytes={size}"
            )

    def limit(self, images: Sequence[Image]) -> int:
        """Return the bytes of decoded images to keep."""
        if self._cache_bytes is not None:
            return self._cache_bytes
        return max([_KEPT, *map(_decoded_bytes, images)])

    def _convert(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._wanted_channels is None or pixels.shape[2] == 3:
            return pixels
        if pixels.shape[2] < 3:
            return np.repeat(pixels[:, :, :1], 3, axis=2)
        return np.ascontiguousarray(pixels[:, :, :3])


class _DecodedFile(OpenFile):
    """A decoded image, in memory."""

    def __init__(self, pixels: npt.NDArray[Any]) -> None:
        self.pixels = pixels
        self.cost = pixels.nbytes

    def read(
        self, image: Image, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        top, left = origin
        return self.pixels[top : top + size[0], left : left + size[1]]


def _decoded_bytes(image: Image) -> int:
    height, width = image.levels[0]
    return height * width * image.channels * np.dtype(image.dtype).itemsize


def _half_of_memory() -> int:
    """Return bytes: decoding holds an image twice."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):  # Windows
        return 2**62
