"""The command: measure time and memory a sample, write JSON, CSV and a plot."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from attention_sampling.experiments.circumstances import describe_run
from attention_sampling.experiments.cost.measure import Row, measure
from attention_sampling.experiments.cost.models import BARE, find_sampling, load_model
from attention_sampling.experiments.cost.process import device
from attention_sampling.experiments.tasks import TASKS, parse_method
from attention_sampling.files import one_process, replacing

# Columns of the table that is printed.
_COLUMNS = {
    "method": "method",
    "ms_per_sample": "ms",
    "ms_low": "low",
    "ms_high": "high",
    "allocator_mb_per_sample": "MB",
    "resident_mb_per_sample": "resident MB",
    "time_ratio": "time ratio",
    "allocator_ratio": "memory ratio",
}
_PANELS = {
    "ms_per_sample": ("milliseconds a sample", "time_ratio"),
    "allocator_mb_per_sample": ("MB a sample", "allocator_ratio"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--task", choices=list(TASKS), help="experiment of the paper")
    what.add_argument(
        "--model", metavar="FILE", help="a functional model of your own, a .keras file"
    )
    parser.add_argument(
        "--methods",
        metavar="METHOD,...",
        help="of the task: ats-N, u-N, cnn-S, deep-mil (default: the paper's table). The "
        "method that ratios are to and its two bare networks are always measured",
    )
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=30,
        metavar="N",
        help="to measure of each model (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        default="runs/cost",
        metavar="DIR",
        help="for cost-NAME.json, .csv and .png; an earlier measurement of the same NAME "
        "is replaced (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the table and write it.

    Raises:
        ValueError: an argument is out of range, the model cannot be measured, or the
            backend is not TensorFlow.
        OSError: there is too little memory, or a file cannot be written.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Time and memory are measured of TensorFlow. Expected: "
            f"KERAS_BACKEND=tensorflow. Received: {keras.backend.backend()}"
        )
    for option, value in (
        ("--batch-size", arguments.batch_size),
        ("--steps", arguments.steps),
    ):
        if value < 1:
            raise ValueError(f"{option} must be at least 1. Received: {value}")
    names, reference = _choose_models(arguments)
    subject = arguments.task or arguments.model
    name = f"cost-{arguments.task or Path(arguments.model).stem}"
    with one_process(arguments.output) as output:
        rows = []
        try:
            for row in measure(
                names, subject, reference, arguments.batch_size, arguments.steps
            ):
                print(_describe(row), flush=True)
                rows.append(row)
        except MemoryError as error:
            raise OSError(
                f"{reference} ran out of memory: {error}. Use a smaller --batch-size. "
                f"Received: --batch-size {arguments.batch_size}"
            ) from error
        rows.sort(key=lambda row: names.index(row["method"]))
        _write(output / name, rows, arguments, reference)
    print(f"\nA sample, forward and backward; ratios to {reference}\n{_table(rows)}")


def _choose_models(arguments: argparse.Namespace) -> tuple[list[str], str]:
    """Return the names of what is measured, and which of them ratios are to."""
    if arguments.model is None:
        task = TASKS[arguments.task]
        methods = list(task.methods)
        if arguments.methods is not None:
            methods = [str(parse_method(x)) for x in arguments.methods.split(",")]
        return list(dict.fromkeys([*methods, task.reference, BARE])), task.reference
    if arguments.methods is not None:
        raise ValueError(
            "--methods are those of a --task. Expected: --model alone. "
            f"Received: --methods {arguments.methods}"
        )
    if not Path(arguments.model).is_file():
        raise FileNotFoundError(f"There is no file {arguments.model}")
    name = Path(arguments.model).name
    has_sampling = find_sampling(load_model(arguments.model)) is not None
    return [name, BARE] if has_sampling else [name], name


def _command(arguments: argparse.Namespace) -> list[str]:
    """Return what to type to measure the same again, without paths of this machine."""
    options = {
        "--task": arguments.task,
        "--model": arguments.model and Path(arguments.model).name,
        "--methods": arguments.methods,
        "--batch-size": arguments.batch_size,
        "--steps": arguments.steps,
    }
    given = [(name, str(value)) for name, value in options.items() if value is not None]
    return ["cost", *(word for option in given for word in option)]


def _describe(row: Row) -> str:
    if row["reason"] is not None:
        return f"{row['method']}: not measured, {row['reason']}"
    ms, mb = row["ms_per_sample"], row["allocator_mb_per_sample"]
    return f"{row['method']}: {ms:.3g} ms and {mb:.3g} MB a sample"


def _table(rows: Sequence[Row]) -> str:
    import pandas as pd

    table = pd.DataFrame(rows).reindex(columns=_COLUMNS).rename(columns=_COLUMNS)
    return table.to_string(index=False, float_format="{:.4g}".format, na_rep="")


def _write(
    path: Path, rows: Sequence[Row], arguments: argparse.Namespace, reference: str
) -> None:
    """Write the rows as JSON and CSV, and plot them."""
    import pandas as pd

    record = {
        "kind": "cost",
        "task": arguments.task,
        "model": arguments.model and Path(arguments.model).name,
        **describe_run(_command(arguments)),
        "step": "forward and backward pass",
        "reference": reference,
        "rows": rows,
    }
    record["machine"]["device"] = device()
    with replacing(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", "utf-8")
    table = pd.DataFrame(rows)
    with replacing(path.with_suffix(".csv")) as part:
        table.to_csv(part, index=False)
    with replacing(path.with_suffix(".png")) as part:
        _plot(part, table, reference)


def _plot(path: Path, table: Any, reference: str) -> None:
    """Plot time and memory a sample of each model, its ratio at the end of the bar."""
    from matplotlib.figure import Figure

    table = table.reindex(columns=list(_COLUMNS)).fillna(0)
    figure = Figure((9, 0.4 * len(table) + 1.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (key, (label, ratio)) in zip(panels, _PANELS.items(), strict=True):
        bars = axes.barh(table["method"], table[key], height=0.6)
        texts = [f"{x:.3g}" if x else "out of memory" for x in table[ratio]]
        axes.bar_label(bars, texts, padding=3, fontsize="small")
        axes.set_xlabel(f"{label} (beside the bars: over {reference})")
        axes.margins(x=0.25)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=100)
