"""A small data set of drawn slides: pyramidal TIFF files of several megapixels.

It has what makes whole slides hard: most of a slide is background, tissue has texture at
every scale, slides differ in size, and what tells their class, the shape of the cells in
a few dark spots, can be seen at full resolution only. The spots can be found in a view.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from attention_sampling.checks import check_choice, check_count
from attention_sampling.datasets._generated import generate
from attention_sampling.datasets.tissue import (
    CELL_SHAPES,
    draw_ground,
    draw_spot,
    grain,
)

__all__ = ["DrawnSlide", "draw_slide", "write_drawn_slides"]

_VERSION = 1  # raise it whenever the pictures change
_SETTINGS_FILE = "drawn_slides.json"
_SMALLEST = 1024  # pixels: the spots do not shrink with the slide
_GROUND_SCALE = 16  # pixels of a slide for one of its ground, each way
_TILE = 128  # pixels of a tile of the files, each way
_LEVEL_SCALE = 4  # from one level of a file to the next
_QUALITY = 85


class _Spot(NamedTuple):
    top: int
    left: int
    colours: Image.Image
    opacity: Image.Image


class DrawnSlide:
    """A slide whose pixels are made when they are asked for, in strips.

    Attributes:
        size: (height, width) in pixels.
        boxes: (top, left, bottom, right) of each spot, in pixels.
    """

    def __init__(
        self,
        size: tuple[int, int],
        ground: Image.Image,
        tissue: Image.Image,
        spots: list[_Spot],
        grain_offset: tuple[int, int],
    ) -> None:
        self.size = size
        self.boxes = [
            (s.top, s.left, s.top + s.colours.height, s.left + s.colours.width)
            for s in spots
        ]
        self._ground, self._tissue, self._spots = ground, tissue, spots
        self._grain_offset = grain_offset

    def strip(self, top: int, rows: int) -> np.ndarray:
        """Return some rows of the slide, (rows, width, 3) uint8."""
        width = self.size[1]
        scale = 1 / _GROUND_SCALE
        box = (0, top * scale, width * scale, (top + rows) * scale)
        ground, tissue = (
            low.resize((width, rows), Image.Resampling.BICUBIC, box=box)
            for low in (self._ground, self._tissue)
        )
        for spot in self._spots:
            row = spot.top - top
            if -spot.colours.height < row < rows:
                ground.paste(spot.colours, (spot.left, row), spot.opacity)
        # The light that the finest structures let through: none of it on the glass.
        light = Image.composite(
            self._grain(top, rows), Image.new("L", (width, rows), 255), tissue
        )
        pixels = np.multiply(
            np.asarray(ground), np.asarray(light)[..., None], dtype="u2"
        )
        return (pixels >> 8).astype("uint8")

    def _grain(self, top: int, rows: int) -> Image.Image:
        texture = grain()
        offset_row, offset_column = self._grain_offset
        row_numbers = (np.arange(top, top + rows) + offset_row) % texture.shape[0]
        repeats = -(-(self.size[1] + offset_column) // texture.shape[1])
        wide = np.tile(texture[row_numbers], (1, repeats))
        return Image.fromarray(
            np.ascontiguousarray(wide[:, offset_column : offset_column + self.size[1]])
        )


def draw_slide(
    rng: np.random.Generator, cells: str, size: tuple[int, int] = (2048, 3072)
) -> DrawnSlide:
    """Draw one slide.

    Args:
        rng: where every choice is drawn from.
        cells: shape of the cells in its spots: ``"hollow"``, ``"long"`` or ``"round"``.
        size: (height, width) of the slide, in pixels, at least 1024 each.

    Raises:
        ValueError: there is no such shape, or the size is too small.

    Example:

    >>> slide = draw_slide(np.random.default_rng(0), "round", (1024, 1200))
    >>> slide.strip(0, 256).shape
    (256, 1200, 3)
    """
    check_choice("cells", cells, CELL_SHAPES)
    height, width = (check_count("size", extent, smallest=_SMALLEST) for extent in size)
    low_size = -(-height // _GROUND_SCALE), -(-width // _GROUND_SCALE)
    ground, tissue = draw_ground(rng, low_size)
    spots: list[_Spot] = []
    count = rng.integers(6, 11)
    inside = np.argwhere(tissue > 0.9) * _GROUND_SCALE
    for row, column in rng.permutation(inside)[: 40 * count].tolist():
        radius = rng.uniform(110, 170)
        clear = all(
            np.hypot(
                row - s.top - s.colours.height / 2,
                column - s.left - s.colours.width / 2,
            )
            > radius + s.colours.height / 2
            for s in spots
        )
        within = 1.2 * radius < row < height - 1.2 * radius
        if clear and within and 1.2 * radius < column < width - 1.2 * radius:
            colours, opacity = draw_spot(rng, cells, radius)
            half = colours.height // 2
            spots.append(_Spot(row - half, column - half, colours, opacity))
        if len(spots) == count:
            break
    return DrawnSlide(
        (height, width),
        Image.fromarray(ground),
        Image.fromarray((255 * tissue).astype("uint8")),
        spots,
        tuple(rng.integers(1000, size=2).tolist()),
    )


def write_drawn_slides(
    directory: str | os.PathLike[str],
    n_slides: int = 96,
    smallest: tuple[int, int] = (2048, 2048),
    largest: tuple[int, int] = (3072, 4096),
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Draw a data set of slides into a directory, unless it is there already.

    Of every three slides in a row one has round cells in its spots, one long and one
    hollow ones, in random order. The directory holds ``slides/slide_000.tif``, ...,
    pyramids of JPEG tiles, ``labels.csv`` with the columns ``file`` and ``label``, and
    the settings in ``drawn_slides.json``. Slides are made and written in strips, so that
    memory hardly depends on their size.

    The directory appears under its name only when it is whole; what a killed run has
    left beside it is cleared away. Processes that want the same directory wait for the
    first. Needs tifffile and imagecodecs.

    Args:
        directory: where to write; parents are made.
        n_slides: how many slides to draw. The first slides of a larger set are the same.
        smallest: (height, width) that no slide is below, in pixels, at least 1024 each.
        largest: (height, width) that no slide is above, in pixels.
        seed: non-negative int; the same seed gives the same slides.
        progress: whether to show a progress bar.

    Raises:
        ValueError: a setting is out of range, or the directory exists and is not
            complete or was made with other settings.

    Example::

        write_drawn_slides("slides")
        source = open_source("slides/slides")
    """
    settings = {
        "version": _VERSION,
        "n_slides": check_count("n_slides", n_slides, smallest=1),
        "smallest": [check_count("smallest", n, smallest=_SMALLEST) for n in smallest],
        "largest": [
            check_count("largest", n, smallest=least)
            for n, least in zip(largest, smallest, strict=True)
        ],
        "seed": check_count("seed", seed, smallest=0),
    }
    generate(
        directory,
        "drawn slides",
        _SETTINGS_FILE,
        settings,
        lambda part: _write(part, settings, progress),
        _is_whole,
    )


