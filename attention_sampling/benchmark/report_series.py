"""Trainings of the same settings, put together: their mean, spread and curves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attention_sampling.benchmark.report_files import Measurement
from attention_sampling.benchmark.report_labels import label_settings
from attention_sampling.benchmark.report_numbers import format_span

# Settings in which runs of one series differ, or that do not touch the training.
_FREE = ("method", "pictures", "runs", "seed")


@dataclass(frozen=True)
class Series:
    """Runs of one method with the same settings.

    Args:
        method: such as ``"ats-10"``.
        settings: of all of them.
        files: where they are.
        label: the settings in which other series of the method differ; empty if there
            is no other.
    """

    method: str
    settings: dict[str, Any]
    files: Sequence[Measurement]
    label: str = ""

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The whole runs, by seed."""
        runs = [run for file in self.files for run in file.content["runs"]]
        return sorted(runs, key=lambda run: run["seed"])

    @property
    def fits(self) -> list[list[dict[str, Any]]]:
        """The trainings of each whole run: one, or one for each fold."""
        return [
            [fit for fit in file.content["fits"] if fit["run"] == run["run"]]
            for file in self.files
            for run in file.content["runs"]
        ]

    @property
    def epochs(self) -> str:
        """Of the trainings of the whole runs, and which had been finished before."""
        fits = [fit for run in self.fits for fit in run]
        text = format_span(fit["epochs"] for fit in fits)
        extended = [fit["extended_from"] for fit in fits if fit.get("extended_from")]
        if not extended:
            return text
        before = format_span(epochs for some in extended for epochs in some)
        share = "" if len(extended) == len(fits) else f"{len(extended)} of {len(fits)} "
        return f"{text} ({share}extended from {before})"

    @property
    def unfinished(self) -> int:
        """Number of runs that lack folds, and do not count."""
        begun = {
            (file.name, fit["run"])
            for file in self.files
            for fit in file.content["fits"]
        }
        return len(begun) - len(self.runs)

    def values(self, measure: str) -> list[float]:
        """Return a measure of each whole run, none if one of them lacks it."""
        values = [run[measure] for run in self.runs]
        return [] if None in values else values

    def mean(self, measure: str) -> float | None:
        """Return the mean over the runs."""
        values = self.values(measure)
        return float(np.mean(values)) if values else None

    def error(self, measure: str) -> float | None:
        """Return the standard error of the mean, if there are two runs."""
        values = self.values(measure)
        if len(values) < 2:
            return None
        return float(np.std(values, ddof=1) / np.sqrt(len(values)))

    def curve(self, measure: str) -> np.ndarray:
        """Return a measure after each epoch of each run, NaN where there is none.

        Folds count by their images. Runs of different length are cut to the shortest.

        Returns:
            (runs, epochs) float64.
        """
        epochs = min((fit["epochs"] for run in self.fits for fit in run), default=0)
        weight = "n_test" if measure.startswith("test") else "n_train"
        return np.array(
            [
                np.average(
                    [_floats(fit["curve"][measure][:epochs]) for fit in run],
                    axis=0,
                    weights=[fit[weight] for fit in run],
                )
                for run in self.fits
            ]
        ).reshape(len(self.fits), epochs)


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
            [one.settings for one in series], [one.files[0].name for one in series]
        )
        labelled += [
            replace(one, label=label) for one, label in zip(series, labels, strict=True)
        ]
    return sorted(labelled, key=lambda series: (series.method, series.label))


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


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in values], float)
