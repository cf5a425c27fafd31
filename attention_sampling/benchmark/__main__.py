"""Command line of the benchmarks.

A command is a package beside this module. Its module ``command`` has
``add_arguments(parser)`` and ``run(arguments)``. Only the one that is asked for is
imported.
"""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence

# Name of the command and its package -> what it does.
COMMANDS = {
    "cost": "measure time and memory a sample of each method of the paper's tables",
    "overhead": "compare training steps with those of their two bare networks",
    "report": "write a page of what was measured, the paper's numbers beside",
}


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: the words after the name of the program.

    Returns:
        What the command takes, and as ``module`` the command itself.
    """
    parser = argparse.ArgumentParser(
        prog="python -m attention_sampling.benchmark",
        description="Measurements of deep attention sampling.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, explanation in COMMANDS.items():
        command = commands.add_parser(name, help=explanation, description=explanation)
        if name in argv[:1]:
            module = importlib.import_module(
                f"attention_sampling.benchmark.{name}.command"
            )
            module.add_arguments(command)
            command.set_defaults(module=module)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark that the command line names."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            "The benchmarks draw figures with matplotlib, which is missing. Install it: "
            "pip install 'attention-sampling[examples]'"
        )
    arguments.module.run(arguments)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
