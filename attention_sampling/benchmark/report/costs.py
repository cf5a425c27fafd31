"""Costs in a report: ratios to attention sampling, and their tables."""

from collections.abc import Callable
from typing import Any

from attention_sampling.benchmark.report.files import Measurement
from attention_sampling.benchmark.report.numbers import (
    NOT_MEASURED,
    format_megabytes,
    format_milliseconds,
    format_published,
    format_ratio,
)
from attention_sampling.benchmark.report.page import Table
from attention_sampling.benchmark.report.paper import (
    TITLES,
    method_name,
    method_scale,
    method_title,
    order_methods,
    published_ratio,
)
from attention_sampling.experiments.tasks import Task

CostRows = dict[str, dict[str, Any]]


def cost_rows(file: Measurement, batch_size: int) -> CostRows:
    """Return the rows of one batch size by method."""
    return {
        row["method"]: row
        for row in file.content["rows"]
        if row["batch_size"] == batch_size
    }


def cost_table(file: Measurement) -> Table:
    """Return the costs of a task at each batch size, over those of attention sampling."""
    task, rows = file.task, []
    for batch in sorted({row["batch_size"] for row in file.content["rows"]}):
        costs = cost_rows(file, batch)
        of_paper = batch == 1 and file.of_paper
        for method in order_methods(task, list(costs)):
            if method in costs:
                cells = _cost_cells(task, method, costs[method], of_paper)
                rows.append([("Batch", str(batch)), *cells])
    title = f"{TITLES[task.name]}: cost, ratios to {method_name(task.reference)}"
    if not file.of_paper:
        title += f", views of {task.view_size[0]} x {task.view_size[1]} pixels"
    return Table.of_cells(title, rows)


def _cost_cells(
    task: Task, method: str, row: dict[str, Any], of_paper: bool
) -> list[tuple[str, str]]:
    paper_time, paper_memory = (
        published_ratio(task, method, column) if of_paper else None
        for column in ("ms", "mb")
    )
    # A baseline that costs less times attention sampling is less gained.
    short = [
        name
        for name, ratio, paper in (
            ("time ratio", row["time_ratio"], paper_time),
            ("memory ratio", row["allocator_ratio"], paper_memory),
        )
        if method.startswith(("cnn", "deep-mil"))
        and None not in (ratio, paper)
        and ratio < paper
    ]
    return [
        ("Method", method_name(method)),
        ("Scale", method_scale(task, method)),
        ("Time ratio", format_ratio(row["time_ratio"])),
        ("paper", format_published(format_ratio, paper_time)),
        ("Memory ratio", format_ratio(row["allocator_ratio"])),
        ("paper", format_published(format_ratio, paper_memory)),
        ("Time/sample", format_milliseconds(row["ms_per_sample"])),
        ("Quartiles", _range(format_milliseconds, row, "ms")),
        ("Memory/sample", format_megabytes(row["allocator_mb_per_sample"])),
        ("Resident/sample", format_megabytes(row["resident_mb_per_sample"])),
        ("Resident ratio", format_ratio(row["resident_ratio"])),
        ("Short of the paper", ", ".join(short)),
    ]


def cost_reasons(file: Measurement) -> list[str]:
    """Say why some costs were not measured."""
    return [
        f"{method_title(file.task, row['method'])}, batch {row['batch_size']}: "
        f"{NOT_MEASURED}, {row['reason']}"
        for row in file.content["rows"]
        if row.get("reason")
    ]


def overhead_table(file: Measurement) -> Table:
    """Return training steps beside those of their two bare networks."""
    rows = [
        [
            ("Task", TITLES[row["task"]]),
            ("Method", method_name(row["method"])),
            ("Batch", str(row["batch_size"])),
            ("Step", format_milliseconds(row["step_ms"])),
            ("Bare networks", format_milliseconds(row["bare_ms"])),
            ("Ratio", format_ratio(row["ratio"])),
            ("Quartiles", _range(format_ratio, row, "ratio")),
            ("In order", format_ratio(row.get("in_order_ratio"))),
            ("Processor time", format_ratio(row.get("processor_ratio"))),
        ]
        for row in file.content["rows"]
    ]
    title = "Training steps over their bare networks"
    processor = file.content["machine"].get("processor")
    return Table.of_cells(f"{title}, {processor}" if processor else title, rows)


def _range(formatted: Callable[..., str], row: dict[str, Any], name: str) -> str:
    ends = [row[f"{name}_low"], row[f"{name}_high"]]
    if None in ends:
        return NOT_MEASURED
    low, high = map(formatted, ends)
    return f"{low.removesuffix(' ms')} to {high}"
