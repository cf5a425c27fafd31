"""Figures of the estimators: bias, variance, control variate, cost."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attention_sampling.benchmark.tables import Row
from attention_sampling.files import replacing

# Of the estimators in the order of the table; dotted with control variate.
STYLES = ("k-", "k:", "C0-", "C1-", "C2:")


def draw_bias(
    path: Path, rows: Sequence[Row], quantities: Sequence[str], limit: float
) -> None:
    """Draw the largest errors of each estimator, and their limit.

    Args:
        path: PNG file to write.
        rows: as ``estimator_bias.measure_exact`` returns them.
        quantities: columns to draw.
        limit: that of the errors.
    """
    figure, (axes,) = _figure(1, (8, 4.2))
    names = [f"{row['estimator']}, from {row['cells from']}" for row in rows]
    for quantity, marker in zip(quantities, "os^", strict=False):
        axes.plot([row[quantity] for row in rows], names, marker, label=quantity)
    axes.axvline(limit, color="grey", linestyle=":", label="limit")
    axes.set(xscale="log", xlabel="largest absolute error, float32")
    axes.invert_yaxis()
    axes.legend(loc="center right", fontsize="small")
    _save(figure, path)


def draw_variance(path: Path, rows: Sequence[Row], quantities: Sequence[str]) -> None:
    """Draw squared errors over those with replacement, from flat to peaked attention.

    Args:
        path: PNG file to write.
        rows: as ``estimator_ratios.error_rows`` returns them, of one kind of features.
        quantities: columns to draw, each in a row of the figure.
    """
    counts = list(dict.fromkeys(row["n"] for row in rows))
    attentions = list(dict.fromkeys(row["attention"] for row in rows))
    one_cell = [name for name in attentions if name.startswith("one cell")]
    families = [[name for name in attentions if name not in one_cell], one_cell]
    estimators = list(dict.fromkeys(row["estimator"] for row in rows))
    errors = {(row["attention"], row["n"], row["estimator"]): row for row in rows}
    figure, panels = _figure(
        (len(quantities), len(counts)), (11, 6.5), sharex=True, sharey="row"
    )
    for number, axes in enumerate(panels):
        quantity, n = quantities[number // len(counts)], counts[number % len(counts)]
        for family, (estimator, style) in itertools.product(
            families, zip(estimators, STYLES, strict=True)
        ):
            relative = [
                errors[name, n, estimator][quantity]
                / errors[name, n, estimators[0]][quantity]
                for name in family
            ]
            axes.plot(family, relative, style, marker=".", label=estimator)
        axes.set(yscale="log", title=f"{quantity}, n = {n}")
        axes.tick_params(axis="x", rotation=90)
        axes.grid(alpha=0.3)
    figure.supylabel(f"squared error over that {estimators[0]}")
    lines = panels[0].get_lines()[: len(estimators)]
    figure.legend(handles=lines, loc="outside lower center", ncols=3)
    _save(figure, path)


def draw_gain(path: Path, rows: Sequence[Row], limit: float) -> None:
    """Draw what the control variate gains for flat attention, and the least it should.

    Args:
        path: PNG file to write.
        rows: as ``estimator_ratios.gain_row`` returns them.
        limit: that of the gain with five and ten patches.
    """
    figure, (axes,) = _figure(1, (6.5, 4.5))
    rows = [row for row in rows if row["attention"] == "flat"]
    for features in dict.fromkeys(row["features"] for row in rows):
        kind = [row for row in rows if row["features"] == features]
        axes.errorbar(
            [row["n"] for row in kind],
            [row["unordered"] for row in kind],
            [row["unordered +-"] for row in kind],
            marker=".",
            label=f"features: {features}, {kind[0]['shared']:.2f} shared",
        )
    axes.axhline(limit, color="grey", linestyle=":", label="limit, n = 5 and 10")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="patches",
        ylabel="squared error without over with",
        title="Control variate: logit gradient, flat attention",
    )
    ticks = sorted({row["n"] for row in rows})
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.set_xticks([], minor=True)
    figure.legend(loc="outside lower center", ncols=2)
    _save(figure, path)


def draw_cost(path: Path, rows: Sequence[Row]) -> None:
    """Draw the estimator's share of a training step, and its limit.

    Args:
        path: PNG file to write.
        rows: as ``estimator_cost.measure_time`` returns them.
    """
    figure, (axes,) = _figure(1, (6, 2.6))
    names = [f"{row['n']} patches, batch {row['batch']}" for row in rows]
    limits = [float(row["limit"].split()[1]) for row in rows]
    axes.barh(names, [100 * row["share"] for row in rows], height=0.5)
    axes.plot(
        [100 * limit for limit in limits], names, "k|", markersize=15, label="limit"
    )
    axes.set(
        xlabel="% of a training step", xlim=(0, None), ylim=(-0.6, len(names) - 0.4)
    )
    axes.legend(loc="lower right")
    _save(figure, path)


def _figure(
    panels: Any, size: tuple[float, float], **keywords: Any
) -> tuple[Any, list[Any]]:
    """Return a figure and its axes, without pyplot: no window, no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    rows, columns = (1, 1) if panels == 1 else panels
    axes = figure.subplots(rows, columns, squeeze=False, **keywords)
    return figure, list(axes.flat)


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=100)
