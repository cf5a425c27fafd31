"""Generated slides: pyramidal TIFF files of several megapixels, told apart by small cells.

They have what makes whole slides hard: most of a slide is glass, tissue has texture at every
scale, slides differ in size, and what tells their class, the shape of the cells in a few
dark spots, can be seen at full resolution only. The spots can be found in a view.
"""

import csv
import functools
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_choice, check_count
from attention_sampling.data.area import halve_window, level_sizes
from attention_sampling.datasets.synthetic.generating import generate, noise

__all__ = ["CELL_SHAPES", "generate_slide", "write_slides"]

CELL_SHAPES = ("hollow", "long", "round")

_Array = npt.NDArray[np.float32]

_VERSION = 1  # raise it whenever the images change
_SMALLEST = 512  # pixels: the spots do not shrink with the slide
_TILE = 128  # pixels of a tile of the files, each way
_SCALE = 16  # pixels of a slide for one of what is smooth in it
_TEXTURE = 1024  # pixels after which the finest texture repeats
_SPACING = 13.0  # pixels between the cells of a spot
_BLUR = 3.0  # pixels over which the details of a spot cancel out
# Radii of an ellipse and of the hole in it, in pixels. All have the same area.
_RADII = {"hollow": (5.2, 5.2, 3.6), "long": (7.0, 2.05, 0.0), "round": (3.8, 3.8, 0.0)}
# Density of tissue and of a spot, and the colours of the densities. From one to the next
# they are linear, so that details around the density of a spot change no mean.
_TISSUE, _SPOT = 0.3, 0.62
_COLOURS = {0.0: (244, 242, 245), _TISSUE: (236, 205, 222), 1.0: (50, 28, 96)}


def generate_slide(
    rng: np.random.Generator, cells: str, size: tuple[int, int] = (2048, 3072)
) -> tuple[npt.NDArray[np.uint8], list[tuple[int, int, int, int]]]:
    """Generate a slide: pieces of tissue on glass, with a few spots crowded with cells.

    Args:
        rng: what every choice is made by.
        cells: shape of the cells in its spots: ``"hollow"``, ``"long"`` or ``"round"``. It
            shows in no mean over a dozen pixels, nor in the area of a cell.
        size: (height, width) of the slide in pixels, at least 512 each.

    Returns:
        (height, width, 3) uint8, and (top, left, bottom, right) of each spot in pixels.

    Raises:
        ValueError: there is no such shape, or the size is too small.

    Example:

    >>> pixels, spots = generate_slide(np.random.default_rng(0), "round", (512, 700))
    >>> pixels.shape, len(spots) > 0
    ((512, 700, 3), True)
    """
    check_choice("cells", cells, CELL_SHAPES)
    height, width = (check_count("size", extent, smallest=_SMALLEST) for extent in size)
    density, inside = _generate_tissue(rng, (height, width))
    spots: list[tuple[int, int, int, int]] = []
    count = rng.integers(6, 11)
    for row, column in rng.permutation(np.argwhere(inside) * _SCALE).tolist():
        radius = rng.uniform(70, 110)
        half = int(1.2 * radius)
        box = row - half, column - half, row + half, column + half
        if min(box) < 0 or box[2] > height or box[3] > width:
            continue
        if any(
            box[0] < bottom and box[2] > top and box[1] < right and box[3] > left
            for top, left, bottom, right in spots
        ):
            continue
        spot, opacity = _generate_spot(rng, cells, radius, half)
        under = density[box[0] : box[2], box[1] : box[3]]
        under += opacity * (spot - under)
        spots.append(box)
        if len(spots) == count:
            break
    # Stains differ from slide to slide.
    colours = np.array(list(_COLOURS.values())) * rng.uniform(0.95, 1.05, 3)
    shades = np.linspace(0, 1, 256)
    palette = np.stack([np.interp(shades, [*_COLOURS], c) for c in colours.T], axis=-1)
    palette = np.clip(palette, 0, 255).astype("uint8")
    return palette[np.clip(255 * density, 0, 255).astype("uint8")], spots


