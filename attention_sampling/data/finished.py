"""What a stopped conversion had finished, taken over by the next one."""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py

from attention_sampling.data.pyramid import level_sizes
from attention_sampling.data.source import Size, Source

# Attribute of a finished image, in unfinished files alone.
MARK = "fingerprint"
# What h5py raises about a file that is not whole.
_BROKEN = (OSError, RuntimeError, KeyError, ValueError, AttributeError)


def set_aside(part: Path, old: Path) -> None:
    """Keep the file that a stopped conversion was writing, under another name.

    Where there is an older one, that conversion was stopped while it took it over: the
    older one has all that was finished.
    """
    if old.exists():
        part.unlink(missing_ok=True)
    elif part.exists():
        os.replace(part, old)


def take_over(
    old: Path,
    images: h5py.Group,
    source: Source,
    marks: Sequence[str | None],
    advance: Callable[[int], object],
) -> None:
    """Copy from an unfinished file what is wanted and whole.

    The file itself is never written on: a kill may have left it inconsistent. What is copied
    out of it is read whole, which gzip checks.
    """
    with contextlib.suppress(*_BROKEN), h5py.File(old, "r") as file:
        found = {}
        for image in file["images"].values():
            with contextlib.suppress(*_BROKEN):
                found[image.attrs[MARK]] = image
        for index, mark in enumerate(marks):
            if mark is not None and mark in found:
                key = image_key(index)
                try:
                    images.copy(found[mark], key)
                    _check(images[key], level_sizes(source.levels(index)[0]))
                    advance(index)
                except _BROKEN:
                    if key in images:
                        del images[key]


def image_key(index: int) -> str:
    """Return the name of the group of an image."""
    return f"{index:06d}"


def _check(image: h5py.Group, sizes: Sequence[Size]) -> None:
    """Read an image, and refuse one of which something is missing."""
    for number, size in enumerate(sizes):
        level = image[str(number)]
        chunks = 1
        for extent, length in zip(level.shape, level.chunks, strict=True):
            chunks *= -(-extent // length)
        if level.shape[:2] != size or level.id.get_num_chunks() != chunks:
            raise OSError(f"level {number} is not whole")
        for window in level.iter_chunks():
            level[window]
