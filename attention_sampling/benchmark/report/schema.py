"""The files that measurements write: what is read of them, and checks of it."""

import math
from typing import Any

from attention_sampling.experiments.tasks import TASKS, parse_method

NUMBER = (int, float, type(None))  # null: could not be measured
CURVES = ("train_loss", "test_error", "seconds")
SIZES = {
    "image_shape": ("height", "width", "channels"),
    "view_size": ("height", "width"),
}  # the task's, where a file does not say
OPTIONAL = {"data", "date"}  # what was trained on, and when, in words
# Read where they are there: keys of the settings, of their data, a row and a fit.
_COUNT = (int, type(None))
_SETTINGS = {"backend": str, "data": dict, "steps": _COUNT}
_DATA = {"drawn": bool, "images": int, "noise_patches": _COUNT, "digest": str}
_ROW = {"steps": _COUNT, "in_order_ratio": NUMBER, "processor_ratio": NUMBER}
_EXTENDED = "extended_from"
# Of a run, the mean of its fits, weighted by so many images; rounded in both.
_MEANS = {"train_loss": "n_train", "test_error": "n_test"}
_ROUNDED = 1e-5

# Keys that are read, and the types of their values.
_CIRCUMSTANCES = {"command": str, "settings": dict, "versions": dict, "machine": dict}
_FIT = {
    "run": int,
    "seed": int,
    "epochs": int,
    "n_train": int,
    "n_test": int,
    "curve": {name: [NUMBER] for name in CURVES},
}
_RUN = {"run": int, "seed": int, "train_loss": NUMBER, "test_error": NUMBER}
_COST = {
    "method": str,
    "batch_size": int,
    "ms_per_sample": NUMBER,
    "ms_low": NUMBER,
    "ms_high": NUMBER,
    "allocator_mb_per_sample": NUMBER,
    "resident_mb_per_sample": NUMBER,
    "time_ratio": NUMBER,
    "allocator_ratio": NUMBER,
    "resident_ratio": NUMBER,
}
_OVERHEAD = {
    "task": str,
    "method": str,
    "batch_size": int,
    "step_ms": NUMBER,
    "bare_ms": NUMBER,
    "ratio": NUMBER,
    "ratio_low": NUMBER,
    "ratio_high": NUMBER,
}
# Name of the files -> kind, and what is read of it.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "metrics.json": (
        "training",
        {
            "task": str,
            "method": str,
            **_CIRCUMSTANCES,
            "fits": [_FIT],
            "runs": [_RUN],
        },
    ),
    "cost-*.json": ("cost", {"task": str, **_CIRCUMSTANCES, "rows": [_COST]}),
    "overhead*.json": ("overhead", {**_CIRCUMSTANCES, "rows": [_OVERHEAD]}),
}


def check_content(content: Any, kind: str, keys: dict[str, Any]) -> None:
    """Check a file, and write its methods as the tasks do.

    Args:
        content: of the file.
        kind: that it is of.
        keys: that it is to have, as ``FORMATS`` says.

    Raises:
        ValueError: something is missing, or not as the keys say.
    """
    _check(content, keys, "")
    _check_meaning(content, kind)


_TYPES = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "number",
    list: "array",
    str: "string",
    type(None): "null",
}


def _check(value: Any, expected: Any, where: str) -> None:
    """Compare a JSON value with types: of keys, of the elements of a list."""
    if isinstance(expected, dict):
        _check(value, dict, where)
        for key, inside in expected.items():
            if key not in value:
                raise ValueError(f"{where}{'.' * bool(where)}{key} is missing")
            _check(value[key], inside, f"{where}{'.' * bool(where)}{key}")
    elif isinstance(expected, list):
        _check(value, list, where)
        for number, element in enumerate(value):
            _check(element, expected[0], f"{where}[{number}]")
    elif not isinstance(value, expected) or (
        isinstance(value, bool) and expected is not bool
    ):
        raise ValueError(
            f"{where or 'it'} is a JSON {_TYPES[type(value)]}, not "
            f"{_TYPES[expected[0] if isinstance(expected, tuple) else expected]}"
        )
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is not finite")


def _check_known(values: dict[str, Any], types: dict[str, Any], where: str) -> None:
    """Check the types of those keys that are there."""
    for name in types.keys() & values.keys():
        _check(values[name], types[name], f"{where}.{name}")


def _check_meaning(content: dict[str, Any], kind: str) -> None:
    """Check what types do not say: names, and lengths that belong together."""
    rows = [content, *content.get("rows", [])]
    if rows == [content] and kind != "training":
        raise ValueError("it has no rows")
    for number, row in enumerate(rows):
        _check_known(row, _ROW, f"rows[{number - 1}]")
        if row.get("task", next(iter(TASKS))) not in TASKS:
            raise ValueError(f"there is no task {row['task']!r}")
        if "method" in row:
            row["method"] = str(parse_method(row["method"]))  # cnn-1.0 is cnn-1
    for name in SIZES & content.keys():
        _check(content[name], [int], name)
        if len(content[name]) != len(SIZES[name]) or min(content[name]) < 1:
            raise ValueError(f"{name} is not of {', '.join(SIZES[name])}")
    for name in OPTIONAL & content.keys():
        _check(content[name], str, name)
    _check_known(content["settings"], _SETTINGS, "settings")
    _check_known(content["settings"].get("data", {}), _DATA, "settings.data")
    for number, fit in enumerate(content.get("fits", [])):
        if fit.get(_EXTENDED) is not None:
            _check(fit[_EXTENDED], [int], f"fits[{number}].{_EXTENDED}")
        if {len(fit["curve"][name]) for name in CURVES} != {fit["epochs"]}:
            raise ValueError(f"the curves of fits[{number}] are not of its epochs")
        if min(fit["epochs"], fit["n_train"], fit["n_test"]) < 1:
            raise ValueError(f"fits[{number}] has no epochs or no images")
    if kind == "cost":
        task = TASKS[content["task"]]
        reference = content["settings"].get("reference", task.reference)
        if reference != task.reference:
            raise ValueError(f"its ratios are to {reference}, not {task.reference}")
    fitted = {fit["run"] for fit in content.get("fits", [])}
    numbers = [run["run"] for run in content.get("runs", [])]
    if not fitted >= set(numbers) or len(set(numbers)) != len(numbers):
        raise ValueError("its runs are not those of its fits")
    for run in content.get("runs", []):
        fits = [fit for fit in content["fits"] if fit["run"] == run["run"]]
        for measure, images in _MEANS.items():
            _check_mean(run, measure, fits, images)


def _check_mean(
    run: dict[str, Any], measure: str, fits: list[dict[str, Any]], images: str
) -> None:
    """Compare a measure of a run with the mean of its fits, weighted by images."""
    last = [fit["curve"][measure][-1] for fit in fits]
    if run[measure] is None or None in last:
        return
    total = sum(fit[images] for fit in fits)
    mean = sum(x * fit[images] for x, fit in zip(last, fits, strict=True)) / total
    if abs(run[measure] - mean) > _ROUNDED * max(1, abs(mean)):
        raise ValueError(
            f"{measure} of run {run['run']} is {run[measure]}, and {mean:.6f} in its fits"
        )
