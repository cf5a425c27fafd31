"""Find the files that a user names by paths, directories and patterns."""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

from attention_sampling.data.base import SourceError

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

# Files of a file browser, not of the user.
_IGNORED = ("thumbs.db", "desktop.ini")


def find_files(paths: Paths) -> list[str]:
    """Return the files that a user names by paths, directories and patterns.

    Args:
        paths: a file, a directory, a pattern, or several; see `open_source`.

    Raises:
        SourceError: there are none.

    Example:

    >>> Path("slides").mkdir()
    >>> for name in ("b10.svs", "b9.svs", ".hidden"):
    ...     Path("slides", name).touch()
    >>> [Path(path).name for path in find_files("slides")]
    ['b9.svs', 'b10.svs']
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    files = [file for path in paths for file in _expand(os.fspath(path))]
    if not files:
        raise SourceError("A source needs one file or more. Received: none")
    return list(dict.fromkeys(files))


def _expand(path: str) -> list[str]:
    """Return the files of a directory or a pattern; a file as it is."""
    if os.path.isdir(path):
        found, what = glob.glob(os.path.join(glob.escape(path), "*")), "directory"
    elif glob.has_magic(path) and not os.path.exists(path):
        found, what = glob.glob(path, recursive=True), "pattern"
    else:
        return [path]  # whether it is there shows when it is opened
    files = [file for file in found if os.path.isfile(file) and not _is_ignored(file)]
    if not files:
        raise SourceError(f"The {what} must hold a file. Received: {path!r}")
    return sorted(files, key=_natural)


def _is_ignored(path: str) -> bool:
    name = os.path.basename(path)
    if name.lower() in _IGNORED:  # hidden files, glob leaves out
        return True
    # The data of slides/a.mrxs are in slides/a.
    folders = Path(path).parents
    return any(os.path.isfile(f"{folder}.mrxs") for folder in folders if folder.name)


def _natural(path: str) -> tuple[list[str | int], str]:
    """Return a key that sorts numbers by their value."""
    parts = re.split(r"([0-9]+)", path)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], path
