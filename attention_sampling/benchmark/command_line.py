"""Command lines: numbers that are checked, and what to type to measure again."""

import argparse
import shlex
from collections.abc import Sequence


def check_at_least(arguments: argparse.Namespace, **smallest: float) -> None:
    """Refuse numbers that are too small.

    Args:
        arguments: the command line.
        smallest: option -> smallest number that is allowed. None, for an option that was
            not given, is allowed too.

    Raises:
        ValueError: one is smaller, or NaN.

    Example:

    >>> check_at_least(argparse.Namespace(batch_size=0), batch_size=1)
    Traceback (most recent call last):
    ValueError: --batch-size must be at least 1. Received: 0
    """
    for name, limit in smallest.items():
        value = getattr(arguments, name)
        if value is not None and not value >= limit:
            raise ValueError(
                f"{_option(name)} must be at least {limit}. Received: {value}"
            )


def command_line(
    command: str, arguments: argparse.Namespace, names: Sequence[str]
) -> str:
    """Return what to type to measure the same again.

    Args:
        command: of the benchmark.
        arguments: its command line.
        names: of the options that the numbers depend on: not where they are written.

    Example:

    >>> arguments = argparse.Namespace(task="colon_cancer", batch_sizes=[1, 5])
    >>> command_line("cost", arguments, ["task", "batch_sizes"])
    'python -m attention_sampling.benchmark cost --task colon_cancer --batch-sizes 1,5'
    """
    words = ["python", "-m", "attention_sampling.benchmark", command]
    for name in names:
        value = getattr(arguments, name)
        if value is not None:
            several = isinstance(value, list | tuple)
            words += [
                _option(name),
                ",".join(map(str, value)) if several else str(value),
            ]
    return shlex.join(words)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
