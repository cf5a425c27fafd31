"""Large images for the benchmark of sources, written in bounded memory."""

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attention_sampling.data.libraries import import_library
from attention_sampling.data.pyramid import level_sizes

TILE = 256
# Of which images are put together, so that they need not be made anew for each.
_DISTINCT_TILES = 32
# Grey levels by which coarse and fine detail differ.
_OCTAVES = {2: 60, 8: 30, 64: 12, 256: 4}
Size = tuple[int, int]


class TiledImage:
    """An RGB image of bytes, put together of a few tiles in an order of its own.

    The tiles hold coarse and fine detail and some noise: they compress about as
    photographs do.

    Args:
        size: (height, width) in pixels.
        seed: of the order of the tiles, which are the same in all images.

    Example:

    >>> image = TiledImage((300, 400), seed=0)
    >>> image.pixels().shape
    (300, 400, 3)
    """

    def __init__(self, size: Size, seed: int) -> None:
        self.size, self._seed, self._tiles = size, seed, _make_tiles()

    def tiles(self, size: Size | None = None) -> Iterator[np.ndarray]:
        """Yield whole tiles, row by row; those of a smaller level if a size is given."""
        height, width = size or self.size
        for row, column in itertools.product(
            range(-(-height // TILE)), range(-(-width // TILE))
        ):
            # Any mixture of the bits will do.
            number = (row * 7919 + column * 104729 + row * column * 31) % 65521
            yield self._tiles[(number + self._seed) % _DISTINCT_TILES]

    def pixels(self) -> np.ndarray:
        """Return all pixels, (height, width, 3): for images that fit into memory."""
        height, width = self.size
        across = -(-width // TILE)
        tiles = list(self.tiles())
        rows = [
            np.concatenate(tiles[start : start + across], axis=1)
            for start in range(0, len(tiles), across)
        ]
        return np.concatenate(rows)[:height, :width]


def write_tiff(path: Path, image: TiledImage, compression: str | None) -> None:
    """Write a tiled BigTIFF with a pyramid, tile by tile.

    The smaller levels are of the right sizes, and of tiles like the first: no copies of
    it.

    Args:
        path: file to write.
        image: what to write.
        compression: ``"jpeg"``, ``"deflate"``, or None.
    """
    tifffile = import_library("tifffile", extra="tiff")
    sizes = level_sizes(image.size)
    options = {
        "dtype": "uint8",
        "photometric": "rgb",
        "tile": (TILE, TILE),
        "compression": compression,
        "compressionargs": {"level": 85} if compression == "jpeg" else None,
    }
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, size in enumerate(sizes):
            place: dict[str, Any] = (
                {"subfiletype": 1} if number else {"subifds": len(sizes) - 1}
            )
            writer.write(image.tiles(size), shape=(*size, 3), **place, **options)


def write_hdf5(path: Path, images: list[np.ndarray], compression: str | None) -> None:
    """Write images of one size as one dataset in chunks.

    Args:
        path: file to write.
        images: (height, width, 3) each.
        compression: ``"gzip"``, ``"lzf"``, or None.
    """
    h5py = import_library("h5py", extra="hdf5")
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset(
            "images",
            (len(images), *images[0].shape),
            "uint8",
            chunks=(1, *map(min, (TILE, TILE, 3), images[0].shape)),
            compression=compression,
            shuffle=compression is not None,
        )
        for number, image in enumerate(images):
            dataset[number] = image


def write_jpeg(path: Path, image: np.ndarray) -> None:
    """Write an image as a photograph is usually kept."""
    pillow = import_library("PIL.Image", extra="images")
    pillow.fromarray(image).save(path, "JPEG", quality=90)


@functools.cache
def _make_tiles() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [_make_tile(rng) for _ in range(_DISTINCT_TILES)]


def _make_tile(rng: np.random.Generator) -> np.ndarray:
    """Return pixels of coarse and fine detail, smooth but for the finest."""
    pillow = import_library("PIL.Image", extra="images")
    tile = np.full((TILE, TILE, 3), 128.0)
    for cells, contrast in _OCTAVES.items():
        coarse = rng.normal(128, contrast, size=(cells, cells, 3))
        detail = pillow.fromarray(np.clip(coarse, 0, 255).astype("uint8"))
        tile += np.asarray(detail.resize((TILE, TILE), pillow.Resampling.BICUBIC))
        tile -= 128
    return np.clip(tile, 0, 255).astype("uint8")
