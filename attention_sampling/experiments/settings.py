"""The options of ``experiments run``, and the settings that work as their defaults."""

import argparse
import math
from collections.abc import Callable
from typing import Any

from attention_sampling.datasets.synthetic.generating import is_generated
from attention_sampling.experiments.augmentation import AUGMENTATIONS
from attention_sampling.experiments.methods import parse_method
from attention_sampling.experiments.tasks import TASKS

_COMMON: dict[str, Any] = {
    "method": "ats-10",
    "epochs": 100,
    "learning_rate": 1e-3,
    "decay": 0.25,
    "weight_decay": 0.0,
    "clip": "weight",
    "dtype_policy": "float32",
    "entropy": 0.01,
    "mix": 0.0,
    "mix_epochs": 0,
    "estimator": "unordered",
    "control_variate": True,
    "prediction": "sample",
    "center": True,
    "feature_scale": 4.0,
}
# For the published images.
DEFAULTS: dict[str, dict[str, Any]] = {
    "megapixel_mnist": {
        **_COMMON,
        "epochs": 30,
        "batch_size": 32,
        "entropy": 1e-4,
        "mix": 1.0,
        "on_demand": False,
    },
    "colon_cancer": {
        **_COMMON,
        "batch_size": 5,
        "decay": 0.5,
        "augmentation": "strong",
        "dropout": 0.0,
        "folds": 5,
        "train_on": None,
        "test_on": None,
    },
    "speed_limits": {
        **_COMMON,
        "method": "ats-5",
        "batch_size": 16,
        "control_variate": False,
        "augmentation": "shift",
        "test_fraction": 0.25,
        "test_from": None,
        "patch_size": 100,
        "scale": 0.3,
        "strides": "1,2,2,2",
    },
}
# What differs for generated images.
GENERATED: dict[str, dict[str, Any]] = {
    "colon_cancer": {"epochs": 30, "augmentation": "light"},
    "speed_limits": {
        "method": "ats-6",
        "epochs": 28,
        "batch_size": 8,
        "learning_rate": 2e-3,
        "control_variate": True,
        "mix": 1.0,
        "mix_epochs": 14,
        "test_fraction": 0.2,
        "patch_size": 64,
        "scale": 0.25,
        "strides": "2,1,2,2,2",
    },
}
# What differs with --paper: what the paper says, and where it says nothing, what the
# scripts of its authors have.
_PAPER: dict[str, Any] = {
    "decay": 0.0,
    "clip": "global",
    "entropy": 1e-4,
    "mix": 0.0,
    "mix_epochs": 0,
    "estimator": "ordered",
    "control_variate": False,
    "center": False,
    "feature_scale": 1.0,
}
PAPER: dict[str, dict[str, Any]] = {
    "megapixel_mnist": {**_PAPER, "epochs": 500, "batch_size": 128},
    "colon_cancer": {**_PAPER, "augmentation": "light"},
    "speed_limits": {**_PAPER, "epochs": 500, "batch_size": 32},
}
# Of the methods that sample nothing or at random, and that have no attention network.
_SAMPLING = ("estimator", "control_variate", "prediction")
_ATTENTION = ("entropy", "mix", "mix_epochs")
_UNUSED = {
    "ats": (),
    "u": _ATTENTION,
    "deep-mil": (*_ATTENTION, *_SAMPLING, "on_demand"),
    "cnn": (*_ATTENTION, *_SAMPLING, "on_demand", "feature_scale", "center"),
}


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that determine a training; they are None where not given."""
    positive, fraction = _number(int, 1), _number(float, 0, 1)
    strength = _number(float, 0)
    for title, options in {
        "training": {
            "epochs": (positive, "passes over the training images"),
            "batch_size": (positive, "images a step"),
            "learning_rate": (strength, "of Adam"),
            "decay": (
                fraction,
                "fraction of the training, at its end, over which the learning rate "
                "falls to 0",
            ),
            "weight_decay": (strength, "of AdamW; 0 for Adam"),
            "clip": (
                ("weight", "global"),
                "at norm 1, the gradient of each weight by itself, or of all together",
            ),
            "dtype_policy": (("float32", "mixed_bfloat16"), "of Keras"),
            "augmentation": (tuple(AUGMENTATIONS), "of the training images"),
            "dropout": (fraction, "in the dense layers of the features"),
            "feature_scale": (strength, "factor of the features, whose norm is 1"),
            "center": (bool, "batch-normalize the features before their norm is 1"),
        },
        "attention sampling": {
            "entropy": (strength, "strength of the entropy regularizer"),
            "mix": (
                fraction,
                "of local contrast in the proposal that patches are sampled from in "
                "training; 0 samples from the attention alone",
            ),
            "mix_epochs": (_number(int, 0), "until it has fallen to 0; 0 holds it"),
            "estimator": (
                ("unordered", "ordered"),
                "of the expectation; the paper's is ordered",
            ),
            "control_variate": (bool, "take noise out of the attention's gradient"),
            "prediction": (
                ("sample", "top_k", "all"),
                "outside training, sample, or take the cells of most attention, or all",
            ),
            "on_demand": (bool, "leave images on disk, read the sampled patches"),
        },
        "images": {
            "folds": (_number(int, 2), "parts, each of them to test with once"),
            "train_on": (str, "instead of folds, numbers such as 1-50,60"),
            "test_on": (str, "instead of folds, numbers such as 51-70"),
            "test_fraction": (fraction, "of the images to test with"),
            "test_from": (int, "test with the images of this number and above"),
            "patch_size": (positive, "in full-resolution pixels"),
            "scale": (fraction, "of the view to the image"),
            "strides": (
                str,
                "of the feature network: its first convolution, its blocks",
            ),
        },
    }.items():
        group = parser.add_argument_group(title)
        for name, (kind, explanation) in options.items():
            keywords: dict[str, Any] = {"help": explanation + _describe(name)}
            if kind is bool:
                keywords["action"] = argparse.BooleanOptionalAction
            elif isinstance(kind, tuple):
                keywords["choices"] = kind
            else:
                keywords |= {"type": kind, "metavar": "X"}
            group.add_argument(_option(name), **keywords)


def choose_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a series of runs: those given, and the defaults.

    Raises:
        ValueError: an option that does nothing, or options that do not go together.
    """
    task = arguments.task
    settings = dict(DEFAULTS[task])
    if arguments.data is None or is_generated(arguments.data):
        settings |= GENERATED.get(task, {})
    if arguments.paper:
        settings |= PAPER[task]
    settings["method"] = str(parse_method(arguments.method or settings["method"]))
    kind = parse_method(settings["method"]).kind
    given = {
        name: value
        for name in {name for defaults in DEFAULTS.values() for name in defaults}
        if name != "method" and (value := getattr(arguments, name)) is not None
    }
    for name in sorted(given):
        if name not in settings:
            raise ValueError(f"{_option(name)} is of another task than {task}")
        if name in _UNUSED[kind]:
            raise ValueError(f"{_option(name)} does nothing for {settings['method']}")
    if given.get("estimator") == "ordered":
        settings["control_variate"] = False  # there is none for it
    settings |= given
    settings = {name: x for name, x in settings.items() if name not in _UNUSED[kind]}
    if settings.get("mix_epochs") and not settings["mix"]:
        raise ValueError("--mix-epochs needs --mix above 0: what is to fall")
    if {"train_on", "test_on"} & given.keys():
        if "folds" in given:
            raise ValueError("--folds does not go with --train-on and --test-on")
        settings["folds"] = None
    return {**settings, "paper": arguments.paper, "seed": arguments.seed}


def _number(kind: type, low: float, high: float = math.inf) -> Callable[[str], Any]:
    """Return what parses a number in a range."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not low <= value <= high or math.isinf(value):
            limit = "" if math.isinf(high) else f" and at most {high}"
            raise argparse.ArgumentTypeError(
                f"must be at least {low}{limit}. Received: {text}"
            )
        return value

    parse.__name__ = kind.__name__  # argparse's own message says it
    return parse


def _describe(name: str) -> str:
    """Return the defaults of an option, and the tasks they are of, for its help."""
    values = {task: DEFAULTS[task][name] for task in TASKS if name in DEFAULTS[task]}
    if len(values) == len(TASKS) and len(set(values.values())) == 1:
        return f" (default: {next(iter(values.values()))})"
    return f" (default: {', '.join(f'{v} {task}' for task, v in values.items())})"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
