"""The German Traffic Sign Detection Benchmark: gt.txt and images -> samples."""

from collections import defaultdict
from pathlib import Path

from attention_sampling.datasets.samples import (
    IMAGE_SUFFIXES,
    Sample,
    Sign,
    parse_lines,
    refuse_missing,
)

CLASSES = ("empty", "30", "50", "70", "80")
# Class number in gt.txt -> km/h, for every sign that sets a limit.
_LIMITS = {
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
_FORMAT = "image;left;top;right;bottom;class, as 00001.jpg;983;388;1024;432;40"


def read_gtsdb(directory: Path) -> tuple[tuple[str, ...], list[Sample]]:
    """Read a folder that holds gt.txt.

    Returns:
        The classes that occur, and the samples, sorted by file name.

    Raises:
        FileNotFoundError: there are no images, or annotated ones are missing.
        ValueError: nothing is annotated, a line does not parse, or an image is there
            twice.
    """
    annotations = directory / "gt.txt"
    folder = directory / "images"
    if not folder.is_dir():
        folder = directory
    images = _find_images(folder)
    names: dict[str, str] = {}
    limits: dict[str, list[Sign]] = defaultdict(list)
    for name, sign in parse_lines(annotations, _parse_line, _FORMAT):
        stem = Path(name).stem
        names.setdefault(stem, name)
        if sign is not None:
            limits[stem].append(sign)
    if not names:
        raise ValueError(
            "No image is annotated. Expected: lines as "
            f"{_FORMAT}. Received: {annotations} without any"
        )
    missing = [name for stem, name in names.items() if stem not in images]
    refuse_missing(annotations, missing, folder)
    found = []
    for stem, path in sorted(images.items()):
        signs = tuple(dict.fromkeys(limits[stem]))
        names_of_image = {sign.name for sign in signs} or {CLASSES[0]}
        if len(names_of_image) == 1 and names_of_image <= set(CLASSES):
            found.append((str(path), names_of_image.pop(), signs))
    occurring = {name for _, name, _ in found}
    classes = tuple(name for name in CLASSES if name in occurring)
    return classes, [
        Sample(path, classes.index(name), signs) for path, name, signs in found
    ]


def _find_images(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by name less suffix.

    gt.txt says .ppm, and people convert the images without rewriting it.
    """
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in images:
            raise ValueError(
                "An image is there twice. Expected: one file for each name in gt.txt. "
                f"Received: {images[path.stem]} and {path}"
            )
        images[path.stem] = path
    if not images:
        raise FileNotFoundError(
            "There are no images beside gt.txt. Expected: files that end in "
            f"{', '.join(IMAGE_SUFFIXES)}. Received: {folder}"
        )
    return images


def _parse_line(line: str) -> tuple[str, Sign | None]:
    """Return the image that a line is about, and its sign if that sets a limit."""
    name, *numbers = line.split(";")
    if not name or len(numbers) != 5:
        raise ValueError(f"{1 + len(numbers)} fields, or no image name")
    left, top, right, bottom, sign_class = map(int, numbers)
    if not (0 <= left < right and 0 <= top < bottom):
        raise ValueError("the box is empty or begins outside the image")
    if not 0 <= sign_class <= _LAST_CLASS:
        raise ValueError(f"the class is not one of 0 to {_LAST_CLASS}")
    limit = _LIMITS.get(sign_class)
    return name, None if limit is None else Sign(limit, top, left, bottom, right)
