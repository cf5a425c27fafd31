"""Find the images in an HDF5 file. Links to other files are not followed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from attention_sampling.data.files import Image

# Our own layout, which ``convert`` writes: this file
# attribute, and a group for each image, "images/000000" and so on. That has the
# attribute "name" and a dataset for each level, "0" (full resolution), "1", ...
FORMAT_ATTRIBUTE = "attention_sampling_format"
FORMAT = 1
IMAGES_GROUP = "images"

# More channels than this are taken for something else, unless there are four axes.
_MOST_CHANNELS = 4
_MOST_LISTED = 8


@dataclass(frozen=True)
class DatasetImage(Image):
    """An image in datasets of a file.

    Attributes:
        datasets: path in the file of the dataset of each level.
        number: which image of a dataset of several; None for a dataset of one.
    """

    datasets: tuple[str, ...] = ()
    number: int | None = None


def find_images(file: h5py.File, dataset: str | None) -> list[DatasetImage]:
    """Return the images of a dataset; without its name, of the only one that fits."""
    if dataset is not None:
        return _images_of(dataset, open_dataset(file, dataset))
    number = file.attrs.get(FORMAT_ATTRIBUTE)
    if number is None:
        return _images_of(*_only_candidate(file))
    if not isinstance(number, int | np.integer) or number != FORMAT:
        raise ValueError(
            f"it has a layout that this version does not know. Received: "
            f"{FORMAT_ATTRIBUTE}={number!r}, expected {FORMAT}"
        )
    return list(_converted_images(file))


def open_dataset(file: h5py.File, path: str) -> h5py.Dataset:
    """Open a dataset of integers or floats whose pixels are in this file."""
    found = _open_object(file, path)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{path!r} is a group, no dataset")
    if found.is_virtual or found.external is not None:
        raise ValueError(
            f"the pixels of dataset {path!r} are in other files, which is refused"
        )
    if not _is_numeric(found):
        raise ValueError(
            f"dataset {path!r} must hold integers or floats. Received: "
            f"{found.dtype} of shape {found.shape}"
        )
    return found


def _only_candidate(file: h5py.File) -> tuple[str, h5py.Dataset]:
    """Return the one dataset that looks like images, and its path."""
    found: dict[int, list[str]] = {2: [], 3: [], 4: []}

    def look(path: str, item: Any) -> bool | None:
        # Links are not visited.
        if isinstance(item, h5py.Dataset) and _is_numeric(item) and item.ndim in found:
            found[item.ndim].append(path)
        return None

    file.visititems(look)
    # Two axes are as likely labels: only where nothing else is there.
    paths = sorted(found[3] + found[4]) or sorted(found[2])
    if not paths:
        raise ValueError("there is no dataset of images in it")
    if len(paths) > 1:
        more = ", ..." if len(paths) > _MOST_LISTED else ""
        raise ValueError(
            "which dataset holds the images is not clear: name one by `dataset`. "
            f"Received: {', '.join(map(repr, paths[:_MOST_LISTED]))}{more}"
        )
    return paths[0], open_dataset(file, paths[0])


def _images_of(path: str, dataset: h5py.Dataset) -> list[DatasetImage]:
    """Return the images of one dataset."""
    path = path.strip("/")
    shape = dataset.shape
    if len(shape) == 2:
        return [_describe(None, [path], [dataset], channels=1)]
    if len(shape) == 3 and shape[2] <= _MOST_CHANNELS:
        return [_describe(None, [path], [dataset])]
    # Channels that come first would be read as rows.
    first = len(shape) == 4 and shape[1] <= _MOST_CHANNELS < shape[3]
    if len(shape) == 4 and not first:
        return [
            _describe(f"{path}[{number}]", [path], [dataset], number=number)
            for number in range(shape[0])
        ]
    raise ValueError(
        f"dataset {path!r} must have the axes (height, width), (height, width, channels) "
        f"with at most {_MOST_CHANNELS} channels, or (count, height, width, channels). "
        f"Received: shape {shape}. Store grey images as (count, height, width, 1), one "
        "of more channels as (1, height, width, channels)"
    )


def _converted_images(file: h5py.File) -> Iterator[DatasetImage]:
    """Yield the images of a file of our own layout."""
    images = _open_object(file, IMAGES_GROUP)
    for index, name in enumerate(sorted(images)):
        path = f"{IMAGES_GROUP}/{name}"
        group = _open_object(file, path)
        paths = [f"{path}/{level}" for level in range(len(group))]
        datasets = [open_dataset(file, level) for level in paths]
        title = group.attrs.get("name")
        if not datasets or not isinstance(title, str):
            raise ValueError(f"{path!r} has no levels, or no name. It is damaged")
        yield _describe(index, paths, datasets, name=title)


def _describe(
    key: str | int | None,
    paths: Sequence[str],
    datasets: Sequence[h5py.Dataset],
    number: int | None = None,
    name: str | None = None,
    channels: int | None = None,
) -> DatasetImage:
    start = 0 if number is None else 1
    levels = [level.shape[start : start + 2] for level in datasets]
    return DatasetImage(
        key=key,
        levels=tuple((int(height), int(width)) for height, width in levels),
        blocks=tuple(_block(level, start) for level in datasets),
        channels=channels or int(datasets[0].shape[-1]),
        dtype=datasets[0].dtype.name,
        name=name,
        datasets=tuple(paths),
        number=number,
    )


def _block(dataset: h5py.Dataset, start: int) -> tuple[int, int]:
    """Return (height, width) of what is stored together: a chunk, or else a row."""
    if dataset.chunks is None:
        return 1, int(dataset.shape[start + 1])
    height, width = dataset.chunks[start : start + 2]
    return int(height), int(width)


def _open_object(file: h5py.File, path: str) -> Any:
    """Open a group or dataset, following no link that may lead out of the file."""
    found: Any = file
    for name in filter(None, path.split("/")):
        link = found.get(name, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            raise ValueError(f"there is no {path!r} in it")
        if not isinstance(link, h5py.HardLink):
            raise ValueError(
                f"a link, which might lead to other files, is at {path!r}, which is "
                "refused. Name the dataset itself"
            )
        found = found[name]
    return found


def _is_numeric(dataset: h5py.Dataset) -> bool:
    """Return whether a dataset holds integers or floats that NumPy has everywhere."""
    dtype = dataset.dtype
    return dataset.shape is not None and dtype.kind in "uif" and dtype.itemsize <= 8
