"""Which files in an output directory are of a run of ours, and may be deleted."""

import contextlib
import os
import re
from itertools import chain

from run_files import read_json
from run_lock import reserve

from attention_sampling.visualize import is_ours

SETTINGS = "settings.json"
# What all versions of all examples have written into it.
_SETTINGS_KEYS = {"batch_size", "epochs", "learning_rate", "pictures", "seed"}
# What a run leaves in its output directory, or a series of runs, each in its own:
# run-0, or with folds run-0/fold-0. Those with a dot, where it was killed in writing.
_FILES = (
    "model.keras",
    "log.csv",
    "metrics.json",
    "curve.png",
    ".model.part.keras",
    ".log.part.csv",
    ".metrics.part.json",
    ".curve.part.png",
    ".settings.part.json",
    "tensorboard/train/events.out.tfevents.*",
    "tensorboard/validation/events.out.tfevents.*",
)
_NAMES = ("model.keras", "log.csv", "metrics.json", "curve.png", "pictures", SETTINGS)
_NAMED_AT_MOST = 5


def holds_run(output):
    """Tell whether there is a run: the settings that it writes before all else."""
    try:
        settings = read_json(output / SETTINGS)
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and settings.keys() >= _SETTINGS_KEYS


def holds_model(output):
    """Tell whether a run has done a whole epoch, from which it can go on."""
    return holds_run(output) and any(
        path.name == "model.keras" for path in run_files(output)
    )


def run_files(output):
    """Return what a run has left, less its settings.

    Of pictures, those alone that are marked as drawn by this package: others may be the
    user's.
    """
    places = _places(output)
    found = chain.from_iterable(
        place.glob(pattern) for place in places for pattern in _FILES
    )
    pictures = (path for path in output.glob("pictures/*.png") if is_ours(path))
    return [path for path in chain(found, pictures) if path.is_file()]


def check_output(output, resume, overwrite):
    """Refuse a directory with a run, unless it is resumed or overwritten, or with
    anything else under the names of a run.
    """
    _check_directory(output)
    if holds_run(output):
        if run_files(output) and not resume and not overwrite:
            raise ValueError(
                f"{output} holds a run. Go on with it by --resume, delete it by "
                "--overwrite, or choose another directory by --output."
            )
        return
    in_the_way = [output / name for name in _NAMES] + _numbered(output, "run")
    in_the_way = [str(path) for path in in_the_way if os.path.lexists(path)]
    if in_the_way:
        raise ValueError(
            f"{_name_some(in_the_way)} would be written to, and {output} holds no run of "
            f"this example: a run has its {SETTINGS}. Move away what is there, or choose "
            "another directory by --output."
        )


def begin_output(output, overwrite):
    """Make the output directory of a run, without the run that is to be overwritten.

    Other processes are kept out of it until `run_lock.one_process` ends. What is not of
    the run stays. The settings stay to be replaced: should this be
    killed, what is left is still known to be of a run.
    """
    output.mkdir(parents=True, exist_ok=True)
    reserve(output)
    if not overwrite or not holds_run(output):
        return
    for path in run_files(output):
        path.unlink()
    left = []
    for place in [*reversed(_places(output)[1:]), output / "pictures"]:
        inside = (place / "tensorboard" / part for part in ("train", "validation"))
        for directory in (*inside, place / "tensorboard", place):
            with contextlib.suppress(OSError):  # it is not there, or holds more
                directory.rmdir()
        left += sorted(map(str, place.glob("*")))
    if left:
        print(f"Not of the run that is overwritten, and left: {_name_some(left)}")


def _check_directory(output):
    """Refuse an output that cannot become a directory."""
    existing = next(path for path in (output, *output.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise ValueError(
            "--output must be a directory, or a new one. "
            f"Received: --output {output}, where {existing} is a file"
        )


def _places(output):
    """Return the directories of a run, those of a fold after that they are in."""
    runs = _numbered(output, "run")
    return [output, *runs, *(fold for run in runs for fold in _numbered(run, "fold"))]


def _numbered(directory, name):
    number = re.compile(rf"{name}-(0|[1-9][0-9]*)")
    return sorted(p for p in directory.glob(f"{name}-*") if number.fullmatch(p.name))


def _name_some(names):
    more = len(names) - _NAMED_AT_MOST
    shown = ", ".join(names[:_NAMED_AT_MOST])
    return f"{shown} and {more} more" if more > 0 else shown
