"""Write a page of all measurements in a directory, the paper's numbers beside."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from attention_sampling.benchmark.command_line import make_directory
from attention_sampling.benchmark.report.collection import collect_series
from attention_sampling.benchmark.report.error_goals import AllSeries
from attention_sampling.benchmark.report.files import (
    Measurement,
    of_kind,
    read_measurements,
)
from attention_sampling.benchmark.report.goals import judge_goals, say_goals
from attention_sampling.benchmark.report.sections import make_page
from attention_sampling.benchmark.report.writers import to_html, to_markdown, to_rst
from attention_sampling.experiments.tasks import TASKS
from attention_sampling.files import replacing

WRITERS = {"report.md": to_markdown, "report.html": to_html, "report.rst": to_rst}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    parser.add_argument(
        "directory",
        metavar="DIR",
        help="with metrics.json of the examples, cost-*.json and overhead*.json, in it "
        "or below it",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help=f"for {', '.join(WRITERS)} and the figures (default: that directory)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Read the measurements, and write the page with its figures.

    Raises:
        ValueError: there is nothing to report, or a file is broken.
        OSError: a file cannot be read or written.
    """
    directory = Path(arguments.directory)
    measurements = read_measurements(directory)
    series = _collect(measurements)
    output = make_directory(arguments.output or directory)
    goals = judge_goals(measurements, series)
    blocks = make_page(measurements, series, goals, output)
    for name, text in [(name, write(blocks)) for name, write in WRITERS.items()]:
        with replacing(output / name) as part:
            part.write_text(text, "utf-8")
    print("\n".join(say_goals(goals)))
    print(f"{len(measurements)} files, reported in {output}: {', '.join(WRITERS)}")


def _collect(measurements: Sequence[Measurement]) -> AllSeries:
    collected = {}
    for name in TASKS:
        trainings = of_kind(measurements, "training", name)
        for images in dict.fromkeys(file.images for file in trainings):
            some = [file for file in trainings if file.images == images]
            collected[name, images] = collect_series(some)
    return collected
