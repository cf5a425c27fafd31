"""``python -m attention_sampling experiments run | real-scenes | cost | report``."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from attention_sampling.files import quiet_imports

# Command -> its module, imported when it is asked for, and what it does.
_COMMANDS = {
    "run": ("run", "train a method of the paper on one of its tasks"),
    "real-scenes": ("real_scenes", "train on pasted signs, read real ones"),
    "cost": ("cost.command", "measure time and memory a sample"),
    "report": ("report", "write tables and curves of what was measured"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of the commands; end with one line where it fails.

    Args:
        argv: words of the command line, None for those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m attention_sampling experiments",
        description="The paper's experiments, measured again.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, explanation) in _COMMANDS.items():
        command = commands.add_parser(name, help=explanation, description=explanation)
        if words[:1] == [name]:
            chosen = _import(f"attention_sampling.experiments.{module}")
            chosen.add_arguments(command)
            command.set_defaults(run=chosen.run, words=words)
    arguments = parser.parse_args(words)
    try:
        arguments.run(arguments)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        remedy = "; --resume goes on after the last epoch"
        is_run = arguments.command in ("run", "real-scenes")
        print(f"\ninterrupted{remedy if is_run else ''}", file=sys.stderr)
        sys.exit(130)


def _import(module: str) -> Any:
    try:
        with quiet_imports():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        remedy = "pip install 'keras-attention-sampling[experiments]'"
        raise SystemExit(f"error: {error}: {remedy}") from error


if __name__ == "__main__":
    main()
