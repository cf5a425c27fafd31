"""Settings that a run was begun with, compared with those it is resumed with."""

import json

from run_directory import SETTINGS, holds_run
from run_files import read_json

# What runs of earlier versions do not say; None where it is not known.
_ADDED = {
    "backend": None,
    "clip": "weight",
    "data": None,
    "decay": 0.25,
    "mix_epochs": None,
}


def read_settings(output):
    return read_json(output / SETTINGS)


def earlier_epochs(output):
    """Return how many epochs the run in a directory was last to have, or None."""
    return read_settings(output)["epochs"] if holds_run(output) else None


def check_settings(output, settings, free_settings):
    """Refuse to go on with a run that has other settings.

    Args:
        output: directory of the run; without one in it there is nothing to compare.
        settings: of the run that is to go on.
        free_settings: names of those that may differ.
    """
    if not holds_run(output):
        return
    earlier, settings = read_settings(output), json.loads(json.dumps(settings))
    differing = []
    for name, value in settings.items():
        was = earlier.get(name, _ADDED.get(name))
        unknown = was is None and name in _ADDED
        if name in free_settings or was == value or unknown:
            continue
        differing += _say(name, was, value)
    if differing:
        raise ValueError(
            f"The run in {output} has other settings: {'; '.join(differing)}. Resume it "
            "with its own, or choose another directory by --output."
        )


def _say(name, was, value):
    """Say in words how a setting differs."""
    if name == "backend":
        return [f"the backend was {was}, is {value}; KERAS_BACKEND={was} chooses it"]
    if name == "data":
        said = [
            f"{part.replace('_', ' ')} of the data: was {was.get(part)}, is {now}"
            for part, now in value.items()
            if part != "digest" and was.get(part) != now
        ]
        return said or ["the data, which are as many images, but not the same ones"]
    return [f"--{name.replace('_', '-')} was {was}, is {value}"]
