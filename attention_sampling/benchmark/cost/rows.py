"""Rows of what methods cost, and the table of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from attention_sampling.benchmark.cost.process import Memory, Step
from attention_sampling.benchmark.tables import Row, format_table

# Column of the table -> key of the row.
_COLUMNS = {
    "method": "method",
    "batch": "batch_size",
    "ms": "ms_per_sample",
    "low": "ms_low",
    "high": "ms_high",
    "allocator MB": "allocator_mb_per_sample",
    "resident MB": "resident_mb_per_sample",
    "time ratio": "time_ratio",
    "low ": "time_ratio_low",
    "high ": "time_ratio_high",
    "processor ratio": "processor_ratio",
    "allocator ratio": "allocator_ratio",
    "resident ratio": "resident_ratio",
    "": "reason",
}


@dataclass
class Cost:
    """What was measured of a method at a batch size.

    Attributes:
        steps: what they took.
        ratios: of each turn, in time by the clock and of the processor, over that of the
            method of reference.
        memory: of the steps.
        reason: why nothing was measured, None where it was.
    """

    steps: list[Step] = field(default_factory=list)
    ratios: list[np.ndarray] = field(default_factory=list)
    memory: Memory | None = None
    reason: str | None = None

    def compare(self, steps: list[Step], of_reference: list[Step]) -> None:
        """Keep the ratios of a turn, unless memory ran out."""
        if steps and of_reference:
            ratios = np.median(steps, axis=0) / np.median(of_reference, axis=0)
            self.ratios.append(ratios[:2])

    def fail(self, reason: str) -> None:
        """Forget what was measured, and say why."""
        self.steps, self.ratios, self.memory = [], [], None
        self.reason = reason

    def summary(self, batch_size: int) -> str:
        """Say in a few words what was measured."""
        if self.reason is not None:
            return f"not measured: {self.reason}"
        seconds, _, megabytes = np.median(self.steps, axis=0) / batch_size
        return f"{1e3 * seconds:.3g} ms and {megabytes:.3g} MB a sample"


def cost_row(name: str, batch_size: int, cost: Cost, reference: Cost) -> Row:
    """Return what a method costs.

    Args:
        name: of the method.
        batch_size: images a step.
        cost: that was measured.
        reference: that of the method of reference, which may be the same.

    Returns:
        Row with ``ms_per_sample``, median time of a step between the quartiles
        ``ms_low`` and ``ms_high``, and ``processor_ms_per_sample``, that of all threads;
        ``allocator_mb_per_sample``, median of the peak memory of a step, and
        ``resident_mb_per_sample``; ``allocator_held_mb``, of the whole batch, between
        the steps; ``time_ratio``, median over the turns between quartiles, and
        ``processor_ratio``; ``allocator_ratio`` and ``resident_ratio``, quotients. None
        for what is unknown; ``reason`` says why nothing is known.
    """
    wall, processor, peak = _quartiles(np.reshape(cost.steps, (-1, 3)) / batch_size)
    ratios = [(1.0, 1.0)] if cost is reference and cost.steps else cost.ratios
    time, work = _quartiles(np.reshape(ratios, (-1, 2)))
    held, resident = cost.memory or (math.nan, math.nan)
    reference_peak = _quartiles(np.reshape(reference.steps, (-1, 3)))[2][1]
    _, reference_resident = reference.memory or (math.nan, math.nan)
    row = {
        "ms_per_sample": 1e3 * wall[1],
        "ms_low": 1e3 * wall[0],
        "ms_high": 1e3 * wall[2],
        "processor_ms_per_sample": 1e3 * processor[1],
        "allocator_mb_per_sample": peak[1],
        "allocator_held_mb": held,
        "resident_mb_per_sample": resident / batch_size,
        "time_ratio": time[1],
        "time_ratio_low": time[0],
        "time_ratio_high": time[2],
        "processor_ratio": work[1],
        "allocator_ratio": _divide(peak[1] * batch_size, reference_peak),
        "resident_ratio": _divide(resident, reference_resident),
    }
    return {
        "method": name,
        "batch_size": batch_size,
        "steps": len(cost.steps),
        **{key: x if math.isfinite(x) else None for key, x in row.items()},
        "reason": cost.reason,
    }


def format_costs(rows: Sequence[Row]) -> str:
    """Return the rows as a table, empty where a number is unknown."""
    return format_table(
        [
            {
                column: "" if row[key] is None else row[key]
                for column, key in _COLUMNS.items()
            }
            for row in rows
        ]
    )


def _quartiles(values: np.ndarray) -> list[list[float]]:
    """Return first quartile, median and third of each column, NaN of nothing."""
    if not len(values):
        return [[math.nan] * 3] * values.shape[1]
    return [
        list(map(float, x)) for x in np.quantile(values, [0.25, 0.5, 0.75], axis=0).T
    ]


def _divide(x: float, y: float) -> float:
    return x / y if y > 0 else math.nan
