"""What one estimator gains over another, from their squared errors."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_sampling.benchmark.tables import Row, at_least, at_most

QUANTITIES = ("value", "logit gradient")
# Ratio of the errors of "unordered" and "ordered": everywhere beyond sampling error,
# and where one of 1024 cells holds 0.95, with five patches.
LARGEST_RATIO = 1.0
LARGEST_RATIO_PEAKED = 0.15
# Ratio of the errors of the logit gradient without and with control variate, where
# attention is flat, with five and ten patches.
SMALLEST_GAIN = 5.0
# Of weights in float32, which a ratio of two errors may show.
_ROUNDING = 1e-6

# For each estimator (2, samples), a row for each of the quantities.
Errors = dict[str, np.ndarray]


def error_rows(labels: Row, errors: Errors) -> list[Row]:
    """Return for each estimator its mean squared errors, and their standard errors."""
    rows = []
    for name, squared in errors.items():
        row = {**labels, "estimator": name}
        for quantity, samples in zip(QUANTITIES, squared, strict=True):
            row[quantity] = float(samples.mean())
            row[f"{quantity} +-"] = standard_error(samples)
        rows.append(row)
    return rows


def side_by_side(rows: Sequence[Row], quantity: str) -> list[Row]:
    """Return one quantity of ``error_rows``, with a column for each estimator.

    Of the value without those with control variate, whose value is that without.
    """
    table: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if quantity == "value" and "control variate" in row["estimator"]:
            continue
        labels = dict(itertools.takewhile(lambda x: x[0] != "estimator", row.items()))
        line = table.setdefault(tuple(labels.values()), labels)
        line[row["estimator"]] = row[quantity]
    return list(table.values())


def ratio_row(labels: Row, errors: Errors) -> Row:
    """Compare the unordered estimator with the ordered one."""
    row = dict(labels)
    peaked = labels["attention"].endswith(" 0.95") and labels["n"] == 5
    for quantity, unordered, ordered in zip(
        QUANTITIES, errors["unordered"], errors["ordered"], strict=True
    ):
        ratio, error = mean_ratio(unordered, ordered)
        row[quantity], row[f"{quantity} +-"] = ratio, error
        # Without allowance for noise where the ratio should be far from 1.
        row[f"{quantity} limit"] = (
            at_most(ratio, LARGEST_RATIO_PEAKED)
            if peaked
            else at_most(ratio, LARGEST_RATIO, max(error, _ROUNDING))
        )
    return row


def gain_row(labels: Row, errors: Errors) -> Row:
    """Compare the logit gradients without control variate and with it."""
    row = dict(labels)
    limited = labels["attention"] == "flat" and labels["n"] in (5, 10)
    for name in ("with replacement", "unordered"):
        gain, error = mean_ratio(errors[name][1], errors[f"{name}, control variate"][1])
        row[name], row[f"{name} +-"] = gain, error
        row[f"{name} limit"] = at_least(gain, SMALLEST_GAIN) if limited else ""
    return row


def mean_ratio(numerators: np.ndarray, denominators: np.ndarray) -> tuple[float, float]:
    """Return the ratio of two means over paired samples, and its standard error.

    Args:
        numerators: (samples,)
        denominators: (samples,)

    Example:

    >>> mean_ratio(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
    (0.5, 0.0)
    """
    ratio = numerators.mean() / denominators.mean()
    residuals = (numerators - ratio * denominators) / denominators.mean()
    return float(ratio), standard_error(residuals)


def standard_error(samples: np.ndarray) -> float:
    """Return the standard error of the mean of at least two samples."""
    return float(samples.std(ddof=1) / np.sqrt(len(samples)))
