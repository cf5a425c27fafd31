"""Measured numbers as the paper writes them."""

from collections.abc import Callable, Iterable

NOT_MEASURED = "not measured"


def format_mean(mean: float | None, error: float | None = None) -> str:
    """Return a mean and its standard error, if there is one.

    Example:

    >>> format_mean(0.0931, 0.0142)
    '0.093 ± 0.014'
    >>> format_mean(0.0931)
    '0.093'
    """
    if mean is None:
        return NOT_MEASURED
    return f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"


def format_milliseconds(value: float | None) -> str:
    """Return a time.

    Example:

    >>> format_milliseconds(1.84), format_milliseconds(1497.2)
    ('1.8 ms', '1,497 ms')
    """
    if value is None:
        return NOT_MEASURED
    return f"{value:.1f} ms" if value < 1000 else f"{value:,.0f} ms"


def format_megabytes(value: float | None) -> str:
    """Return a size, a fraction of it below ten megabytes.

    Example:

    >>> format_megabytes(20.7), format_megabytes(1497.2), format_megabytes(3.14)
    ('21 MB', '1,497 MB', '3.1 MB')
    """
    if value is None:
        return NOT_MEASURED
    return f"{value:.1f} MB" if value < 9.95 else f"{value:,.0f} MB"


def format_ratio(value: float | None) -> str:
    """Return a ratio to three digits.

    Example:

    >>> format_ratio(1.0449), format_ratio(26.94), format_ratio(1230.0)
    ('1.04', '26.9', '1,230')
    """
    if value is None:
        return NOT_MEASURED
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f}"


def format_published(
    formatted: Callable[..., str], value: float | None, *others: float | None
) -> str:
    """Return a number of the paper, nothing where it has none."""
    return "" if value is None else formatted(value, *others)


def format_span(numbers: Iterable[int]) -> str:
    """Return the smallest and the largest, or one number if they are the same.

    Example:

    >>> format_span([30, 30]), format_span([2000, 10])
    ('30', '10 to 2,000')
    """
    found = sorted(set(numbers))
    return " to ".join(f"{number:,}" for number in dict.fromkeys([found[0], found[-1]]))


def divide(value: float | None, other: float | None) -> float | None:
    """Return a ratio, ``None`` where a number is missing or the second is 0."""
    return value / other if value is not None and other else None
