"""Names of settings, in words: what tells the trainings of a method apart."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from attention_sampling.tasks import TASKS

Settings = Mapping[str, Any]

# What the examples' --paper stands for, beside the sizes.
_PAPER = {
    "augmentation": ["light"],
    "center": [False],
    "control_variate": [False],
    "decay": [0],
    "entropy": sorted({task.entropy for task in TASKS.values()}),
    "estimator": ["ordered"],
    "feature_scale": [1],
    "mix": [0],
    "mix_epochs": [0],
}
# Setting -> words for its value, for none or no.
_WORDS = {
    "augmentation": "{} augmentation",
    "backend": "{}",
    "batch_size": "batch {}",
    "data": "{}",
    "data digest": "images of digest {}",
    "data drawn": "drawn",
    "data images": "{} images",
    "data noise_patches": "{} patches of noise",
    "data seed": "data of seed {}",
    "dataset": "data of {}",
    "dtype_policy": "{}",
    "epochs": "{} epochs",
    "estimator": "{} estimator",
    "extended": "extended from {} epochs",
    "folds": "{} folds",
    "images": "{} images",
    "mix": "contrast in the proposal {}",
    "mix_epochs": "contrast until epoch {}",
    "on_demand": "read on demand",
    "start_from": "started from {}",
    "test_from": "test images from {}",
    "test_on": "tested on {}",
    "train_on": "trained on {}",
    "view_size": "views of {}",
}
_NAMES = {
    "center": "centered features",
    "data noise_patches": "noise",
    "mix": "contrast in the proposal",
}
# Named only by those that have them.
_IF_ANY = (
    *("data drawn", "data", "extended", "folds", "mix_epochs", "on_demand"),
    *("start_from", "test_from", "test_on", "train_on"),
)
# Of which 0 is none.
_NOTHING = (
    "data noise_patches",
    "decay",
    "dropout",
    "entropy",
    "mix",
    "weight_decay",
)
# Said only where all else is the same.
_LAST = ("data digest", "data images")
_PATHS = ("dataset", "start_from")


def label_settings(settings: Sequence[Settings], files: Sequence[str]) -> list[str]:
    """Name what differs between the trainings of a method, each by another label.

    Args:
        settings: of each.
        files: a file of each, named where nothing else differs.

    Returns:
        Labels, empty where nothing has to be said.

    Example:

    >>> label_settings([{"epochs": 30, "center": True}, {"epochs": 9}], ["a", "b"])
    ['30 epochs, centered features', '9 epochs, centered features not recorded']
    """
    labels = [_label(one, settings, _LAST) for one in settings]
    labels = [
        label if labels.count(label) == 1 else _label(one, settings, ())
        for label, one in zip(labels, settings, strict=True)
    ]
    return [
        label if labels.count(label) == 1 else ", ".join(filter(None, [label, file]))
        for label, file in zip(labels, files, strict=True)
    ]


def _label(
    one: Settings, all_of_them: Sequence[Settings], hidden: Sequence[str]
) -> str:
    names = dict.fromkeys(name for other in all_of_them for name in other)
    alike = [other for other in all_of_them if _paper(other) == _paper(one)]
    texts = []
    if _paper(one) and len(alike) < len(all_of_them):
        texts.append("settings of the paper")
    for name in names:
        if name == "paper" or name in hidden or _implied(one, name):
            continue
        others = [other for other in all_of_them if not _implied(other, name)]
        if _differ(name, alike) or _differ(name, others):
            texts.append(_say(name, one))
    return ", ".join(filter(None, texts))


def _paper(settings: Settings) -> bool:
    return bool(settings.get("paper"))


def _implied(settings: Settings, name: str) -> bool:
    """Return whether "settings of the paper" says it."""
    return _paper(settings) and settings.get(name) in _PAPER.get(name, [])


def _differ(name: str, settings: Sequence[Settings]) -> bool:
    return any(one.get(name) != settings[0].get(name) for one in settings)


def _say(name: str, settings: Settings) -> str:
    """Return a setting in words, nothing where its absence need not be said."""
    value = settings.get(name)
    plain = _NAMES.get(name, name.replace("_", " "))
    if not value and name in _IF_ANY:
        return ""
    if name not in settings:
        return f"{plain} not recorded"
    if value is None:
        return f"{plain} not set"
    if value is False or (value == 0 and name in _NOTHING):
        return f"no {plain}"
    if value is True:
        return _WORDS.get(name, plain)
    text = PurePath(value).name if name in _PATHS else _text(name, value)
    return _WORDS.get(name, f"{plain} {{}}").format(text)


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        between = " x " if name.endswith("size") else ", "
        return between.join(_text(name, element) for element in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
