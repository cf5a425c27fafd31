"""Compare training steps of attention sampling with those of its bare networks."""

import argparse
from concurrent.futures.process import BrokenProcessPool

from attention_sampling.benchmark import processes
from attention_sampling.benchmark.circumstances import date, machine, versions
from attention_sampling.benchmark.command_line import (
    add_output,
    check_at_least,
    command_line,
    open_output,
)
from attention_sampling.benchmark.cost import device as cost_device
from attention_sampling.benchmark.files import write_json
from attention_sampling.benchmark.limits_report import Report
from attention_sampling.benchmark.overhead.steps import measure_overhead
from attention_sampling.benchmark.steps import OPTIMIZER
from attention_sampling.benchmark.tables import Row
from attention_sampling.experiments.tasks import TASKS, Task, parse_method

# That the numbers depend on.
_OPTIONS = ("tasks", "steps", "warmup", "batch_size")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    add_output(parser, "overhead.json and overhead.csv", "overhead")
    parser.add_argument(
        "--tasks",
        type=_tasks,
        default=list(TASKS),
        metavar="TASK,...",
        help=f"of {', '.join(TASKS)} (default: all)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=40,
        metavar="N",
        help="to measure of each of a pair (default: %(default)s)",
    )
    parser.add_argument(
        "--warmup",
        type=int,
        default=5,
        metavar="N",
        help="steps before (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="N",
        help="images a step (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the table and write it.

    Raises:
        ValueError: a number is out of range; an earlier measurement is in the way; the
            backend is not TensorFlow.
        OSError: a file cannot be written, or a process that measures dies.
    """
    cost_device.check_backend()
    check_at_least(arguments, steps=1, warmup=1, batch_size=1)
    report = Report(open_output(arguments, "overhead.json"))
    rows: list[Row] = []
    for name in arguments.tasks:
        task = TASKS[name]
        row = _measure(task, arguments.batch_size, arguments.steps, arguments.warmup)
        print(f"{name}: {row['ratio']:.3f} of the bare networks", flush=True)
        rows.append(row)
        write_json(
            report.directory / "overhead.json",
            {
                "kind": "overhead",
                "date": date(),
                "command": command_line("overhead", arguments, _OPTIONS),
                "versions": versions(),
                "machine": machine() | {"device": cost_device.describe_device()},
                "settings": {
                    "steps": arguments.steps,
                    "warmup": arguments.warmup,
                    "batch_size": arguments.batch_size,
                    "optimizer": OPTIMIZER,
                },
                "rows": rows,
            },
        )
    report.add("overhead", "Training steps over those of their bare networks", rows)
    print(report.summary())


def _measure(task: Task, batch_size: int, steps: int, warmup: int) -> Row:
    """Measure a task in a process of its own."""
    with processes.start_process() as executor:
        measured = executor.submit(
            measure_overhead,
            task,
            parse_method(task.reference),
            batch_size,
            steps,
            warmup,
        )
        try:
            return measured.result()
        except (BrokenProcessPool, MemoryError) as error:
            raise ChildProcessError(
                f"{task.name}: the process that measures died, as processes do that run "
                "out of memory. Use a smaller --batch-size, or other --tasks. "
                f"Received: batch_size={batch_size}"
            ) from error


def _tasks(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    if not set(names) <= TASKS.keys():
        raise argparse.ArgumentTypeError(
            f"expected some of {', '.join(TASKS)}, separated by commas; got {text!r}"
        )
    return names
