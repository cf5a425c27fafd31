"""What generated data sets share: a directory written whole or not at all, and noise."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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

    Raises:
        ValueError: the directory holds something else, or a data set with other settings.
        OSError: a file cannot be written; names the file or the directory.
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
    """Tell whether a directory holds a whole generated data set."""
    return (Path(directory) / SETTINGS_FILE).is_file()


def noise(
    rng: np.random.Generator,
    size: tuple[int, int],
    sigma: float,
    dtype: Any = "float32",
) -> npt.NDArray[Any]:
    """Return smooth noise of mean 0 and deviation 1, without a seam where it repeats."""
    from skimage.filters import gaussian

    values = gaussian(rng.standard_normal(size, dtype), sigma, mode="wrap")
    return (values - values.mean()) / values.std()
