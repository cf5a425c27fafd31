"""Tables of measurements: limits, text and files."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attention_sampling.benchmark.files import write_csv

PASS = "PASS"
MISSED = "MISSED"
Row = dict[str, Any]


def at_most(value: float, limit: float, error: float = 0.0) -> str:
    """Hold a number against the largest that is good.

    Args:
        value: the number. NaN is not good.
        limit: the largest that is good.
        error: standard error of the number; three of them are let pass.

    Returns:
        The limit and the verdict, for a column of their own.

    Example:

    >>> at_most(0.2, 0.15)
    '<= 0.15 MISSED'
    """
    return f"<= {limit:g} {PASS if value <= limit + 3 * error else MISSED}"


def at_least(value: float, limit: float) -> str:
    """Hold a number against the smallest that is good, as ``at_most``."""
    return f">= {limit:g} {PASS if value >= limit else MISSED}"


def missed_limits(title: str, rows: Sequence[Row]) -> tuple[list[str], int]:
    """Find the numbers beyond their limits.

    Args:
        title: of the table.
        rows: of the table. What comes before the first number with a fraction says what
            was measured.

    Returns:
        A name for each number beyond its limit, and how many numbers have one.
    """
    missed, judged = [], 0
    for row in rows:
        for column, x in row.items():
            verdict = str(x).rpartition(" ")[2]
            judged += verdict in (PASS, MISSED)
            if verdict == MISSED:
                quantity = column.removesuffix("limit").strip()
                missed.append(
                    ": ".join(
                        [title, ", ".join([*_labels(row), quantity]).rstrip(", ")]
                    )
                )
    return missed, judged


def format_table(rows: Sequence[Row]) -> str:
    """Return rows of the same columns as aligned text, numbers to three digits."""
    lines = [list(rows[0]), *([_short(x) for x in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) for text, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def save_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV, numbers to six digits, replacing the file as a whole."""
    write_csv(
        path,
        [
            {name: f"{x:.6g}" if isinstance(x, float) else x for name, x in row.items()}
            for row in rows
        ],
    )


def _labels(row: Row) -> list[str]:
    """Return what comes before the first measured number."""
    labels = itertools.takewhile(
        lambda item: not isinstance(item[1], float), row.items()
    )
    return [x if isinstance(x, str) else f"{column} = {x}" for column, x in labels]


def _short(x: Any) -> str:
    return f"{x:.3g}" if isinstance(x, float) else str(x)
