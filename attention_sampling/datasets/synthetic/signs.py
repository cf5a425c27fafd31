"""Road signs seen from the front, painted with scikit-image."""

import functools
import math
from typing import Any

import numpy as np

# Class of the German Traffic Sign Detection Benchmark for each limit, in km/h.
LIMIT_CLASSES = {50: 2, 70: 4, 80: 5}
GIVE_WAY, DANGER, KEEP_RIGHT = OTHER_CLASSES = (13, 18, 38)

SIDE = 128  # pixels of a painted sign, which touches all four borders
_RED, _WHITE, _BLUE = (0.76, 0.09, 0.12), (0.95, 0.95, 0.94), (0.09, 0.31, 0.66)
_BLACK = (0.08, 0.08, 0.09)


def paint_sign(class_id: int, rng: np.random.Generator) -> np.ndarray:
    """Paint a sign.

    The numbers are alike where they are blurred, as in a view at an eighth of the
    resolution of a sign of 34 pixels: there is a faint haze around the ink, and the shadow
    of leaves. To tell the limit, it has to be read.

    Args:
        class_id: class in the German Traffic Sign Detection Benchmark: 2, 4 and 5
            (limits of 50, 70 and 80 km/h), 13 (give way), 18 (danger), 38 (keep right).
        rng: source of every choice.

    Returns:
        (128, 128, 4) float32, 0 to 1: red, green and blue times the opacity, and the
        opacity, which is 0 around the sign.

    Example:

    >>> sign = paint_sign(2, np.random.default_rng(0))
    >>> sign.shape, float(sign[0, 0, 3]), float(sign[64, 4, 3])
    ((128, 128, 4), 0.0, 1.0)
    """
    from skimage import transform

    sign = np.zeros((SIDE, SIDE, 4), "float32")
    if class_id in LIMIT_CLASSES.values():
        limit = next(key for key, value in LIMIT_CLASSES.items() if value == class_id)
        _fill_disk(sign, 0, 0, 1.0, _RED)
        _fill_disk(sign, 0, 0, 0.78, _WHITE)
        ink = rng.uniform(0.6, 1.0) * _number_ink(limit, int(rng.integers(6, 17)))
        sign[..., :3] += ink[..., None] * (np.array(_BLACK) - sign[..., :3])
        leaves = rng.uniform(0.65, 1, (5, 5)).astype("float32")
        sign[..., :3] *= transform.resize(leaves, (SIDE, SIDE), order=1)[..., None]
    elif class_id == KEEP_RIGHT:
        _fill_disk(sign, 0, 0, 1.0, _WHITE)
        _fill_disk(sign, 0, 0, 0.93, _BLUE)
        # An arrow to the lower right: its shaft and its head.
        shaft = [(-0.5, -0.36), (-0.36, -0.5), (0.35, 0.21), (0.21, 0.35)]
        head = [(0.5, 0.5), (0.5, -0.05), (-0.05, 0.5)]
        for outline in (shaft, head):
            _fill_polygon(sign, outline, _WHITE)
    else:
        down = -1 if class_id == DANGER else 1
        for radius, colour in ((1.0, _RED), (0.6, _WHITE)):
            angles = math.pi * np.array([0.5, 0.5 + 2 / 3, 0.5 + 4 / 3])
            outline = radius * np.stack([down * np.sin(angles), np.cos(angles)], axis=1)
            _fill_polygon(sign, outline, colour)
        if class_id == DANGER:
            bar = [(-0.3, -0.06), (-0.3, 0.06), (0.06, 0.05), (0.06, -0.05)]
            _fill_polygon(sign, bar, _BLACK)
            _fill_disk(sign, 0.18, 0, 0.08, _BLACK)
    return sign


def _fill_disk(
    sign: Any, row: float, column: float, radius: float, colour: Any
) -> None:
    """Fill a disk, in radii of the sign from its centre."""
    from skimage import draw

    half = SIDE / 2
    centre = (half * (1 + row) - 0.5, half * (1 + column) - 0.5)
    sign[draw.disk(centre, half * radius, shape=sign.shape)] = (*colour, 1)


def _fill_polygon(sign: Any, outline: Any, colour: Any) -> None:
    """Fill a polygon of (row, column), in radii of the sign from its centre."""
    from skimage import draw

    rows, columns = SIDE / 2 * (1 + np.transpose(outline)) - 0.5
    sign[draw.polygon(rows, columns, sign.shape)] = (*colour, 1)


@functools.lru_cache
def _number_ink(limit: int, weight: int) -> np.ndarray:
    """Return (SIDE, SIDE) float32: where the ink of a number is, and a haze around it.

    The haze makes all numbers alike when they are blurred as in the view.
    """
    from skimage import filters

    masks = {number: _number_mask(number, weight) for number in LIMIT_CLASSES}
    blurred = {number: filters.gaussian(mask, 7) for number, mask in masks.items()}
    return masks[limit] + np.max(list(blurred.values()), axis=0) - blurred[limit]


def _number_mask(number: int, weight: int) -> np.ndarray:
    """Return (SIDE, SIDE) float32: a number in the middle, 1 where there is ink."""
    from PIL import Image, ImageDraw, ImageFont

    large = Image.new("L", (800, 500))
    font = ImageFont.load_default(size=280)
    ImageDraw.Draw(large).text((100, 50), str(number), 255, font, stroke_width=weight)
    digits = large.crop(large.getbbox())
    digits = digits.resize((round(0.52 * SIDE), round(0.42 * SIDE)))
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(digits, ((SIDE - digits.width) // 2, (SIDE - digits.height) // 2))
    return np.asarray(mask, "float32") / 255
