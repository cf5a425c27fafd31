"""Open what is in an HDF5 file, and nothing that is in another."""

from typing import Any

import h5py


def open_dataset(file: h5py.File, path: str) -> h5py.Dataset:
    """Open a dataset whose pixels are in this file, and nowhere else.

    Raises:
        ValueError: there is none; a link leads to it; its pixels are in other files;
            it holds no integers or floats.
    """
    found = open_object(file, path)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{path!r} is a group, no dataset")
    if found.is_virtual or found.external is not None:
        raise ValueError(
            f"the pixels of dataset {path!r} are in other files, which is refused"
        )
    if not is_numeric(found):
        raise ValueError(
            f"dataset {path!r} must hold integers or floats. Received: "
            f"{found.dtype} of shape {found.shape}"
        )
    return found


def open_object(file: h5py.File, path: str) -> Any:
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


def is_numeric(dataset: h5py.Dataset) -> bool:
    """Return whether a dataset holds integers or floats that NumPy has everywhere."""
    dtype = dataset.dtype
    return dataset.shape is not None and dtype.kind in "uif" and dtype.itemsize <= 8
