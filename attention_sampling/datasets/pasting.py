"""A crop of a real sign -> a sign in another photograph, as if it had been there."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_CANDIDATES = 12  # crops, of which the one that fits its surroundings is pasted
_CAMERA_BLUR = 0.4  # deviation in pixels of the full-resolution image
_SMALLEST = 8  # pixels: side of a box in a crop

_Array = npt.NDArray[Any]


class Crop(NamedTuple):
    """The crop of a real sign.

    Args:
        sign: (height, width, 3) uint8, the pixels in the box around the sign.
        behind: (3,) mean colour of what is behind the sign.
        dark: a low percentile of the pixels, which haze makes brighter.
    """

    sign: _Array
    behind: _Array
    dark: float

    @property
    def size(self) -> float:
        """Mean side of the box, in pixels."""
        return sum(self.sign.shape[:2]) / 2


class Place(NamedTuple):
    """Where a sign is in an image: its centre and the mean side of its box, in pixels."""

    column: float
    row: float
    size: float

    def cut(self, image: _Array, factor: float, below: float = 0.0) -> _Array:
        """Return a square around the centre, or so many sizes below it."""
        half = factor * self.size / 2
        row = min(self.row + below * self.size, image.shape[0] - 1)
        return image[
            max(0, int(row - half)) : int(row + half) + 1,
            max(0, int(self.column - half)) : int(self.column + half) + 1,
        ]


def read_image(path: Path) -> _Array:
    """Decode an image file, whatever its format: (height, width, 3) uint8.

    Raises:
        OSError: it cannot be read or decoded.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's readers raise nearly anything on bad bytes
        raise OSError(f"{path} cannot be read: {error}") from error


def read_crop(path: Path, sign_class: int, roi: Sequence[int]) -> Crop:
    """Read a crop with the box (left, top, right, bottom) around its sign.

    Raises:
        OSError: the file cannot be read.
        ValueError: the box is outside the crop, or too small.
    """
    pixels = read_image(path)
    left, top, right, bottom = roi
    sign = pixels[max(0, top) : bottom + 1, max(0, left) : right + 1]
    shape = bottom + 1 - top, right + 1 - left
    if sign.shape[:2] != shape or min(shape) < _SMALLEST:
        raise ValueError(
            f"The box of a sign is outside its crop, or smaller than {_SMALLEST} pixels. "
            f"Received: Roi={tuple(roi)} in {path}, {pixels.shape[1]} x {pixels.shape[0]}"
        )
    behind = np.ones(pixels.shape[:2], bool)
    behind[top : bottom + 1, left : right + 1] = _cover(shape, sign_class) == 0
    return Crop(sign, pixels[behind].mean(axis=0), float(np.percentile(pixels, 2)))


def paste_sign(
    rng: np.random.Generator,
    image: _Array,
    tracks: Sequence[Sequence[Crop]],
    sign_class: int,
    place: Place,
    scale: float = 1.0,
) -> tuple[int, int, int, int]:
    """Paste one of the signs of a class into an image.

    Args:
        rng: source of every choice.
        image: (height, width, 3) uint8, which is changed.
        tracks: the crops of each physical sign.
        sign_class: class of the German benchmarks.
        place: where; its centre is inside the image.
        scale: size of the image over that of the photograph, for the blur.

    Returns:
        The box: left, top, right and bottom pixel of the sign.
    """
    from PIL import Image, ImageFilter

    inner, outer = place.cut(image, 1.0), place.cut(image, 1.4)
    around = outer.sum((0, 1), "float64") - inner.sum((0, 1))
    around /= max(1, outer[..., 0].size - inner[..., 0].size)
    crop = _choose_crop(rng, tracks, place.size, around)
    ratio = place.size / crop.size
    height, width = (max(2, round(ratio * side)) for side in crop.sign.shape[:2])
    top = min(max(0, round(place.row - height / 2)), image.shape[0] - height)
    left = min(max(0, round(place.column - width / 2)), image.shape[1] - width)

    sign = Image.fromarray(crop.sign).resize((width, height), Image.Resampling.BICUBIC)
    # A crop that shrinks loses the blur of the camera that took it.
    blur = _CAMERA_BLUR * max(0.0, scale**2 - ratio**2) ** 0.5
    pixels = np.asarray(sign.filter(ImageFilter.GaussianBlur(blur)), "float32")
    gain = (around + 20) / (crop.behind + 20)
    gain = np.clip((gain + gain.mean()) / 2, 0.7, 1.7)
    dark = np.percentile(place.cut(image, 3.0), 2)
    pixels = (pixels - crop.dark) * gain + (2 * crop.dark + dark) / 3
    window = image[top : top + height, left : left + width]
    _blend(window, pixels, _cover((height, width), sign_class))
    return left, top, left + width - 1, top + height - 1


def paint_pole(rng: np.random.Generator, image: _Array, place: Place) -> None:
    """Paint the pole of a sign that is pasted afterwards, from its centre down."""
    light = place.cut(image, 3.0, below=2).mean() * rng.uniform(0.6, 1.4) + 10
    length = place.size * rng.uniform(3, 4.5)
    half = place.size * rng.uniform(0.03, 0.05)
    top, left = round(place.row), max(0, int(place.column - half - 1))
    window = image[
        top : round(place.row + length), left : round(place.column + half + 2)
    ]
    y, x = np.mgrid[: window.shape[0], : window.shape[1]]
    x = (x + left - place.column) / half  # -1 to 1
    pole = light * (1 + rng.uniform(-0.3, 0.3) * x) + rng.normal(0, 3, x.shape)
    # Antialiased at its sides, and lost in the grass at its foot.
    cover = np.clip((1 - abs(x)) * half + 0.5, 0, 1)
    _blend(window, pole[..., None], cover * np.clip(8 - 8 * y / length, 0, 1))


def _blend(window: _Array, pixels: _Array, cover: _Array) -> None:
    mixed = window + cover[..., None] * (np.clip(pixels, 0, 255) - window)
    window[:] = np.rint(mixed)


def _choose_crop(
    rng: np.random.Generator,
    tracks: Sequence[Sequence[Crop]],
    size: float,
    around: _Array,
) -> Crop:
    """Return one of some crops: not much too small, and from surroundings alike."""
    candidates = []
    for _ in range(_CANDIDATES):
        track = tracks[rng.integers(len(tracks))]
        large = [crop for crop in track if crop.size > 0.9 * size] or [
            max(track, key=lambda crop: crop.size)
        ]
        candidates.append(large[rng.integers(len(large))])

    def misfit(crop: Crop) -> float:
        enlarged = max(0.0, size / crop.size - 1)
        return float(abs(crop.behind - around).mean() + 100 * enlarged)

    return min(candidates, key=misfit)


@functools.lru_cache(maxsize=512)
def _cover(shape: tuple[int, int], sign_class: int) -> _Array:
    """Return what a sign covers of its box, (height, width) from 0 to 1, feathered."""
    height, width = shape
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    if sign_class == 13:  # give way
        y = -y
    if sign_class in (11, 13, *range(18, 32)):  # triangles
        radius = np.maximum(y, 2 * abs(x) - y)
    elif sign_class == 12:  # priority road
        radius = abs(x) + abs(y)
    elif sign_class == 14:  # stop
        radius = np.maximum(np.maximum(abs(x), abs(y)), (abs(x) + abs(y)) / 2**0.5)
    else:
        radius = np.hypot(x, y)
    # The edge is two pixels wide, and a little inside the box.
    cover = np.clip((0.96 - radius) * min(shape) / 4 + 0.5, 0, 1)
    cover.setflags(write=False)
    return cover
