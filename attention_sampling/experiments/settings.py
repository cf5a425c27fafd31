"""The options of ``experiments run``, and the settings that work as their defaults."""

import argparse
import math
from typing import Any

from attention_sampling.datasets.synthetic.generating import is_generated
from attention_sampling.experiments.augmentation import AUGMENTATIONS
from attention_sampling.experiments.tasks import TASKS, parse_method

_COMMON: dict[str, Any] = {
    "method": "ats-10",
    "epochs": 100,
    "learning_rate": 1e-3,
    "decay": 0.25,
    "clip": "weight",
    "dtype_policy": "float32",
    "center": True,
    "feature_scale": 4.0,
    "entropy": 0.01,
    "mix": 0.0,
    "mix_epochs": 0,
    "estimator": "unordered",
    "control_variate": True,
    "prediction": "sample",
}
# For the published images.
DEFAULTS: dict[str, dict[str, Any]] = {
    "megapixel_mnist": {
        **_COMMON,
        "epochs": 30,
        "batch_size": 32,
        "entropy": 1e-4,
        "mix": 1.0,
        "start": None,
        "on_demand": False,
    },
    "colon_cancer": {
        **_COMMON,
        "batch_size": 5,
        "decay": 0.5,
        "augmentation": "strong",
        "folds": 5,
        "train_on": None,
        "test_on": None,
    },
    "speed_limits": {
        **_COMMON,
        "method": "ats-5",
        "epochs": 20,
        "learning_rate": 1e-4,
        "decay": 1.0,
        "feature_scale": 30.0,
        "entropy": 0.0,
        "batch_size": 16,
        "augmentation": "colour",
        "test_fraction": 0.25,
        "networks": "signs",
        "patch_size": 96,
        "scale": 0.25,
        "strides": "1,2,2,2",
        "pretrain": 10,
        "start": None,
        "balanced": False,
    },
}
# What differs for generated images.
GENERATED: dict[str, dict[str, Any]] = {
    "megapixel_mnist": {},
    "colon_cancer": {"epochs": 30, "augmentation": "light"},
    "speed_limits": {
        "method": "ats-6",
        "epochs": 28,
        "batch_size": 8,
        "learning_rate": 2e-3,
        "mix": 1.0,
        "mix_epochs": 14,
        "decay": 0.25,
        "feature_scale": 4.0,
        "entropy": 0.01,
        "augmentation": "shift",
        "test_fraction": 0.2,
        "networks": "paper",
        "patch_size": 64,
        "strides": "2,1,2,2,2",
        "pretrain": 0,
        "balanced": True,
    },
}
# What differs with --paper: what the paper says, and where it says nothing, what the
# scripts of its authors have.
_PAPER: dict[str, Any] = {
    "decay": 0.0,
    "clip": "global",
    "center": False,
    "feature_scale": 1.0,
    "entropy": 1e-4,
    "mix": 0.0,
    "mix_epochs": 0,
    "estimator": "ordered",
    "control_variate": False,
}
PAPER: dict[str, dict[str, Any]] = {
    "megapixel_mnist": {**_PAPER, "epochs": 500, "batch_size": 128},
    "colon_cancer": {**_PAPER, "augmentation": "light"},
    "speed_limits": {
        **_PAPER,
        "epochs": 500,
        "learning_rate": 1e-3,
        "batch_size": 32,
        "augmentation": "shift",
        "networks": "paper",
        "patch_size": 100,
        "scale": 0.3,
        "pretrain": 0,
        "balanced": True,
    },
}
# What goes with --networks, where they are not the default.
_OF_NETWORKS: dict[str, dict[str, Any]] = {
    "signs": {"feature_scale": 30.0},  # of features that sum to at most 1
    "paper": {"feature_scale": 4.0, "learning_rate": 1e-3, "pretrain": 0},
}
# Of methods without an attention network, or that sample nothing, or have no patches.
_ATTENTION = ("entropy", "mix", "mix_epochs")
_SAMPLING = (*_ATTENTION, "estimator", "control_variate", "prediction", "on_demand")
_UNUSED = {
    "ats": (),
    "u": _ATTENTION,
    "deep-mil": (*_SAMPLING, "scale"),
    "cnn": (
        *_SAMPLING,
        *("feature_scale", "center", "networks", "patch_size", "scale"),
        *("pretrain", "start"),
    ),
}
_CHOICES = {
    "clip": ("weight", "global"),
    "dtype_policy": ("float32", "mixed_bfloat16"),
    "augmentation": tuple(AUGMENTATIONS),
    "networks": ("signs", "paper"),
    "estimator": ("unordered", "ordered"),
    "prediction": ("sample", "top_k", "all"),
}


def _parse_folds(text: str) -> int | str:
    return text if text == "blocks" else int(text)


