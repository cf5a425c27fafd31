"""Open HDF5 files of Megapixel MNIST, with errors that say what to do."""

import contextlib
import os
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

__all__ = ["REMEDY", "h5py", "open_to_read", "open_to_write"]

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


@contextlib.contextmanager
def open_to_write(part: Path, path: Path) -> Iterator[Any]:
    """Open a new HDF5 file, and close it also where the disk is full.

    Args:
        part: where to write.
        path: what to call the file in errors.

    Raises:
        OSError: it cannot be written.
        KeyboardInterrupt: the user wants no more of it.
    """
    file = None
    try:
        # Without a cache of chunks: a chunk in it that cannot be written crashes HDF5.
        file = h5py.File(part, "x", rdcc_nbytes=0)
        yield file
        file.close()
    except BaseException as error:
        if file is not None:
            # Closing writes: give it room. An HDF5 file that could not be closed keeps
            # its space on the disk until the process ends.
            with contextlib.suppress(OSError):
                os.truncate(part, 0)
            with contextlib.suppress(OSError, RuntimeError):
                file.close()
        # h5py raises something else after an interrupt in one of its callbacks.
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        # HDF5 raises either when it cannot write.
        if not isinstance(error, OSError | RuntimeError):
            raise
        raise OSError(
            f"The file cannot be written ({error}). Make room on the disk, or write "
            f"elsewhere. Received: {str(path)!r}"
        ) from error
