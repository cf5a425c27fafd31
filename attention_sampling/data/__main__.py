"""Look at, check and convert image files: ``python -m attention_sampling.data``."""

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from attention_sampling.data.file_paths import find_files
from attention_sampling.data.inspection import check_files, print_info
from attention_sampling.data.source import SourceError

_FILES = "files, directories, or patterns in quotation marks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: those of the command line by default.

    Returns:
        Exit status: 0 if all is well, 1 if a file is broken, 2 for misuse, and where
        the process lacks files or memory.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m attention_sampling.data", description=__doc__.partition(":")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    info = commands.add_parser("info", help="show size, levels, tiles and dtype")
    info.add_argument("files", nargs="+", metavar="FILE", help=_FILES)
    check = commands.add_parser(
        "check",
        help="read every image here and there, and list the broken ones",
        description="Reads every image here and there, and lists the broken ones. Exit "
        "status: 1 if there are any, 0 if not, 2 if there is nothing to check or files "
        "or memory run short.",
    )
    check.add_argument("files", nargs="+", metavar="FILE", help=_FILES)
    check.add_argument(
        "--all", action="store_true", help="read every pixel of every level"
    )
    check.add_argument(
        "--threads", type=_positive, help="files to read at once (default: processors)"
    )
    convert = commands.add_parser("convert", help="write images into one HDF5 file")
    converting = None
    if "convert" in arguments[:1]:  # imported when it is needed
        converting = importlib.import_module("attention_sampling.data.convert")
        converting.add_arguments(convert)
    parsed = parser.parse_args(arguments)
    try:
        if converting is not None:
            return int(converting.run(parsed))
        files = find_files(parsed.files)
        if parsed.command == "info":
            return print_info(files)
        return check_files(files, parsed.all, parsed.threads)
    except SourceError as error:
        parser.error(str(error))
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _run_program() -> int:
    """Run a command whose output may go where not all of it can be written."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be any
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # such as head has read enough
        # What is left would be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(_run_program())
