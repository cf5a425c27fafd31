"""The sections of a report: each task, overhead, goals."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from attention_sampling.benchmark.report.circumstances import describe_circumstances
from attention_sampling.benchmark.report.costs import (
    cost_reasons,
    cost_rows,
    cost_table,
    overhead_table,
)
from attention_sampling.benchmark.report.error_goals import AllSeries, Goal
from attention_sampling.benchmark.report.figures import draw_curves
from attention_sampling.benchmark.report.files import Measurement, of_kind
from attention_sampling.benchmark.report.goals import goal_blocks
from attention_sampling.benchmark.report.images import Images, images_of_paper
from attention_sampling.benchmark.report.notes import (
    ABOUT,
    ABOUT_COSTS,
    PAIRS,
    notes_on_costs,
    notes_on_runs,
)
from attention_sampling.benchmark.report.page import (
    Block,
    Heading,
    Items,
    Paragraph,
    Picture,
)
from attention_sampling.benchmark.report.paper import (
    TITLES,
    method_title,
    order_methods,
)
from attention_sampling.benchmark.report.series import Series
from attention_sampling.benchmark.report.tables import (
    other_results_table,
    results_table,
    runs_table,
)
from attention_sampling.experiments.tasks import TASKS, Task


def make_page(
    measurements: Sequence[Measurement],
    series: AllSeries,
    goals: Sequence[Goal],
    output: Path,
) -> list[Block]:
    """Draw the figures, and return the page.

    Args:
        measurements: what to report.
        series: of them, by task and images.
        goals: judged by them.
        output: existing directory for the figures.
    """
    blocks: list[Block] = [Heading("Measurements", 1), Paragraph(ABOUT)]
    for task in TASKS.values():
        costs = of_kind(measurements, "cost", task.name)
        found = {file.images for file in costs}
        found |= {images for name, images in series if name == task.name}
        of_paper = images_of_paper(task)
        others = sorted(found - {of_paper}, key=_largest_first)
        for images in [of_paper, *others]:
            blocks += _task_blocks(
                task,
                images,
                series.get((task.name, images), []),
                [file for file in costs if file.images == images],
                output,
            )
    overheads = of_kind(measurements, "overhead")
    blocks.append(Heading("Overhead", 2))
    for file in overheads:
        blocks += [overhead_table(file), Paragraph(PAIRS)]
        blocks += describe_circumstances([file])
    if not overheads:
        blocks.append(Paragraph("Not measured."))
    return [*blocks, *goal_blocks(goals)]


def _largest_first(images: Images) -> tuple[int, ...]:
    noise = -1 if images.noise is None else images.noise
    return (-images.height, -images.width, images.channels, images.drawn, -noise)


def _task_blocks(
    task: Task,
    images: Images,
    series: Sequence[Series],
    costs: Sequence[Measurement],
    output: Path,
) -> list[Block]:
    """Return the section of a task on some images."""
    of_paper = images == images_of_paper(task)
    blocks: list[Block] = [Heading(f"{TITLES[task.name]}, {images}", 2)]
    whole = _in_order(task, [one for one in series if one.runs])
    cost = next((file for file in costs if file.of_paper), None)
    if not whole and not costs:
        blocks.append(Paragraph("Not measured."))
    elif of_paper:
        blocks += [results_table(task, whole, cost), Paragraph(ABOUT_COSTS)]
    elif whole:
        blocks.append(other_results_table(task, whole))
    if whole:
        blocks.append(runs_table(task, whole, of_paper))
        blocks += [Paragraph(text) for text in notes_on_runs(task, whole, of_paper)]
    if of_paper and (whole or costs):
        blocks += _not_measured(task, whole, cost)
    blocks += _not_finished(task, series)
    blocks += describe_circumstances([file for one in whole for file in one.files])
    if whole:
        size = "" if of_paper else f"_{images.file_name}"
        path = output / f"report_{task.name}{size}.png"
        draw_curves(path, whole, [_legend(task, one) for one in whole])
        caption = "Means over the runs, bands from the lowest run to the highest"
        blocks.append(Picture(path, f"{TITLES[task.name]}: learning curves. {caption}"))
    for file in costs:
        reasons = cost_reasons(file)
        blocks += [cost_table(file), *([Items(reasons)] if reasons else [])]
        blocks += [Paragraph(text) for text in notes_on_costs(task)]
        blocks += describe_circumstances([file])
    return blocks


def _in_order(task: Task, series: Sequence[Series]) -> list[Series]:
    """Sort by method, its plain row first, then those with most runs."""
    methods = order_methods(task, [one.method for one in series])

    def position(one: Series) -> tuple[int, bool, int, str]:
        return (methods.index(one.method), bool(one.label), -len(one.runs), one.label)

    return sorted(series, key=position)


def _not_measured(
    task: Task, series: Sequence[Series], cost: Measurement | None
) -> list[Block]:
    """Name the paper's methods that lack a training or a cost."""
    trained = {one.method for one in series}
    costs = {} if cost is None else cost_rows(cost, 1)
    costed = {name for name, row in costs.items() if row["ms_per_sample"] is not None}
    texts = []
    for what, found in (("Not trained", trained), ("Cost not measured", costed)):
        names = [method_title(task, name) for name in task.methods if name not in found]
        if names:
            texts.append(f"{what}: {', '.join(names)}")
    return [Items(texts)] if texts else []


def _not_finished(task: Task, series: Sequence[Series]) -> list[Block]:
    """Name the runs that lack folds, and are left out."""
    texts = [
        f"Not finished, left out: {one.unfinished} of the runs of "
        f"{method_title(task, one.method)} in {', '.join(f.name for f in one.files)}"
        for one in series
        if one.unfinished
    ]
    return [Items(texts)] if texts else []


def _legend(task: Task, series: Series) -> str:
    """Return a name for the legend of a figure, in lines that fit."""
    title = method_title(task, series.method)
    named = f"{title}: {series.label}" if series.label else title
    return "\n".join(textwrap.wrap(named, 30))
