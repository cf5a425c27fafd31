"""What the training runs reached: logs, a table and a figure."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attention_sampling.benchmark.files import write_csv
from attention_sampling.benchmark.tables import format_table
from attention_sampling.files import replacing

MEASURES = ("loss", "accuracy", "val_loss", "val_accuracy")
THRESHOLDS = (0.2, 0.4, 0.5)  # test accuracies whose epoch the table names
CHANCE = 0.1  # accuracy of guessing one of ten digits


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run as it lies on disk."""

    name: str
    method: str
    seed: int
    settings: dict[str, Any]
    accuracy: np.ndarray  # on the test images after each epoch
    seconds: np.ndarray  # of training in each epoch

    @property
    def finished(self) -> bool:
        """Whether all of its epochs are there."""
        return len(self.accuracy) == self.settings["epochs"]

    def first_epoch(self, threshold: float) -> int | None:
        """Return after which epoch, from 1, the accuracy was first above a threshold."""
        above = np.flatnonzero(self.accuracy > threshold)
        return int(above[0]) + 1 if len(above) else None


def read_runs(directory: Path, preset: str) -> list[Run]:
    """Return the runs of a preset in a directory, finished or not.

    Raises:
        ValueError: a file is not what a run writes.
    """
    runs = []
    for path in sorted(directory.glob(f"{preset}-*.json")):
        try:
            run = json.loads(path.read_text("utf-8"))
            rows = []
            log = path.with_suffix(".csv")
            if log.exists():
                with log.open(newline="") as file:
                    rows = list(csv.DictReader(file))
            runs.append(
                Run(
                    path.stem,
                    run["method"],
                    run["seed"],
                    dict(run["settings"]),
                    np.array([float(row["val_accuracy"]) for row in rows]),
                    np.array([float(row["seconds"]) for row in rows]),
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} and the .csv beside it are not of a training run. Delete them, "
                f"or name another directory. Received: {error!r}"
            ) from error
    return runs


def check_settings(run: Run, settings: dict[str, Any], directory: Path) -> None:
    """Refuse a run that does not compare with others.

    Args:
        run: that is in the directory.
        settings: of the others.
        directory: for the error.

    Raises:
        ValueError: the settings differ.
    """
    differing = [
        f"{name} is {run.settings.get(name)}, not {settings.get(name)}"
        for name in {**settings, **run.settings}
        if run.settings.get(name) != settings.get(name)
    ]
    if differing:
        raise ValueError(
            f"Runs of other settings are in {directory}: in {run.name}, "
            f"{', '.join(differing)}. Ask for the same, name another directory, or "
            "delete those runs."
        )


def report(directory: Path, preset: str, methods: Sequence[str]) -> str:
    """Write the table and the figure of the finished runs; return the table as text.

    Args:
        directory: where the runs are, and where ``<preset>.csv`` and ``<preset>.png``
            go.
        preset: of the runs.
        methods: in what order the methods are listed.

    Raises:
        ValueError: there is no finished run, or they have different settings.
    """
    found = read_runs(directory, preset)
    runs = [run for run in found if run.finished]
    if not runs:
        raise ValueError(
            f"There is no finished run to report. Expected: {preset}-<method>-<seed>.csv "
            f"and .json. Received: directory={str(directory)!r}"
        )
    for run in runs:
        check_settings(run, runs[0].settings, directory)
    by_method = {
        method: sorted(
            (run for run in runs if run.method == method), key=lambda run: run.seed
        )
        for method in methods
    }
    by_method = {method: group for method, group in by_method.items() if group}
    rows = [_row(method, group) for method, group in by_method.items()]
    write_csv(directory / f"{preset}.csv", rows)
    draw(directory / f"{preset}.png", by_method, preset)
    unfinished = [run.name for run in found if not run.finished]
    note = f"\nNot finished, left out: {', '.join(unfinished)}" if unfinished else ""
    return format_table(rows) + note


def draw(path: Path, by_method: dict[str, list[Run]], title: str) -> None:
    """Draw the test accuracy of each method by epoch, mean and range over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for method, runs in by_method.items():
        accuracy = np.array([run.accuracy for run in runs])
        epochs = np.arange(accuracy.shape[1]) + 1
        (line,) = axes.plot(epochs, accuracy.mean(axis=0), label=method)
        axes.fill_between(
            epochs,
            accuracy.min(axis=0),
            accuracy.max(axis=0),
            color=line.get_color(),
            alpha=0.2,
            linewidth=0,
        )
    axes.axhline(CHANCE, color="grey", linestyle=":", label="chance")
    axes.set(xlabel="epoch", ylabel="test accuracy", ylim=(0, 1), title=title)
    axes.locator_params(axis="x", integer=True)
    axes.legend(loc="upper left")
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=120)


def _row(method: str, runs: Sequence[Run]) -> dict[str, str]:
    final = np.array([run.accuracy[-1] for run in runs])
    # The first epoch compiles.
    seconds = np.concatenate([run.seconds[1:] for run in runs])
    if not len(seconds):
        seconds = np.concatenate([run.seconds for run in runs])
    return {
        "method": method,
        "seeds": str(len(runs)),
        **{
            f"epoch above {threshold}": _epochs(runs, threshold)
            for threshold in THRESHOLDS
        },
        "final accuracy": f"{final.mean():.3f}",
        "lowest": f"{final.min():.3f}",
        "highest": f"{final.max():.3f}",
        "seconds per epoch": f"{np.median(seconds):.1f}",
    }


def _epochs(runs: Sequence[Run], threshold: float) -> str:
    """Return the mean and each value, where there are several: ``4.5 [4 5]``."""
    epochs = [run.first_epoch(threshold) for run in runs]
    each = ["-" if epoch is None else str(epoch) for epoch in epochs]
    if len(runs) == 1:
        return each[0]
    mean = "-" if None in epochs else f"{np.mean(epochs):.1f}"
    return f"{mean} [{' '.join(each)}]"
