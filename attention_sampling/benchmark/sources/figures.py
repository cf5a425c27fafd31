"""Figures of the sources: reading, flat cost, on demand against in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attention_sampling.benchmark.tables import Row
from attention_sampling.files import replacing


def draw_reading(path: Path, rows: Sequence[Row], limit: float) -> None:
    """Draw the rate of each source over that of direct calls, and the limit.

    Args:
        path: PNG file to write.
        rows: as ``source_reading.measure_reading`` returns them.
        limit: that of the ratio.
    """
    names = list(dict.fromkeys(row["source"] for row in rows))
    figure, (axes,) = _figure(1, (7.5, 0.4 * len(names) + 1.4))
    for size in dict.fromkeys(row["window"] for row in rows):
        some = [row for row in rows if row["window"] == size]
        axes.errorbar(
            [row["ratio"] for row in some],
            [row["source"] for row in some],
            xerr=_errors(some),
            fmt="o",
            label=f"{size} x {size}",
        )
    axes.axvline(limit, color="grey", linestyle=":", label="limit")
    axes.set(xlabel="windows a second, over direct calls", xlim=(0, None))
    axes.invert_yaxis()
    axes.legend(loc="lower left", fontsize="small")
    _save(figure, path)


def draw_flat(
    path: Path, rows: Sequence[Row], largest_time: float, largest_megabytes: float
) -> None:
    """Draw time and memory of a step by the size of the image, and their limits.

    Args:
        path: PNG file to write.
        rows: as ``source_flat.measure_flat`` returns them.
        largest_time: limit of the time over that of the smallest image.
        largest_megabytes: limit of the memory above that of the smallest image.
    """
    figure, (time, memory) = _figure(2, (9, 3.4))
    names = [row["image"] for row in rows]
    time.errorbar(names, [row["ratio"] for row in rows], _errors(rows), marker="o")
    time.axhline(largest_time, color="grey", linestyle=":", label="limit")
    time.set(ylabel="time of a step, over the smallest", ylim=(0, None))
    memory.plot(names, [row["peak MB"] for row in rows], "o-")
    highest = rows[0]["peak MB"] + largest_megabytes
    memory.axhline(highest, color="grey", linestyle=":", label="limit")
    memory.set(ylabel="peak resident memory, MB", ylim=(0, None))
    memory.legend(loc="lower right")
    _save(figure, path)


def draw_speed_limits(path: Path, rows: Sequence[Row]) -> None:
    """Draw time and memory of the steps with images in memory and on demand.

    Args:
        path: PNG file to write.
        rows: as ``source_speed_limits.measure_speed_limits`` returns them.
    """
    figure, panels = _figure(2, (9, 2.4))
    names = [row["images"] for row in rows]
    for axes, quantity, label in zip(
        panels,
        ("step s", "peak MB"),
        ("seconds of a step", "peak resident memory, MB"),
        strict=True,
    ):
        axes.barh(names, [row[quantity] for row in rows], height=0.5)
        axes.invert_yaxis()
        axes.set(xlabel=label)
    _save(figure, path)


def _errors(rows: Sequence[Row]) -> list[list[float]]:
    """Return how far the quartiles are below and above the median."""
    return [
        [row["ratio"] - row["low"] for row in rows],
        [row["high"] - row["ratio"] for row in rows],
    ]


def _figure(panels: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """Return a figure and its axes, without pyplot: no window, no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False).flat)


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)
