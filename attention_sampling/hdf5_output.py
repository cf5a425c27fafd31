"""New HDF5 files that leave nothing half-open where the disk is full."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def open_to_write(
    h5py: Any,
    part: Path,
    path: Path,
    passing: tuple[type[Exception], ...] = (),
    index_checksums: bool = False,
) -> Iterator[Any]:
    """Open a new HDF5 file, and close it also where the disk is full.

    Args:
        h5py: the library, which is optional.
        part: where to write.
        path: what to call the file in errors.
        passing: errors inside the block that are not of writing.
        index_checksums: in the format of HDF5 1.10, which has checksums of where the
            chunks are, not of what is in them alone. What a killed process has left
            of such a file cannot be opened.

    Yields:
        ``h5py.File``, open for writing.

    Raises:
        OSError: it cannot be written.
        KeyboardInterrupt: the user wants no more of it.
    """
    file = None
    try:
        # Without a cache of chunks: a chunk in it that cannot be written crashes HDF5.
        file = h5py.File(
            part,
            "x",
            libver=("v110", "v110") if index_checksums else None,
            rdcc_nbytes=0,
        )
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
        if isinstance(error, passing) or not isinstance(error, OSError | RuntimeError):
            raise
        raise OSError(
            f"The file cannot be written ({error}). Make room on the disk, or write "
            f"elsewhere. Received: {str(path)!r}"
        ) from error
