"""Trainings of the same settings: their mean, spread and curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attention_sampling.benchmark.report.files import Measurement
from attention_sampling.benchmark.report.numbers import format_span


@dataclass(frozen=True)
class Series:
    """Runs of one method with the same settings.

    Args:
        method: such as ``"ats-10"``.
        settings: of all of them.
        files: where they are.
        label: the settings in which it differs from those that the other series of the
            method are compared with; empty for these.
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
        """Of the trainings of the whole runs."""
        return format_span(fit["epochs"] for run in self.fits for fit in run)

    @property
    def extended(self) -> str:
        """Which trainings had been finished before, with fewer epochs; or nothing."""
        fits = [fit for run in self.fits for fit in run]
        extended = [fit["extended_from"] for fit in fits if fit.get("extended_from")]
        if not extended:
            return ""
        before = format_span(epochs for some in extended for epochs in some)
        share = "" if len(extended) == len(fits) else f"{len(extended)} of {len(fits)} "
        return f" ({share}extended from {before})"

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


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in values], float)
