"""A small data set of drawn road scenes, with one speed sign or none.

It has the layout of the German Traffic Sign Detection Benchmark, and its point is that
of large images: a sign is easy to find in a view at a quarter of the resolution, but
its number can be read only at full resolution.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attention_sampling.datasets._generated import generate
from attention_sampling.datasets.landscapes import Landscape, draw_landscape
from attention_sampling.datasets.road_signs import (
    LIMIT_CLASSES,
    OTHER_CLASSES,
    draw_sign,
)

_VERSION = 1  # raise it whenever the pictures change
_SETTINGS_FILE = "road_scenes.json"
_SMALLEST = 240  # pixels: the signs do not shrink with the image

# Class id, left, top, right, bottom.
Annotation = tuple[int, int, int, int, int]


def draw_scene(
    rng: np.random.Generator,
    limit: int | None = None,
    size: tuple[int, int] = (240, 320),
) -> tuple[np.ndarray, list[Annotation]]:
    """Draw one road scene.

    Landscapes grow with the image; signs are 26 to 34 pixels across whatever its size.
    With or without a limit, about half of the scenes hold one or two other signs.

    Args:
        rng: where every choice is drawn from.
        limit: speed limit on the sign in km/h, 50, 70 or 80; None for no such sign.
        size: (height, width) of the image, in pixels, at least 240 each.

    Returns:
        ``(image, signs)``: (height, width, 3) uint8, and for each sign ``(class id,
        left, top, right, bottom)``: its class in the German benchmark and the
        outermost pixels of the circle around it. The limit, if any, comes first.

    Raises:
        ValueError: there is no such limit, or the size is too small.

    Example:

    >>> image, signs = draw_scene(np.random.default_rng(0), limit=50)
    >>> image.shape, image.dtype.name, signs[0][0]
    ((240, 320, 3), 'uint8', 2)
    """
    if limit is not None and limit not in LIMIT_CLASSES:
        raise ValueError(
            f"`limit` must be one of {sorted(LIMIT_CLASSES)} km/h, or None for a scene "
            f"without a limit. Received: limit={limit!r}"
        )
    _check_size(size)
    landscape = draw_landscape(rng, size)
    classes = [] if limit is None else [LIMIT_CLASSES[limit]]
    n_others = rng.choice(3, p=[0.5, 0.35, 0.15])
    classes += [int(other) for other in rng.choice(OTHER_CLASSES, n_others)]
    signs: list[Annotation] = []
    for class_id in classes:
        diameter = rng.uniform(26, 34)
        row, column = _place_sign(rng, landscape, signs, diameter)
        ground = min(row + rng.uniform(3.0, 4.2) * diameter, size[0])
        centre = (row, column)
        box = draw_sign(landscape.image, class_id, centre, diameter, ground, rng)
        signs.append((class_id, *box))
    return _expose(rng, np.asarray(landscape.image)), signs


def write_road_scenes(
    directory: str | os.PathLike[str],
    n_images: int = 960,
    size: tuple[int, int] = (240, 320),
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Draw a data set of road scenes into a directory, unless it is there already.

    Of every four images in a row one has no limit, one 50, one 70 and one 80 km/h, in
    random order. The directory holds ``gt.txt``, ``images/00000.jpg``, ... as in the
    German Traffic Sign Detection Benchmark, and the settings in ``road_scenes.json``.
    It appears under its name only when it is whole; what a killed run has left beside
    it is cleared away. Processes that want the same directory wait for the first.

    Args:
        directory: where to write; parents are made.
        n_images: how many images to draw. The first images of a larger set are the
            same.
        size: (height, width) of the images, in pixels, at least 240 each.
        seed: non-negative int; the same seed gives the same files, byte by byte.
        progress: whether to show a progress bar.

    Raises:
        ValueError: a setting is out of range, or the directory exists and is not
            complete or was made with other settings.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     directory = Path(parent) / "scenes"
    ...     write_road_scenes(directory, n_images=4, progress=False)
    ...     sorted(path.name for path in directory.iterdir())
    ['gt.txt', 'images', 'road_scenes.json']
    """
    _check_size(size)
    for name, value, smallest in (("n_images", n_images, 1), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or value < smallest:
            raise ValueError(
                f"`{name}` must be an int of at least {smallest}. "
                f"Received: {name}={value!r}"
            )
    settings = {
        "version": _VERSION,
        "n_images": int(n_images),
        "size": [int(extent) for extent in size],
        "seed": int(seed),
    }
    generate(
        directory,
        "road scenes",
        _SETTINGS_FILE,
        settings,
        lambda part: _write(part, settings, progress),
        _is_whole,
    )


def _write(directory: Path, settings: dict[str, Any], progress: bool) -> None:
    (directory / "images").mkdir(parents=True)
    numbers = range(settings["n_images"])
    if progress:
        from tqdm import tqdm

        numbers = tqdm(numbers, desc="Drawing road scenes", unit="image")
    lines = []
    for number in numbers:
        # Each image has its own stream, and each four their own order of limits.
        four = np.random.default_rng((settings["seed"], 0, number // 4))
        limit = [None, *LIMIT_CLASSES][four.permutation(4)[number % 4]]
        rng = np.random.default_rng((settings["seed"], 1, number))
        image, signs = draw_scene(rng, limit, tuple(settings["size"]))
        name = f"{number:05d}.jpg"
        Image.fromarray(image).save(directory / "images" / name, quality=90)
        for class_id, *box in signs:
            lines.append(";".join(map(str, (name, *box, class_id))) + "\n")
    (directory / "gt.txt").write_text("".join(lines), encoding="ascii")


def _is_whole(directory: Path, settings: dict[str, Any]) -> bool:
    n_found = sum(1 for _ in (directory / "images").glob("*.jpg"))
    whole: bool = n_found == settings["n_images"]
    return whole and (directory / "gt.txt").is_file()


def _check_size(size: tuple[int, int]) -> None:
    if (
        not isinstance(size, tuple | list)
        or len(size) != 2
        or not all(isinstance(extent, int | np.integer) for extent in size)
        or min(size) < _SMALLEST
    ):
        raise ValueError(
            "`size` must be a pair (height, width) of ints, in pixels, of at least "
            f"{_SMALLEST} each. Received: size={size!r}"
        )


def _place_sign(
    rng: np.random.Generator,
    landscape: Landscape,
    signs: list[Annotation],
    diameter: float,
) -> tuple[float, float]:
    """Return (row, column) beside the road, clear of the other signs and the border."""
    width, height = landscape.image.size
    row = landscape.horizon + rng.uniform(-0.15, 0.1) * height
    below = row + 3.6 * diameter - landscape.horizon
    side = np.where(rng.random(8) < 0.7, 1, -1)
    lateral = 1.1 * landscape.road_slope * below + rng.uniform(0, 0.25, 8) * width
    beside = landscape.vanishing_column + side * lateral
    # Anywhere, should none of these be free; the border is for windows cut around it.
    anywhere = rng.uniform(0, width, 40)
    columns = np.clip([*beside, *anywhere], 1.2 * diameter, width - 1.2 * diameter)
    taken = np.array([(left + right + 1) / 2 for _, left, _, right, _ in signs])
    distances = abs(columns[:, None] - taken).min(axis=1, initial=1.4 * diameter)
    return row, float(columns[distances.argmax()])


def _expose(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Return the image as a camera takes it: exposure, white balance and noise."""
    gain = rng.uniform(0.75, 1.1) * (1 + rng.uniform(-0.04, 0.04, 3))
    noise = rng.standard_normal(image.shape, dtype="float32") * rng.uniform(2, 5)
    exposed = image * gain.astype("float32") + noise
    return np.clip(np.rint(exposed), 0, 255).astype("uint8")
