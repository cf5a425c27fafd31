"""Errors of reading images, in words that name the file and the remedy."""

import errno
import importlib
from types import ModuleType

# The process may open no more files, or has no memory left: no file is broken.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

# An argument in Python -> the same option of a command.
_OPTIONS = {
    'on_error="skip"': "--on-error skip",
    "overwrite=True": "--overwrite",
    "`dataset`": "--dataset",
    "channels=3": "--channels 3",
    "Open the source with a lower max_open, or raise": "Raise",
}


class SourceError(OSError):
    """Pixels could not be read: the message names file, image and window."""


def describe_error(error: BaseException) -> str:
    """Return the text of an error, with its type where the text alone is unclear."""
    text = str(error)
    if "too many open files" in text.lower():
        text += ". Open the source with a lower max_open, or raise `ulimit -n`"
    if isinstance(error, OSError | ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_fault_of_process(error: BaseException | None) -> bool:
    """Tell whether the process ran out of open files or memory: no file is broken."""
    while error is not None:
        number = getattr(error, "errno", None)
        if isinstance(error, MemoryError) or number in _SHORTAGES:
            return True
        if "too many open files" in str(error).lower():  # of a library, without errno
            return True
        error = error.__cause__
    return False


def in_options(error: BaseException) -> str:
    """Return the text of an error, with options of a command for arguments in Python."""
    text = str(error)
    for argument, option in _OPTIONS.items():
        text = text.replace(argument, option)
    return text


def import_library(module: str) -> ModuleType:
    """Import a library of the extra ``slides``, or raise an error that names the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is missing ({error}). Install it by: pip install "
            "'keras-attention-sampling[slides]'"
        ) from error
