"""``python -m attention_sampling info | check | convert | predict | experiments``."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attention_sampling.data.errors import SourceError, in_options, is_fault_of_process
from attention_sampling.files import quiet_imports


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: those of the command line by default.

    Returns:
        Exit status: 0 if all is well, 1 if an image is broken or was left out, 2 for misuse,
        what cannot be written, and where the process lacks files or memory, 130 if the user
        stopped it.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["experiments"]:
        from attention_sampling.experiments.__main__ import main as run

        run(arguments[1:])
        return 0
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except KeyboardInterrupt:
        print("stopped" + getattr(parsed, "stopped", ""), file=sys.stderr)
        return 130
    except (ImportError, OSError, TypeError, ValueError) as error:
        unreadable = isinstance(error, SourceError)
        of_system = isinstance(error, OSError) and not unreadable
        if of_system and parsed.command in ("info", "check"):
            raise  # the output cannot be written
        print(f"error: {in_options(error)}", file=sys.stderr)
        broken = unreadable and not is_fault_of_process(error)
        return 1 if broken and parsed.command == "convert" else 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m attention_sampling",
        description="Look at, check, convert and predict images; measure the paper again.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    info = commands.add_parser("info", help="show size, levels, tiles and dtype")
    info.set_defaults(run=_run_info)
    check = commands.add_parser(
        "check",
        help="read every image here and there, and list the broken ones",
        description="Reads every image here and there, and lists the broken ones. Exit "
        "status: 1 if there are any, 0 if not, 2 if there is nothing to check or files "
        "or memory run short.",
    )
    check.set_defaults(run=_run_check)
    convert = commands.add_parser(
        "convert",
        help="write images into one HDF5 file",
        description="Writes images of any format into one HDF5 file. Exit status: 0 if all "
        "are in it; 1 if an image cannot be read, which ends it, or is left out by "
        "--on-error skip: these are listed on stderr; 2 for misuse, what cannot be written, "
        "and where files or memory run short; 130 if it was stopped. Run again after that, "
        "it goes on after the last finished image.",
    )
    convert.set_defaults(
        run=_run_convert,
        stopped=": run it again to go on after the last finished image",
    )
    predict = commands.add_parser(
        "predict",
        help="predict images with a trained model, and show where it looked",
        description="Predicts images with a saved model: predictions.csv, and a picture of "
        "each image with its attention and patches. Exit status: 1 if an image cannot be "
        "read, which is listed on stderr, 0 if all are there.",
    )
    predict.set_defaults(run=_run_predict)
    predict.add_argument("model", metavar="MODEL.keras", type=Path)
    predict.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        default=Path("predictions"),
        help="where to write; it is made (default: %(default)s)",
    )
    commands.add_parser(
        "experiments", help="the paper, measured again: run, cost, report"
    )
    for command in (info, check, convert, predict):
        command.add_argument(
            "files",
            nargs="+",
            metavar="FILE",
            help="files; or directories, or patterns in quotation marks, for the images in them",
        )
        command.add_argument(
            "--dataset", metavar="NAME", help="dataset of an HDF5 file that has several"
        )
    check.add_argument(
        "--all", action="store_true", help="read every pixel of every level"
    )
    check.add_argument(
        "--threads",
        type=_at_least(1),
        help="files to read at once (default: processors)",
    )
    convert.add_argument("output", metavar="OUT.h5", help="file to write")
    convert.add_argument(
        "--chunk",
        type=_at_least(16),
        default=256,
        metavar="PIXELS",
        help="height and width of the tiles (default: %(default)s)",
    )
    convert.add_argument(
        "--compression",
        choices=("gzip", "lzf", "none"),
        default="gzip",
        help="gzip; lzf: larger, faster to read; or none (default: %(default)s)",
    )
    convert.add_argument(
        "--channels",
        type=int,
        choices=(3,),
        help="make colours of grey photographs, and leave out alpha",
    )
    convert.add_argument(
        "--overwrite", action="store_true", help="replace OUT.h5 if it exists"
    )
    convert.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="end at an image that cannot be read, or leave it out, exit status 1 all the "
        "same (default: %(default)s)",
    )
    convert.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _run_info(parsed: argparse.Namespace) -> int:
    from attention_sampling.data.check import print_info
    from attention_sampling.data.opening import find_files

    return 0 if print_info(find_files(parsed.files), **_keywords(parsed)) else 1


def _run_check(parsed: argparse.Namespace) -> int:
    from attention_sampling.data.check import check_files
    from attention_sampling.data.opening import find_files

    files = find_files(parsed.files)
    whole = check_files(files, parsed.all, parsed.threads, **_keywords(parsed))
    return 0 if whole else 1


def _run_convert(parsed: argparse.Namespace) -> int:
    from attention_sampling.data.check import open_any_size
    from attention_sampling.data.convert import check_target, convert

    output = Path(parsed.output)
    if output.suffix.lower() not in (".h5", ".hdf5"):
        raise ValueError(
            "The last argument is the file to write, its name ends in .h5 or .hdf5. "
            f"Received: {parsed.output!r}"
        )
    check_target(output.resolve(), parsed.overwrite)  # before files are opened
    keywords = _keywords(parsed) | {"on_error": parsed.on_error}
    with open_any_size(parsed.files, **keywords) as source:
        skipped = convert(
            source,
            output,
            chunk=parsed.chunk,
            compression=parsed.compression,
            overwrite=parsed.overwrite,
            on_error=parsed.on_error,
            progress=not parsed.quiet,
        )
        skipped = (*source.skipped, *skipped)
    for name, reason in skipped:
        print(f"skipped: {name}: {reason}", file=sys.stderr)
    if skipped:
        print(f"{output} was written without these", file=sys.stderr)
    return 1 if skipped else 0


def _run_predict(parsed: argparse.Namespace) -> int:
    with quiet_imports():
        from attention_sampling.predict import predict_files

    left_out = predict_files(
        parsed.model, parsed.files, parsed.output, **_keywords(parsed)
    )
    for name, reason in left_out:
        print(f"left out: {name}: {reason}", file=sys.stderr)
    print(f"The table and the pictures are in {parsed.output}")
    return 1 if left_out else 0


def _keywords(parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `open_source` that the user gave."""
    given = {name: getattr(parsed, name, None) for name in ("dataset", "channels")}
    return {name: value for name, value in given.items() if value is not None}


def _at_least(smallest: int) -> Callable[[str], int]:
    """Return what argparse calls to read an integer."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(
                f"must be an integer of at least {smallest}. Received: {text}"
            )
        return int(text)

    return read


def _run_program() -> int:
    """Run a command whose output may go where not all of it can be written."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be any
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main()
        sys.stdout.flush()
    except OSError as error:
        # What is left would be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # such as head has read enough
            print(f"error: the output cannot be written: {error}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(_run_program())
