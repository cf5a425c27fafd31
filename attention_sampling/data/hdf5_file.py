"""Write an HDF5 file of images, each with a pyramid.

The file has the attribute ``attention_sampling_format`` and the group ``images``, in it a
group for each image, "000000" and so on, with the attribute ``name`` and a dataset
(height, width, channels) for each level: "0" the full resolution, "1" half of it.
"""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attention_sampling.data.hdf5_writer import ImageWriter, raw_bytes
from attention_sampling.data.names import distinct_names
from attention_sampling.data.resume import FinishedImages
from attention_sampling.data.source import (
    Source,
    SourceError,
    is_fault_of_process,
)

FORMAT = 1
# Bytes of pixels after which what is finished is made to survive a kill.
_FLUSH = 2**28


def write_images(
    source: Source,
    file: Any,
    writer: ImageWriter,
    finished: FinishedImages,
    on_error: str,
    advance: Callable[[int], object],
) -> tuple[tuple[str, str], ...]:
    """Write all images of a source into an empty file.

    Args:
        source: the images.
        file: HDF5 file to write to.
        writer: what writes one image.
        finished: what is there from before.
        on_error: ``"raise"``, or ``"skip"`` to leave out what cannot be read. Where the
            process lacks files or memory, no image is to blame, and it is raised.
        advance: called with the bytes of pixels that need not be written.

    Returns:
        (name, reason) of each image left out.

    Raises:
        SourceError: an image cannot be read; with ``on_error="skip"``, none can, or the
            process lacks files or memory.
    """
    file.attrs["attention_sampling_format"] = FORMAT
    images = file.create_group("images")
    names = distinct_names(source.names)
    skipped, unflushed = [], 0
    for index, name in enumerate(names):
        key = f"{len(images):06d}"
        if finished.copy(index, images, key):
            advance(raw_bytes(source, index))
        else:
            try:
                writer.write(index, images.create_group(key))
            except SourceError as error:
                if on_error == "raise" or is_fault_of_process(error):
                    raise
                del images[key]
                skipped.append((source.names[index], str(error)))
                continue
        # File names need not be Unicode, what HDF5 stores does.
        name = name.encode(errors="backslashreplace").decode()
        images[key].attrs["name"] = name
        finished.mark(index, images[key])
        unflushed += raw_bytes(source, index)
        if unflushed >= _FLUSH:
            file.flush()
            unflushed = 0
    if not len(images):
        raise SourceError(
            f"None of {len(source)} images can be read; the first: {skipped[0][1]}"
        )
    for image in images.values():
        finished.unmark(image)
    return tuple(skipped)


def check_room(source: Source, path: Path) -> None:
    """Refuse what does not fit on the disk without compression.

    Args:
        source: the images.
        path: file to write.

    Raises:
        OSError: it does not.
    """
    needed = sum(raw_bytes(source, index) for index in range(len(source)))
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"There is no room for the file: {needed:,} bytes are needed without "
            f"compression. Received: {str(path)!r}, on a disk with {free:,} bytes free",
        )
