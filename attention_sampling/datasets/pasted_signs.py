"""Road scenes with real signs pasted into them, in the format of a public data set.

Photographs of roads without a speed limit become as many labelled scenes as are wanted:
crops of real signs are pasted where scenes of the same camera show their limits.
"""

import csv
import itertools
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_count
from attention_sampling.datasets.pasting import (
    Crop,
    Place,
    paint_pole,
    paste_sign,
    read_crop,
)
from attention_sampling.datasets.synthetic.generating import SETTINGS_FILE
from attention_sampling.datasets.traffic_signs import (
    GERMAN_LIMITS,
    GermanBox,
    read_german,
    read_german_boxes,
)
from attention_sampling.files import replacing

__all__ = ["write_pasted_signs"]

_LIMITS = 1, 2, 4, 5  # classes of 30, 50, 70 and 80
# Of the 747 training images of the paper 400 show a limit.
_LIMITS_OF, _IMAGES = 400, 747
_TEST_FRACTION = 0.3  # of the scenes, and of the signs of each class

# Class -> tracks -> the crops of one physical sign, small ones first.
_Tracks = dict[int, list[list[Crop]]]


class _Part(NamedTuple):
    """What the images of one part, training or test, are made of."""

    scenes: list[tuple[str, tuple[GermanBox, ...]]]
    tracks: _Tracks
    places: list[Place]  # of the limits in other scenes


