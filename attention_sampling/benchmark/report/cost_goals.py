"""Goals of time and memory, and whether they are reached."""

from collections.abc import Callable, Sequence
from typing import Any

from attention_sampling.benchmark.report.costs import cost_rows
from attention_sampling.benchmark.report.error_goals import Goal
from attention_sampling.benchmark.report.evidence import (
    Lacks,
    not_enough,
    not_on_processor,
)
from attention_sampling.benchmark.report.files import Measurement
from attention_sampling.benchmark.report.numbers import NOT_MEASURED, format_ratio
from attention_sampling.benchmark.report.paper import (
    TITLES,
    method_name,
    method_title,
)
from attention_sampling.benchmark.tables import MISSED, PASS
from attention_sampling.experiments.tasks import TASKS

# Task -> baseline, and at least how many times the time and memory a sample of attention
# sampling it takes at batch 1.
_COST = {
    "colon_cancer": [("deep-mil", 28, 30), ("cnn-1", 13, 7)],
    "speed_limits": [("deep-mil", 13, 18), ("cnn-1", 8, 13)],
    "megapixel_mnist": [("cnn-1", 30, 20)],
}
_OVERHEAD = 1.05  # at most, a step over its two bare networks
_OVERHEAD_BATCH = 16
_STEP_MS = 50  # at most, a sample of Megapixel MNIST with 10 patches
_CORES = 2
_STEPS = 10  # at least, to judge by


def cost_goals(files: Sequence[Measurement], task: str) -> list[Goal]:
    """Hold the costs of a task against their goals, those of each file by itself."""
    files = [file for file in files if file.of_paper]
    goals: list[Goal] = []
    for file in files or [None]:
        rows = {} if file is None else cost_rows(file, 1)
        place = f", {file.name}" if file is not None and len(files) > 1 else ""
        reference = TASKS[task].reference
        for baseline, *limits in _COST[task]:
            lacks = [] if file is None else not_on_processor(_machine(file), _CORES)
            for name in (reference, baseline):
                steps = rows.get(name, {}).get("steps")
                title = method_title(TASKS[task], name)
                lacks += [
                    f"{title}: {text}" for text in not_enough("steps", steps, _STEPS)
                ]
            for quantity, column, limit in zip(
                ("time", "memory"),
                ("time_ratio", "allocator_ratio"),
                limits,
                strict=True,
            ):
                ratio = rows.get(baseline, {}).get(column)
                what = (
                    f"{TITLES[task]}: {method_title(TASKS[task], baseline)} over "
                    f"{method_name(reference)}, {quantity} a sample, batch 1{place}"
                )
                goals.append(_judge(what, ratio, limit, lacks, at_least=True))
    return goals


def overhead_goals(files: Sequence[Measurement]) -> list[Goal]:
    """Hold whole training steps against their goals, by the slowest of a task."""
    goals = []
    for task in TASKS:
        what = (
            f"{TITLES[task]}: training step over its bare networks, "
            f"batch {_OVERHEAD_BATCH}"
        )
        ratio, lacks = _largest(files, task, "ratio", _steps_lacks)
        goals.append(_judge(what, ratio, _OVERHEAD, lacks))
    step, lacks = _largest(files, "megapixel_mnist", "step_ms", _two_cores_lacks)
    what = (
        "Megapixel MNIST: training step of ATS-10 on two cores, ms a sample, "
        f"batch {_OVERHEAD_BATCH}"
    )
    sample = None if step is None else step / _OVERHEAD_BATCH
    return [*goals, _judge(what, sample, _STEP_MS, lacks)]


def _largest(
    files: Sequence[Measurement],
    task: str,
    column: str,
    lacks: Callable[[Measurement], Lacks],
) -> tuple[float | None, Lacks]:
    """Return the largest number of those files that lack nothing, or that lack it."""
    found: dict[bool, list[tuple[float, Lacks]]] = {True: [], False: []}
    for file in files:
        for row in file.content["rows"]:
            of_goal = (row["task"], row["batch_size"]) == (task, _OVERHEAD_BATCH)
            if column == "step_ms":
                of_goal = of_goal and row["method"] == TASKS[task].reference
            if of_goal and row[column] is not None:
                missing = lacks(file)
                found[not missing].append((row[column], missing))
    return max(found[True] or found[False], default=(None, []))


def _steps_lacks(file: Measurement) -> Lacks:
    return not_enough("steps", file.content["settings"].get("steps"), _STEPS)


def _two_cores_lacks(file: Measurement) -> Lacks:
    return [*not_on_processor(_machine(file), _CORES), *_steps_lacks(file)]


def _machine(file: Measurement) -> dict[str, Any]:
    return file.content["machine"]


def _judge(
    what: str,
    value: float | None,
    limit: float,
    lacks: Lacks,
    at_least: bool = False,
) -> Goal:
    if value is None:
        return (what, "", "", NOT_MEASURED)
    reached = value >= limit if at_least else value <= limit
    verdict = "; ".join(lacks) or (PASS if reached else MISSED)
    return (what, format_ratio(value), f"{'>' if at_least else '<'}= {limit}", verdict)
