"""Import what reads slides, or say which extra brings it."""

import importlib
from types import ModuleType


def import_library(module: str) -> ModuleType:
    """Import a library of the extra ``slides``.

    Args:
        module: name of the module, such as ``"openslide"``.

    Raises:
        ImportError: it is not installed; the message names the extra.

    Example:

    >>> import_library("json").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is missing ({error}). Install it by: pip install "
            "'keras-attention-sampling[slides]'"
        ) from error