def write_pasted_signs(
    scenes: str | os.PathLike[str],
    signs: str | os.PathLike[str],
    output: str | os.PathLike[str],
    n_train: int = 747,
    n_test: int = 684,
    seed: int = 0,
    scale: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``train`` and ``test``, each with ``images`` and ``gt.txt``.

    Of 747 images 100 show a limit of 30, 100 of 50, 100 of 70, 100 of 80, and 347 none,
    as in the paper. In every class there are other signs too: an image without a limit
    has as many pasted signs as one with a limit. Training and test share neither a
    scene nor a physical sign.

    Keep other processes out of the output by ``files.one_process``.

    Args:
        scenes: the German Traffic Sign Detection Benchmark, ``gt.txt`` and images: those
            without a limit are pasted into, at sizes and positions of the limits in the
            others.
        signs: the German Traffic Sign Recognition Benchmark: a folder for each class,
            with ``GT-00001.csv`` and crops ``TRACK_FRAME.ppm``. Classes that are other
            limits are not used.
        output: directory to write into.
        n_train: images to train on. The first images of more are the same.
        n_test: images to test on, likewise.
        seed: non-negative int; chooses the split and every image.
        scale: height and width over those of the scenes, more than 0 and at most 1.
        progress: called with the images done and those to do, after each.

    Raises:
        FileExistsError: the output holds a data set already.
        FileNotFoundError: a directory or a file is missing.
        OSError: a file cannot be read or written. Nothing half-written is left.
        ValueError: a setting is out of range, a file does not parse, there are no
            scenes without a limit or none with one, or a class has no signs.
    """
    settings = {
        "version": 1,  # raise it whenever the pictures change
        "n_train": check_count("n_train", n_train, smallest=1),
        "n_test": check_count("n_test", n_test, smallest=1),
        "seed": check_count("seed", seed, smallest=0),
        "scale": float(scale),
    }
    if not 0 < scale <= 1:
        raise ValueError(
            f"`scale` must be more than 0 and at most 1. Received: scale={scale!r}"
        )
    output = Path(output)
    paths = [output / name for name in ("train", "test", SETTINGS_FILE)]
    if any(path.exists() for path in paths):
        raise FileExistsError(
            f"{output} holds a data set already: delete it, or choose another directory"
        )
    parts = _read_parts(Path(scenes), Path(signs), seed)
    done = itertools.count(1)

    def show(path: Path) -> None:
        if progress is not None:
            progress(next(done), n_train + n_test)

    # All three appear, or none.
    with replacing(paths[0]) as train, replacing(paths[1]) as test:
        _write_part(train, parts[0], n_train, (seed, 0), scale, show)
        _write_part(test, parts[1], n_test, (seed, 1), scale, show)
        with replacing(paths[2]) as part:
            part.write_text(json.dumps(settings, indent=2) + "\n", encoding="ascii")


def _write_part(
    directory: Path,
    part: _Part,
    count: int,
    seed: tuple[int, int],
    scale: float,
    show: Callable[[Path], None],
) -> None:
    from PIL import Image

    (directory / "images").mkdir(parents=True)

    def write(number: int) -> str:
        # Each image has a stream of its own, whatever their number.
        rng = np.random.default_rng((*seed, number))
        image, boxes = _make_image(rng, part, _choose_limit(number), scale)
        path = directory / "images" / f"{number:05d}.jpg"
        Image.fromarray(image).save(path, quality=95)
        return "".join(";".join(map(str, (path.name, *box))) + "\n" for box in boxes)

    lines = []
    # Threads: the libraries do their work without Python's lock.
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for line in pool.map(write, range(count)):
            lines.append(line)
            show(directory)
    finally:
        pool.shutdown(cancel_futures=True)
    (directory / "gt.txt").write_text("".join(lines), encoding="ascii")


def _choose_limit(number: int) -> int | None:
    """Return the class of an image's limit: in turn, in the paper's proportions."""
    before, after = (n * _LIMITS_OF // _IMAGES for n in (number, number + 1))
    return _LIMITS[before % len(_LIMITS)] if after > before else None


def _make_image(
    rng: np.random.Generator, part: _Part, limit: int | None, scale: float
) -> tuple[npt.NDArray[np.uint8], list[GermanBox]]:
    """Return a scene with signs pasted into it, and the boxes of all of its signs."""
    from PIL import Image

    path, boxes = part.scenes[rng.integers(len(part.scenes))]
    with Image.open(path) as scene:
        size = [max(1, round(scale * extent)) for extent in scene.size]
        image = np.array(scene.convert("RGB").resize(size, Image.Resampling.BOX))
    found: list[Any] = [(*(round(scale * x) for x in b[:4]), b[4]) for b in boxes]
    others = [n for n in part.tracks if n not in _LIMITS]
    n_signs = 1 + rng.choice(3, p=[0.45, 0.4, 0.15])
    classes = [int(n) for n in rng.choice(others, n_signs)]
    if limit is not None:
        classes[rng.integers(n_signs)] = limit
    place = None
    for sign_class in classes:
        below = place and place._replace(row=place.row + 1.05 * place.size)
        if below and rng.random() < 0.4 and below.row < size[1] - below.size:
            place = below  # on one pole
        else:
            place = _choose_place(rng, part.places, size, found, scale)
            paint_pole(rng, image, place)
        tracks = part.tracks[sign_class]
        box = paste_sign(rng, image, tracks, sign_class, place, scale)
        found.append((*box, sign_class))
    return image, found


def _choose_place(
    rng: np.random.Generator,
    places: list[Place],
    size: list[int],
    found: list[GermanBox],
    scale: float,
) -> Place:
    """Return where a real limit is, or near by, clear of the signs that are there."""
    chosen = []
    for _ in range(10):
        place = places[rng.integers(len(places))]
        side = min(place.size * scale * rng.uniform(0.85, 1.15), *size)
        column, row = (
            np.clip(
                scale * x + rng.normal(0, 0.02) * extent, side / 2, extent - side / 2
            )
            for x, extent in zip(place[:2], size, strict=True)
        )
        covered = sum(
            1
            for left, top, right, bottom, _ in found
            if abs(2 * column - left - right) < 1.3 * side + right - left
            and abs(2 * row - top - bottom) < 1.3 * side + bottom - top
        )
        chosen.append((covered, Place(column, row, side)))
    return min(chosen, key=lambda pair: pair[0])[1]


def _read_parts(scenes: Path, signs: Path, seed: int) -> tuple[_Part, _Part]:
    """Read scenes and signs, and divide both into training and test."""
    classes, samples = read_german(scenes)
    empty = [s.path for s in samples if classes[s.label] == "empty"]
    places = [
        Place(
            (s.left + s.right) / 2,
            (s.top + s.bottom) / 2,
            (s.right - s.left + s.bottom - s.top) / 2,
        )
        for sample in samples
        for s in sample.signs
    ]
    if len(empty) < 2 or not places:
        raise ValueError(
            "The scenes cannot be used. Expected: two without a speed limit, to paste "
            "into, and one with, for the size of a sign. "
            f"Received: {scenes} with {len(empty)} and {len(samples) - len(empty)}"
        )
    boxes = read_german_boxes(scenes / "gt.txt")
    tracks = _read_tracks(signs)
    missing = [GERMAN_LIMITS[n] for n in _LIMITS if len(tracks.get(n, ())) < 2]
    others = [n for n, found in tracks.items() if n not in _LIMITS and len(found) > 1]
    if missing or not others:
        raise ValueError(
            "There are too few signs. Expected: two tracks of each of the limits 30, "
            "50, 70 and 80, and of a sign that is no limit. Received: "
            f"{signs} without {', '.join(missing) or 'signs that are no limit'}"
        )
    parts = []
    for is_test in (False, True):
        chosen = {
            n: [
                tracks[n][name]
                for name in _divide(tracks[n], seed, f"{n:05d}/")[is_test]
            ]
            for n in (*_LIMITS, *others)
        }
        paths = _divide(empty, seed)[is_test]
        parts.append(
            _Part([(p, boxes.get(Path(p).stem, ())) for p in paths], chosen, places)
        )
    return parts[0], parts[1]


def _divide(
    names: Iterable[str], seed: int, prefix: str = ""
) -> tuple[list[str], list[str]]:
    """Divide names into training and test, with at least one in each."""
    # A hash of the name shuffles alike for every NumPy and every listing order.
    names = sorted(
        names,
        key=lambda n: sha256(f"{seed} {prefix}{Path(n).stem}".encode()).digest(),
    )
    n_tests = max(1, round(_TEST_FRACTION * len(names)))
    return names[n_tests:], names[:n_tests]


def _read_tracks(directory: Path) -> dict[int, dict[str, list[Crop]]]:
    """Read all crops of the signs that may be pasted: class -> track -> crops."""
    tables = sorted(directory.glob("*/GT-*.csv"))
    if not tables:
        raise FileNotFoundError(
            "There are no signs. Expected: a folder for each class, as "
            f"00001/GT-00001.csv with 00001/00000_00000.ppm. Received: {directory}"
        )
    tracks: dict[int, dict[str, list[Crop]]] = {}
    for table in tables:
        with open(table, newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter=";"), start=2):
                try:
                    name, sign_class = row["Filename"], int(row["ClassId"])
                    roi = [int(row[f"Roi.{end}"]) for end in ("X1", "Y1", "X2", "Y2")]
                except (KeyError, TypeError, ValueError) as error:
                    raise ValueError(
                        f"{table}, line {number} does not parse ({error}). Expected: "
                        "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
                    ) from error
                if sign_class in GERMAN_LIMITS and sign_class not in _LIMITS:
                    continue
                of_class = tracks.setdefault(sign_class, {})
                crop = read_crop(table.parent / name, sign_class, roi)
                of_class.setdefault(name.partition("_")[0], []).append(crop)
    for of_class in tracks.values():
        for crops in of_class.values():
            crops.sort(key=lambda crop: crop.sign.shape[0])
    return tracks
