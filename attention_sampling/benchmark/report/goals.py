"""Goals of this package's measurements, and whether they are reached."""

from collections.abc import Sequence

from attention_sampling.benchmark.report.cost_goals import cost_goals, overhead_goals
from attention_sampling.benchmark.report.error_goals import (
    AllSeries,
    Goal,
    error_goals,
)
from attention_sampling.benchmark.report.files import Measurement, of_kind
from attention_sampling.benchmark.report.numbers import NOT_MEASURED
from attention_sampling.benchmark.report.page import (
    Block,
    Heading,
    Items,
    Paragraph,
    Table,
)
from attention_sampling.benchmark.tables import MISSED, PASS
from attention_sampling.experiments.tasks import TASKS

_ABOUT = (
    "A goal is judged by what was measured as the goal says; otherwise its verdict is "
    "what is missing. Of several settings of a method, those stand for it that can be "
    "judged, of these those with most whole runs, and of these those most like the "
    "settings of the other methods, whatever their test error."
)


def judge_goals(measurements: Sequence[Measurement], series: AllSeries) -> list[Goal]:
    """Hold what was measured against each goal.

    A goal is judged only by what was measured as the goal says. Otherwise its verdict is
    what is missing.

    Args:
        measurements: as ``report_files.read_measurements`` returns them.
        series: by task and images.
    """
    goals = error_goals(series)
    for task in TASKS:
        goals += cost_goals(of_kind(measurements, "cost", task), task)
    return [*goals, *overhead_goals(of_kind(measurements, "overhead"))]


def say_goals(goals: Sequence[Goal]) -> list[str]:
    """Say how many goals were reached, and name those missed and not measured."""
    verdicts = [verdict for *_, verdict in goals]
    reached, missed = verdicts.count(PASS), verdicts.count(MISSED)
    unknown = [what for what, *_, verdict in goals if verdict == NOT_MEASURED]
    short = len(goals) - reached - missed - len(unknown)
    texts = [
        f"Reached: {reached} of {reached + missed}; not enough evidence for {short} more, "
        f"{len(unknown)} not measured",
        *(
            f"Missed: {what}: {measured}, limit {limit}"
            for what, measured, limit, verdict in goals
            if verdict == MISSED
        ),
    ]
    if unknown:
        by_task: dict[str, list[str]] = {}
        for what in unknown:
            task, _, rest = what.partition(": ")
            by_task.setdefault(task, []).append(rest)
        lists = [f"{task} ({'; '.join(some)})" for task, some in by_task.items()]
        texts.append(f"Not measured: {', '.join(lists)}")
    return texts


def goal_blocks(goals: Sequence[Goal]) -> list[Block]:
    """Return the section of the goals, with a table of those that were measured."""
    measured = [goal for goal in goals if goal[-1] != NOT_MEASURED]
    blocks: list[Block] = [Heading("Goals", 2), Items(say_goals(goals))]
    if measured:
        blocks.append(Paragraph(_ABOUT))
        header = ["Goal", "Measured", "Limit", "Verdict"]
        blocks.append(Table("What was to be reached", header, measured))
    return blocks
