"""Files that appear whole, one process at a time in a directory, a quiet terminal."""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

# Names that end in a token of ours and ".part", and perhaps a suffix.
_PARTS = ".*." + 8 * "[0-9a-f]" + ".part*"


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Name a file or directory to write, and move it to its path when it is whole.

    If writing fails, nothing is left of it, and a file that was at the path stays. Two
    writers of one path each write a file of their own; the last to end wins. A directory
    replaces none but an empty one.

    Args:
        path: file to write or to replace, or directory to make.

    Yields:
        Path of a file or directory beside it, with the same suffix, to write or to make.

    Raises:
        OSError: it cannot be written; names the file or directory.

    Example:

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "answer.txt")
    >>> with replacing(path) as part:
    ...     characters = part.write_text("42")
    >>> path.read_text()
    '42'
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        yield part
        if part.is_dir() and path.is_dir():
            path.rmdir()  # empty; not every system renames over it
        os.replace(part, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(part)):
            error.filename = str(path)  # a full disk, where writing ends, names no file
        raise
    finally:
        _remove(part)


@contextlib.contextmanager
def one_process(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Keep other processes out of a directory, and make it if it is not there.

    Take it once, before anything in the directory is read or written. What a killed process
    left half-written by ``replacing`` is removed.

    Args:
        directory: where this process will write.

    Yields:
        Path of the directory.

    Raises:
        BlockingIOError: another process is at work in it.
        OSError: it cannot be made.

    Example:

    >>> import tempfile
    >>> with one_process(Path(tempfile.mkdtemp(), "runs")) as output:
    ...     output.is_dir()
    True
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise BlockingIOError(
            f"Another process is at work in {directory}. Wait for its end, or choose "
            "another directory."
        ) from None
    try:
        _clear_parts(directory)
        yield directory
    finally:
        lock.release()


def _clear_parts(directory: Path) -> None:
    """Remove left-over parts, but for those in directories with a lock of their own."""
    for part in directory.glob(_PARTS):
        _remove(part)
    for child in directory.iterdir():
        if child.is_dir() and not child.is_symlink() and not (child / ".lock").exists():
            _clear_parts(child)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Keep what TensorFlow logs while it is imported off the terminal.

    TensorFlow 2.21 tells of CUDA and oneDNN before it knows how much it may log. Python's
    errors come through. ``TF_CPP_MIN_LOG_LEVEL`` is set to 3, errors only, unless it is
    set already.

    Example:

    >>> with quiet_imports():
    ...     import keras
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)


def keep_settings(path: Path, settings: Mapping[str, Any], resuming: bool) -> None:
    """Write the settings of a training, or refuse to go on with others.

    Args:
        path: JSON file of the settings.
        settings: what may not change, of types that JSON has.
        resuming: compare with those in the file, if it is there, and write nothing.

    Raises:
        ValueError: other settings.
        OSError: the file cannot be read or written.
    """
    if resuming:
        earlier = json.loads(path.read_text("utf-8")) if path.exists() else settings
        differing = [
            f"{name} was {earlier.get(name)}, is {value}"
            for name, value in settings.items()
            if earlier.get(name) != value
        ]
        if differing:
            raise ValueError(
                f"The training in {path.parent} has other settings: "
                f"{'; '.join(differing)}. Resume it with its own, or choose another "
                "output"
            )
        return
    with replacing(path) as part:
        part.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
