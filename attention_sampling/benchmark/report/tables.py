"""Tables of a report: what was measured, the paper's numbers beside."""

from collections.abc import Sequence
from typing import Any

from attention_sampling.benchmark.report.costs import cost_rows
from attention_sampling.benchmark.report.files import Measurement
from attention_sampling.benchmark.report.numbers import (
    NOT_MEASURED,
    format_mean,
    format_megabytes,
    format_milliseconds,
    format_published,
)
from attention_sampling.benchmark.report.page import Table
from attention_sampling.benchmark.report.paper import (
    TITLES,
    method_name,
    method_scale,
    method_title,
    order_methods,
    published,
    short_of_paper,
)
from attention_sampling.benchmark.report.series import Series
from attention_sampling.experiments.tasks import Task


def results_table(
    task: Task, series: Sequence[Series], cost: Measurement | None
) -> Table:
    """Return the results of a task in the form of the paper's Tables 1 and 2.

    Args:
        task: of the series.
        series: of images of the paper's size, with a whole run each. A row each, those
            of one method after each other; a method of the paper without any has a row
            too.
        cost: what time and memory are taken from, at batch 1.
    """
    costs = {} if cost is None else cost_rows(cost, 1)
    rows = []
    for method in order_methods(task, [*(one.method for one in series), *costs]):
        paper = published(task, method)
        some: list[Series | None] = [one for one in series if one.method == method]
        for number, one in enumerate(some or [None]):
            sized = task if one is None else one.files[0].task
            rows.append(
                [
                    ("Method", _label(method_name(method), one)),
                    ("Scale", method_scale(sized, method)),
                    ("Train loss", _mean(one, "train_loss")),
                    _published_mean(paper.train_loss, paper.train_loss_error),
                    ("Test error", _mean(one, "test_error")),
                    _published_mean(paper.test_error, paper.test_error_error),
                    # One measurement, whatever the settings of the training.
                    *_cost_cells(task, method, costs.get(method, {}), number == 0),
                ]
            )
    return Table.of_cells(f"{TITLES[task.name]}: results", rows)


def other_results_table(task: Task, series: Sequence[Series]) -> Table:
    """Return the results of a task on images of a size that the paper has not."""
    rows = [
        [
            ("Method", _label(method_name(one.method), one)),
            ("Scale", method_scale(one.files[0].task, one.method)),
            ("Train loss", _mean(one, "train_loss")),
            ("Test error", _mean(one, "test_error")),
        ]
        for one in series
    ]
    return Table.of_cells(f"{TITLES[task.name]}: results", rows)


def runs_table(task: Task, series: Sequence[Series], of_paper: bool) -> Table:
    """Return what the results of a task are of, and where they fall short of the paper.

    Args:
        task: of the series.
        series: with a whole run each.
        of_paper: whether the images are of the paper's size.
    """
    rows = []
    for one in series:
        fits = [fit for run in one.fits for fit in run]
        folds, images = len(one.fits[0]), (fits[0]["n_train"], fits[0]["n_test"])
        row = [
            ("Method", _label(method_title(task, one.method), one)),
            ("Runs", str(len(one.runs))),
            ("Folds", str(folds) if folds > 1 else ""),
            ("Epochs", one.epochs + one.extended),
            (
                "Images",
                f"{sum(images):,}" if folds > 1 else f"{images[0]:,} + {images[1]:,}",
            ),
        ]
        if of_paper:
            row.append(("Short of the paper", short_of_paper(task, one)))
        rows.append(row)
    return Table.of_cells(f"{TITLES[task.name]}: runs", rows)


def _label(name: str, series: Series | None) -> str:
    return f"{name}: {series.label}" if series is not None and series.label else name


def _mean(series: Series | None, measure: str) -> str:
    if series is None:
        return NOT_MEASURED
    return format_mean(series.mean(measure), series.error(measure))


def _published_mean(mean: float | None, error: float | None) -> tuple[str, str]:
    return "paper", format_published(format_mean, mean, error)


def _cost_cells(
    task: Task, method: str, row: dict[str, Any], first: bool
) -> list[tuple[str, str]]:
    paper = published(task, method)
    cells = [
        ("Time/sample", format_milliseconds(row.get("ms_per_sample"))),
        ("paper", format_published(format_milliseconds, paper.ms)),
        ("Memory/sample", format_megabytes(row.get("allocator_mb_per_sample"))),
        ("paper", format_published(format_megabytes, paper.mb)),
    ]
    return cells if first else [(column, "") for column, _ in cells]
