"""Convert images of any format to one HDF5 file: tiles and a pyramid for each.

``python -m attention_sampling convert IN... OUT.h5``
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from attention_sampling.checks import check_choice, check_count
from attention_sampling.data.hdf5_file import (
    FORMAT,
    check_room,
    write_images,
)
from attention_sampling.data.hdf5_writer import COMPRESSIONS, ImageWriter, raw_bytes
from attention_sampling.data.inspection import open_any_size
from attention_sampling.data.libraries import import_library
from attention_sampling.data.part_files import (
    abandoned_parts,
    check_target,
    one_writer,
    part_file,
)
from attention_sampling.data.resume import FinishedImages
from attention_sampling.data.source import Source, SourceError, is_fault_of_process
from attention_sampling.files import open_to_write


def convert(
    source: Source,
    path: str | os.PathLike[str],
    chunk: int = 256,
    compression: str = "gzip",
    overwrite: bool = False,
    on_error: str = "raise",
    progress: bool = True,
) -> tuple[tuple[str, str], ...]:
    """Write the images of a source into one HDF5 file that `HDF5Source` reads.

    For images whose own format is slow to read windows from, such as JPEG and PNG, and
    to have thousands of them in one file. Images are read block by block: memory does
    not depend on their size, except where one has to be decoded as a whole, as JPEG, PNG
    and BMP have. Such an image larger than 1 GiB needs a source with its
    ``cache_bytes=None``; the command opens it so.

    The file appears under its name when it is whole. A conversion that was killed can be
    run again, and takes over the images of files that it had finished.

    Args:
        source: the images.
        path: file to write, such as ``"images.h5"``.
        chunk: height and width of the tiles in pixels. A window is read by whole tiles.
        compression: ``"gzip"``; ``"lzf"``, larger files that are faster to read; or
            ``"none"``. None of them loses anything.
        overwrite: replace the file if it exists.
        on_error: what to do about an image that cannot be read: ``"raise"``, or
            ``"skip"`` to leave it out. Where the process lacks files or memory, no image
            is to blame, and it is raised.
        progress: show a progress bar on stderr. Needs tqdm.

    Returns:
        (name, reason) of each image left out.

    Raises:
        SourceError: an image cannot be read; with ``on_error="skip"``, none can, or the
            process lacks files or memory.
        OSError: the file exists, cannot be written, or is being written by another
            conversion; the disk is full.
        ValueError: an unknown ``compression`` or ``on_error``, a ``chunk`` below 16.

    Example:

    >>> from attention_sampling.data import ArraySource, HDF5Source
    >>> source = ArraySource([np.zeros((1500, 1001, 3), "uint8")])
    >>> convert(source, "images.h5", progress=False)
    ()
    >>> HDF5Source("images.h5").levels(0)
    ((1500, 1001), (750, 501), (375, 251))
    """
    check_count("chunk", chunk, smallest=16)
    check_choice("compression", compression, COMPRESSIONS)
    check_choice("on_error", on_error, ("raise", "skip"))
    h5py = import_library("h5py")
    path = Path(path).resolve()
    check_target(path, overwrite)
    if compression == "none":
        check_room(source, path)
    settings = (FORMAT, chunk, compression)
    with contextlib.ExitStack() as stack:
        exclusive = stack.enter_context(one_writer(path))
        part = stack.enter_context(part_file(path, overwrite))
        left = abandoned_parts(path) if exclusive else []
        finished = stack.enter_context(FinishedImages(source, settings, left))
        advance = stack.enter_context(_progress_bar(source, path, progress))
        file = stack.enter_context(open_to_write(h5py, part, path, (SourceError,)))
        writer = stack.enter_context(ImageWriter(source, chunk, compression, advance))
        return write_images(source, file, writer, finished, on_error, advance)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    parser.description = (
        "Writes images of any format into one HDF5 file. Exit status: 0 if all are in "
        "it; 1 if an image cannot be read, which ends it, or is left out by --on-error "
        "skip: these are listed on stderr; 2 for misuse, what cannot be written, and "
        "where files or memory run short; 130 if it was stopped."
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help="files, directories or patterns, as `open_source` takes them",
    )
    parser.add_argument("output", metavar="OUT.h5", help="file to write")
    parser.add_argument(
        "--chunk",
        type=int,
        default=256,
        metavar="PIXELS",
        help="height and width of the tiles (default: %(default)s)",
    )
    parser.add_argument(
        "--compression",
        choices=COMPRESSIONS,
        default="gzip",
        help="gzip; lzf: larger, faster to read; or none (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace OUT.h5 if it exists"
    )
    parser.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="end at an image that cannot be read, or leave it out, exit status 1 all the "
        "same "
        "(default: %(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Convert what the command line names; say on stderr what went wrong or was left out.

    Returns:
        Exit status: 0 if all is well, 1 if an image cannot be read or was left out, 2
        for misuse, what cannot be written, and where the process lacks files or memory,
        130 if the user stopped it.
    """
    try:
        skipped = _convert_files(arguments)
    except KeyboardInterrupt:
        print("stopped: nothing was written", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        broken = isinstance(error, SourceError) and not is_fault_of_process(error)
        return 1 if broken else 2
    for name, reason in skipped:
        print(f"skipped: {name}: {reason}", file=sys.stderr)
    if skipped:
        print(f"{arguments.output} was written without these", file=sys.stderr)
    return 1 if skipped else 0


def _convert_files(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    output = Path(arguments.output)
    if output.suffix.lower() not in (".h5", ".hdf5"):
        raise ValueError(
            "The last argument is the file to write, its name ends in .h5 or .hdf5. "
            f"Received: {arguments.output!r}"
        )
    # Before thousands of files are opened.
    check_target(output.resolve(), arguments.overwrite)
    with open_any_size(arguments.inputs, on_error=arguments.on_error) as source:
        skipped = convert(
            source,
            output,
            chunk=arguments.chunk,
            compression=arguments.compression,
            overwrite=arguments.overwrite,
            on_error=arguments.on_error,
            progress=not arguments.quiet,
        )
        return [*source.skipped, *skipped]


@contextlib.contextmanager
def _progress_bar(
    source: Source, path: Path, progress: bool
) -> Iterator[Callable[[int], object]]:
    """Show how much is written; gives what is called with bytes of pixels."""
    if not progress:
        yield lambda count: None
        return
    tqdm = import_library("tqdm").tqdm
    total = sum(raw_bytes(source, index) for index in range(len(source)))
    with tqdm(total=total, desc=path.name, unit="B", unit_scale=True) as bar:
        yield bar.update
