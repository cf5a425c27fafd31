"""Images that stay on disk, read by windows. Loads neither Keras nor TensorFlow."""

import importlib
from typing import Any

# Public name -> module that defines it; each imports its library when it opens a file.
_MODULE_OF = {
    "ArraySource": "array",
    "Dihedral": "dihedral",
    "HDF5Source": "hdf5",
    "ImageFilesSource": "images",
    "OpenSlideSource": "slides",
    "Source": "source",
    "SourceError": "errors",
    "TiffSource": "tiff",
    "open_source": "opening",
}

__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
