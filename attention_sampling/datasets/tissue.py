"""Draw schematic tissue, as it looks on a stained slide."""

import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CELL_SHAPES = ("hollow", "long", "round")

_SUPERSAMPLE = 3  # drawn larger and averaged, so that edges are smooth
_GRAIN = 1024  # pixels after which the finest texture repeats, each way
_SPACING = 13.0  # pixels between the cells of a spot
_BLUR = 3.0  # pixels over which the details of a spot cancel out
_GLASS = (244, 242, 245)
# Of the tissue, and of a spot whatever its cells look like.
_PINK, _PURPLE = (240, 212, 226), (136, 94, 160)
_CELL = (58, 34, 100)


def draw_ground(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pieces of tissue on glass, at low resolution.

    Args:
        rng: where every choice is drawn from.
        size: (height, width) in pixels.

    Returns:
        (height, width, 3) uint8 colours, and (height, width) float32 from 0 to 1, what
        share of each pixel is tissue.
    """
    height, width = size
    rows, columns = np.ogrid[:height, :width]
    shore = 0.5 * _noise(rng, size, (64, 32, 16, 8))
    distance = np.full(size, np.inf, "float32")
    for _ in range(rng.integers(1, 4)):
        row, column = rng.uniform(0.3, 0.7, 2) * size
        radii = rng.uniform(0.22, 0.42, 2) * size
        distance = np.minimum(
            distance,
            np.hypot((rows - row) / radii[0], (columns - column) / radii[1]),
        )
    tissue = _step(1 + shore - distance, 0.04)
    # Pale holes, as fat or vessels leave them.
    holes = _step(_noise(rng, size, (12, 6)) - rng.uniform(0.75, 0.95), 0.08)
    tissue *= 1 - holes
    stain = np.array(_PINK) * (1 + rng.uniform(-0.05, 0.05, 3))
    shade = 1 + 0.07 * _noise(rng, size, (48, 24, 12, 6, 3))[..., None]
    colours = _GLASS + (stain * shade - _GLASS) * tissue[..., None]
    return np.clip(colours, 0, 255).astype("uint8"), tissue


def draw_spot(
    rng: np.random.Generator, cells: str, radius: float
) -> tuple[Image.Image, Image.Image]:
    """Draw a dark spot crowded with cells of one shape.

    The shape shows in no mean over a dozen pixels, nor in the area of a cell.

    Args:
        rng: where every choice is drawn from.
        cells: one of `CELL_SHAPES`.
        radius: of the spot, in pixels.

    Returns:
        Square RGB picture, and its opacity from 0 to 255.
    """
    half = int(1.2 * radius)
    side = 2 * half * _SUPERSAMPLE
    ink = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(ink)
    tilt = rng.uniform(0, np.pi)
    steps = np.arange(0, 2 * half + _SPACING, _SPACING)
    centres = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    centres += rng.uniform(-2.5, 2.5, centres.shape)
    for x, y in centres * _SUPERSAMPLE:
        size = _SUPERSAMPLE * rng.uniform(0.85, 1.15)
        _draw_cell(draw, cells, (x, y), size, tilt + rng.normal(0, 0.25))
    # Around each place as dark as the spot is to be, whatever was drawn: what is left
    # are details, of which a view shows nothing.
    ink = ink.reduce(_SUPERSAMPLE)
    blurred = ink.filter(ImageFilter.GaussianBlur(_BLUR))
    detail = (np.asarray(ink, "float32") - np.asarray(blurred, "float32")) / 255
    colour = np.array(_PURPLE) * (1 + rng.uniform(-0.08, 0.08, 3))
    shade = 1 + 0.05 * _noise(rng, (2 * half, 2 * half), (48, 24, 12))
    pixels = shade[..., None] * (
        colour + 1.5 * detail[..., None] * (np.array(_CELL) - colour)
    )
    rows, columns = np.ogrid[-half:half, -half:half]
    angle = np.arctan2(rows, columns)
    waves = [
        rng.uniform(0, 0.07) * np.sin(wave * angle + rng.uniform(0, 2 * np.pi))
        for wave in (2, 3, 5)
    ]
    outline = radius * (1 + sum(waves))
    opacity = _step(outline - np.hypot(rows, columns), 6.0)
    return (
        Image.fromarray(np.clip(pixels, 0, 255).astype("uint8")),
        Image.fromarray((255 * opacity).astype("uint8")),
    )


@functools.lru_cache
def grain() -> np.ndarray:
    """Return the finest texture of tissue, (1024, 1024) uint8, 255 where light passes.

    The same for all slides. It goes on without a seam where it repeats.
    """
    rng = np.random.default_rng(0)
    fibres = _noise(rng, (_GRAIN, _GRAIN), (16, 8, 4, 2), periodic=True)
    texture = 0.93 + 0.05 * fibres
    picture = Image.fromarray(np.clip(255 * texture, 0, 255).astype("uint8"))
    draw = ImageDraw.Draw(picture)
    for x, y in rng.uniform(6, _GRAIN - 6, (1500, 2)):
        radius = rng.uniform(2, 4)
        light = int(rng.uniform(150, 200))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=light)
    return np.asarray(picture)


def _draw_cell(
    draw: ImageDraw.ImageDraw,
    shape: str,
    centre: tuple[float, float],
    size: float,
    tilt: float,
) -> None:
    """Draw a cell of about 45 square pixels, times the square of ``size``."""
    x, y = centre
    if shape == "long":
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        along, across = 7.0 * size * np.cos(angles), 2.05 * size * np.sin(angles)
        cosine, sine = np.cos(tilt), np.sin(tilt)
        outline = np.stack(
            [x + along * cosine - across * sine, y + along * sine + across * cosine], -1
        )
        draw.polygon([tuple(point) for point in outline.tolist()], fill=255)
        return
    outer, inner = (5.2, 3.6) if shape == "hollow" else (3.8, 0.0)
    for radius, fill in ((outer * size, 255), (inner * size, 0)):
        if radius:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _noise(
    rng: np.random.Generator,
    size: tuple[int, int],
    periods: tuple[int, ...],
    periodic: bool = False,
) -> np.ndarray:
    """Return smooth noise of several scales, (height, width) float32, deviation 1.

    Coarse scales weigh more than fine ones.
    """
    total = np.zeros(size, "float32")
    for period in periods:
        coarse = tuple(-(-extent // period) for extent in size)
        values = rng.standard_normal(coarse).astype("float32")
        if periodic:
            values = np.pad(values, 2, mode="wrap")
        else:
            values = np.pad(values, 2, mode="edge")
        rows, columns = (extent / period for extent in size)
        layer = Image.fromarray(values).resize(
            size[::-1], Image.Resampling.BICUBIC, box=(2, 2, 2 + columns, 2 + rows)
        )
        total += np.sqrt(period) * np.asarray(layer)
    return total / total.std()


def _step(values: np.ndarray, width: float) -> np.ndarray:
    """Return 0 below and 1 above zero, going from one to the other smoothly."""
    return np.clip(0.5 + values / width, 0, 1).astype("float32")
