"""Road scenes with a speed limit, in the format of a public data set.

A sign is easy to find in a view at an eighth of the resolution, where it is four or five
pixels wide, but its number can be read only at full resolution.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from attention_sampling.checks import check_count, check_pair
from attention_sampling.datasets.synthetic.generating import generate
from attention_sampling.datasets.synthetic.signs import (
    LIMIT_CLASSES,
    OTHER_CLASSES,
    SIDE,
    paint_sign,
)

_SMALLEST = 160  # pixels: the signs do not shrink with the image
_FIELDS = [
    (0.44, 0.54, 0.28),
    (0.53, 0.56, 0.33),
    (0.62, 0.57, 0.38),
    (0.38, 0.49, 0.31),
]
_LEAVES = [
    (0.23, 0.36, 0.20),
    (0.29, 0.41, 0.20),
    (0.36, 0.42, 0.22),
    (0.40, 0.38, 0.22),
]

_TRUNKS, _VERGE = [(0.35, 0.28, 0.23)], (0.56, 0.53, 0.45)
_ASPHALT, _MARK = (0.41, 0.41, 0.42), (0.86, 0.86, 0.84)

# Class of the sign, left, top, right, bottom.
Annotation = tuple[int, int, int, int, int]


def write_scenes(
    directory: str | os.PathLike[str],
    n_images: int = 640,
    size: tuple[int, int] = (384, 512),
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Generate a data set of road scenes in a directory, unless it is there already.

    Of every four images in a row one has no limit, one 50, one 70 and one 80 km/h, in
    random order. The directory holds ``gt.txt`` and ``images/00000.jpg``, ... as in the
    German Traffic Sign Detection Benchmark, for `load_speed_limits`. It appears when it
    is whole.

    Args:
        directory: where to write; parents are made.
        n_images: images to generate. The first images of a larger set are the same.
        size: (height, width) of the images, in pixels, at least 160 each.
        seed: non-negative int; the same seed gives the same files.
        progress: whether to show a progress bar in a terminal.

    Raises:
        ValueError: a setting is out of range, or the directory exists and holds
            something else.

    Example:

    >>> import tempfile
    >>> directory = Path(tempfile.mkdtemp(), "scenes")
    >>> write_scenes(directory, n_images=4, size=(160, 240), progress=False)
    >>> sorted(path.name for path in (directory / "images").iterdir())
    ['00000.jpg', '00001.jpg', '00002.jpg', '00003.jpg']
    """
    size = _check_size(size)
    settings = {
        "version": 2,  # raise it whenever the pictures change
        "n_images": check_count("n_images", n_images, smallest=1),
        "size": list(size),
        "seed": check_count("seed", seed, smallest=0),
    }

    def write(part: Path) -> None:
        from PIL import Image
        from tqdm import tqdm

        (part / "images").mkdir()
        lines = []
        for number in tqdm(
            range(n_images), "Road scenes", disable=not progress or None
        ):
            # Each image has its own stream, and each four their own order of limits.
            four = np.random.default_rng((seed, 0, number // 4))
            limit = [None, *LIMIT_CLASSES][four.permutation(4)[number % 4]]
            rng = np.random.default_rng((seed, 1, number))
            image, signs = generate_scene(rng, limit, size)
            name = f"{number:05d}.jpg"
            Image.fromarray(image).save(part / "images" / name, quality=90)
            for class_id, *box in signs:
                lines.append(";".join(map(str, (name, *box, class_id))) + "\n")
        (part / "gt.txt").write_text("".join(lines), encoding="ascii")

    generate(directory, settings, write)


def generate_scene(
    rng: np.random.Generator,
    limit: int | None = None,
    size: tuple[int, int] = (384, 512),
) -> tuple[np.ndarray, list[Annotation]]:
    """Generate one road scene.

    Landscapes grow with the image; signs are 30 to 38 pixels across whatever its size.
    With or without a limit, about half of the scenes hold one or two other signs.

    Args:
        rng: source of every choice.
        limit: speed limit in km/h, 50, 70 or 80; None for a scene without one.
        size: (height, width) of the image, in pixels, at least 160 each.

    Returns:
        ``(image, signs)``: (height, width, 3) uint8, and for each sign ``(class id, left,
        top, right, bottom)``: its class in the German benchmark, and the pixels that
        the circle around it touches first and last. The limit, if any, comes first.

    Raises:
        ValueError: there is no such limit, or the size is too small.

    Example:

    >>> image, signs = generate_scene(np.random.default_rng(0), limit=50)
    >>> image.shape, image.dtype.name, signs[0][0]
    ((384, 512, 3), 'uint8', 2)
    """
    from skimage import filters

    if limit is not None and limit not in LIMIT_CLASSES:
        raise ValueError(
            f"`limit` must be one of {sorted(LIMIT_CLASSES)} km/h, or None for a scene "
            f"without a limit. Received: limit={limit!r}"
        )
    height, width = _check_size(size)
    horizon = height * rng.uniform(0.42, 0.54)
    vanishing = width * rng.uniform(0.36, 0.6)
    slope = width * rng.uniform(0.42, 0.6) / (height - horizon)
    image = _paint_landscape(rng, height, width, horizon, vanishing, slope)
    image = filters.gaussian(image, 0.7, truncate=2, channel_axis=-1)

    classes = [] if limit is None else [LIMIT_CLASSES[limit]]
    n_others = rng.choice(3, p=[0.5, 0.35, 0.15])
    classes += [int(other) for other in rng.choice(OTHER_CLASSES, n_others)]
    columns: list[float] = []
    signs: list[Annotation] = []
    for class_id in classes:
        diameter = rng.uniform(30, 38)
        row = horizon + rng.uniform(-0.15, 0.1) * height
        beside = 1.1 * slope * (row + 3.6 * diameter - horizon)
        columns.append(_choose_column(rng, width, vanishing, beside, diameter, columns))
        box = _put_sign(rng, image, class_id, row, columns[-1], diameter)
        signs.append((class_id, *box))

    # As a camera takes it: exposure, white balance and noise.
    gain = 255 * rng.uniform(0.75, 1.1) * (1 + rng.uniform(-0.04, 0.04, 3))
    noise = rng.standard_normal(image.shape, "float32")
    image *= gain.astype("float32")
    image += np.float32(rng.uniform(2, 5)) * noise
    return np.clip(np.rint(image), 0, 255).astype("uint8"), signs


def _check_size(size: Any) -> tuple[int, int]:
    height, width = check_pair("size", size)
    if min(height, width) < _SMALLEST:
        raise ValueError(
            f"`size` must be (height, width) of at least {_SMALLEST} pixels each. "
            f"Received: size={size!r}"
        )
    return height, width


def _choose_column(
    rng: np.random.Generator,
    width: int,
    vanishing: float,
    beside: float,
    diameter: float,
    taken: list[float],
) -> float:
    """Return a column beside the road, clear of other signs and the border."""
    side = np.where(rng.random(8) < 0.7, 1, -1)
    columns = vanishing + side * (beside + rng.uniform(0, 0.25, 8) * width)
    # Anywhere, should none of these be free.
    columns = np.concatenate([columns, rng.uniform(0, width, 40)])
    columns = np.clip(columns, 0.8 * diameter, width - 0.8 * diameter)
    distances = abs(columns[:, None] - taken).min(axis=1, initial=1.5 * diameter)
    return float(columns[distances.argmax()])


def _put_sign(
    rng: np.random.Generator,
    image: np.ndarray,
    class_id: int,
    row: float,
    column: float,
    diameter: float,
) -> tuple[int, int, int, int]:
    """Set a sign on its pole into an image, and return its box."""
    from skimage import filters, transform

    radius = diameter / 2
    left, top = math.floor(column - radius), math.floor(row - radius)
    right, bottom = math.ceil(column + radius) - 1, math.ceil(row + radius) - 1
    light = rng.uniform(0.8, 1.0)
    half = max(1, round(0.04 * diameter))
    foot = round(row + rng.uniform(3.0, 4.2) * diameter)
    pole = slice(round(row), foot), slice(round(column) - half, round(column) + half)
    image[pole] = light * np.linspace(0.6, 0.45, 2 * half)[:, None]

    sign = paint_sign(class_id, rng)
    # From the side a sign is narrower than high; and it hangs a little askew.
    scale = diameter / SIDE
    turn = transform.AffineTransform(translation=(-SIDE / 2, -SIDE / 2))
    turn += transform.AffineTransform(
        scale=(scale * rng.uniform(0.85, 1), scale), rotation=rng.uniform(-0.07, 0.07)
    )
    turn += transform.AffineTransform(translation=(column - left, row - top))
    shape = bottom + 1 - top, right + 1 - left
    sign = filters.gaussian(sign, 0.4 / scale, channel_axis=-1)  # or it is jagged
    sign = transform.warp(sign, turn.inverse, output_shape=shape)
    window = image[top : bottom + 1, left : right + 1]
    window *= 1 - sign[..., 3:]
    window += light * sign[..., :3]
    return left, top, right, bottom


def _paint_landscape(
    rng: np.random.Generator,
    height: int,
    width: int,
    horizon: float,
    vanishing: float,
    slope: float,
) -> np.ndarray:
    """Return (height, width, 3) float32, 0 to 1: sky, hills, fields, a road, trees."""
    from skimage import transform

    def vary(colours: Any) -> np.ndarray:
        colour = colours[rng.integers(len(colours))]
        light = rng.uniform(0.85, 1.15) + rng.uniform(-0.03, 0.03, 3)
        return (colour * light).astype("float32")

    rows, columns = np.ogrid[:height, :width]
    overcast = rng.random()
    zenith = (1 - overcast) * np.array([0.36, 0.54, 0.78]) + overcast * 0.67
    haze = (1 - overcast) * np.array([0.81, 0.85, 0.89]) + overcast * 0.82
    near = vary(_FIELDS)
    far = 0.6 * near + 0.3 * haze
    sky = zenith + (haze - zenith) * np.clip(rows / horizon, 0, 1)
    depth = height - horizon
    field = far + (near - far) * np.clip((rows - horizon) / depth, 0, 1) ** 0.5
    image = np.where(rows < horizon, sky, field)[:, None].astype("float32")
    # Clouds and patches of grass: coarse noise, stretched sideways.
    mottle = rng.uniform(0.93, 1.07, (24, 12)).astype("float32")
    image = image * transform.resize(mottle, (height, width), order=1)[..., None]

    for mist in (0.55, 0.3):  # hills, the farther ones first
        waves = 6 / width * columns.T * [1, 2, 4] + rng.uniform(0, 6, 3)
        crest = 0.05 + np.sin(waves) @ (rng.uniform(0.01, 0.05, 3) / [1, 2, 4])
        hills = (rows > horizon * (1 - np.clip(crest, 0.004, None))) & (rows < horizon)
        image[hills] = vary(_LEAVES) * (1 - mist) + 0.74 * mist

    first = math.ceil(horizon) + 1
    ground, below = image[first:], rows[first:] - horizon
    # In half widths of the road from its middle, and in heights of the camera.
    side = abs(columns - vanishing) / (slope * below)
    distance = depth / below
    white = (abs(side - 0.93) < 0.015) & (distance < 50)
    dashed = (distance + rng.uniform(0, 1.4)) % 1.4 < 0.6
    for surface, colours in (
        (side < 1.16, [_VERGE]),
        (side < 1, [_ASPHALT]),
        (white | (side < 0.016) & dashed, [_MARK]),
    ):
        ground[surface] = vary(colours)

    # From far to near, so that what is near hides what is far.
    for below in np.sort(rng.uniform(0.03, 0.5, rng.integers(6, 14))) * depth:
        aside = slope * rng.uniform(1.5, 2.0) + rng.exponential(2.5)
        column = vanishing + rng.choice([-1, 1]) * aside * below
        extent = (2 * below + 0.03 * height) * rng.uniform(0.7, 1.5)
        colours = vary(_TRUNKS), vary(_LEAVES)
        _paint_tree(rng, image, horizon + below, column, extent, *colours)
    return image


def _paint_tree(
    rng: np.random.Generator,
    image: np.ndarray,
    row: float,
    column: float,
    extent: float,
    trunk: np.ndarray,
    leaves: np.ndarray,
) -> None:
    """Paint a tree that stands at (row, column), ``extent`` pixels high."""
    from skimage import draw

    half = max(1, round(0.05 * extent))
    left, right = max(0, round(column) - half), max(0, round(column) + half)
    image[max(0, round(row - 0.6 * extent)) : round(row), left:right] = trunk
    for light in np.linspace(0.8, 1.15, 9):
        centre = (
            row - extent * (0.65 + rng.normal(0, 0.14) + 0.3 * (light - 1)),
            column + rng.normal(0, 0.15) * extent,
        )
        radius = extent * rng.uniform(0.16, 0.26)
        image[draw.disk(centre, radius, shape=image.shape[:2])] = light * leaves
