"""What measured numbers depend on beside the code: date, versions and the machine."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import keras


def date() -> str:
    """Return date and time in UTC, as ISO 8601 to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions of Python, Keras and its backend, NumPy and the package."""
    backend = keras.backend.backend()
    names = ("attention-sampling", "keras", backend, "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), "backend": backend, **found}


def machine() -> dict[str, Any]:
    """Return system, processor and number of cores."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    """Return the model of the processor as the system names it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
