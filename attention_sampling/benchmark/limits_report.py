"""What measurements print and write: tables, and which limits were missed."""

from collections.abc import Sequence
from pathlib import Path

from attention_sampling.benchmark.tables import (
    Row,
    format_table,
    missed_limits,
    save_table,
)


class Report:
    """Tables printed, written, and searched for what is beyond its limit.

    Args:
        directory: for the CSV files.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.missed: list[str] = []
        self.judged = 0

    def add(
        self, name: str, title: str, rows: Sequence[Row], printed: str | None = None
    ) -> None:
        """Print a table, or another text for it, and write it as ``<name>.csv``."""
        text = format_table(rows) if printed is None else printed
        print(f"\n{title}\n{text}", flush=True)
        save_table(self.directory / f"{name}.csv", rows)
        missed, judged = missed_limits(name, rows)
        self.missed += missed
        self.judged += judged

    def summary(self) -> str:
        """Say how many limits were met, and name those that were missed."""
        met = self.judged - len(self.missed)
        lines = [f"\nLimits met: {met} of {self.judged}"]
        return "\n".join([*lines, *(f"MISSED: {name}" for name in self.missed)])
