"""Road scenes with real signs pasted into them, in the format of a public data set.

Photographs of roads without a speed limit become as many labelled scenes as are wanted.
"""

import csv
import itertools
import json
import os
from collections.abc import Callable, Iterable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_count
from attention_sampling.datasets.pasting import (
    Crop,
    Place,
    paint_pole,
    paste_sign,
    read_crop,
    read_image,
)
from attention_sampling.datasets.traffic_signs import (
    GERMAN_CLASSES,
    GERMAN_LIMITS,
    GermanBox,
    Sample,
    read_german,
    read_german_boxes,
)
from attention_sampling.files import replacing
from attention_sampling.threads import map_in_threads

__all__ = [
    "LIMITS",
    "Part",
    "find_places",
    "make_image",
    "read_parts",
    "write_part",
    "write_pasted_signs",
]

LIMITS = [n for n, name in GERMAN_LIMITS.items() if name in GERMAN_CLASSES]
_TEST_FRACTION = 0.3  # of the scenes, and of the physical signs of each class


class Part(NamedTuple):
    """What images are made of: for training, or for testing.

    Args:
        scenes: files of scenes without a limit, each with the boxes of its signs.
        tracks: for each class the crops of each physical sign.
        places: of the limits in other scenes, at full resolution.
    """

    scenes: list[tuple[Path, tuple[GermanBox, ...]]]
    tracks: dict[int, list[list[Crop]]]
    places: list[Place]


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

    Of 747 images 347 show no limit, and 100 each 30, 50, 70 and 80 km/h, as in the
    paper. In every class there are other signs too: an image without a limit has as
    many pasted signs as one with a limit. Training and test share neither a scene nor a
    physical sign. `load_speed_limits` reads the output.

    Keep other processes out of the output by ``files.one_process``.

    Args:
        scenes: the German Traffic Sign Detection Benchmark. Signs are pasted into its
            scenes without a limit, near the places of the limits in the others.
        signs: the German Traffic Sign Recognition Benchmark: a folder for each class,
            with ``GT-00001.csv`` and crops ``TRACK_FRAME.ppm``. Other limits are not
            used.
        output: directory to write into.
        n_train: images to train on. The first images of more are the same.
        n_test: images to test on, likewise.
        seed: non-negative int; chooses the split and every image.
        scale: height and width over those of the scenes, more than 0 and at most 1.
        progress: called after each image with the number done, and of all.

    Raises:
        FileExistsError: the output holds a data set already.
        OSError: a file is missing, or cannot be read or written. Nothing half-written is
            left.
        ValueError: a setting is out of range, a file does not parse, or there are too
            few scenes or signs.
    """
    check_count("n_train", n_train, smallest=1)
    check_count("n_test", n_test, smallest=1)
    check_count("seed", seed, smallest=0)
    if not 0 < scale <= 1:
        raise ValueError(
            f"`scale` must be more than 0 and at most 1. Received: scale={scale!r}"
        )
    paths = [Path(output, name) for name in ("train", "test", "pasted.json")]
    if any(path.exists() for path in paths):
        raise FileExistsError(
            f"{output} holds a data set already: delete it, or choose another directory"
        )
    parts = read_parts(Path(scenes), Path(signs), seed)
    done = itertools.count(1)

    def show() -> None:
        if progress is not None:
            progress(next(done), n_train + n_test)

    # All three appear, or none.
    with replacing(paths[0]) as train, replacing(paths[1]) as test:
        write_part(train, parts[0], n_train, (seed, 0), scale, show)
        write_part(test, parts[1], n_test, (seed, 1), scale, show)
        with replacing(paths[2]) as file:
            settings = {"n_train": n_train, "n_test": n_test, "seed": seed}
            text = json.dumps(settings | {"scale": scale}, indent=2) + "\n"
            file.write_text(text, encoding="ascii")


def write_part(
    directory: Path,
    part: Part,
    count: int,
    seed: tuple[int, int],
    scale: float,
    show: Callable[[], None] = lambda: None,
) -> None:
    """Write ``images`` and ``gt.txt``: part of `write_pasted_signs`.

    Args:
        directory: to write into.
        part: what the images are made of.
        count: of images.
        seed: of every choice.
        scale: height and width over those of the scenes.
        show: called after each image.
    """
    from PIL import Image

    (directory / "images").mkdir(parents=True)

    def write(number: int) -> str:
        # Each image has a stream of its own, however many there are.
        rng = np.random.default_rng((*seed, number))
        image, boxes = make_image(rng, part, choose_limit(number), scale)
        path = directory / "images" / f"{number:05d}.jpg"
        Image.fromarray(image).save(path, quality=95)
        return "".join(";".join(map(str, (path.name, *box))) + "\n" for box in boxes)

    text = ""
    # Threads: Pillow and NumPy let go of Python's lock.
    threads = min(8, os.cpu_count() or 1)
    with closing(map_in_threads(write, range(count), threads)) as written:
        for lines in written:
            text += lines
            show()
    (directory / "gt.txt").write_text(text, encoding="ascii")


def choose_limit(number: int) -> int | None:
    """Return the class of an image's limit: of 747 in a row, 400 have one, in turn."""
    before, after = number * 400 // 747, (number + 1) * 400 // 747
    return LIMITS[before % len(LIMITS)] if after > before else None


