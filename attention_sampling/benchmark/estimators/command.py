"""Measure the estimators: bias, variance, extreme attention, cost."""

import argparse

from attention_sampling.benchmark.circumstances import machine, versions
from attention_sampling.benchmark.command_line import add_output, open_output
from attention_sampling.benchmark.estimators import cost as estimator_cost
from attention_sampling.benchmark.estimators import extremes as estimator_extremes
from attention_sampling.benchmark.estimators.measurements import (
    measure_bias,
    measure_cost,
    measure_variance,
)
from attention_sampling.benchmark.estimators.problems import ATTENTIONS
from attention_sampling.benchmark.files import write_json
from attention_sampling.benchmark.limits_report import Report

BIAS_CELLS = (4, 5, 6)
BIAS_PATCHES = (1, 2, 3, 4)
CELLS = 1024
N_PATCHES = (2, 5, 10, 50)
EXTREME_CELLS = (256, 10**6)
EXTREME_PATCHES = (1, 2, 10, 100, 256)
# Places in a patch, the more, the more have features in common -> attention maps.
FEATURES = {16: ATTENTIONS, 4: ("flat", "one cell 0.95"), 1: ("flat", "one cell 0.95")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    add_output(parser, "tables and figures")
    parser.add_argument(
        "--problems",
        type=int,
        default=40,
        metavar="N",
        help="of random features and attention to measure squared errors in "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=1000,
        metavar="N",
        help="draws in each problem (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of features, attention and draws (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="training steps to measure the cost beside (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-cost",
        action="store_true",
        help="leave time and memory out: the steps take gigabytes and minutes",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the tables, and write them with their figures.

    Raises:
        ValueError: a number of trials or rounds, or a seed, is out of range; an earlier
            measurement is in the way.
        OSError: a file cannot be written.
    """
    for name, smallest in (("problems", 2), ("trials", 1), ("rounds", 1), ("seed", 0)):
        if getattr(arguments, name) < smallest:
            raise ValueError(
                f"--{name} must be at least {smallest}. "
                f"Received: {getattr(arguments, name)}"
            )
    report = Report(open_output(arguments, "estimators.json"))
    words = {
        name: getattr(arguments, name)
        for name in ("problems", "trials", "seed", "rounds", "skip_cost")
    }
    circumstances = {"arguments": words, "versions": versions(), "machine": machine()}
    write_json(report.directory / "estimators.json", circumstances)
    measure_bias(report, BIAS_CELLS, BIAS_PATCHES)
    measure_variance(
        report,
        FEATURES,
        CELLS,
        N_PATCHES,
        arguments.problems,
        arguments.trials,
        arguments.seed,
    )
    report.add(
        "extremes",
        "Largest values and gradients, up to 256 patches",
        estimator_extremes.measure(EXTREME_CELLS, EXTREME_PATCHES, arguments.seed),
    )
    if not arguments.skip_cost:
        measure_cost(report, estimator_cost.SETTINGS, arguments.rounds)
    print(report.summary())
