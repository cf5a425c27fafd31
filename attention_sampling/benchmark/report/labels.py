"""Names of settings, in words: what tells the trainings of a method apart."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from attention_sampling.experiments.tasks import TASKS

Settings = Mapping[str, Any]

# What the examples' --paper stands for, beside the sizes.
PAPER = {
    "augmentation": ["light"],
    "center": [False],
    "clip": ["global"],
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
    "clip": "{} clipping",
    "data": "{}",
    "data digest": "images of digest {}",
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
# Words for none or no where the plain name does not do; nothing where it goes without.
_ABSENT = {
    "extended": "not extended",
    "folds": "",
    "mix_epochs": "contrast to the end",
    "on_demand": "read as a whole",
    "start_from": "started anew",
    "test_from": "",
    "test_on": "",
    "train_on": "",
}
# Of which 0 is none.
_NOTHING = (
    "data noise_patches",
    "decay",
    "dropout",
    "entropy",
    "mix",
    "weight_decay",
)
# Said in other words, and by the title of the section.
_NEVER = ("paper", "data drawn")
# Said only where all else is the same.
_LAST = ("data digest", "data images")
_PATHS = ("dataset", "start_from")


def label_settings(
    settings: Sequence[Settings], base: int, files: Sequence[str]
) -> list[str]:
    """Name in what the trainings of a method differ from some, each by another label.

    Args:
        settings: of each.
        base: number of those that the others are compared with.
        files: a file of each, named where nothing else differs.

    Returns:
        Labels, empty for those that the others are compared with.

    Example:

    >>> settings = [{"epochs": 30, "center": True}, {"epochs": 9, "center": False}]
    >>> label_settings(settings, 0, ["a/metrics.json", "b/metrics.json"])
    ['', '9 epochs, no centered features']
    """
    labels = [_label(one, settings[base], _LAST) for one in settings]
    labels = [
        label if labels.count(label) == 1 else _label(one, settings[base], ())
        for label, one in zip(labels, settings, strict=True)
    ]
    return [
        label
        if number == base or labels.count(label) == 1
        else ", ".join(filter(None, [label, files[number]]))
        for number, label in enumerate(labels)
    ]


def _label(one: Settings, base: Settings, hidden: Sequence[str]) -> str:
    by_paper = _paper(one) and not _paper(base)
    texts = ["settings of the paper"] if by_paper else []
    if _paper(base) and not _paper(one):
        texts = ["not the settings of the paper"]
    for name in dict.fromkeys([*base, *one]):
        if name in (*_NEVER, *hidden):
            continue
        if by_paper and name in PAPER and name in one:
            differs = one[name] not in PAPER[name]
        else:
            differs = one.get(name) != base.get(name)
        if differs:
            texts.append(_say(name, one))
    return ", ".join(filter(None, texts))


def _paper(settings: Settings) -> bool:
    return bool(settings.get("paper"))


def _say(name: str, settings: Settings) -> str:
    """Return a setting in words, nothing where its absence goes without."""
    value = settings.get(name)
    plain = _NAMES.get(name, name.replace("_", " "))
    if not value and name in _ABSENT:
        return _ABSENT[name]
    if name not in settings:
        return f"{plain} not recorded"
    if value is None:
        return f"{plain} not set"
    if value is False or (value == 0 and name in _NOTHING):
        return f"no {plain}"
    if value is True:
        return _WORDS.get(name, plain)
    text = PurePath(str(value)).name if name in _PATHS else _text(name, value)
    words = _WORDS.get(name, f"{plain} {{}}")
    return (words.removesuffix("s") if text == "1" else words).format(text)


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        between = " x " if name.endswith("size") else ", "
        return between.join(_text(name, element) for element in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
