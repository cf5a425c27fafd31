"""Generated data sets: a directory that is there as a whole, or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def generate(
    directory: str | os.PathLike[str],
    what: str,
    settings_file: str,
    settings: dict[str, Any],
    write: Callable[[Path], None],
    is_whole: Callable[[Path, dict[str, Any]], bool],
) -> None:
    """Write a data set into a directory, unless it is there already.

    The directory appears under its name only when it is whole; what a killed run has
    left beside it is cleared away. Processes that want the same directory wait for the
    first.

    Args:
        directory: where to write; parents are made.
        what: what errors call the data set.
        settings_file: name of the file that keeps the settings.
        settings: what determines the data set, of types that JSON has.
        write: takes a directory, which it makes and fills.
        is_whole: takes the directory and the settings found in it; whether all files
            are there.

    Raises:
        ValueError: the directory exists and is not complete or was made with other
            settings.
    """
    directory = Path(directory).absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with locked(directory.parent):
        if directory.exists():
            _check_existing(directory, what, settings_file, settings, is_whole)
            return
        part = directory.with_name(f".{directory.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            write(part)
            text = json.dumps(settings, indent=2) + "\n"
            (part / settings_file).write_text(text, encoding="ascii")
            os.replace(part, directory)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _check_existing(
    directory: Path,
    what: str,
    settings_file: str,
    settings: dict[str, Any],
    is_whole: Callable[[Path, dict[str, Any]], bool],
) -> None:
    """Refuse a directory that is not the data set with these settings, whole."""
    try:
        found = json.loads((directory / settings_file).read_text(encoding="ascii"))
        whole = is_whole(directory, found)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(
            f"The directory exists and is not a complete data set of {what}. Delete "
            "it, or name a directory that does not exist. "
            f"Received: directory={str(directory)!r}"
        )
    if found != settings:
        raise ValueError(
            f"The directory holds {what} with other settings, {found}. Delete it, "
            "name another directory, or ask for those settings. "
            f"Received: directory={str(directory)!r}, {settings}"
        )


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Let one process at a time in, where the file system can; killing one frees it."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            handle = os.open(directory, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
