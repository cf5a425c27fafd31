"""Draw schematic landscapes with a road, as a car's camera sees them."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

_SUPERSAMPLE = 2  # drawn larger and averaged, so that edges are smooth

_FIELDS = [(112, 138, 72), (134, 142, 84), (158, 146, 98), (96, 126, 78)]
_LEAVES = [(58, 92, 50), (74, 104, 52), (92, 106, 58), (108, 96, 56)]
_WALLS = [(198, 190, 174), (176, 168, 160), (188, 164, 136), (160, 160, 166)]
_ROOFS = [(128, 82, 66), (104, 88, 82), (92, 92, 100), (142, 100, 78)]
_PAINTS = [(60, 70, 96), (200, 200, 202), (52, 54, 58), (124, 60, 56), (98, 112, 104)]

Colour = tuple[int, int, int]


class Landscape(NamedTuple):
    """A drawn landscape and where its road is.

    Attributes:
        image: RGB picture of the size asked for.
        horizon: row where the road vanishes, in pixels.
        vanishing_column: column where the road vanishes, in pixels.
        road_slope: half the width of the road at a row, per row below the horizon.
    """

    image: Image.Image
    horizon: float
    vanishing_column: float
    road_slope: float


def draw_landscape(rng: np.random.Generator, size: tuple[int, int]) -> Landscape:
    """Draw sky, hills, fields, a road in perspective, and what stands beside it.

    Args:
        rng: where every choice is drawn from.
        size: (height, width) of the picture, in pixels.

    Example:

    >>> landscape = draw_landscape(np.random.default_rng(0), (480, 640))
    >>> landscape.image.size
    (640, 480)
    """
    height, width = (extent * _SUPERSAMPLE for extent in size)
    horizon = height * rng.uniform(0.42, 0.54)
    vanishing = width * rng.uniform(0.36, 0.6)
    slope = width * rng.uniform(0.42, 0.6) / (height - horizon)

    image = Image.fromarray(_paint_sky_and_field(rng, height, width, horizon))
    draw = ImageDraw.Draw(image)
    _draw_hills(draw, rng, width, horizon)
    _draw_road(draw, rng, height, horizon, vanishing, slope)
    # From far to near, so that what is near hides what is far.
    for nearness in np.sort(rng.uniform(0.03, 0.5, rng.integers(8, 20))):
        side = rng.choice([-1, 1])
        row = horizon + nearness * (height - horizon)
        lateral = slope * rng.uniform(1.5, 2.0) + rng.exponential(2.5)
        column = vanishing + side * lateral * (row - horizon)
        kinds = (_draw_tree, _draw_house, _draw_tower)
        stand = kinds[rng.choice(3, p=[0.65, 0.25, 0.1])]
        stand(draw, rng, column, row, (row - horizon) * 2 + 0.03 * height)
    _draw_posts(draw, rng, height, horizon, vanishing, slope)
    if rng.random() < 0.5:
        _draw_car(draw, rng, horizon, vanishing, slope, height)
    return Landscape(
        image.reduce(_SUPERSAMPLE),
        horizon / _SUPERSAMPLE,
        vanishing / _SUPERSAMPLE,
        slope,
    )


def _vary(rng: np.random.Generator, colour: Colour, spread: float = 0.12) -> Colour:
    """Return a colour somewhat brighter or darker, and somewhat shifted in hue."""
    gain = 1 + rng.uniform(-spread, spread) + rng.uniform(-spread, spread, 3) / 4
    red, green, blue = np.clip(np.multiply(colour, gain), 0, 255).astype(int).tolist()
    return red, green, blue


def _pick(rng: np.random.Generator, colours: list[Colour]) -> Colour:
    return _vary(rng, colours[rng.integers(len(colours))])


def _paint_sky_and_field(
    rng: np.random.Generator, height: int, width: int, horizon: float
) -> np.ndarray:
    """Return (height, width, 3) uint8: a graded sky over a mottled field."""
    overcast = rng.random()
    zenith = np.array([92, 138, 198]) * (1 - overcast) + 172 * overcast
    haze = np.array([206, 218, 228]) * (1 - overcast) + 208 * overcast
    near = np.array(_pick(rng, _FIELDS))
    far = 0.6 * near + 0.4 * haze * 0.8
    rows = np.arange(height)
    below = np.clip((rows - horizon) / (height - horizon), 0, 1)[:, None] ** 0.5
    above = np.clip(rows / horizon, 0, 1)[:, None]
    graded = np.where(
        rows[:, None] < horizon,
        zenith + (haze - zenith) * above,
        far + (near - far) * below,
    )
    # Clouds and patches of grass: coarse noise, stretched sideways.
    coarse = rng.uniform(-1, 1, (24, 12)).astype("float32")
    mottle = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    shade = 1 + 0.06 * np.asarray(mottle)[..., None]
    return np.clip(graded[:, None, :].astype("float32") * shade, 0, 255).astype("uint8")


def _draw_hills(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, width: int, horizon: float
) -> None:
    for haze in (0.55, 0.3):
        columns = np.linspace(0, width, 60)
        crest = sum(
            rng.uniform(0.01, 0.05) / wave * np.sin(wave * columns / width * 6 + phase)
            for wave, phase in zip((1, 2, 4), rng.uniform(0, 6, 3), strict=True)
        )
        rows = horizon - horizon * np.clip(crest + 0.05, 0.004, None)
        green = np.array(_pick(rng, _LEAVES)) * (1 - haze) + 190 * haze
        outline = [*zip(columns, rows, strict=True), (width, horizon), (0, horizon)]
        draw.polygon(outline, fill=tuple(green.astype(int).tolist()))


def _draw_road(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    height: int,
    horizon: float,
    vanishing: float,
    slope: float,
) -> None:
    """Draw verges, asphalt, edge lines and the dashed line in the middle."""

    def strip(
        left: float, right: float, near: float, far: float, colour: Colour
    ) -> None:
        """Fill between two lateral positions and two rows below the horizon."""
        corners = [(left, near), (right, near), (right, far), (left, far)]
        draw.polygon(
            [(vanishing + lateral * row, horizon + row) for lateral, row in corners],
            fill=colour,
        )

    asphalt, mark = _vary(rng, (104, 104, 108)), _vary(rng, (222, 222, 216), 0.08)
    depth = height - horizon
    strip(-1.16 * slope, 1.16 * slope, depth, 0, _vary(rng, (142, 136, 116)))
    strip(-slope, slope, depth, 0, asphalt)
    for edge in (-0.93 * slope, 0.93 * slope):
        strip(edge - 0.015 * slope, edge + 0.015 * slope, depth, 0.02 * depth, mark)
    # At distance d a point of the ground lies depth / d rows below the horizon.
    start = rng.uniform(0.6, 1.4)
    for distance in start + 1.4 * np.arange(14):
        near, far = depth / distance, depth / (distance + 0.6)
        strip(-0.016 * slope, 0.016 * slope, near, far, mark)


def _draw_tree(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    column: float,
    row: float,
    extent: float,
) -> None:
    extent *= rng.uniform(0.7, 1.5)
    trunk = 0.05 * extent
    draw.rectangle(
        (column - trunk, row - 0.6 * extent, column + trunk, row),
        fill=_vary(rng, (88, 72, 58)),
    )
    leaves = _pick(rng, _LEAVES)
    for light in np.linspace(0.8, 1.15, 9):
        radius = extent * rng.uniform(0.16, 0.26)
        x = column + rng.normal(0, 0.15) * extent
        y = row - extent * (0.65 + rng.normal(0, 0.14)) - (light - 1) * 0.3 * extent
        red, green, blue = (int(light * channel) for channel in leaves)
        draw.ellipse(
            (x - radius, y - radius, x + radius, y + radius), fill=(red, green, blue)
        )


def _draw_house(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    column: float,
    row: float,
    extent: float,
) -> None:
    half, eaves = extent * rng.uniform(0.5, 0.9), row - extent * rng.uniform(0.5, 0.8)
    draw.rectangle((column - half, eaves, column + half, row), fill=_pick(rng, _WALLS))
    ridge = eaves - extent * rng.uniform(0.3, 0.5)
    draw.polygon(
        [
            (column - 1.12 * half, eaves),
            (column - 0.7 * half, ridge),
            (column + 0.7 * half, ridge),
            (column + 1.12 * half, eaves),
        ],
        fill=_pick(rng, _ROOFS),
    )
    _draw_windows(draw, rng, (column - half, eaves, column + half, row), (1, 4))


def _draw_tower(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    column: float,
    row: float,
    extent: float,
) -> None:
    half, top = extent * rng.uniform(0.4, 0.7), row - extent * rng.uniform(1.4, 2.4)
    draw.rectangle((column - half, top, column + half, row), fill=_pick(rng, _WALLS))
    _draw_windows(draw, rng, (column - half, top, column + half, row), (5, 4))


def _draw_windows(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    wall: tuple[float, float, float, float],
    grid: tuple[int, int],
) -> None:
    left, top, right, bottom = wall
    glass = _vary(rng, (86, 96, 108), 0.2)
    step_y, step_x = (bottom - top) / grid[0], (right - left) / grid[1]
    for y in top + step_y * (np.arange(grid[0]) + 0.28):
        for x in left + step_x * (np.arange(grid[1]) + 0.28):
            draw.rectangle((x, y, x + 0.44 * step_x, y + 0.44 * step_y), fill=glass)


def _draw_posts(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    height: int,
    horizon: float,
    vanishing: float,
    slope: float,
) -> None:
    """Draw marker posts on both sides, and sometimes lamps on one."""
    lamp_side = rng.choice([-1, 0, 1])
    start = rng.uniform(1.1, 2.2)
    for distance in (start + 1.8 * np.arange(8))[::-1]:
        below = (height - horizon) / distance
        row = horizon + below
        for side in (-1, 1):
            column, half = vanishing + side * 1.22 * slope * below, 0.012 * below
            top = row - 0.28 * below
            draw.rectangle((column - half, top, column + half, row), fill=(218,) * 3)
            band = (column - half, top + 2 * half, column + half, top + 6 * half)
            draw.rectangle(band, fill=(60, 60, 62))
            if side == lamp_side:
                mast, tip = column + side * 0.2 * below, row - 1.9 * below
                arm = [(mast, row), (mast, tip), (mast - side * 0.35 * below, tip)]
                thickness = max(2, int(0.03 * below))
                draw.line(arm, fill=(122, 126, 128), width=thickness)


def _draw_car(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    horizon: float,
    vanishing: float,
    slope: float,
    height: int,
) -> None:
    """Draw the back of a car, in the right lane."""
    below = rng.uniform(0.08, 0.35) * (height - horizon)
    row, column = horizon + below, vanishing + 0.48 * slope * below
    half = 0.27 * slope * below

    def box(left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        corners = column + left * half, row - top * half
        draw.rectangle(
            (*corners, column + right * half, row - bottom * half), fill=fill
        )

    box(-1, 0.1, 1, -0.06, (46, 46, 48))
    for side in (-0.75, 0.75):
        box(side - 0.17, 0.3, side + 0.17, 0, (30, 30, 32))
    paint = _pick(rng, _PAINTS)
    box(-0.76, 1.45, 0.76, 0.85, paint)
    box(-0.66, 1.36, 0.66, 0.9, (70, 80, 90))
    box(-1, 0.9, 1, 0.2, paint)
    for side in (-0.86, 0.86):
        box(side - 0.11, 0.8, side + 0.11, 0.6, (140, 44, 40))