def make_image(
    rng: np.random.Generator, part: Part, limit: int | None, scale: float = 1.0
) -> tuple[npt.NDArray[np.uint8], list[GermanBox]]:
    """Make one image: for training on more images than a disk holds.

    Args:
        rng: source of every choice.
        part: as `read_parts` returns it.
        limit: class of the limit that is pasted: 1, 2, 4 or 5; None for no limit.
        scale: height and width over those of the scene.

    Returns:
        ``(image, boxes)``: (height, width, 3) uint8, and the boxes of all of its signs,
        those of the scene first.

    Example::

        train, test = read_parts(Path("data/gtsdb"), Path("data/gtsrb"))
        image, boxes = make_image(np.random.default_rng(0), train, limit=2)
    """
    from PIL import Image

    path, boxes = part.scenes[rng.integers(len(part.scenes))]
    scene = Image.fromarray(read_image(path))
    width, height = (max(1, round(scale * extent)) for extent in scene.size)
    image = np.array(scene.resize((width, height), Image.Resampling.BOX))
    found = [scale_box(box, scale) for box in boxes]
    n_signs = rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15])
    classes = rng.choice([n for n in part.tracks if n not in LIMITS], n_signs)
    if limit is not None:
        classes[rng.integers(n_signs)] = limit
    place = None
    for sign_class in map(int, classes):
        below = place and place._replace(row=place.row + 1.05 * place.size)
        if below and rng.random() < 0.4 and _is_clear(below, found[:-1], height):
            place = below  # on one pole
        else:
            place = _choose_place(rng, image, part.places, found, scale)
            paint_pole(rng, image, place)
        tracks = part.tracks[sign_class]
        box = paste_sign(rng, image, tracks, sign_class, place, scale)
        found.append((*box, sign_class))
    return image, found


def scale_box(box: GermanBox, scale: float) -> GermanBox:
    """Return the box of a sign in its image at another scale: of a pixel at least."""
    left, top, right, bottom = (round(scale * x) for x in box[:4])
    return left, top, max(left + 1, right), max(top + 1, bottom), box[4]


def _choose_place(
    rng: np.random.Generator,
    image: npt.NDArray[np.uint8],
    places: list[Place],
    found: list[GermanBox],
    scale: float,
) -> Place:
    """Return one of some places near those of real limits: clear, and off the road."""
    height, width, _ = image.shape

    def sample() -> Place:
        column, row, size = (scale * x for x in places[rng.integers(len(places))])
        size = max(2, min(size * rng.uniform(0.85, 1.15), height / 2, width / 2))
        column, row = rng.normal((column, row), (0.02 * width, 0.02 * height))
        low, high = size / 2, (width - size / 2, height - size / 2)
        return Place(*np.clip((column, row), low, high).tolist(), size)

    def measure_texture(place: Place) -> float:
        foot = place.cut(image, 1.0, below=3).mean(axis=2)
        return foot.std() / (foot.mean() + 10)

    sampled = [sample() for _ in range(20)]
    clear = [place for place in sampled if _is_clear(place, found, height)]
    # A road is smoother than what grows or is built beside it.
    return max(clear[:5] or sampled[:1], key=measure_texture)


