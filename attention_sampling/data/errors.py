"""What is said about pixels that cannot be read, and what is to blame."""

import errno

# What the operating system says where the process may hold no more.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

# What a remedy calls an argument of Python -> what the commands call it.
_OPTIONS = {
    'on_error="skip"': "--on-error skip",
    "overwrite=True": "--overwrite",
    "`dataset`": "--dataset",
    "channels=3": "--channels 3",
}


class SourceError(OSError):
    """Pixels could not be read: the message names file, image and window."""


def describe_error(error: BaseException) -> str:
    """Return what an error says, and its kind where it says too little."""
    text = str(error)
    if "too many open files" in text.lower():
        text += ". Open the source with a lower max_open, or raise `ulimit -n`"
    if isinstance(error, OSError | ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_fault_of_process(error: BaseException | None) -> bool:
    """Return whether the process lacked files or memory, so that no file is to blame."""
    while error is not None:
        number = getattr(error, "errno", None)
        if isinstance(error, MemoryError) or number in _SHORTAGES:
            return True
        if "too many open files" in str(error).lower():  # libraries that keep the text
            return True
        error = error.__cause__
    return False


def in_options(error: BaseException) -> str:
    """Return what an error says, in the words of the command line."""
    text = str(error)
    for argument, option in _OPTIONS.items():
        text = text.replace(argument, option)
    return text
