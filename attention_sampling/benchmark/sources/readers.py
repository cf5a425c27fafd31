"""Each kind of source, and how one reads the same windows by hand."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attention_sampling.benchmark.sources.files import (
    Size,
    TiledImage,
    write_hdf5,
    write_jpeg,
    write_tiff,
)
from attention_sampling.data import (
    ArraySource,
    HDF5Source,
    ImageFilesSource,
    OpenSlideSource,
    Source,
    TiffSource,
)

# Number of an image, row, column, size -> pixels (height, width, channels).
ReadWindow = Callable[[int, int, int, int], np.ndarray]


class Reader(NamedTuple):
    """Two ways to the same windows.

    Attributes:
        name: of the format.
        open: callable from a number of threads to the source.
        direct: opens the files, to be closed by the stack, and returns what reads from
            them by hand.
        has_threads: whether several threads can read at once.
        forgets: whether each call is to begin without what earlier ones decoded.
        is_judged: whether there is a library whose calls the source is held against.
    """

    name: str
    open: Callable[[int], Source]
    direct: Callable[[ExitStack], ReadWindow]
    has_threads: bool = True
    forgets: bool = False
    is_judged: bool = True


def make_readers(
    directory: Path, count: int, size: Size, slide: Path | None = None
) -> Iterator[Reader]:
    """Write images in every format that is installed, one format after the other.

    Args:
        directory: for the files.
        count: images of each format.
        size: (height, width) of the images in pixels.
        slide: a slide to read too.

    Yields:
        What reads the files.
    """
    images = [TiledImage(size, seed).pixels() for seed in range(count)]
    yield Reader(
        "arrays",
        lambda threads: ArraySource(images, threads=threads),
        lambda stack: _from_images(images.__getitem__),
        has_threads=False,
    )
    if _installed("PIL"):
        photographs = [directory / f"{number}.jpg" for number in range(count)]
        for path, image in zip(photographs, images, strict=True):
            write_jpeg(path, image)
        # By hand too, each image is decoded once for all of its windows.
        yield Reader(
            "JPEG files",
            lambda threads: ImageFilesSource(photographs, threads=threads),
            lambda stack: _from_images(
                cache(lambda number: _decode(photographs[number]))
            ),
            forgets=True,
        )
        # By hand this is no call of a library, but a slice of what is in memory.
        yield Reader(
            "JPEG files, decoded before",
            lambda threads: ImageFilesSource(photographs, threads=threads),
            lambda stack: _from_images(
                cache(lambda number: _decode(photographs[number]))
            ),
            is_judged=False,
        )
    if _installed("h5py"):
        for compression in (None, "lzf", "gzip"):
            path = directory / f"{compression}.h5"
            write_hdf5(path, images, compression)
            yield Reader(
                f"HDF5, {compression or 'uncompressed'}",
                lambda threads, path=path: HDF5Source(path, threads=threads),
                lambda stack, path=path: _from_hdf5(stack, path),
                has_threads=False,
            )
    if _installed("tifffile", "imagecodecs"):
        for compression in (None, "deflate", "jpeg"):
            files = [
                directory / f"{number}-{compression}.tif" for number in range(count)
            ]
            for seed, path in enumerate(files):
                write_tiff(path, TiledImage(size, seed), compression)
            yield _tiff_reader(f"TIFF, {compression or 'uncompressed'}", files)
        if _installed("openslide"):
            yield _slide_reader("OpenSlide, TIFF jpeg", files)
    if slide is not None:
        yield _slide_reader("OpenSlide, slide", [slide])
        yield _tiff_reader("TIFF, slide", [slide])


def read_directly(
    read: ReadWindow, indices: np.ndarray, origins: np.ndarray, size: int, channels: int
) -> np.ndarray:
    """Read windows one after the other into one array, as a batch needs them."""
    windows = np.empty((len(indices), size, size, channels), "uint8")
    for number, (index, (row, column)) in enumerate(
        zip(indices.tolist(), origins.tolist(), strict=True)
    ):
        windows[number] = read(index, row, column, size)
    return windows


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


def _decode(path: Path) -> np.ndarray:
    """Decode a JPEG by the library that the source takes, or nothing is compared."""
    if _installed("simplejpeg"):
        import simplejpeg

        return simplejpeg.decode_jpeg(path.read_bytes(), "RGB")
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def _from_images(image: Callable[[int], np.ndarray]) -> ReadWindow:
    return lambda number, row, column, size: image(number)[
        row : row + size, column : column + size
    ]


def _from_hdf5(stack: ExitStack, path: Path) -> ReadWindow:
    import h5py

    dataset = stack.enter_context(h5py.File(path, "r"))["images"]
    return lambda number, row, column, size: dataset[
        number, row : row + size, column : column + size
    ]


def _tiff_reader(name: str, files: list[Path]) -> Reader:
    return Reader(
        name,
        lambda threads: TiffSource(files, threads=threads),
        lambda stack: _from_tiff(stack, files),
    )


def _from_tiff(stack: ExitStack, files: list[Path]) -> ReadWindow:
    """Decode the tiles that a window touches, as tifffile's documentation shows."""
    import tifffile

    open_files = [stack.enter_context(tifffile.TiffFile(path)) for path in files]

    def read(number: int, row: int, column: int, size: int) -> np.ndarray:
        handle, page = open_files[number].filehandle, open_files[number].pages[0]
        height, width = page.tilelength, page.tilewidth
        across = -(-page.imagewidth // width)
        window = np.empty((size, size, page.samplesperpixel), page.dtype)
        for tile_row in range(row // height, (row + size - 1) // height + 1):
            for tile_column in range(column // width, (column + size - 1) // width + 1):
                index = tile_row * across + tile_column
                handle.seek(page.dataoffsets[index])
                data = handle.read(page.databytecounts[index])
                tile, (_, _, top, left, _), _ = page.decode(
                    data, index, jpegtables=page.jpegtables
                )
                first, last = max(row, top), min(row + size, top + height)
                start, end = max(column, left), min(column + size, left + width)
                window[first - row : last - row, start - column : end - column] = tile[
                    0, first - top : last - top, start - left : end - left
                ]
        return window

    return read


def _slide_reader(name: str, files: list[Path]) -> Reader:
    return Reader(
        name,
        lambda threads: OpenSlideSource(files, threads=threads),
        lambda stack: _from_slides(stack, files),
    )


def _from_slides(stack: ExitStack, files: list[Path]) -> ReadWindow:
    import openslide

    slides: list[Any] = [stack.enter_context(openslide.OpenSlide(x)) for x in files]

    def read(number: int, row: int, column: int, size: int) -> np.ndarray:
        region = slides[number].read_region((column, row), 0, (size, size))
        return np.asarray(region)[:, :, :3]

    return read
