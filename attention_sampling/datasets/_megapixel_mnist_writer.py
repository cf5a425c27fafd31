"""Write a file of Megapixel MNIST: a whole one, or none."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attention_sampling.checks import check_pair
from attention_sampling.datasets._megapixel_mnist_format import (
    BOX,
    FORMAT,
    VERSION,
    VIEW_UNIT,
)
from attention_sampling.datasets._megapixel_mnist_hdf5 import h5py
from attention_sampling.datasets.megapixel_mnist import MegapixelMNIST
from attention_sampling.files import open_to_write

# Pixels of a chunk, each way. Twice as many take a tenth less space and twice as long to
# read patches of 50 x 50 pixels from.
_CHUNK = 64
_GZIP = {"compression": "gzip", "compression_opts": 6}


def write_megapixel_mnist(
    path: str | os.PathLike[str],
    data: MegapixelMNIST,
    view_size: int | tuple[int, int],
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Write images, views, labels and boxes into one HDF5 file.

    The file appears under its name when it is whole. One image is in memory at a time.

    Args:
        path: of the file; its directory must exist.
        data: what to write.
        view_size: (height, width) of the views in pixels, one int or two.
        settings: further settings to keep in the file, of types that JSON has.
        overwrite: whether to replace a file of that name.
        progress: whether to show a progress bar.

    Raises:
        FileExistsError: there is such a file.
        OSError: it cannot be written; nothing is left of it.
        ValueError: the views are larger than the images.
    """
    path = Path(path)
    low = _check_view_size(data, view_size)
    if path.exists() and not overwrite:
        raise FileExistsError(
            "The file must not exist. Delete it, name another, or give overwrite=True. "
            f"Received: {str(path)!r}"
        )
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open_to_write(h5py, part, path, index_checksums=True) as file:
            # Text of fixed length: other text lies in a heap, which has no checksum.
            file.attrs["format"] = np.bytes_(FORMAT)
            file.attrs["version"] = VERSION
            file.attrs["view_size"] = low
            file.attrs["noise_patches"] = data.noise_patches
            file.attrs["seed"] = data.seed
            file.attrs["settings"] = np.bytes_(json.dumps(dict(settings or {})))
            _write_images(file, data, low, f"Writing {path.name}" if progress else None)
        _synchronize(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_images(
    file: Any, data: MegapixelMNIST, low: tuple[int, int], description: str | None
) -> None:
    """Write the datasets of a file; a progress bar goes under the description if any."""
    count, (height, width) = len(data), data.size
    chunk = (1, min(_CHUNK, height), min(_CHUNK, width), 1)
    images = file.create_dataset(
        "images", (count, height, width, 1), "u1", chunks=chunk, **_GZIP
    )
    pixels = low[0] * low[1]
    views = file.create_dataset(
        "views", (count, pixels), "<u2", chunks=(1, pixels), **_GZIP
    )
    boxes = np.array([data.boxes(index) for index in range(count)], dtype=BOX)
    # Other than what is compressed, these would have no checksums.
    file.create_dataset("boxes", data=boxes, fletcher32=True)
    file.create_dataset("labels", data=data.labels.astype("<i4"), fletcher32=True)
    tops, lefts = np.arange(0, height, chunk[1]), np.arange(0, width, chunk[2])
    indices: Any = range(count)
    if description is not None:
        from tqdm import tqdm

        indices = tqdm(indices, desc=description, unit="image")
    for index in indices:
        image = data.image(index)[..., 0]
        brightest = np.maximum.reduceat(np.maximum.reduceat(image, tops), lefts, axis=1)
        for row, column in zip(*np.nonzero(brightest), strict=True):
            top, left = tops[row], lefts[column]
            window = np.s_[top : top + chunk[1], left : left + chunk[2]]
            images[(index, *window, 0)] = image[window]
        view = np.rint(data.view(index, low) * VIEW_UNIT)
        views[index] = view.ravel().astype("<u2")


def _check_view_size(
    data: MegapixelMNIST, view_size: int | tuple[int, int]
) -> tuple[int, int]:
    """Return (height, width) of the views, which must not be larger than the images."""
    low = check_pair("view_size", view_size)
    if any(small > large for small, large in zip(low, data.size, strict=True)):
        raise ValueError(
            "`view_size` must not be larger than the images. "
            f"Received: view_size={view_size!r}, images of {data.size}"
        )
    return low


def _synchronize(path: Path) -> None:
    """Wait until the disk has what was written."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
