"""Files that are replaced as a whole: nobody finds half of one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Name a file to write in place of another, and put it there when it is whole.

    Where writing fails, what was there before stays, and nothing else.

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
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # as of a full disk, where writing ends
        raise
    finally:
        part.unlink(missing_ok=True)
