"""A page of what was measured: ``python -m attention_sampling experiments report``.

Reads the JSON files of ``experiments run`` and ``experiments cost`` and writes tables, with
the paper's numbers beside, and learning curves.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attention_sampling.experiments.settings import DEFAULTS
from attention_sampling.experiments.tasks import TASKS, parse_method
from attention_sampling.files import replacing

_TITLES = {
    "megapixel_mnist": "Megapixel MNIST",
    "colon_cancer": "Colon cancer",
    "speed_limits": "Speed limits",
}
# Measures of a training, and what its folds count by.
_MEASURES = {"test_error": "n_test", "train_loss": "n_train"}
# Settings in which the trainings of one row may differ.
_FREE = {"method", "runs", "seed", "pictures"}
_INTRODUCTION = """\
Measurements
============

Test error and training loss are means over independent runs, ± the standard error of the mean.
Time and memory are of a forward and backward pass of one image; in brackets, over those of the
row with 1.00. Beside them are the paper's numbers. See `How to read the tables`_."""
_NOTES = """\
How to read the tables
----------------------

- The standard error tells of other seeds on the same images, not of other images. A row without
  it is one run.
- The training loss is the mean over the steps of the last epoch, of augmented images where a
  task augments them.
- A row with settings differs in these from the plain row of its method.
- Time is the median of the steps in float32, memory the peak of TensorFlow's allocator. The paper
  measured on a GPU: compare the ratios in brackets, not milliseconds.
- The paper's numbers are from Katharopoulos and Fleuret 2019, Tables 1 and 2 and section 4."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    parser.add_argument("directory", metavar="DIR", help="of JSON files, at any depth")
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="for report.rst and its figures"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the page.

    Raises:
        ValueError: there is nothing to report.
        OSError: a file cannot be read or written.
    """
    trainings, costs, scenes = read_measurements(Path(arguments.directory))
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    by_task = {
        name: [one for one in trainings if one["task"] == name] for name in TASKS
    }
    # First the tasks of most methods, last those of which nothing was trained.
    order = sorted(TASKS, key=lambda x: -len({one["method"] for one in by_task[x]}))
    parts = [_INTRODUCTION]
    for name in order:
        full_size = list(TASKS[name].image_shape)
        sizes = {tuple(one["image_shape"]) for one in by_task[name]}
        for size in (full_size, *map(list, sorted(sizes - {tuple(full_size)}))):
            some = [one for one in by_task[name] if one["image_shape"] == size]
            cost = [x for x in costs if x["task"] == name and size == full_size]
            if some or cost:
                parts += _write_section(name, size, some, cost, output)
    for one in scenes:
        parts += _write_real_scenes(one)
    parts.append(_NOTES)
    page = output / "report.rst"
    with replacing(page) as part:
        part.write_text("\n\n".join(parts) + "\n", "utf-8")
    print(f"{page}: {len(trainings)} series of trainings, {len(costs)} costs")


