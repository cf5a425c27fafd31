"""What measured numbers depend on beside the code: date, command, versions, machine."""

import datetime
import importlib.metadata
import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

import attention_sampling


def describe_run(arguments: Sequence[str]) -> dict[str, Any]:
    """Return what to write beside numbers that were measured now.

    Args:
        arguments: the words after ``python -m attention_sampling experiments``.

    Example:

    >>> describe_run(["cost", "--task", "colon_cancer"])["command"]
    'python -m attention_sampling experiments cost --task colon_cancer'
    """
    now = datetime.datetime.now(datetime.UTC)
    backend = keras.backend.backend()
    words = ["python", "-m", "attention_sampling", "experiments", *arguments]
    return {
        "date": now.isoformat(timespec="seconds"),
        "command": shlex.join(words),
        "versions": {
            "python": platform.python_version(),
            "backend": backend,
            "attention-sampling": attention_sampling.__version__,
            **{
                name: importlib.metadata.version(name)
                for name in ("keras", backend, "numpy")
            },
        },
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
    }


def _processor() -> str:
    """Return the model of the processor as the system names it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
