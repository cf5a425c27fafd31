"""Find the files that a user names by paths, directories and patterns."""

import glob
import itertools
import os
import re
from collections.abc import Iterable
from pathlib import Path

from attention_sampling.data.errors import SourceError

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

# Files of a file browser, not of the user.
_IGNORED = ("thumbs.db", "desktop.ini")


def find_files(paths: Paths) -> list[str]:
    """Return the files that a user names by paths, directories and patterns.

    Of several, a directory or pattern without files is returned as it is: to open it fails.

    Raises:
        SourceError: there are none.
        TypeError: ``paths`` are no paths.

    Example:

    >>> Path("slides").mkdir()
    >>> for name in ("b10.svs", "b9.svs", ".hidden"):
    ...     Path("slides", name).touch()
    >>> [Path(path).name for path in find_files("slides")]
    ['b9.svs', 'b10.svs']
    """
    names = [os.fspath(path) for path in _check(paths)]
    if not names:
        raise SourceError("A source needs one file or more. Received: none")
    found = {name: _expand(name) for name in names}
    if not any(found.values()):
        raise SourceError(f"{names[0]}: {no_files(names[0])}")
    return list(dict.fromkeys(file for name in names for file in found[name] or [name]))


def no_files(path: str) -> str:
    """Return what is wrong with a directory or pattern without files; "" for a file."""
    if os.path.isdir(path):
        inside = os.path.join(glob.escape(path), "**", "*.png")
        return (
            "this is a directory without files. For files in directories inside it, "
            f"give a pattern such as {inside!r}"
        )
    return "no file fits this pattern" if _is_pattern(path) else ""


def _check(paths: Paths) -> list[str | os.PathLike[str]]:
    if isinstance(paths, str | os.PathLike):
        return [paths]
    several = list(paths) if isinstance(paths, Iterable) else [paths]
    for path in several:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                "`paths` must be a path, or several: texts or pathlib.Path. Received: "
                f"{path!r} of type {type(path).__name__}"
            )
    return several


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not os.path.lexists(path)


def _expand(path: str) -> list[str]:
    """Return the files of a directory or a pattern; a file as it is."""
    if os.path.isdir(path):
        found, root = glob.glob(os.path.join(glob.escape(path), "*")), Path(path)
    elif _is_pattern(path):
        found = glob.glob(path, recursive=True)
        fixed = itertools.takewhile(lambda p: not glob.has_magic(p), Path(path).parts)
        root = Path(*fixed)
    else:
        return [path]  # whether it is there shows when it is opened
    return sorted(
        (
            file
            for file in found
            if os.path.isfile(file) and not _is_ignored(Path(file), root)
        ),
        key=_natural,
    )


def _is_ignored(path: Path, root: Path) -> bool:
    """Tell whether a file below the folder that the user named is not meant."""
    if path.name.lower() in _IGNORED:  # hidden files, glob leaves out
        return True
    # The data of slides/a.mrxs are in slides/a.
    inside = [folder for folder in path.relative_to(root).parents if folder.name]
    return any(os.path.isfile(root / f"{folder}.mrxs") for folder in inside)


def _natural(path: str) -> tuple[list[str | int], str]:
    """Return a key that sorts numbers by their value."""
    parts = re.split(r"([0-9]+)", path)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], path