def _is_clear(place: Place, found: list[GermanBox], height: int) -> bool:
    """Tell whether a sign would be inside the image and cover none of those found."""
    return place.row + place.size / 2 < height and all(
        max(
            abs(2 * place.column - left - right) - (right - left),
            abs(2 * place.row - top - bottom) - (bottom - top),
        )
        > 1.1 * place.size
        for left, top, right, bottom, _ in found
    )


def read_parts(scenes: Path, signs: Path, seed: int = 0) -> tuple[Part, Part]:
    """Read scenes and signs, and divide both into training and test.

    Arguments and errors are those of `write_pasted_signs`.
    """
    classes, samples = read_german(scenes)
    empty = [Path(s.path) for s in samples if classes[s.label] == GERMAN_CLASSES[0]]
    places = find_places(samples)
    if len(empty) < 2 or not places:
        raise ValueError(
            "There are too few scenes. Expected: two without a speed limit, to paste "
            "into, and one with, for sizes and places. "
            f"Received: {scenes} with {len(empty)} and {len(samples) - len(empty)}"
        )
    tracks = _read_tracks(signs)
    few = [GERMAN_LIMITS[n] for n in LIMITS if len(tracks.get(n, ())) < 2]
    others = [n for n in tracks if n not in LIMITS and len(tracks[n]) > 1]
    if few or not others:
        raise ValueError(
            "There are too few signs. Expected: two tracks of each limit, 30, 50, 70 and "
            "80, and of a sign that is no limit. "
            f"Received: {signs} without {', '.join(few) or 'signs that are no limit'}"
        )
    boxes = read_german_boxes(scenes / "gt.txt")
    names = {path.stem: path for path in empty}
    train, test = Part([], {}, places), Part([], {}, places)
    for part, stems in zip((train, test), _divide(names, seed), strict=True):
        part.scenes.extend((names[stem], boxes.get(stem, ())) for stem in stems)
    for n in (*LIMITS, *others):
        for part, chosen in zip((train, test), _divide(tracks[n], seed), strict=True):
            part.tracks[n] = [tracks[n][name] for name in chosen]
    return train, test


def find_places(samples: Iterable[Sample]) -> list[Place]:
    """Return where the limits of some scenes are, at full resolution."""
    return [
        Place(
            column=(sign.left + sign.right) / 2,
            row=(sign.top + sign.bottom) / 2,
            size=(sign.right - sign.left + sign.bottom - sign.top) / 2,
        )
        for sample in samples
        for sign in sample.signs
    ]


def _divide(names: Iterable[str], seed: int) -> tuple[list[str], list[str]]:
    """Divide names into training and test, with at least one in each."""
    # A hash of the name shuffles alike for every NumPy and every listing order.
    names = sorted(names, key=lambda name: sha256(f"{seed} {name}".encode()).digest())
    n_tests = max(1, round(_TEST_FRACTION * len(names)))
    return names[n_tests:], names[:n_tests]


def _read_tracks(directory: Path) -> dict[int, dict[str, list[Crop]]]:
    """Read all signs that may be pasted: class -> name of a track -> crops."""
    tables = sorted(directory.glob("*/GT-*.csv"))
    if not tables:
        raise FileNotFoundError(
            "There are no signs. Expected: a folder for each class, with files as "
            f"00001/GT-00001.csv and 00001/00000_00000.ppm. Received: {directory}"
        )
    tracks: dict[int, dict[str, list[Crop]]] = {}
    for table in tables:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
        for number, row in enumerate(rows, start=2):
            try:
                path, sign_class = table.parent / row["Filename"], int(row["ClassId"])
                roi = [int(row[f"Roi.{end}"]) for end in ("X1", "Y1", "X2", "Y2")]
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{table}, line {number} does not parse ({error}). Expected: "
                    "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
                ) from error
            if sign_class in LIMITS or sign_class not in GERMAN_LIMITS:
                of_class = tracks.setdefault(sign_class, {})
                crop = read_crop(path, sign_class, roi)
                of_class.setdefault(path.name.partition("_")[0], []).append(crop)
    return tracks