def read_measurements(directory: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the content of the files of trainings, costs and real scenes, by path.

    Raises:
        ValueError: there are none; a file is not JSON.
    """
    found: dict[str, list[Any]] = {"training": [], "cost": [], "real scenes": []}
    for path in sorted(directory.rglob("*.json")):
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} holds no JSON: {error}") from error
        if isinstance(content, dict):
            kind = content.get("kind")
            if content.get("task") in TASKS or kind == "real scenes":
                found.get(kind, []).append(content)
    if not any(found.values()):
        raise ValueError(
            "There is nothing to report. Expected: a directory of what `experiments run` "
            f"and `experiments cost` wrote. Received: {directory}"
        )
    trainings, costs, scenes = found.values()
    return trainings, costs, scenes


def summarize(trainings: Sequence[Any]) -> pd.DataFrame:
    """Return mean and standard error of trainings of one task and size.

    Args:
        trainings: contents of files.

    Returns:
        A row for each method and settings, its ``name`` the index: ``method``, ``runs``,
        ``epochs``; ``test_error`` and ``train_loss``, means over the whole runs;
        ``test_error_error`` and ``train_loss_error``, their standard errors, NaN for one
        run; ``curves``, the fits of these runs.
    """
    fits = pd.DataFrame(
        {
            **fit,
            "run": (number, fit["run"]),
            "method": one["method"],
            "settings": _settings(one),
        }
        for number, one in enumerate(trainings)
        for fit in one["fits"]
    )
    rows = []
    for (method, settings), series in fits.groupby(["method", "settings"]):
        folds = series.groupby("run")["epochs"].transform("size")
        series = series[folds == folds.max()]  # whole runs
        row = {"method": method, "settings": json.loads(settings), "curves": series}
        row |= {"runs": series["run"].nunique(), "epochs": series["epochs"].min()}
        for measure, weight in _MEASURES.items():
            products = (series[measure] * series[weight]).groupby(series["run"]).sum()
            of_runs = products / series.groupby("run")[weight].sum()
            row |= {measure: of_runs.mean(), f"{measure}_error": of_runs.sem()}
        rows.append(row)
    defaults = DEFAULTS[trainings[0]["task"]]
    # The plain row of a method comes first: not the paper's settings, most runs, and
    # fewest settings that are not the defaults.
    rows.sort(
        key=lambda row: (
            _order(row["method"]),
            bool(row["settings"].get("paper")),
            -row["runs"],
            sum(
                row["settings"].get(x, value) != value for x, value in defaults.items()
            ),
        )
    )
    table = pd.DataFrame(rows)
    base = table.groupby("method", sort=False)["settings"].transform("first")
    table.index = [
        _name(method) + _differences(settings, plain)
        for method, settings, plain in zip(
            table["method"], table["settings"], base, strict=True
        )
    ]
    return table


def _settings(training: Any) -> str:
    """Return what determines a training beside its seed, to group by."""
    # A file of before an option was there: it was trained with its default.
    settings = {**DEFAULTS[training["task"]], **training["settings"]}
    settings = pd.json_normalize(settings).iloc[0].to_dict()
    kept = {name: value for name, value in settings.items() if name not in _FREE}
    return json.dumps(kept, sort_keys=True, default=str)


def _differences(settings: Any, plain: Any) -> str:
    """Name the settings that differ from those of the plain row of a method."""
    if settings.get("paper") and not plain.get("paper"):
        return ", settings of the paper"
    said = []
    for name, value in settings.items():
        if value != plain.get(name, value):
            name = name.removeprefix("data.").replace("_", " ")
            said.append(f", no {name}" if value is None else f", {name} {value}")
    return "".join(said)


def _order(method: str) -> tuple[int, float]:
    """Sort methods as the paper's tables do."""
    one = parse_method(method)
    kinds = ("u", "cnn", "deep-mil", "ats")
    return kinds.index(one.kind), one.n_patches or one.scale or 0


def _name(method: str) -> str:
    """Return a method as the paper writes it: ats-10 is ATS-10, cnn-0.5 is CNN 0.5."""
    kind, _, number = method.rpartition("-")
    names = {"ats": f"ATS-{number}", "u": f"U-{number}", "cnn": f"CNN {number}"}
    return names.get(kind, method.replace("-", " ").replace("deep mil", "Deep MIL"))


def _write_section(
    name: str,
    size: Sequence[int],
    trainings: Sequence[Any],
    costs: Sequence[Any],
    output: Path,
) -> list[str]:
    """Return the parts of a section, and plot its learning curves."""
    title = f"{_TITLES[name]}, {size[0]} x {size[1]} pixels"
    parts = [f"{title}\n{'-' * len(title)}"]
    full_size = list(size) == list(TASKS[name].image_shape)
    if trainings:
        trained = summarize(trainings)
        generated = any(one["settings"]["data"].get("generated") for one in trainings)
        # Other photographs than the paper's: their size is no reason to hide its numbers.
        beside = full_size or (name == "speed_limits" and not generated)
        published = TASKS[name].published if beside else {}
        parts.append(_format_errors(trained, published))
        figure = f"report_{name}" + ("" if full_size else f"_{size[0]}x{size[1]}")
        plot_curves(output / f"{figure}.png", trained)
        parts.append(
            f".. figure:: {figure}.png\n   :alt: {title}: learning curves\n\n   "
            "Means over the runs, and the range of the runs."
        )
        missing = [x for x in published if x not in set(trained["method"])]
        if missing:
            parts.append(f"Not trained: {', '.join(map(_name, missing))}.")
        parts += sorted({one["note"] for one in trainings if "note" in one})
        parts += _format_budgets(trained)
    else:
        parts.append("Nothing was trained, only the cost was measured.")
    for cost in costs:
        parts.append(_format_costs(cost))
        parts += [
            f"{_name(row['method'])} was not measured: {row['reason']}."
            for row in cost["rows"]
            if row.get("reason")
        ]
    return [*parts, *_describe([*trainings, *costs])]


def _write_real_scenes(content: Any) -> list[str]:
    """Return the parts of a section about ``experiments real-scenes``."""
    title = "Speed limits in real scenes, five folds"
    rows = [
        {
            "Trained on": name,
            "Error": _mean(content[when]["error"], None),
            "Balanced error": _mean(content[when]["balanced_error"], None),
        }
        for when, name in (
            ("before", "pasted scenes"),
            ("after", "and the real scenes of the other folds"),
        )
    ]
    by_width = [
        {
            "Sign": row["width"],
            "Scenes": row["scenes"],
            "Error": _mean(row["before"], None),
            "Error with the real scenes": _mean(row["after"], None),
        }
        for row in content["by_width"]
    ]
    constant = content["after"]["constant_error"]
    return [
        f"{title}\n{'-' * len(title)}",
        _format_table(pd.DataFrame(rows)),
        _format_table(pd.DataFrame(by_width)),
        f"One run. Always the most frequent class: error {constant:.3f}.",
        *_describe([content]),
    ]


def _format_errors(trained: pd.DataFrame, published: Any) -> str:
    rows = []
    for name, row in trained.iterrows():
        plain = name == _name(row["method"])  # the paper has no other settings
        paper = published.get(row["method"]) if plain else None
        cells = {"Method": name, "Runs": row["runs"], "Epochs": row["epochs"]}
        for title, measure in (
            ("Test error", "test_error"),
            ("Training loss", "train_loss"),
        ):
            cells[title] = _mean(row[measure], row[f"{measure}_error"])
            if published:
                values = [
                    getattr(paper, x, None) for x in (measure, f"{measure}_error")
                ]
                cells[f"{title}, paper"] = _mean(*values)
        rows.append(cells)
    table = pd.DataFrame(rows)
    return _format_table(table.loc[:, (table != "").any()])  # not what is empty


def _format_budgets(trained: pd.DataFrame) -> list[str]:
    """Return a table of the test error by patches at prediction, if it was measured."""
    rows = []
    for name, row in trained.iterrows():
        fits = row["curves"]
        if "budgets" not in fits or fits["budgets"].isna().all():
            continue
        fits = fits.dropna(subset="budgets")
        errors = pd.DataFrame(list(fits["budgets"]), index=fits.index)
        products = errors.mul(fits["n_test"], axis=0).groupby(fits["run"])
        of_runs = products.sum(min_count=1).div(
            fits.groupby("run")["n_test"].sum(), axis=0
        )
        cells = {"Patches at prediction": name}
        for budget in of_runs:
            cells[budget] = _mean(of_runs[budget].mean(), of_runs[budget].sem())
        rows.append(cells)
    return [_format_table(pd.DataFrame(rows).fillna(""))] if rows else []


def _format_costs(cost: Any) -> str:
    """Return the table of time and memory at batch 1, beside the paper's."""
    task, rows = TASKS[cost["task"]], []
    reference = task.published[task.reference]
    for row in cost["rows"]:
        if row["batch_size"] != 1 or row.get("reason"):
            continue
        paper = task.published.get(row["method"])
        cells = {"Method": _name(row["method"])}
        for title, key, ratio, column, unit in (
            ("Time", "ms_per_sample", "time_ratio", "ms", "ms"),
            ("Memory", "allocator_mb_per_sample", "allocator_ratio", "mb", "MB"),
        ):
            cells[title] = _with_ratio(row.get(key), row.get(ratio), unit)
            value, other = (getattr(x, column, None) for x in (paper, reference))
            if other:
                cells[f"{title}, paper"] = _with_ratio(
                    value, value and value / other, unit
                )
        rows.append(cells)
    return _format_table(pd.DataFrame(rows))


def _mean(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" + (f" ± {error:.3f}" if pd.notna(error) else "")


def _with_ratio(value: float | None, ratio: float | None, unit: str) -> str:
    if value is None or ratio is None:
        return ""
    digits = 2 if ratio < 9.995 else 1
    return f"{value:,.4g} {unit} ({ratio:.{digits}f})"


def _format_table(table: pd.DataFrame) -> str:
    """Return a table as reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for cells in [table.columns, *table.itertuples(index=False)]:
        for number, cell in enumerate(cells):
            lines.append(f"   {'  ' if number else '* '}- {cell}".rstrip())
    return "\n".join(lines)


def _describe(contents: Sequence[Any]) -> list[str]:
    """Return the commands, machines and versions of some measurements."""
    commands = dict.fromkeys(content["command"] for content in contents)
    where = dict.fromkeys(
        "- {processor}, {cores} cores; ".format(**content["machine"])
        + ", ".join(
            f"{name} {version}"
            for name, version in content["versions"].items()
            if name != "backend"
        )
        for content in contents
    )
    dates = sorted(content["date"][:10] for content in contents)
    code = "\n".join(f"   {command}" for command in commands)
    days = " to ".join(dict.fromkeys([dates[0], dates[-1]]))
    return [
        f"Measured {days} by:",
        f".. code-block:: console\n\n{code}",
        "\n".join(where),
    ]


def plot_curves(path: Path, trained: pd.DataFrame) -> None:
    """Plot training loss and test error by epoch, the mean and the range of the runs.

    Args:
        path: PNG file to write.
        trained: as ``summarize`` returns it.
    """
    from matplotlib.figure import Figure

    figure = Figure((9, 4 + 0.1 * len(trained)), layout="constrained")
    panels = figure.subplots(1, 2)
    for name, row in trained.iterrows():
        for axes, measure in zip(panels, ("train_loss", "test_error"), strict=True):
            curves = _average_curves(row["curves"], measure, row["epochs"])
            epochs = np.arange(curves.shape[1]) + 1
            mark = "o" if len(epochs) == 1 else ""
            [line] = axes.plot(epochs, curves.mean(axis=0), mark + "-", label=name)
            lowest, highest = curves.min(axis=0), curves.max(axis=0)
            color = line.get_color()
            axes.fill_between(epochs, lowest, highest, color=color, alpha=0.15, lw=0)
    panels[0].set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    panels[1].set(xlabel="epoch", ylabel="test error", ylim=(0, None))
    for axes in panels:
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, fontsize="small"
    )
    with replacing(path) as part:
        figure.savefig(part, dpi=80)


def _average_curves(fits: pd.DataFrame, measure: str, epochs: int) -> np.ndarray:
    """Return a measure after each epoch, (runs, epochs), folds counted by images."""
    return np.array(
        [
            np.average(
                [curve[measure][:epochs] for curve in run["curve"]],
                axis=0,
                weights=run[_MEASURES[measure]],
            )
            for _, run in fits.groupby("run")
        ]
    )
