"""Annotation files of two public sets of road scenes -> samples."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

GERMAN_CLASSES = ("empty", "30", "50", "70", "80")
SWEDISH_CLASSES = ("empty", "50_SIGN", "70_SIGN", "80_SIGN")
SWEDISH_SETS = ("Set1", "Set2")  # train, test
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm")

# Class number in gt.txt -> km/h, for every sign that sets a limit.
GERMAN_LIMITS = {
    0: "20",
    1: "30",
    2: "50",
    3: "60",
    4: "70",
    5: "80",
    7: "100",
    8: "120",
}
_LAST_CLASS = 42
_GERMAN_LINE = "image;left;top;right;bottom;class, as 00001.jpg;983;388;1024;432;40"

_VISIBILITIES = ("VISIBLE", "BLURRED", "SIDE_ROAD", "OCCLUDED")
_SWEDISH_LINE = (
    "image:VISIBILITY, right, bottom, left, top, TYPE, NAME;... with VISIBILITY one of "
    f"{', '.join(_VISIBILITIES)}, or MISC_SIGNS"
)
# The published file has typing errors within numbers (478.4376a0): what follows the
# letter is less than a pixel.
_NUMBER = re.compile(r"([+-]?\d{1,20}(?:\.\d*)?)(?:[A-Za-z]\d*)?")

# left, top, right, bottom, class: the numbers of a line of gt.txt.
GermanBox = tuple[int, int, int, int, int]
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Sign:
    """A traffic sign in an image, as annotated.

    Args:
        name: what the sign says, as its data set calls it.
        top, left, bottom, right: its box, in whole pixels of the full-resolution image.
            Some boxes reach past the lower and right border: clip before you cut.

    Example:

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
        other_signs: of the German benchmark, those that do not.
    """

    path: str
    label: int
    signs: tuple[Sign, ...]
    other_signs: tuple[Sign, ...] = ()


def read_german(directory: Path) -> tuple[tuple[str, ...], list[Sample]]:
    """Read ``gt.txt`` of the German Traffic Sign Detection Benchmark.

    Returns:
        The classes that occur, and the samples, sorted by file name.
    """
    if not directory.is_dir():
        raise FileNotFoundError(
            f"There is no such directory. Expected: one with gt.txt. Received: {directory}"
        )
    annotations = directory / "gt.txt"
    folder = directory / "images"
    if not folder.is_dir():
        folder = directory
    # By stem: gt.txt says .ppm, and people convert the images without rewriting it.
    images: dict[str, Path] = {}
    for path in _list_images(folder, "*"):
        if images.setdefault(path.stem, path) != path:
            raise ValueError(
                "An image is there twice. Expected: one file for each name in gt.txt. "
                f"Received: {images[path.stem]} and {path}"
            )
    if not images:
        raise FileNotFoundError(
            "There are no images beside gt.txt. Expected: files that end in "
            f"{', '.join(IMAGE_SUFFIXES)}. Received: {folder}"
        )
    boxes = read_german_boxes(annotations)
    _refuse_missing(annotations, sorted(boxes.keys() - images.keys()), folder)
    found = []
    for stem, path in sorted(images.items()):
        signs, others = [], []
        for left, top, right, bottom, sign_class in boxes.get(stem, ()):
            name = GERMAN_LIMITS.get(sign_class, f"class {sign_class}")
            sign = Sign(name, top, left, bottom, right)
            (signs if sign_class in GERMAN_LIMITS else others).append(sign)
        names = {sign.name for sign in signs} or {GERMAN_CLASSES[0]}
        if len(names) == 1 and names <= set(GERMAN_CLASSES):
            found.append((str(path), names.pop(), tuple(signs), tuple(others)))
    classes = tuple(c for c in GERMAN_CLASSES if c in {name for _, name, *_ in found})
    return classes, [
        Sample(path, classes.index(name), *signs) for path, name, *signs in found
    ]


def read_german_boxes(annotations: Path) -> dict[str, tuple[GermanBox, ...]]:
    """Read every box in ``gt.txt``, limits and others, by the stem of the image's name.

    Raises:
        ValueError: a line does not parse, or there is none.
    """
    boxes: dict[str, dict[GermanBox, None]] = defaultdict(dict)  # each of them once
    for name, box in _parse_lines(annotations, _parse_german, _GERMAN_LINE):
        boxes[Path(name).stem][box] = None
    if not boxes:
        raise ValueError(
            f"No image is annotated. Expected: lines as {_GERMAN_LINE}. "
            f"Received: {annotations} without any"
        )
    return {stem: tuple(found) for stem, found in boxes.items()}


def _parse_german(line: str) -> tuple[str, GermanBox]:
    """Return the image that a line is about, and the box."""
    name, *numbers = line.split(";")
    if not name or len(numbers) != 5:
        raise ValueError(f"{1 + len(numbers)} fields, or no image name")
    left, top, right, bottom, sign_class = map(int, numbers)
    if not (0 <= left < right and 0 <= top < bottom):
        raise ValueError("the box is empty or begins outside the image")
    if not 0 <= sign_class <= _LAST_CLASS:
        raise ValueError(f"the class is not one of 0 to {_LAST_CLASS}")
    return name, (left, top, right, bottom, sign_class)


def read_swedish(directory: Path) -> list[Sample]:
    """Read ``annotations.txt`` of one of the Swedish Traffic Signs sets.

    Returns:
        The samples, sorted by file name, with labels of SWEDISH_CLASSES.
    """
    annotations = directory / "annotations.txt"
    seen: dict[str, tuple[tuple[str, Sign | None], ...]] = {}
    for image, signs in _parse_lines(annotations, _parse_swedish, _SWEDISH_LINE):
        if seen.setdefault(image, signs) != signs:
            raise ValueError(
                f"{annotations} lists an image twice, with different signs. "
                f"Expected: one line for each image. Received: {image}"
            )
    # In folders inside too, as archives make them; the first of a name.
    images = {path.name: path for path in reversed(_list_images(directory, "**/*"))}
    _refuse_missing(annotations, sorted(seen.keys() - images.keys()), directory)
    samples = []
    for image, signs in sorted(seen.items()):
        visible = tuple(
            dict.fromkeys(s for visibility, s in signs if s and visibility == "VISIBLE")
        )
        # No sign at all, or one limit that can be read; other images are left out.
        if not signs or len({sign.name for sign in visible}) == 1:
            label = SWEDISH_CLASSES.index(visible[0].name) if visible else 0
            samples.append(Sample(str(images[image]), label, visible))
    return samples


def _parse_swedish(line: str) -> tuple[str, tuple[tuple[str, Sign | None], ...]]:
    """Return an image, and visibility and sign of each entry but MISC_SIGNS."""
    image, colon, rest = line.partition(":")
    if not image or not colon:
        raise ValueError("no image name before a colon")
    entries = (entry.strip(" ,") for entry in rest.split(";"))
    return image.strip(), tuple(
        _parse_sign(entry)
        for entry in entries
        if entry.partition(",")[0].strip() not in ("", "MISC_SIGNS")
    )


def _parse_sign(entry: str) -> tuple[str, Sign | None]:
    """Return the visibility of a sign, and the sign if it is one of the classes."""
    fields = [field.strip() for field in entry.split(",")]
    if len(fields) != 7:
        raise ValueError(f"a sign has {len(fields)} fields, not 7")
    visibility, *corners, _, name = fields
    if visibility not in _VISIBILITIES:
        raise ValueError(f"unknown visibility {visibility!r}")
    numbers = []
    for corner in corners:
        match = _NUMBER.fullmatch(corner)
        if match is None:
            raise ValueError(f"{corner!r} is not a number of pixels")
        numbers.append(max(0, round(float(match[1]))))
    if name not in SWEDISH_CLASSES[1:]:
        return visibility, None
    right, bottom, left, top = numbers
    if not (left < right and top < bottom):
        raise ValueError("the box is empty, or its first corner is not the lower right")
    return visibility, Sign(name, top, left, bottom, right)


def _parse_lines(
    path: Path, parse: Callable[[str], Parsed], expected: str
) -> Iterator[Parsed]:
    """Parse each line of a file that is not blank; errors name file and line."""
    # Bytes that are no text become U+FFFD, which then does not parse: with its number.
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(map(str.strip, file), start=1):
            try:
                if line:
                    yield parse(line)
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number} does not parse: {error}. Expected: "
                    f"{expected}. Received: {line!r}"
                ) from error


def _list_images(folder: Path, pattern: str) -> list[Path]:
    """Return the images of a folder in order, hidden ones left out."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def _refuse_missing(annotations: Path, names: list[str], folder: Path) -> None:
    if names:
        raise FileNotFoundError(
            f"Images annotated in {annotations} are missing. Expected: each of them in "
            f"{folder}. Received: {enumerate_names(names)}"
        )


def enumerate_names(names: Iterable[str]) -> str:
    """Return the first ten names, and how many more there are."""
    names = list(names)
    more = len(names) - 10
    return ", ".join(names[:10]) + (f" and {more} more" if more > 0 else "")
