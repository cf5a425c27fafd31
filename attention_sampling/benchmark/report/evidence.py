"""Whether what was measured is as a goal says, and which settings stand for a method."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attention_sampling.benchmark.report.series import Series

# What is missing, in words; nothing if a goal can be judged.
Lacks = list[str]


def choose_series(
    series: Sequence[Series], method: str, lacks: Callable[[Series], Lacks]
) -> Series | None:
    """Return the settings that stand for a method, whatever their test error.

    Those that a goal can be judged by, of these those with most whole runs, and of these
    those that have most in common with the other methods: the defaults.

    Args:
        series: of all methods that are compared.
        method: one of them.
        lacks: what a series lacks for the goal.

    Returns:
        None where the method has no whole run.
    """
    others = [one for one in series if one.method != method]

    def place(one: Series) -> tuple[bool, int, int, str]:
        in_common = sum(
            other.settings.get(name) == value
            for other in others
            for name, value in one.settings.items()
        )
        return bool(lacks(one)), -len(one.runs), -in_common, one.label

    found = [one for one in series if one.method == method and one.runs]
    return min(found, key=place, default=None)


def not_enough(what: str, number: Any, least: int) -> Lacks:
    """Say that there is too little of something, if there is.

    Example:

    >>> not_enough("runs", 1, 5), not_enough("steps", None, 10)
    (['not enough runs (1 of 5)'], ['steps not recorded (10 expected)'])
    """
    if not isinstance(number, (int, float)):
        return [f"{what} not recorded ({least:,} expected)"]
    return [] if number >= least else [f"not enough {what} ({number:,} of {least:,})"]


def not_equal(what: str, number: Any, expected: int) -> Lacks:
    """Say that a number is another, or too little, than is to be judged."""
    if not isinstance(number, int) or number <= expected:
        return not_enough(what, number, expected)
    return [f"other {what} ({number:,} instead of {expected:,})"]


def not_cross_validated(series: Series, runs: int, folds: int, images: int) -> Lacks:
    """Say in what whole runs fall short of a cross-validation of some images."""
    parts = [len(run) for run in series.fits]
    tested = [sum(fit["n_test"] for fit in run) for run in series.fits]
    far = max(parts, key=lambda number: abs(number - folds))
    return [
        *not_enough("runs", len(series.runs), runs),
        *not_equal("folds", far, folds),
        *not_enough("test images", min(tested), images),
    ]


def not_comparable(one: Series, other: Series) -> Lacks:
    """Say in what the images, splits or lengths of two series differ.

    The seed of a run determines its folds. One method may have more runs.
    """
    digests = [series.settings.get("data digest") for series in (one, other)]
    # Older files have no digest: the path and the number of images have to do.
    paths = [
        file.content["settings"].get("dataset")
        for file in (one.files[0], other.files[0])
    ]
    same = digests[0] == digests[1] if all(digests) else paths[0] == paths[1]
    same = same and one.settings["images"] == other.settings["images"]
    lacks = [] if same else ["other images"]
    seeds = [{run["seed"] for run in series.runs} for series in (one, other)]
    if not (seeds[0] <= seeds[1] or seeds[1] <= seeds[0]):
        texts = [", ".join(map(str, sorted(some))) for some in seeds]
        lacks.append(f"other splits (seeds {' and '.join(texts)})")
    if one.epochs != other.epochs:
        lacks.append(f"other epochs ({other.epochs} instead of {one.epochs})")
    return lacks


def not_on_processor(machine: Mapping[str, Any], cores: int) -> Lacks:
    """Say in what a machine is not a processor of some cores."""
    lacks = not_equal("cores", machine.get("cores"), cores)
    device = str(machine.get("device", "CPU"))
    return lacks if device.startswith("CPU") else [*lacks, f"not on a CPU ({device})"]