def write_slides(
    directory: str | os.PathLike[str],
    count: int = 60,
    smallest: tuple[int, int] = (1536, 1536),
    largest: tuple[int, int] = (2048, 2560),
    seed: int = 0,
) -> Path:
    """Generate a data set of slides, unless it is there already.

    Of every three slides in a row one has round cells in its spots, one long and one
    hollow ones. The directory holds ``slide_000.tif`` and so on, pyramids of compressed
    tiles, ``labels.csv`` with the columns ``file`` and ``label``, and the settings in
    ``generated.json``. It appears when it is whole, and is never overwritten.

    Args:
        directory: where to write; its parents are made.
        count: how many slides to generate. The first slides of a larger set are the same.
        smallest: (height, width) that no slide is below, in pixels, at least 512 each.
        largest: (height, width) that no slide is above, in pixels.
        seed: non-negative int; the same seed gives the same slides.

    Returns:
        Path of the directory.

    Raises:
        ValueError: a setting is out of range; the directory holds something else, or was
            made with other settings.
        OSError: a file cannot be written, as on a full disk; nothing is left.

    Example::

        write_slides("slides")
        source = open_source("slides/*.tif")
    """
    check_count("count", count, smallest=1)
    check_count("seed", seed, smallest=0)
    for n, most in zip(smallest, largest, strict=True):
        check_count("smallest", n, smallest=_SMALLEST)
        check_count("largest", most, smallest=n)

    def write(part: Path) -> None:
        rows = [("file", "label")]
        for number in range(count):
            # Each slide has its own stream, and each three their own order of classes.
            order = np.random.default_rng((seed, 0, number // 3)).permutation(3)
            cells = CELL_SHAPES[order[number % 3]]
            rng = np.random.default_rng((seed, 1, number))
            height, width = rng.integers(smallest, largest, endpoint=True).tolist()
            pixels, _ = generate_slide(rng, cells, (height, width))
            rows.append((f"slide_{number:03d}.tif", cells))
            _write_pyramid(part / rows[-1][0], pixels)
        with (part / "labels.csv").open("w", newline="", encoding="ascii") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    sizes = {"smallest": smallest, "largest": largest}
    settings = {"data": "slides", "version": _VERSION, "count": count, "seed": seed}
    return generate(directory, settings | sizes, write)


def _generate_tissue(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[_Array, npt.NDArray[np.bool_]]:
    """Return the density of tissue, and for each 16x16 pixels whether they are inside."""
    from skimage.transform import resize

    low = tuple(-(-extent // _SCALE) for extent in size)
    rows, columns = np.ogrid[: low[0], : low[1]]
    distance = np.full(low, np.inf)
    for _ in range(rng.integers(1, 4)):
        row, column = rng.uniform(0.3, 0.7, 2) * low
        radii = rng.uniform(0.22, 0.42, 2) * low
        ellipse = np.hypot((rows - row) / radii[0], (columns - column) / radii[1])
        distance = np.minimum(distance, ellipse)
    shore = 1 + 0.2 * noise(rng, low, 8) + 0.1 * noise(rng, low, 2)
    tissue = _step(shore - distance, 0.05)
    # Pale holes, as fat or vessels leave them.
    tissue *= 1 - _step(noise(rng, low, 2) - rng.uniform(1.2, 1.5), 0.1)
    density = tissue * _TISSUE * (1 + 0.06 * noise(rng, low, 4))
    full = resize(density.astype("float32"), size, order=1)
    start = rng.integers(_TEXTURE, size=2)
    texture = np.roll(_texture(), start, axis=(0, 1))
    texture = np.tile(texture, [-(-extent // _TEXTURE) for extent in size])
    full *= texture[: size[0], : size[1]]
    return full, tissue > 0.9


@functools.cache
def _texture() -> _Array:
    """Return the finest texture of tissue, the same in all slides."""
    rng = np.random.default_rng(0)
    return (1 + 0.1 * noise(rng, (_TEXTURE, _TEXTURE), 2)).astype("float32")


def _generate_spot(
    rng: np.random.Generator, cells: str, radius: float, half: int
) -> tuple[_Array, _Array]:
    """Return the density of a spot and its opacity, squares of twice ``half`` pixels."""
    from skimage.filters import gaussian

    ink = np.zeros((2 * half, 2 * half), "float32")
    tilt = rng.uniform(0, np.pi)
    stamps = [_shape_cell(rng, cells, tilt + rng.normal(0, 0.25)) for _ in range(12)]
    side = len(stamps[0])
    steps = np.arange(0, 2 * half - side, _SPACING)
    corners = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    corners += rng.uniform(0, 5, corners.shape)
    for number, (row, column) in enumerate(corners.astype(int).tolist()):
        under = ink[row : row + side, column : column + side]
        stamp = stamps[number % len(stamps)]
        np.maximum(under, stamp[: under.shape[0], : under.shape[1]], out=under)
    # Around each pixel as dense as the spot is to be, whatever its cells: what is left are
    # details, of which a view shows nothing.
    detail = ink - gaussian(ink, _BLUR)
    waves = noise(rng, ink.shape, 10)
    rows, columns = np.ogrid[-half:half, -half:half]
    outline = radius * (1 + 0.05 * waves)
    density = _SPOT * (1 + 0.05 * waves) + 0.4 * detail
    return density, _step(outline - np.hypot(rows, columns), 6)


def _shape_cell(rng: np.random.Generator, shape: str, tilt: float) -> _Array:
    """Return a cell, 1 where it is and 0 elsewhere, with smooth edges."""
    from skimage.draw import ellipse
    from skimage.transform import downscale_local_mean

    side, fine = 18, 3
    ink = np.zeros((side * fine, side * fine), "float32")
    centre, scale = side * fine / 2, fine * rng.uniform(0.85, 1.15)
    along, across, hole = (scale * radius for radius in _RADII[shape])
    ink[ellipse(centre, centre, along, across, ink.shape, tilt)] = 1
    if hole:
        ink[ellipse(centre, centre, hole, hole, ink.shape)] = 0
    return downscale_local_mean(ink, (fine, fine))


def _step(values: _Array, width: float) -> _Array:
    """Return 0 below and 1 above zero, going from one to the other smoothly."""
    return np.clip(0.5 + values / width, 0, 1)


def _write_pyramid(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write a slide as a TIFF file of compressed tiles, with its smaller levels."""
    import tifffile

    options: dict[str, Any] = {
        "tile": (_TILE, _TILE),
        "photometric": "rgb",
        "compression": "deflate",
        "compressionargs": {"level": 1},
        "metadata": None,
        "software": False,
    }
    sizes = level_sizes((pixels.shape[0], pixels.shape[1]))
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, subifds=len(sizes) - 1, **options)
        for above, size in itertools.pairwise(sizes):
            pixels = halve_window(lambda *_, p=pixels: p, above, (0, 0), size)
            file.write(pixels, subfiletype=1, **options)
