"""How the examples end: errors as one line, and what to do after an interrupt."""

import contextlib
import errno
import re
import sys

import tensorflow as tf
from run_directory import holds_model

_INTERRUPTED = 130  # as shells have it: 128 and the number of the signal


def run_script(main):
    """Run what a script is for; end with one line where that fails."""
    try:
        main()
    except KeyboardInterrupt as interrupt:
        print(f"Interrupted{interrupt}.", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except (ValueError, OSError, ImportError, tf.errors.OpError) as error:
        sys.exit(f"error: {describe_error(error)}")


@contextlib.contextmanager
def explained(output):
    """Say of an interrupt whether the run in ``output`` can go on, and of a full disk
    where it is.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f": go on with the run in {output} by the same command with --resume"
            if holds_model(output)
            else f": no epoch is done, there is nothing in {output} to go on with"
        ) from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if error.errno is None or (error.filename is not None and not full):
            raise
        raise OSError(
            error.errno,
            f"{error.strerror or error}; writing stopped"
            + (". Make room on the disk, then go on by --resume" if full else ""),
            error.filename or str(output),
        ) from error


def describe_error(error):
    """Return what went wrong as one line.

    What a source raises while TensorFlow runs comes out with a traceback around it.
    """
    text = str(error)
    if isinstance(error, tf.errors.OpError):
        found = re.search(r"SourceError: (.*)", text)
        text = found[1] if found else error.message
    return " ".join(text.split())
