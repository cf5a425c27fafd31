"""Open HDF5 files of Megapixel MNIST, with errors that say what to do."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import h5py
except ImportError as error:
    raise ImportError(
        f"h5py is missing ({error}). Install it by: pip install "
        '"attention-sampling[hdf5]"'
    ) from error

__all__ = ["REMEDY", "h5py", "open_to_read"]

REMEDY = "Make it again by examples/make_mnist.py"


@contextlib.contextmanager
def open_to_read(path: Path) -> Iterator[Any]:
    """Open a file; what HDF5 finds broken in it is a ValueError that names it.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be read.
        ValueError: it is no HDF5 file, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(
            "A file of Megapixel MNIST is missing. Expected: what "
            f"examples/make_mnist.py writes. Received: {str(path)!r}"
        )
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # whatever h5py makes of it
        if getattr(error, "errno", None) is not None:  # the system's, not the file's
            raise
        raise ValueError(
            f"The file is no HDF5 file, not whole, or damaged ({error}). {REMEDY}. "
            f"Received: {str(path)!r}"
        ) from error
