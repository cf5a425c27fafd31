"""Generated data sets: a directory that is there as a whole, or not at all."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attention_sampling.files import replacing

# Beside the data, written last.
SETTINGS_FILE = "generated.json"


def generate(
    directory: str | os.PathLike[str],
    settings: Mapping[str, Any],
    write: Callable[[Path], None],
) -> Path:
    """Write a data set into a directory, unless it is there already.

    The directory appears when it is whole, and is never overwritten. An error or an
    interrupt leaves nothing. Keep other processes out by ``files.one_process``, which also
    removes what a killed process left.

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
    settings = json.loads(json.dumps(settings))  # as they are read: no tuples
    if directory.exists() and any(directory.iterdir()):
        _check_existing(directory, settings)
        return directory
    with replacing(directory) as part:
        part.mkdir(parents=True)
        write(part)
        text = json.dumps(settings, indent=2) + "\n"
        (part / SETTINGS_FILE).write_text(text, encoding="ascii")
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


def is_generated(directory: str | os.PathLike[str]) -> bool:
    """Tell whether the data in a directory are generated ones, whole.

    Example:

    >>> is_generated("nowhere")
    False
    """
    return (Path(directory) / SETTINGS_FILE).is_file()
