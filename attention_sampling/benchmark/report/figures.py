"""Figures of a report: learning curves."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attention_sampling.benchmark.report.series import Series
from attention_sampling.files import replacing

_PANELS = (("train_loss", "training loss"), ("test_error", "test error"))
_STYLES = ("-", "--", ":")


def draw_curves(path: Path, series: Sequence[Series], names: Sequence[str]) -> None:
    """Draw training loss and test error by epoch and by time, as Figure 2 of the paper.

    Lines are means over the runs; bands go from the lowest run to the highest. Time is
    that of one training.

    Args:
        path: PNG file to write.
        series: with at least one run each.
        names: of the series, for the legend.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter
    from PIL import Image

    lines = sum(name.count("\n") + 1 for name in names)
    figure = Figure(figsize=(9, 5.5 + 0.09 * lines), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    for number, (one, name) in enumerate(zip(series, names, strict=True)):
        style = {
            "color": f"C{number % 10}",
            "linestyle": _STYLES[number // 10 % len(_STYLES)],
        }
        seconds = one.curve("seconds").mean(axis=0)
        epochs = np.arange(len(seconds)) + 1
        for row, (measure, _) in zip(panels, _PANELS, strict=True):
            for axes, x in zip(row, (epochs, seconds), strict=True):
                _draw(axes, x, one.curve(measure), style, name)
    for row, (_, label) in zip(panels, _PANELS, strict=True):
        row[0].set(ylabel=label, ylim=(0, None))
    panels[1, 0].set(xlabel="epoch")
    panels[1, 0].locator_params(axis="x", integer=True, min_n_ticks=1)
    panels[1, 1].set(xlabel="seconds of training", xscale="log")
    # Short of a decade, matplotlib labels every tick, one over the other.
    panels[1, 1].xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    panels[1, 1].xaxis.set_major_formatter("{x:g}")
    panels[1, 1].xaxis.set_minor_formatter(NullFormatter())
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    with Image.open(drawn) as image, replacing(path) as part:
        # A palette takes a third of the bytes, which a page in a repository counts.
        image.convert("RGB").quantize().save(part, format="png", optimize=True)


def _draw(
    axes: Any, x: np.ndarray, runs: np.ndarray, style: dict[str, str], name: str
) -> None:
    """Draw the mean of the runs and their range, at what all of them have measured."""
    known = np.isfinite(runs).all(axis=0) & np.isfinite(x)
    x, runs = x[known], runs[:, known]
    # A line of one point is not seen.
    marker = "o" if len(x) == 1 else ""
    axes.plot(x, runs.mean(axis=0), label=name, marker=marker, **style)
    if len(runs) > 1:
        axes.fill_between(
            x,
            runs.min(axis=0),
            runs.max(axis=0),
            color=style["color"],
            alpha=0.15,
            linewidth=0,
        )
