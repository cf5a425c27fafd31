"""The Swedish Traffic Signs set: SetN/annotations.txt and images -> samples."""

import os
import re
from pathlib import Path

from attention_sampling.datasets.samples import (
    IMAGE_SUFFIXES,
    Sample,
    Sign,
    parse_lines,
    refuse_missing,
)

CLASSES = ("empty", "50_SIGN", "70_SIGN", "80_SIGN")
SETS = ("Set1", "Set2")  # train, test
_VISIBILITIES = ("VISIBLE", "BLURRED", "SIDE_ROAD", "OCCLUDED")  # best first
_FORMAT = (
    "image:VISIBILITY, x2, y2, x1, y1, TYPE, NAME;... with VISIBILITY one of "
    f"{', '.join(_VISIBILITIES)}, or MISC_SIGNS"
)
# The published file has typing errors within numbers (478.4376a0): what follows the
# letter is less than a pixel.
_NUMBER = re.compile(r"([+-]?\d+(?:\.\d*)?)(?:[A-Za-z]\d*)?")

# Visibility and sign; no sign where it is none of CLASSES.
_Seen = tuple[str, Sign | None]


def read_swedish(directory: Path, name: str) -> list[Sample]:
    """Read the samples of one set, sorted by file name."""
    annotations = directory / name / "annotations.txt"
    seen: dict[str, tuple[_Seen, ...]] = {}
    for image, signs in parse_lines(annotations, _parse_line, _FORMAT):
        if seen.setdefault(image, signs) != signs:
            raise ValueError(
                f"{annotations} lists an image twice, with different signs. "
                f"Expected: one line for each image. Received: {image}"
            )
    images = _find_images(directory / name)
    refuse_missing(
        annotations,
        [image for image in seen if image not in images],
        directory / name,
    )
    samples = []
    for image, signs in sorted(seen.items()):
        limits = _choose_limits(signs)
        if limits is not None:
            label = CLASSES.index(limits[0].name) if limits else 0
            samples.append(Sample(images[image], label, limits))
    return samples


def _choose_limits(seen: tuple[_Seen, ...]) -> tuple[Sign, ...] | None:
    """Return the signs that give an image its label, None to leave the image out."""
    if not seen:
        return ()
    visible = dict.fromkeys(
        sign for visibility, sign in seen if sign and visibility == _VISIBILITIES[0]
    )
    # No visible limit: the most visible one is hardly to be read, or there is none.
    return tuple(visible) if len({sign.name for sign in visible}) == 1 else None


def _find_images(folder: Path) -> dict[str, str]:
    """Return the images in a folder and the folders inside it, by file name."""
    images: dict[str, str] = {}
    for parent, folders, names in os.walk(folder):
        # In order; and not into an extraction that was killed.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES):
                images.setdefault(name, os.path.join(parent, name))
    return images


def _parse_line(line: str) -> tuple[str, tuple[_Seen, ...]]:
    image, colon, rest = line.partition(":")
    if not image or not colon:
        raise ValueError("no image name before a colon")
    entries = (entry.strip(" ,") for entry in rest.split(";"))
    return image.strip(), tuple(
        _parse_sign(entry)
        for entry in entries
        if entry.partition(",")[0].strip() not in ("", "MISC_SIGNS")
    )


def _parse_sign(entry: str) -> _Seen:
    fields = [field.strip() for field in entry.split(",")]
    if len(fields) != 7:
        raise ValueError(f"a sign has {len(fields)} fields, not 7")
    visibility, *corners, _, name = fields
    if visibility not in _VISIBILITIES:
        raise ValueError(f"unknown visibility {visibility!r}")
    numbers = []
    for corner in corners:
        match = _NUMBER.fullmatch(corner)
        if match is None or len(match[1]) > 20:
            raise ValueError(f"{corner!r} is not a number of pixels")
        numbers.append(round(float(match[1])))
    if name not in CLASSES[1:]:
        return visibility, None
    right, bottom, left, top = (max(number, 0) for number in numbers)
    if not (left < right and top < bottom):
        raise ValueError("the box is empty, or its first corner is not the lower right")
    return visibility, Sign(name, top, left, bottom, right)
