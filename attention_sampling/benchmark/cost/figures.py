"""Figure of what methods cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attention_sampling.benchmark.tables import Row
from attention_sampling.files import replacing

# Label, key, and the key of the ratio that is written beside the bars.
_PANELS = (
    ("milliseconds a sample", "ms_per_sample", "time_ratio"),
    (
        "MB a sample, peak of the allocator",
        "allocator_mb_per_sample",
        "allocator_ratio",
    ),
)


def draw_costs(path: Path, rows: Sequence[Row], reference: str) -> None:
    """Draw time and memory a sample of each method, and their ratios.

    Args:
        path: PNG file to write.
        rows: as ``cost_measurement.measure_batch`` returns them, of one or more batch
            sizes.
        reference: method that the ratios are to.
    """
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(row["method"] for row in rows))
    sizes = list(dict.fromkeys(row["batch_size"] for row in rows))
    height = 0.8 / len(sizes)
    figure = Figure((9, 0.28 * len(methods) * len(sizes) + 1.5), layout="constrained")
    for axes, (label, key, ratio) in zip(
        figure.subplots(1, 2, sharey=True), _PANELS, strict=True
    ):
        for number, size in enumerate(sizes):
            shift = (number - (len(sizes) - 1) / 2) * height
            some = [row for row in rows if row["batch_size"] == size]
            places = {
                row["method"]: methods.index(row["method"]) + shift for row in some
            }
            for name in (row["method"] for row in some if row[key] is None):
                axes.annotate(
                    "not measured",
                    (0.01, places[name]),
                    xycoords=("axes fraction", "data"),
                    va="center",
                    fontsize="x-small",
                    color="grey",
                )
            some = [row for row in some if row[key] is not None]
            bars = axes.barh(
                [places[row["method"]] for row in some],
                [row[key] for row in some],
                height,
                xerr=_quartiles(some) if key == "ms_per_sample" else None,
                label=f"batch {size}",
            )
            labels = [_times(row[ratio]) for row in some]
            axes.bar_label(bars, labels, padding=3, fontsize="small")
        axes.set(xlabel=f"{label} (x: over {reference})", xscale="log")
        axes.margins(x=0.3)
        axes.grid(axis="x", alpha=0.3)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(sizes))
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)


def _quartiles(rows: Sequence[Row]) -> Any:
    """Return how far the quartiles are below and above the median."""
    return [
        [row["ms_per_sample"] - row["ms_low"] for row in rows],
        [row["ms_high"] - row["ms_per_sample"] for row in rows],
    ]


def _times(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.2g}x"
