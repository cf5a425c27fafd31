"""The measurements of the estimators, each to its tables and figure."""

import itertools
from collections.abc import Sequence

import numpy as np

from attention_sampling.benchmark.estimators import bias as estimator_bias
from attention_sampling.benchmark.estimators import cost as estimator_cost
from attention_sampling.benchmark.estimators import figures as estimator_figures
from attention_sampling.benchmark.estimators import ratios as estimator_ratios
from attention_sampling.benchmark.estimators.problems import (
    make_attention,
    make_features,
)
from attention_sampling.benchmark.estimators.ratios import Errors, side_by_side
from attention_sampling.benchmark.estimators.variance import Problem, squared_errors
from attention_sampling.benchmark.limits_report import Report
from attention_sampling.benchmark.tables import Row, format_table

DIM = 32


def measure_bias(
    report: Report, cells: Sequence[int], n_patches: Sequence[int]
) -> None:
    """Report the bias by exact enumeration."""
    rows = estimator_bias.measure_exact(cells, n_patches)
    title = (
        f"{min(cells)} to {max(cells)} cells, n = {min(n_patches)} to {max(n_patches)}"
    )
    report.add(
        "bias", f"Bias: largest error of the mean over every draw, {title}", rows
    )
    estimator_figures.draw_bias(
        report.directory / "bias.png",
        rows,
        estimator_bias.QUANTITIES,
        estimator_bias.LIMIT,
    )
    report.add(
        "biased",
        f"Bias where there is one, {max(cells)} cells; self-normalised weights but for top-k",
        estimator_bias.measure_biased(max(cells), n_patches),
    )


def measure_variance(
    report: Report,
    features: dict[int, Sequence[str]],
    cells: int,
    n_patches: Sequence[int],
    problems: int,
    trials: int,
    seed: int,
) -> None:
    """Report squared errors, and what the estimators gain over each other.

    Args:
        report: to add the tables to.
        features: places in a patch, of which a feature's entries are the largest
            responses -> attention maps to measure with such features.
        cells: of each map.
        n_patches: numbers of draws.
        problems: of random features and attention.
        trials: in each of them.
        seed: of all that is random.
    """
    errors, ratios, gains = [], [], []
    for places, attentions in features.items():
        for name, n in itertools.product(attentions, n_patches):
            shared, measured = _squared_errors(
                name, cells, places, n, problems, trials, seed
            )
            labels: Row = {"features": _kind(places), "attention": name, "n": n}
            errors += estimator_ratios.error_rows(labels, measured)
            ratios.append(estimator_ratios.ratio_row(labels, measured))
            gains.append(
                estimator_ratios.gain_row({**labels, "shared": shared}, measured)
            )
    report.add(
        "variance",
        f"Mean squared error, {cells} cells, {problems} problems, {trials} draws each",
        errors,
        "\n".join(
            f"{quantity}\n{format_table(side_by_side(errors, quantity))}"
            for quantity in estimator_ratios.QUANTITIES
        ),
    )
    report.add("unordered", "Squared error of unordered over ordered", ratios)
    report.add(
        "control_variate",
        "Squared error of the logit gradient without control variate over with; "
        "shared: squared norm of the mean feature",
        gains,
    )
    estimator_figures.draw_variance(
        report.directory / "variance.png",
        [row for row in errors if row["features"] == _kind(max(features))],
        estimator_ratios.QUANTITIES,
    )
    estimator_figures.draw_gain(
        report.directory / "control_variate.png", gains, estimator_ratios.SMALLEST_GAIN
    )


def measure_cost(
    report: Report, settings: Sequence[estimator_cost.Setting], rounds: int
) -> None:
    """Report time and memory."""
    report.add(
        "memory",
        "Memory of the estimator with control variate, forward and backward",
        [estimator_cost.measure_memory()],
    )
    rows = [estimator_cost.measure_time(setting, rounds) for setting in settings]
    report.add(
        "cost", "Time of it beside a training step of Megapixel MNIST 1500x1500", rows
    )
    estimator_figures.draw_cost(report.directory / "cost.png", rows)


def _squared_errors(
    name: str,
    cells: int,
    places: int,
    n_patches: int,
    problems: int,
    trials: int,
    seed: int,
) -> tuple[float, Errors]:
    """Return the mean squared errors of each estimator in each of some problems.

    Problems differ in features and attention by more than the draws of one do. The other
    result is the squared norm of what is estimated.
    """
    shared = []
    samples = []
    for number in range(problems):
        rng = np.random.default_rng([seed, number])
        attention = make_attention(name, cells, rng)
        features = make_features(cells, DIM, places, rng)
        problem = Problem(attention, features, n_patches)
        errors = squared_errors(problem, trials, seed=int(rng.integers(2**31)))
        shared.append(np.sum((attention @ features) ** 2))
        samples.append({name: x.mean(axis=1) for name, x in errors.items()})
    measured = {
        name: np.stack([sample[name] for sample in samples], axis=1)
        for name in samples[0]
    }
    return float(np.mean(shared)), measured


def _kind(places: int) -> str:
    return f"{places} place{'s' * (places > 1)}"
