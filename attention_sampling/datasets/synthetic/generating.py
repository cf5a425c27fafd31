"""Generated data sets: a directory that is there as a whole, or not at all."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Beside the data, written last.
SETTINGS_FILE = "generated.json"


def generate(
    directory: str | os.PathLike[str],
    settings: Mapping[str, Any],
    write: Callable[[Path], None],
) -> Path:
    """Write a data set into a directory, unless it is there already.

    The directory appears under its name when it is whole. Until then the data set is
    written beside it, under a hidden name that ends in ``.part``: an error or an interrupt
    removes it, and after a killed process ``files.one_process`` does. What is in a
    directory is never overwritten. Keep other processes out by ``files.one_process``.

    Args:
        directory: where to write; its parents are made.
        settings: what determines the data set, of types that JSON has.
        write: takes the path of an empty directory, and fills it.

    Returns:
        Path of the directory.

    Raises:
        ValueError: the directory holds something else, or a data set with other settings.
        OSError: a file cannot be written; names the file or the directory.

    Example:

    >>> import tempfile
    >>> def write(directory):
    ...     _ = (directory / "answer.txt").write_text("42")
    >>> directory = Path(tempfile.mkdtemp(), "answers")
    >>> sorted(path.name for path in generate(directory, {"seed": 0}, write).iterdir())
    ['answer.txt', 'generated.json']
    """
    directory = Path(directory).absolute()
    settings = json.loads(
        json.dumps(settings)
    )  # as they will be found: lists, no tuples
    if directory.exists() and any(directory.iterdir()):
        _check_existing(directory, settings)
        return directory
    part = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        write(part)
        text = json.dumps(settings, indent=2) + "\n"
        (part / SETTINGS_FILE).write_text(text, encoding="ascii")
        if directory.exists():
            directory.rmdir()  # empty; not every system renames over it
        part.rename(directory)
    except OSError as error:
        if error.filename is None:  # as of a full disk
            error.filename = str(directory)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return directory


def _check_existing(directory: Path, settings: dict[str, Any]) -> None:
    """Refuse a directory that is not the data set with these settings."""
    try:
        text = (directory / SETTINGS_FILE).read_text(encoding="ascii")
        found = json.loads(text)
    except (FileNotFoundError, ValueError):
        raise ValueError(
            "The directory holds something else than generated data. Expected: an empty "
            "directory, or one that does not exist. "
            f"Received: directory={str(directory)!r}"
        ) from None
    if found != settings:
        raise ValueError(
            f"The directory holds data that were generated with other settings, {found}. "
            "Delete it, or choose another directory. "
            f"Received: directory={str(directory)!r}, {settings}"
        )
