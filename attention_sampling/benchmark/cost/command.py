"""Measure time and memory a sample of each method: columns of Tables 1 and 2."""

import argparse
import math

from attention_sampling.benchmark.circumstances import date, machine, versions
from attention_sampling.benchmark.command_line import (
    add_output,
    check_at_least,
    command_line,
    open_output,
)
from attention_sampling.benchmark.cost import device as cost_device
from attention_sampling.benchmark.cost.figures import draw_costs
from attention_sampling.benchmark.cost.measurement import Effort, measure_batch
from attention_sampling.benchmark.cost.rows import format_costs
from attention_sampling.benchmark.files import write_json
from attention_sampling.benchmark.processes import available_megabytes
from attention_sampling.benchmark.tables import Row, save_table
from attention_sampling.experiments.tasks import TASKS, parse_method

# Of the memory that is available, what a method may take.
_MOST_MEMORY = 0.9
# That the numbers depend on.
_OPTIONS = (
    "task",
    "methods",
    "batch_sizes",
    "image_size",
    "view_size",
    "steps",
    "warmup",
    "seconds",
    "memory_limit",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    parser.add_argument("--task", required=True, choices=list(TASKS))
    add_output(parser, "cost-TASK.json, .csv and .png", "cost")
    parser.add_argument(
        "--methods",
        type=_methods,
        metavar="METHOD,...",
        help="ats-N, u-N, cnn-S, deep-mil, deep-mil-gated (default: those of the "
        "paper's table); the first ats of the task is always measured",
    )
    parser.add_argument(
        "--batch-sizes",
        type=_batch_sizes,
        default=[1, "train"],
        metavar="N,...",
        help="'train' for that of the task (default: 1,train)",
    )
    for name, what in (("image", "the images"), ("view", "the views")):
        parser.add_argument(
            f"--{name}-size",
            type=_size,
            metavar="HEIGHT,WIDTH",
            help=f"of {what} in pixels, or one number (default: the paper's)",
        )
    parser.add_argument(
        "--steps",
        type=int,
        default=Effort().steps,
        metavar="N",
        help="to measure of each method; half a second and more count thrice "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--warmup",
        type=int,
        default=Effort().warmup,
        metavar="N",
        help="steps before (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=Effort().seconds,
        metavar="S",
        help="after which a method of slow steps is done (default: %(default)s)",
    )
    parser.add_argument(
        "--memory-limit",
        type=float,
        metavar="GB",
        help="that a method may take; one that needs more is left out, with the reason "
        "(default: nine tenths of what is available; on a GPU, whatever it has)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the table, and write it with its figure.

    Raises:
        ValueError: a number is out of range, or sizes that do not go together; an
            earlier measurement is in the way; the backend is not TensorFlow.
        OSError: a file cannot be written.
    """
    cost_device.check_backend()
    check_at_least(arguments, steps=1, warmup=1, seconds=0, memory_limit=1)
    task = TASKS[arguments.task].resized(arguments.image_size, arguments.view_size)
    methods = arguments.methods or list(task.methods)
    sizes = sorted(
        {task.batch_size if x == "train" else x for x in arguments.batch_sizes}
    )
    effort = Effort(arguments.steps, arguments.warmup, arguments.seconds)
    limit = _memory_limit(arguments.memory_limit)
    name = open_output(arguments, f"cost-{task.name}.json") / f"cost-{task.name}"
    record = {
        "kind": "cost",
        "task": task.name,
        "image_shape": task.image_shape,
        "view_size": task.view_size,
        "date": date(),
        "command": command_line("cost", arguments, _OPTIONS),
        "versions": versions(),
        "machine": machine() | {"device": cost_device.describe_device()},
        "settings": {
            **effort._asdict(),
            "memory_limit_gb": None if limit is None else round(limit / 1e3, 1),
            "step": "forward and backward pass",
            "reference": task.reference,
        },
    }
    rows: list[Row] = []
    for size in sizes:
        rows += measure_batch(task, methods, size, effort, limit, rows)
        # What was measured stays, whatever becomes of the rest.
        write_json(name.with_suffix(".json"), {**record, "rows": rows})
        save_table(name.with_suffix(".csv"), rows)
        draw_costs(name.with_suffix(".png"), rows, task.reference)
    print(f"\nCost a sample, {task.name}, ratios to {task.reference}")
    print(format_costs(rows))


def _memory_limit(gigabytes: float | None) -> float | None:
    """Return megabytes, or None for no limit."""
    if gigabytes is not None:
        return 1e3 * gigabytes
    available = _MOST_MEMORY * available_megabytes()
    on_host = cost_device.device() == "CPU:0" and not math.isnan(available)
    return available if on_host else None


def _methods(text: str) -> list[str]:
    try:
        return [str(parse_method(word)) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _size(text: str) -> tuple[int, int]:
    words = text.split(",")
    if len(words) > 2 or not all(word.isdecimal() and int(word) for word in words):
        raise argparse.ArgumentTypeError(
            f"expected height and width in pixels, as 500 or 960,1280; got {text!r}"
        )
    return int(words[0]), int(words[-1])


def _batch_sizes(text: str) -> list[int | str]:
    words = text.split(",")
    if not all(word == "train" or (word.isdecimal() and int(word)) for word in words):
        raise argparse.ArgumentTypeError(
            f"expected numbers of at least 1 or 'train', separated by commas; got {text!r}"
        )
    return [word if word == "train" else int(word) for word in words]
