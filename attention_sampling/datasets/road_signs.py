"""Draw road signs whose number can be read only at full resolution."""

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_SUPERSAMPLE = 8  # drawn larger and averaged, so that edges are smooth
_VIEW_PIXEL = 4  # pixels averaged into one of the view that must not show the number
_FACE = 0.77  # radius of the white face in radii of the sign
_RED, _WHITE, _BLUE = (196, 26, 36), (244, 244, 242), (24, 82, 168)

# Class of the German Traffic Sign Detection Benchmark for each limit, in km/h.
LIMIT_CLASSES = {50: 2, 70: 4, 80: 5}
# Give way, danger, keep right.
OTHER_CLASSES = (13, 18, 38)

Colour = tuple[int, int, int]


def draw_sign(
    image: Image.Image,
    class_id: int,
    centre: tuple[float, float],
    diameter: float,
    ground_row: float,
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Draw a sign on its pole into an image, in place.

    A faint haze around a number makes all numbers look the same in a view at a quarter
    of the resolution, as averaging away the strokes of a real font does not.

    Args:
        image: RGB image to draw into.
        class_id: class in the German Traffic Sign Detection Benchmark: 2, 4 and 5
            (limits of 50, 70 and 80 km/h), 13, 18 or 38.
        centre: (row, column) of the centre of the sign, in pixels.
        diameter: of the sign, in pixels.
        ground_row: row where the pole stands, in pixels.
        rng: where shade, tilt and the like are drawn from.

    Returns:
        (left, top, right, bottom): the outermost pixels of the circle around the sign,
        all included.

    Example:

    >>> image = Image.new("RGB", (64, 64))
    >>> draw_sign(image, 2, (20.0, 32.0), 30.0, 60.0, np.random.default_rng(0))
    (17, 5, 46, 34)
    """
    row, column = centre
    radius = diameter / 2
    left, top = math.floor(column - radius), math.floor(row - radius)
    right, bottom = math.ceil(column + radius) - 1, math.ceil(row + radius) - 1
    region = (left, top, right + 1, max(bottom + 1, math.ceil(ground_row)))
    # Draw on the enlarged pixels behind the sign: averaging them back smooths edges.
    tile = image.crop(region)
    enlarged = (tile.width * _SUPERSAMPLE, tile.height * _SUPERSAMPLE)
    tile = tile.resize(enlarged, Image.Resampling.NEAREST)
    x, y = (column - left) * _SUPERSAMPLE, (row - top) * _SUPERSAMPLE
    _draw_on_tile(tile, class_id, x, y, radius * _SUPERSAMPLE, rng)
    image.paste(tile.reduce(_SUPERSAMPLE), (left, top))
    return left, top, right, bottom


def _draw_on_tile(
    tile: Image.Image,
    class_id: int,
    x: float,
    y: float,
    radius: float,
    rng: np.random.Generator,
) -> None:
    shade = rng.uniform(0.82, 1.0)

    def lit(colour: Colour) -> Colour:
        red, green, blue = (int(shade * channel) for channel in colour)
        return red, green, blue

    draw = ImageDraw.Draw(tile)
    pole = 0.08 * radius
    draw.rectangle((x - pole, y, x + pole, tile.height), fill=lit((134, 138, 140)))
    if class_id in LIMIT_CLASSES.values():
        _draw_disc(draw, x, y, radius, lit(_RED))
        _draw_disc(draw, x, y, _FACE * radius, lit(_WHITE))
        limit = next(key for key, value in LIMIT_CLASSES.items() if value == class_id)
        _print_number(tile, limit, x, y, radius, rng)
    elif class_id == 38:
        _draw_disc(draw, x, y, radius, lit(_WHITE))
        _draw_disc(draw, x, y, 0.93 * radius, lit(_BLUE))
        tip = (x + 0.5 * radius, y + 0.5 * radius)
        thick = int(0.2 * radius)
        draw.line([(x - 0.4 * radius, y - 0.4 * radius), tip], lit(_WHITE), thick)
        barbs = [(tip[0], y - 0.1 * radius), tip, (x - 0.1 * radius, tip[1])]
        draw.line(barbs, lit(_WHITE), thick)
    else:
        turn = 180 if class_id == 13 else 0  # one corner down, or one up
        draw.regular_polygon((x, y, radius), 3, turn, fill=lit(_RED))
        draw.regular_polygon((x, y, 0.6 * radius), 3, turn, fill=lit(_WHITE))
        if class_id == 18:
            bar = 0.07 * radius
            box = (x - bar, y - 0.3 * radius, x + bar, y + 0.05 * radius)
            draw.rectangle(box, fill=lit((24, 24, 26)))
            _draw_disc(draw, x, y + 0.18 * radius, 1.2 * bar, lit((24, 24, 26)))


def _draw_disc(
    draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: Colour
) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _print_number(
    tile: Image.Image,
    limit: int,
    x: float,
    y: float,
    radius: float,
    rng: np.random.Generator,
) -> None:
    """Print a number on the white face around (x, y), under the shadow of leaves."""
    side = 2 * round(_FACE * radius)
    jitter = rng.uniform(-0.03, 0.03, 2) * radius
    offset = round(jitter[0]), round(jitter[1])
    light = 1 - rng.uniform(0.7, 0.8) * _darkness(limit, side, radius, offset)
    leaves = Image.fromarray(rng.uniform(0.75, 1, (5, 5)).astype("float32"))
    light *= np.asarray(leaves.resize((side, side), Image.Resampling.BICUBIC))
    middle = np.arange(side) - (side - 1) / 2
    inside = np.hypot(middle[:, None], middle) < side / 2
    cover = 255 * np.clip(1 - light, 0, 1) * inside
    mask = Image.fromarray(cover.astype("uint8"))
    mask = mask.rotate(rng.uniform(-4, 4), Image.Resampling.BILINEAR)
    tile.paste((12, 12, 14), (round(x) - side // 2, round(y) - side // 2), mask)


def _darkness(
    limit: int, side: int, radius: float, offset: tuple[int, int]
) -> np.ndarray:
    """Return (side, side) float32: the ink of a number, and the haze around it.

    With b the average over one pixel of the view, a number with ink i shows the view
    b i, and 1 - (1 - b)^2 keeps most of it. The haze fills up what is kept to the most
    that any number has there, so that what the view shows is much the same for all.
    """
    blur = ImageFilter.BoxBlur((_VIEW_PIXEL * _SUPERSAMPLE - 1) / 2)
    ink, kept = {}, {}
    for number in LIMIT_CLASSES:
        digits = _number_mask(number)
        height = 0.86 * radius
        width = 0.86 * digits.width * height / digits.height
        digits = digits.resize((round(width), round(height)), Image.Resampling.BOX)
        face = Image.new("L", (side, side))
        left, top = (side - digits.width) // 2, (side - digits.height) // 2
        face.paste(digits, (left + offset[0], top + offset[1]))
        once = face.filter(blur)
        ink[number], first, second = (
            np.asarray(picture, "float32") / 255
            for picture in (face, once, once.filter(blur))
        )
        kept[number] = 2 * first - second
    return ink[limit] + np.max(list(kept.values()), axis=0) - kept[limit]


@functools.lru_cache
def _number_mask(number: int) -> Image.Image:
    """Return a number in white on black, about 200 pixels high, without a border."""
    font = ImageFont.load_default(size=280)
    mask = Image.new("L", (600, 400))
    ImageDraw.Draw(mask).text((50, 20), str(number), 255, font, stroke_width=9)
    return mask.crop(mask.getbbox())
