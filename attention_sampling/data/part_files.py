"""Files under a hidden name until they are whole, one writer at a time."""

import contextlib
import glob
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a path that no file may be written to.

    Args:
        path: where the file is to be.
        overwrite: whether an existing file may be replaced.

    Raises:
        FileExistsError: it exists and is not to be replaced, or is no file.
        FileNotFoundError: its directory does not exist.
        PermissionError: its directory cannot be written to.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(
            "The file must go into a directory that exists. Received: "
            f"{str(path)!r}. Make the directory first"
        )
    if path.exists() and not path.is_file():
        raise FileExistsError(
            f"A file is to be written. Received: {str(path)!r}, which is something else"
        )
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"The file must not exist. Received: {str(path)!r}. Delete it, name another, "
            "or replace it: overwrite=True, --overwrite on the command line"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(
            f"The directory must be writable. Received: {str(path)!r}, whose directory "
            "may not be written to"
        )


@contextlib.contextmanager
def one_writer(path: Path) -> Iterator[bool]:
    """Keep other writers of a file out, as long as this lasts or the process lives.

    Yields:
        Whether the others are kept out. Not all systems can.

    Raises:
        BlockingIOError: another writer is at it.
    """
    lock = path.with_name(f".{path.name}.lock")
    handle = _lock(lock, path)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            # Removed while it is held: who waits for it sees that it is gone.
            lock.unlink(missing_ok=True)
            os.close(handle)


def _lock(lock: Path, path: Path) -> int | None:
    try:
        import fcntl
    except ImportError:
        return None
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(lock)):
                    return handle
        except BlockingIOError as error:
            os.close(handle)
            raise BlockingIOError(
                f"Only one process at a time can write a file. Received: {str(path)!r}, "
                "which another is writing. Wait for it, or name another file"
            ) from error
        except OSError:  # a file system without locks
            os.close(handle)
            lock.unlink(missing_ok=True)
            return None
        os.close(handle)


def abandoned_parts(path: Path) -> list[Path]:
    """Return what killed writers left of a file. Only to be called with others out."""
    digits = "[0-9a-f]" * 8
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{digits}.part"))


@contextlib.contextmanager
def part_file(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give a hidden name to write to, which becomes the file when all is done.

    After an error it is removed. Who is killed leaves it behind.

    Args:
        path: where the file is to be.
        overwrite: whether an existing file may be replaced.

    Yields:
        A path beside it, where no file is yet.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        _synchronize(part)
        check_target(path, overwrite)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not all systems can
        _synchronize(path.parent)


def _synchronize(path: Path) -> None:
    """Wait until the disk has what was written."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