def _write(directory: Path, settings: dict[str, Any], progress: bool) -> None:
    (directory / "slides").mkdir(parents=True)
    numbers = range(settings["n_slides"])
    if progress:
        from tqdm import tqdm

        numbers = tqdm(numbers, desc="Drawing slides", unit="slide")
    rows = [("file", "label")]
    for number in numbers:
        # Each slide has its own stream, and each three their own order of classes.
        three = np.random.default_rng((settings["seed"], 0, number // 3))
        cells = CELL_SHAPES[three.permutation(3)[number % 3]]
        rng = np.random.default_rng((settings["seed"], 1, number))
        height, width = rng.integers(
            settings["smallest"], settings["largest"], endpoint=True
        ).tolist()
        name = f"slide_{number:03d}.tif"
        _write_pyramid(
            directory / "slides" / name, draw_slide(rng, cells, (height, width))
        )
        rows.append((name, cells))
    with (directory / "labels.csv").open("w", newline="", encoding="ascii") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _write_pyramid(path: Path, slide: DrawnSlide) -> None:
    """Write a slide as a TIFF file of JPEG tiles, with two smaller levels."""
    import tifffile

    height, width = slide.size
    low: list[np.ndarray] = []
    options: dict[str, Any] = {
        "tile": (_TILE, _TILE),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": _QUALITY},
        "metadata": None,
        "software": False,
    }

    def full_resolution() -> Iterator[np.ndarray]:
        for top in range(0, height, _TILE):
            strip = slide.strip(top, min(_TILE, height - top))
            low.append(_reduce(strip))
            yield from _tiles(strip)

    with tifffile.TiffWriter(path) as file:
        file.write(
            full_resolution(),
            shape=(height, width, 3),
            dtype="uint8",
            subifds=2,
            **options,
        )
        level = np.concatenate(low)
        for _ in range(2):
            file.write(level, subfiletype=1, **options)
            level = _reduce(level)


def _tiles(strip: np.ndarray) -> Iterator[np.ndarray]:
    """Cut a strip into tiles, which go on as they end where the slide ends."""
    missing = [-extent % _TILE for extent in strip.shape[:2]]
    strip = np.pad(strip, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="edge")
    for left in range(0, strip.shape[1], _TILE):
        yield np.ascontiguousarray(strip[:, left : left + _TILE])


def _reduce(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).reduce(_LEVEL_SCALE))


def _is_whole(directory: Path, settings: dict[str, Any]) -> bool:
    n_found = sum(1 for _ in (directory / "slides").glob("*.tif"))
    whole: bool = n_found == settings["n_slides"]
    return whole and (directory / "labels.csv").is_file()
