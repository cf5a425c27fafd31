"""Command lines: numbers and places checked, and what to type to measure again."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path


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


def add_output(
    parser: argparse.ArgumentParser, files: str, default: str | None = None
) -> None:
    """Add where a measurement is written.

    Args:
        parser: of the command.
        files: that are written, in words.
        default: directory; None where it has to be given.
    """
    parser.add_argument(
        "--output",
        metavar="DIR",
        required=default is None,
        default=default,
        help=f"for {files}" + ("" if default is None else " (default: %(default)s)"),
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what was measured before in --output",
    )


def open_output(arguments: argparse.Namespace, file: str) -> Path:
    """Make the directory of a measurement, and keep an earlier one.

    Args:
        arguments: with those of `add_output`.
        file: name of that which makes an earlier measurement.

    Raises:
        ValueError: there is one, and it is not to be overwritten; the directory is a
            file.
    """
    directory = make_directory(arguments.output)
    if (directory / file).exists() and not arguments.overwrite:
        raise ValueError(
            f"{directory / file} holds an earlier measurement. Replace it by --overwrite, "
            "or choose another directory by --output"
        )
    return directory


def make_directory(output: str | Path) -> Path:
    """Make a directory, if it is not there.

    Raises:
        ValueError: it, or a parent of it, is a file.
    """
    directory = Path(output)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            "--output must be a directory, or a new one. "
            f"Received: --output {directory}, where {error.filename} is a file"
        ) from error
    return directory


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
