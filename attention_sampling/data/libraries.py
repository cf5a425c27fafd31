"""Import what reads a format, or say which extra brings it."""

import importlib
from types import ModuleType


def import_library(module: str, extra: str) -> ModuleType:
    """Import the library of a format.

    Args:
        module: name of the module, such as ``"h5py"``.
        extra: extra of this package that installs it.

    Raises:
        ImportError: it is not installed; the message names the extra.

    Example:

    >>> import_library("json", extra="hdf5").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is missing ({error}). Install it by: pip install "
            f'"attention-sampling[{extra}]"'
        ) from error
