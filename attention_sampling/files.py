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
    """Name a file to write in place of another, and put it there when it is whole.

    Where writing fails, what was there before stays, and nothing else. Two writers of one
    path have a file each; the last to end wins.

    Args:
        path: file to write or to replace.

    Yields:
        Path of a file in the same directory, with the same suffix, to write.

    Raises:
        OSError: it cannot be written; names the file.

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
        os.replace(part, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(part)):
            error.filename = str(path)  # a full disk, where writing ends, names no file
        raise
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def one_process(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Keep other processes out of a directory, and make it if it is not there.

    Take it once, before anything in the directory is read or written. Files that a killed
    process left half-written by ``replacing`` are removed, and directories named likewise.

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
        if part.is_dir():  # of generated data
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)
    for child in directory.iterdir():
        if child.is_dir() and not child.is_symlink() and not (child / ".lock").exists():
            _clear_parts(child)


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


@contextlib.contextmanager
def open_to_write(part: Path, path: Path) -> Iterator[Any]:
    """Open a new HDF5 file, and close it also where the disk is full.

    Args:
        part: where to write.
        path: what to call the file in errors.

    Yields:
        ``h5py.File``, open for writing.

    Raises:
        OSError: it cannot be written.
        KeyboardInterrupt: the user stops it.
    """
    import h5py

    file = None
    try:
        # Without a cache of chunks: a chunk in it that cannot be written crashes HDF5.
        file = h5py.File(part, "x", rdcc_nbytes=0)
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
        if not isinstance(error, OSError | RuntimeError):
            raise
        raise OSError(
            f"The file cannot be written ({error}). Make room on the disk, or write "
            f"elsewhere. Received: {str(path)!r}"
        ) from error