_TYPES = {"folds": _parse_folds}
_RANGES = {
    "epochs": (1, math.inf),
    "batch_size": (1, math.inf),
    "patch_size": (1, math.inf),
    "decay": (0, 1),
}
_HELP = {
    "epochs": "passes over the training images",
    "batch_size": "images a step",
    "learning_rate": "of Adam",
    "decay": "fraction of the training, at its end, in which the learning rate falls to 0",
    "clip": "at norm 1, the gradient of each weight by itself, or of all together",
    "dtype_policy": "of Keras",
    "center": "batch-normalize the features before they are given norm 1",
    "feature_scale": "factor of the features before the classifier",
    "entropy": "strength of the entropy regularizer of the attention",
    "mix": "fraction of local contrast in the proposal that training samples from",
    "mix_epochs": "until that fraction has fallen to 0; 0 holds it",
    "estimator": "of the expectation; the paper's is ordered",
    "control_variate": "take noise out of the gradient of the attention",
    "prediction": "outside training: sample, the cells of most attention, or all",
    "on_demand": "leave the images on disk and read the sampled patches",
    "augmentation": "of the training images",
    "folds": "random parts of the images, each to test with once; blocks for five parts "
    "of consecutive numbers",
    "train_on": "instead of folds, numbers of images such as 1-50,60",
    "test_on": "instead of folds, numbers of images such as 51-70",
    "test_fraction": "of the images to test with, where the data set does not say",
    "patch_size": "in full-resolution pixels",
    "scale": "of the view to the image",
    "networks": "of attention and features: for small signs, or those of the paper",
    "strides": "of the residual networks: the first convolution, and each block",
    "pretrain": "passes in which each network first learns from the boxes around signs; "
    "interrupted, they begin again",
    "start": "model file of another run, whose networks to begin with; for speed_limits "
    "in place of --pretrain; where --seed chooses the test images, of a run with the same",
    "balanced": "weigh each class by the inverse of its frequency",
}


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that determine a training; they are None where not given."""
    for name, explanation in _HELP.items():
        values = {
            task: DEFAULTS[task][name] for task in TASKS if name in DEFAULTS[task]
        }
        default = next(iter(values.values()))
        said = ", ".join(f"{task} {value}" for task, value in values.items())
        if list(values.values()) == [default] * len(TASKS):
            said = str(default)
        keywords: dict[str, Any] = {"help": f"{explanation} (default: {said})"}
        if isinstance(default, bool):
            keywords["action"] = argparse.BooleanOptionalAction
        elif name in _CHOICES:
            keywords["choices"] = _CHOICES[name]
        else:
            kind = str if default is None else type(default)
            keywords |= {"type": _TYPES.get(name, kind), "metavar": "X"}
        parser.add_argument(_option(name), **keywords)


def choose_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a series of runs: the defaults, and what is given.

    Raises:
        ValueError: an option that does nothing, is out of range, or does not go together
            with another.
    """
    task = arguments.task
    settings = dict(DEFAULTS[task])
    if arguments.data is None or is_generated(arguments.data):
        settings |= GENERATED[task]
    if arguments.paper:
        settings |= PAPER[task]
    method = parse_method(arguments.method or settings["method"])
    settings["method"] = str(method)
    given = {name: getattr(arguments, name) for name in _HELP}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name not in settings:
            raise ValueError(f"{_option(name)} is of another task than {task}")
        if name in _UNUSED[method.kind]:
            raise ValueError(f"{_option(name)} does nothing for {method}")
        lowest, highest = _RANGES.get(name, (0, math.inf))
        if isinstance(value, int | float) and not lowest <= value <= highest:
            limits = f"{lowest} to {highest}"
            raise ValueError(f"{_option(name)} must be {limits}. Received: {value}")
    moved = AUGMENTATIONS.get(given.get("augmentation", ""), {})
    if task == "speed_limits" and "orient" in moved:
        raise ValueError(
            f"--augmentation {given['augmentation']} mirrors images, and signs would not "
            "be legible. Expected: none, light, shift or colour"
        )
    if given.get("estimator") == "ordered":
        settings["control_variate"] = False  # there is none for it
    if "start" in given:
        if not given["start"]:
            raise ValueError("--start needs a model file. Received: an empty word")
        if "pretrain" in given:
            raise ValueError("--pretrain does nothing after --start")
        if "pretrain" in settings:
            settings["pretrain"] = 0
        elif method.kind == "deep-mil":
            raise ValueError(f"--start leaves out the pooling of {method}")
    networks = given.get("networks", settings.get("networks"))
    if networks == "paper" and given.get("pretrain"):
        raise ValueError("--pretrain is for --networks signs")
    if networks != settings.get("networks"):
        settings |= _OF_NETWORKS[networks]
    if "strides" in given and networks == "signs" and method.kind != "cnn":
        raise ValueError(f"--strides does nothing for {method} with --networks signs")
    if {"train_on", "test_on"} & given.keys():
        if "folds" in given:
            raise ValueError("--folds does not go with --train-on and --test-on")
        settings["folds"] = None
    settings |= given
    if settings.get("mix_epochs") and not settings["mix"]:
        raise ValueError("--mix-epochs needs --mix above 0: what is to fall")
    settings = {
        name: value
        for name, value in settings.items()
        if name not in _UNUSED[method.kind]
    }
    return {**settings, "paper": arguments.paper, "seed": arguments.seed}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
