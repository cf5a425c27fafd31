"""What an HDF5 file of Megapixel MNIST holds, and whether one does."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attention_sampling.datasets._megapixel_mnist_hdf5 import REMEDY, h5py, open_to_read

FORMAT, VERSION = "megapixel_mnist", 2
# Views are stored as whole numbers of 1 / VIEW_UNIT of a grey value: as exact in the
# brightest pixels as in the darkest, unlike 16-bit floats.
VIEW_UNIT = 256
BOX = np.dtype([(name, "<i4") for name in ("top", "left", "bottom", "right")])
# The images alone have more than two axes: HDF5Source finds them without a name.
_DATASETS = {
    "images": (np.dtype("u1"), 4),
    "labels": (np.dtype("<i4"), 1),
    "boxes": (BOX, 2),
    "views": (np.dtype("<u2"), 2),
}


@dataclass(frozen=True)
class Contents:
    """What a file holds, less the images and views.

    Attributes:
        size, view_size: (height, width) of the images and of the views, in pixels.
        noise_patches: how many an image has.
        seed: of the images.
        settings: what the file was made with, as its maker says.
        labels: (count,) int32.
        boxes: (count, digits, 4) int32; top, left, bottom, right.
    """

    size: tuple[int, int]
    view_size: tuple[int, int]
    noise_patches: int
    seed: int
    settings: dict[str, Any]
    labels: np.ndarray
    boxes: np.ndarray


def read_contents(path: Path) -> Contents:
    """Check a file and read all but its images and views.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it is damaged, no file of Megapixel MNIST, one of another version,
            or what it holds does not fit together.
    """
    with open_to_read(path) as file:
        attributes = _attributes(file, path)
        images, labels, boxes, views = (
            _dataset(file, name, path) for name in _DATASETS
        )
        contents = Contents(
            size=_pair(images.shape[1:3]),
            labels=labels[...].astype("int32"),
            boxes=np.stack([boxes[name] for name in BOX.names or ()], axis=-1),
            **attributes,
        )
        counts = {len(dataset) for dataset in (images, labels, boxes, views)}
        low_height, low_width = contents.view_size
        if len(counts) != 1 or views.shape[1] != low_height * low_width:
            raise ValueError(
                "The file does not fit together. Expected: as many images, labels, boxes "
                f"and views, and views of {low_height} x {low_width} pixels. {REMEDY}. "
                f"Received: images {images.shape}, labels {labels.shape}, boxes "
                f"{boxes.shape}, views {views.shape} in {str(path)!r}"
            )
    top_left, bottom_right = contents.boxes[..., :2], contents.boxes[..., 2:]
    if (
        (contents.labels < 0).any()
        or (top_left < 0).any()
        or (top_left >= bottom_right).any()
        or (bottom_right > contents.size).any()
    ):
        raise ValueError(
            "The file has labels below 0, or digits outside of their image. "
            f"{REMEDY}. Received: {str(path)!r}"
        )
    return contents


def _attributes(file: Any, path: Path) -> dict[str, Any]:
    """Return what of the contents the attributes of the file hold."""
    kind = {name: _attribute(file, name) for name in ("format", "version")}
    if [str(value) for value in kind.values()] != [FORMAT, str(VERSION)]:
        raise ValueError(
            f"The file is none of Megapixel MNIST, or of another version. Expected: the "
            f"attributes format={FORMAT!r}, version={VERSION}. {REMEDY}. "
            f"Received: {kind} in {str(path)!r}"
        )
    try:
        return {
            "view_size": _pair(file.attrs["view_size"]),
            "noise_patches": int(file.attrs["noise_patches"]),
            "seed": int(file.attrs["seed"]),
            "settings": dict(json.loads(_attribute(file, "settings"))),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"The file lacks an attribute, or has one of another kind: {error}. "
            f"Expected: view_size, noise_patches, seed and settings. {REMEDY}. "
            f"Received: {sorted(file.attrs)} in {str(path)!r}"
        ) from error


def _attribute(file: Any, name: str) -> Any:
    """Return an attribute, text as str; None if there is none that can be trusted.

    Text of variable length lies in a heap without checksum, and HDF5 never ends to
    search one that is damaged: this package writes none, and none is read.
    """
    if name not in file.attrs or file.attrs.get_id(name).dtype.hasobject:
        return None
    value = file.attrs[name]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _dataset(file: Any, name: str, path: Path) -> Any:
    """Return a dataset of the file itself, not of one that it links to."""
    dtype, axes = _DATASETS[name]
    found = None
    if isinstance(file.get(name, getlink=True), h5py.HardLink):
        found = file[name]
    if (
        not isinstance(found, h5py.Dataset)
        or found.dtype != dtype
        or found.ndim != axes
        or found.is_virtual
        or found.external is not None
        or (name == "images" and found.shape[3] != 1)
    ):
        received = "none"
        if isinstance(found, h5py.Dataset):
            received = f"{found.dtype} of shape {found.shape}"
        raise ValueError(
            f"The file lacks a dataset. Expected: {name!r}, {dtype} with {axes} axes. "
            f"{REMEDY}. Received: {received} in {str(path)!r}"
        )
    return found


def _pair(extents: Any) -> tuple[int, int]:
    height, width = extents
    return int(height), int(width)
