"""A labelled image on disk, and the checks common to every data set of them."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

# Suffix of a file name -> the format, as Pillow calls it, that it promises.
IMAGE_FORMATS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".ppm": "PPM",
}
IMAGE_SUFFIXES = tuple(IMAGE_FORMATS)
_NAMED_AT_MOST = 10

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Sign:
    """A traffic sign in an image, as annotated.

    Args:
        name: what the sign says, as its data set calls it.
        top, left, bottom, right: its box, in pixels of the full-resolution image,
            rounded to whole pixels. Annotators draw past the lower and right border
            now and then, so clip before you cut it out.

    Example:

    >>> from attention_sampling.datasets.speed_limits import Sign
    >>> sign = Sign("50", top=388, left=983, bottom=432, right=1024)
    >>> sign.bottom - sign.top, sign.right - sign.left
    (44, 41)
    """

    name: str
    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Sample:
    """An image file with its label.

    Args:
        path: the image file.
        label: index into the classes of the data set.
        signs: the signs that give the image its label; () for an empty road.
    """

    path: str
    label: int
    signs: tuple[Sign, ...]


def parse_lines(
    path: Path, parse: Callable[[str], Parsed], expected: str
) -> Iterator[Parsed]:
    """Parse each line of an annotation file that is not blank.

    Args:
        path: the file.
        parse: takes a line, without white space at its ends; a `ValueError` from it
            says what is wrong with the line.
        expected: how a line must look, for the error.

    Raises:
        ValueError: ``parse`` refused a line; names the file and the line number.
    """
    # Bytes that are no text become U+FFFD, which then does not parse: with its number.
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(map(str.strip, file), start=1):
            if not line:
                continue
            try:
                parsed = parse(line)
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number} does not parse: {error}. Expected: "
                    f"{expected}. Received: {line!r}"
                ) from error
            yield parsed


def refuse_missing(path: Path, names: Sequence[str], folder: Path) -> None:
    """Raise `FileNotFoundError` if any image that ``path`` annotates is missing."""
    if names:
        raise FileNotFoundError(
            f"Images annotated in {path} are missing. Expected: each of them in "
            f"{folder}. Received: {_enumerate(names)}"
        )


def check_images(samples: Sequence[Sample], progress: bool = True) -> tuple[int, int]:
    """Decode every image once, so that no broken one stops a training later.

    Args:
        samples: the samples to check. Needs Pillow, and tqdm.
        progress: show a progress bar.

    Returns:
        (height, width) in pixels, which all images share.

    Raises:
        ValueError: an image is missing, broken or cut off (all are counted, the first
            ten named), or the images differ in size, or there is none.

    Example::

        data = load_speed_limits("data/gtsdb")
        height, width = check_images(data.train + data.test)
    """
    from tqdm import tqdm

    if not samples:
        raise ValueError(
            "There is no image to check. Expected: at least one sample. "
            f"Received: samples={samples!r}"
        )
    paths = [sample.path for sample in samples]
    sizes: dict[str, tuple[int, int]] = {}
    broken = []
    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        outcomes = tqdm(
            pool.map(_decode, paths),
            total=len(paths),
            desc="Checking images",
            unit="image",
            disable=not progress,
        )
        for path, outcome in zip(paths, outcomes, strict=True):
            if isinstance(outcome, tuple):
                sizes[path] = outcome
            else:
                broken.append(f"{path} ({outcome})")
    finally:
        pool.shutdown(cancel_futures=True)
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(paths)} images cannot be decoded. Expected: whole "
            f"files in a format that Pillow reads. Received: {_enumerate(broken)}"
        )
    (common, count), *others = Counter(sizes.values()).most_common()
    if others:
        path, size = next(item for item in sizes.items() if item[1] != common)
        raise ValueError(
            "The images differ in size. Expected: (height, width) = "
            f"{common}, as {count} of {len(sizes)} images have. "
            f"Received: {path} with {size}"
        )
    return common


def _decode(path: str) -> tuple[int, int] | str:
    """Return the (height, width) of an image, or what keeps it from being read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            promised = IMAGE_FORMATS.get(Path(path).suffix.lower(), image.format)
            # A reader that goes by the name would fail in the middle of a training.
            if image.format not in (promised, "MPO"):
                return f"its name says {promised}, it is {image.format}"
            image.load()
            return image.height, image.width
    except Exception as error:  # Pillow's readers raise nearly anything on bad bytes
        return f"{type(error).__name__}: {error}"


def _enumerate(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED_AT_MOST])
    more = len(names) - _NAMED_AT_MOST
    return f"{shown} and {more} more" if more > 0 else shown
