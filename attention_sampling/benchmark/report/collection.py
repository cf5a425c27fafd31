"""Trainings that differ in their seeds only, put together and labelled."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from attention_sampling.benchmark.report.files import Measurement
from attention_sampling.benchmark.report.labels import label_settings
from attention_sampling.benchmark.report.series import Series

# Settings in which runs of one series differ, or that do not touch the training.
_FREE = ("method", "pictures", "runs", "seed")


def collect_series(trainings: Sequence[Measurement]) -> list[Series]:
    """Put together the trainings of one task that differ in their seeds only.

    Returns:
        By method and label.

    Raises:
        ValueError: two files hold the same run.
    """
    collected: dict[str, list[Series]] = {}
    for training in trainings:
        method, settings = training.content["method"], _settings(training)
        known = collected.setdefault(method, [])
        for number, series in enumerate(known):
            if series.settings == settings:
                files = [*series.files, training]
                known[number] = Series(method, settings, files)
                break
        else:
            known.append(Series(method, settings, [training]))
    labelled = []
    for series in collected.values():
        for one in series:
            _refuse_copies(one)
        labels = label_settings(
            [one.settings for one in series],
            _base(series),
            [one.files[0].name for one in series],
        )
        labelled += [
            replace(one, label=label) for one, label in zip(series, labels, strict=True)
        ]
    return sorted(labelled, key=lambda series: (series.method, series.label))


def _base(series: Sequence[Series]) -> int:
    """Return the number of the settings that the others are compared with.

    They are not those of the paper, none of their trainings was extended, they have most
    runs, and differ least from the others.
    """

    def place(number: int) -> tuple[bool, bool, int, int]:
        one = series[number]
        in_common = sum(
            other.settings.get(name) == value
            for other in series
            for name, value in one.settings.items()
        )
        paper, extended = (
            bool(one.settings.get("paper")),
            bool(one.settings["extended"]),
        )
        return paper, extended, -len(one.runs), -in_common

    return min(range(len(series)), key=place)


def _settings(training: Measurement) -> dict[str, Any]:
    """Return what determines a run beside its seed."""
    content = training.content
    settings = _flat(content["settings"])
    settings = {name: value for name, value in settings.items() if name not in _FREE}
    if "data digest" in settings:
        settings.pop("dataset", None)  # the same images, wherever they are
    # Other images may lie under the same name.
    images = sorted({fit["n_train"] + fit["n_test"] for fit in content["fits"]})
    extended = {tuple(fit.get("extended_from") or ()) for fit in content["fits"]}
    return {
        "backend": content["versions"].get("backend"),
        **settings,
        "images": images,
        "view_size": training.content.get("view_size"),
        "data": training.content.get("data"),
        "extended": sorted({epochs for some in extended for epochs in some}),
    }


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            inside = _flat(value).items()
            flat |= {f"{name} {inner}": deeper for inner, deeper in inside}
        else:
            flat[name] = value
    return flat


def _refuse_copies(series: Series) -> None:
    found: dict[int, str] = {}
    for file in series.files:
        for run in file.content["runs"]:
            if run["seed"] in found:
                raise ValueError(
                    "Two runs have the same method, settings and seed, and one counts. "
                    f"Expected: one of {found[run['seed']]} and {file.name}; delete the "
                    f"other. Received: method={series.method!r}, seed={run['seed']}"
                )
            found[run["seed"]] = file.name
