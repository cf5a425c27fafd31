"""One process at a time in the output directory of a run."""

import contextlib
import os

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None

_held = {}  # directory -> its open file


@contextlib.contextmanager
def one_process(output):
    """Keep other processes from the run in a directory, from when the directory is there.

    Args:
        output: directory. One that is made only in the block is for `reserve` then.

    Raises:
        ValueError: another process is at work in it.
    """
    try:
        if output.is_dir():
            reserve(output)
        yield
    finally:
        file = _held.pop(output, None)
        if file is not None:
            os.close(file)  # which ends the lock, as the end of the process does


def reserve(output):
    """Keep other processes out of an existing directory until `one_process` ends."""
    if fcntl is None or output in _held:
        return
    file = os.open(output, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise ValueError(
            f"Another process is at work in {output}. Wait for its end, or choose another "
            "directory by --output."
        ) from None
    except OSError:  # of a file system that knows no locks
        os.close(file)
        return
    _held[output] = file
