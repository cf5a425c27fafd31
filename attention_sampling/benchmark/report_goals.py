"""Goals of this package's measurements, and whether they are reached."""

from collections.abc import Sequence

from attention_sampling.benchmark.report_costs import (
    cost_rows,
)
from attention_sampling.benchmark.report_files import (
    Images,
    Measurement,
    images_of_paper,
    of_kind,
)
from attention_sampling.benchmark.report_numbers import (
    NOT_MEASURED,
    divide,
    format_mean,
    format_ratio,
)
from attention_sampling.benchmark.report_paper import (
    TITLES,
    method_name,
    method_title,
)
from attention_sampling.benchmark.report_series import Series
from attention_sampling.benchmark.tables import MISSED, PASS
from attention_sampling.tasks import TASKS

# Task -> baseline, and at least how many times the time and memory a sample of attention
# sampling it takes at batch 1.
COST = {
    "colon_cancer": [("deep-mil", 28, 30), ("cnn-1", 13, 7)],
    "speed_limits": [("deep-mil", 13, 18), ("cnn-1", 8, 13)],
    "megapixel_mnist": [("cnn-1", 30, 20)],
}
OVERHEAD = 1.05  # at most, a step over its two bare networks
OVERHEAD_BATCH = 16
STEP_MS = 50  # at most, a sample of Megapixel MNIST with 10 patches, on two cores
TEST_ERROR = 0.15  # below, Megapixel MNIST at 500 x 500 with 10 patches
TEST_ERROR_IMAGES = Images(500, 500, 1, drawn=False)

Goal = tuple[str, str, str, str]  # what, measured, goal, verdict
AllSeries = dict[tuple[str, Images], list[Series]]


def judge_goals(measurements: Sequence[Measurement], series: AllSeries) -> list[Goal]:
    """Hold what was measured against each goal.

    Args:
        measurements: as ``report_files.read_measurements`` returns them.
        series: by task and images.
    """
    goals = [*_error_goals(series)]
    for task in TASKS:
        goals += _cost_goals(task, of_kind(measurements, "cost", task))
    return [*goals, *_overhead_goals(of_kind(measurements, "overhead"))]


def say_goals(goals: Sequence[Goal]) -> list[str]:
    """Say how many goals were reached, and name those that were missed."""
    verdicts = [verdict for *_, verdict in goals]
    judged = [verdict for verdict in verdicts if verdict in (PASS, MISSED)]
    return [
        f"Reached: {judged.count(PASS)} of {len(judged)}, "
        f"{len(goals) - len(judged)} more not measured",
        *(
            f"Missed: {what}: {measured}, limit {limit}"
            for what, measured, limit, verdict in goals
            if verdict == MISSED
        ),
    ]


def _error_goals(series: AllSeries) -> list[Goal]:
    task = "colon_cancer"
    colon = series.get((task, images_of_paper(TASKS[task])), [])
    deep_mil, uniform = (_best(colon, name) for name in ("deep-mil", "u-10"))
    goals = []
    for name in ("ats-10", "ats-50"):
        what = f"{TITLES[task]}: test error of {method_name(name)}"
        best = _best(colon, name)
        error, measured = _test_error(best)
        spread = (best and best.error("test_error")) or 0.0
        limit, limit_text = _test_error(deep_mil)
        if limit is not None:
            limit_text = f"<= {limit_text} + {spread:.3f}"
        goals.append(
            (
                f"{what}, above Deep MIL's by at most one standard error",
                measured,
                limit_text,
                _verdict(error, limit, spread),
            )
        )
        limit, limit_text = _test_error(uniform)
        goals.append(
            (
                f"{what}, below U-10's",
                measured,
                limit_text if limit is None else f"< {limit_text}",
                _below(error, limit),
            )
        )
    best = _best(series.get(("megapixel_mnist", TEST_ERROR_IMAGES), []), "ats-10")
    error, measured = _test_error(best)
    goals.append(
        (
            "Megapixel MNIST 500 x 500: test error of ATS-10",
            measured,
            f"< {TEST_ERROR}",
            _below(error, TEST_ERROR),
        )
    )
    return goals


def _cost_goals(task: str, files: Sequence[Measurement]) -> list[Goal]:
    files = [file for file in files if file.of_paper]
    reference = method_name(TASKS[task].reference)
    goals = []
    for file in files or [None]:
        rows = {} if file is None else cost_rows(file, 1)
        place = f", {file.name}" if file is not None and len(files) > 1 else ""
        for baseline, *limits in COST[task]:
            for quantity, column, limit in zip(
                ("time", "memory"),
                ("time_ratio", "allocator_ratio"),
                limits,
                strict=True,
            ):
                ratio = rows.get(baseline, {}).get(column)
                name = method_title(TASKS[task], baseline)
                goals.append(
                    (
                        f"{TITLES[task]}: {name} over {reference}, "
                        f"{quantity} a sample, batch 1{place}",
                        format_ratio(ratio),
                        f">= {limit}",
                        _verdict(limit, ratio),
                    )
                )
    return goals


def _overhead_goals(files: Sequence[Measurement]) -> list[Goal]:
    goals = []
    rows = [row for file in files for row in file.content["rows"]]
    rows = [row for row in rows if row["batch_size"] == OVERHEAD_BATCH]
    for task in TASKS:
        found = [row["ratio"] for row in rows if row["task"] == task]
        worst = None if None in found else max(found, default=None)
        goals.append(
            (
                f"{TITLES[task]}: training step over its bare networks, "
                f"batch {OVERHEAD_BATCH}",
                format_ratio(worst),
                f"<= {OVERHEAD}",
                _verdict(worst, OVERHEAD),
            )
        )
    steps = [
        row["step_ms"]
        for row in rows
        if (row["task"], row["method"]) == ("megapixel_mnist", "ats-10")
    ]
    slowest = None if None in steps else max(steps, default=None)
    sample = divide(slowest, OVERHEAD_BATCH)
    goals.append(
        (
            "Megapixel MNIST: training step of ATS-10 on two cores, ms a sample, "
            f"batch {OVERHEAD_BATCH}",
            format_ratio(sample),
            f"<= {STEP_MS}",
            _verdict(sample, STEP_MS),
        )
    )
    return goals


def _best(series: Sequence[Series], method: str) -> Series | None:
    """Return the settings of a method with the lowest test error."""
    some = [one for one in series if one.method == method and one.values("test_error")]
    return min(some, key=lambda one: one.mean("test_error"), default=None)


def _test_error(series: Series | None) -> tuple[float | None, str]:
    if series is None:
        return None, NOT_MEASURED
    mean = series.mean("test_error")
    text = format_mean(mean, series.error("test_error"))
    return mean, f"{text} ({series.label})" if series.label else text


def _verdict(smaller: float | None, larger: float | None, margin: float = 0.0) -> str:
    if smaller is None or larger is None:
        return NOT_MEASURED
    return PASS if smaller <= larger + margin else MISSED


def _below(value: float | None, limit: float | None) -> str:
    if value is None or limit is None:
        return NOT_MEASURED
    return PASS if value < limit else MISSED
