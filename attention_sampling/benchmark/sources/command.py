"""Measure the sources: reading, cost by image size, on demand against in memory."""

import argparse
import importlib.metadata
import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attention_sampling.benchmark.circumstances import machine, versions
from attention_sampling.benchmark.command_line import add_output, open_output
from attention_sampling.benchmark.files import write_json
from attention_sampling.benchmark.limits_report import Report
from attention_sampling.benchmark.sources import figures as source_figures
from attention_sampling.benchmark.sources import flat as source_flat
from attention_sampling.benchmark.sources import reading as source_reading
from attention_sampling.benchmark.sources import speed_limits as source_speed_limits
from attention_sampling.benchmark.sources.readers import make_readers

WINDOW_SIZES = (256, 128)
IMAGES = 4
IMAGE_SIZE = (4096, 4096)
# Distributions that read the formats, and modules that tell whether they are there.
LIBRARIES = {
    "h5py": "h5py",
    "imagecodecs": "imagecodecs",
    "openslide-python": "openslide",
    "pillow": "PIL",
    "simplejpeg": "simplejpeg",
    "tifffile": "tifffile",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    add_output(parser, "tables and figures")
    parser.add_argument(
        "--only",
        type=_parts,
        default=list(PARTS),
        metavar="PART,...",
        help=f"of {', '.join(PARTS)} (default: all)",
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        help="for generated images, 2 GB, deleted at the end (default: the system's "
        "directory for temporary files)",
    )
    parser.add_argument(
        "--slide", metavar="FILE", help="a slide to read windows from too"
    )
    parser.add_argument(
        "--windows",
        type=int,
        default=32,
        metavar="N",
        help="to read by one call (default: %(default)s)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=30,
        metavar="N",
        help="of each way to read them (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="of the pool that is compared with one (default: %(default)s)",
    )
    parser.add_argument(
        "--megapixels",
        type=_sizes,
        default=[1.0, 16.0, 256.0, 1024.0],
        metavar="N,...",
        help="of the images whose steps are compared (default: 1,16,256,1024)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=40,
        metavar="N",
        help="to measure on each image; a tenth of it for the speed limits "
        "(default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the tables, and write them with their figures.

    Raises:
        ValueError: a number is out of range; a part has no library; an earlier
            measurement is in the way.
        OSError: a file cannot be read or written.
    """
    for name in ("windows", "repeats", "threads", "steps"):
        if getattr(arguments, name) < 1:
            raise ValueError(
                f"--{name} must be at least 1. Received: {getattr(arguments, name)}"
            )
    if arguments.slide is not None and not Path(arguments.slide).is_file():
        raise ValueError(f"--slide must be a file. Received: {arguments.slide}")
    report = Report(open_output(arguments, "sources.json"))
    write_json(report.directory / "sources.json", _circumstances(arguments))
    for part in arguments.only:
        with tempfile.TemporaryDirectory(
            prefix="attention-sampling-", dir=arguments.work
        ) as directory:
            PARTS[part](report, Path(directory), arguments)
    print(report.summary())


def measure_reading(
    report: Report, directory: Path, arguments: argparse.Namespace
) -> None:
    """Compare reading through sources with direct calls of their libraries."""
    slide = None if arguments.slide is None else Path(arguments.slide)
    rows = source_reading.measure_reading(
        make_readers(directory, IMAGES, IMAGE_SIZE, slide),
        WINDOW_SIZES,
        arguments.windows,
        arguments.repeats,
        arguments.threads,
    )
    report.add("reading", "Windows a second, files in the page cache", rows)
    source_figures.draw_reading(
        report.directory / "reading.png", rows, source_reading.SMALLEST_RATIO
    )


def measure_flat(
    report: Report, directory: Path, arguments: argparse.Namespace
) -> None:
    """Compare training steps on images of several sizes."""
    setting = source_flat.Setting()
    rows = source_flat.measure_flat(
        source_flat.write_images(directory, arguments.megapixels),
        setting,
        arguments.steps,
    )
    title = (
        f"A training step on images of several sizes: view of {setting.view_size} "
        f"pixels, {setting.n_patches} patches of {setting.patch_size}, batch 1"
    )
    report.add("flat", title, rows)
    source_figures.draw_flat(
        report.directory / "flat.png",
        rows,
        source_flat.LARGEST_TIME,
        source_flat.LARGEST_MEGABYTES,
    )


def measure_speed_limits(
    report: Report, directory: Path, arguments: argparse.Namespace
) -> None:
    """Compare training on demand with images in memory."""
    setting = source_speed_limits.Setting()
    rows = source_speed_limits.measure_speed_limits(
        source_speed_limits.write_images(directory, setting),
        setting,
        max(1, arguments.steps // 10),
    )
    height, width = setting.image_size
    title = f"Speed limits, {height} x {width}, batch {setting.batch_size}"
    report.add("speed_limits", title, rows)
    source_figures.draw_speed_limits(report.directory / "speed_limits.png", rows)


PARTS: dict[str, Callable[[Report, Path, argparse.Namespace], None]] = {
    "reading": measure_reading,
    "flat": measure_flat,
    "speed-limits": measure_speed_limits,
}


def _circumstances(arguments: argparse.Namespace) -> dict[str, Any]:
    libraries = {
        name: importlib.metadata.version(name)
        for name, module in LIBRARIES.items()
        if importlib.util.find_spec(module)
    }
    words = {
        name: getattr(arguments, name)
        for name in ("only", "windows", "repeats", "threads", "megapixels", "steps")
    }
    if arguments.slide is not None:
        words["slide"] = Path(arguments.slide).name
    return {
        "arguments": words,
        "versions": versions() | libraries,
        "machine": machine(),
    }


def _parts(text: str) -> list[str]:
    parts = list(dict.fromkeys(text.split(",")))
    if not set(parts) <= PARTS.keys():
        raise argparse.ArgumentTypeError(
            f"expected some of {', '.join(PARTS)}, separated by commas; got {text!r}"
        )
    return parts


def _sizes(text: str) -> list[float]:
    try:
        sizes = sorted({float(word) for word in text.split(",")})
    except ValueError:
        sizes = []
    # A window must fit into the smallest, and a test may be smaller than a megapixel.
    if not sizes or not all(0.07 <= size <= 2**14 for size in sizes):
        raise argparse.ArgumentTypeError(
            f"expected megapixels from 0.07 to {2**14}, separated by commas; "
            f"got {text!r}"
        )
    return sizes
