"""A small data set of drawn tissue, in the folder tree of the colon cancer images.

As in the published set, a view shows where the nuclei are, and full resolution what they
look like, which tells the label. The published images are for research only; these are
drawn, and free.
"""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from attention_sampling.checks import check_count, check_pair
from attention_sampling.datasets._colon_files import KEY
from attention_sampling.datasets._colon_tree import (
    DRAWN_FILE,
    NUCLEUS_CLASSES,
    image_path,
    nuclei_path,
)
from attention_sampling.datasets._generated import generate
from attention_sampling.datasets.tissue import draw_ground, grain

__all__ = ["draw_tissue_image", "write_colon_cancer"]

_VERSION = 1  # raise it whenever the pictures change
_SMALLEST = 64  # pixels: the nuclei do not shrink with the image
_GROUND_SCALE = 4  # pixels of an image for one of its ground, each way
_SUPERSAMPLE = 3  # drawn larger and averaged, so that edges are smooth
_DISTANCE = 15.0  # pixels between two nuclei, at least
_INK = (70, 42, 118)
# Radii along, across and of the hole, in pixels. All but "others" have as much ink, so
# that a view hardly tells one from another.
_RADII = {
    "epithelial": (6.6, 6.6, 4.5),
    "fibroblast": (10.0, 2.33, 0.0),
    "inflammatory": (4.83, 4.83, 0.0),
    "others": (6.2, 6.2, 0.0),
}
_BORDER = 11  # pixels from a border that no nucleus is nearer to


def draw_tissue_image(
    rng: np.random.Generator, epithelial: bool, size: tuple[int, int] = (500, 500)
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw tissue with clusters of nuclei, and single ones between them.

    Args:
        rng: where every choice is drawn from.
        epithelial: whether a third or more of the clusters are of epithelial nuclei, which
            are hollow. The others are of inflammatory ones, which are filled.
        size: (height, width) in pixels, at least 64 each.

    Returns:
        (height, width, 3) uint8, and for each class of nuclei their centres, (n_nuclei,
        2) float64, row before column.

    Raises:
        ValueError: the size is too small.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> pixels, nuclei = draw_tissue_image(rng, epithelial=False, size=(100, 120))
    >>> pixels.shape, nuclei["epithelial"].shape
    ((100, 120, 3), (0, 2))
    """
    height, width = (check_count("size", extent, smallest=_SMALLEST) for extent in size)
    ground, tissue = draw_ground(
        rng, (-(-height // _GROUND_SCALE), -(-width // _GROUND_SCALE))
    )
    nuclei = _place_nuclei(rng, epithelial, (height, width), tissue)
    box = (0, 0, width / _GROUND_SCALE, height / _GROUND_SCALE)
    colours, share = (
        np.asarray(
            Image.fromarray(low).resize(
                (width, height), Image.Resampling.BICUBIC, box=box
            ),
            dtype="float32",
        )
        for low in (ground, tissue)
    )
    top, left = rng.integers(grain().shape[0], size=2)
    light = grain().take(range(top, top + height), 0, mode="wrap")
    light = light.take(range(left, left + width), 1, mode="wrap") / np.float32(255)
    colours = colours * (1 + np.clip(share, 0, 1) * (light - 1))[..., None]
    ink = 0.85 * _draw_ink(rng, nuclei, (height, width))[..., None]
    pixels = colours + ink * (np.array(_INK) - colours)
    return np.clip(pixels, 0, 255).astype("uint8"), nuclei


def write_colon_cancer(
    directory: str | os.PathLike[str],
    count: int = 100,
    size: int | tuple[int, int] = 500,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Draw a data set that `load_colon_cancer` reads, unless it is there already.

    Of every two images in a row one has epithelial nuclei. The directory holds
    ``Classification/img1/img1.bmp``, with ``img1_epithelial.mat`` and so on, and the
    settings in ``drawn_colon_cancer.json``.

    The directory appears under its name only when it is whole; what a killed run has
    left beside it is cleared away. Processes that want the same directory wait for the
    first. Needs Pillow, scipy, and tqdm.

    Args:
        directory: where to write; parents are made.
        count: how many images to draw. The first images of a larger set are the same.
        size: height and width of the images in pixels, one int or two, at least 64.
        seed: non-negative int; the same seed gives the same images.
        progress: whether to show a progress bar.

    Raises:
        ValueError: a setting is out of range, or the directory exists and is not
            complete or was made with other settings.
        OSError: a file cannot be written, as on a full disk; nothing is left.
        ImportError: scipy is missing.

    Example::

        write_colon_cancer("drawn", count=40)
        data = load_colon_cancer("drawn")

    Reference:
        The format: Sirinukunwattana et al. 2016, *Locality sensitive deep learning for
        detection and classification of nuclei in routine colon cancer histology images*.
    """
    settings = {
        "version": _VERSION,
        "count": check_count("count", count, smallest=1),
        "size": [
            check_count("size", extent, smallest=_SMALLEST)
            for extent in check_pair("size", size)
        ],
        "seed": check_count("seed", seed, smallest=0),
    }
    generate(
        directory,
        "drawn colon cancer images",
        DRAWN_FILE,
        settings,
        lambda part: _write(part, settings, progress),
        _is_whole,
    )


def _place_nuclei(
    rng: np.random.Generator,
    epithelial: bool,
    size: tuple[int, int],
    tissue: np.ndarray,
) -> dict[str, np.ndarray]:
    """Choose where nuclei are: clusters of one class, and single ones between them."""
    inside = np.argwhere(tissue >= min(0.9, tissue.max())) * _GROUND_SCALE
    n_clusters = rng.integers(3, 7)
    n_epithelial = rng.integers(-(-n_clusters // 3), n_clusters + 1) * epithelial
    candidates: list[tuple[str, np.ndarray]] = []
    for number in range(n_clusters):
        # Within the borders, so that the first nucleus of all is always kept.
        centre = np.clip(rng.choice(inside), _BORDER, np.subtract(size, _BORDER))
        radius = rng.uniform(0.1, 0.2) * min(*size, 300)
        points = rng.uniform(-radius, radius, (400, 2))
        points = points[np.hypot(*points.T) <= radius]
        name = "epithelial" if number < n_epithelial else "inflammatory"
        candidates += [(name, centre), *((name, centre + point) for point in points)]
    n_single = 2 + size[0] * size[1] // 6000
    singles = rng.choice(inside, n_single) + rng.uniform(
        0, _GROUND_SCALE, (n_single, 2)
    )
    candidates += zip(("fibroblast", "others") * n_single, singles, strict=False)
    names: list[str] = []
    placed = np.empty((0, 2))
    for name, point in candidates:
        within = np.all((point >= _BORDER) & (point <= np.subtract(size, _BORDER)))
        if within and np.all(np.hypot(*(placed - point).T) >= _DISTANCE):
            names.append(name)
            placed = np.concatenate([placed, [point]])
    return {name: placed[np.array(names) == name] for name in NUCLEUS_CLASSES}


def _draw_ink(
    rng: np.random.Generator, nuclei: dict[str, np.ndarray], size: tuple[int, int]
) -> np.ndarray:
    """Draw the nuclei, (height, width) float32 from 0 to 1, where it is all ink."""
    ink = Image.new("L", (size[1] * _SUPERSAMPLE, size[0] * _SUPERSAMPLE), 0)
    draw = ImageDraw.Draw(ink)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for name, points in nuclei.items():
        *radii, hole = _RADII[name]
        ellipse = np.stack([np.cos(angles), np.sin(angles)], axis=-1) * radii
        for row, column in points * _SUPERSAMPLE:
            scale = _SUPERSAMPLE * rng.uniform(0.9, 1.1)
            tilt = rng.uniform(0, np.pi)
            cosine, sine = np.cos(tilt), np.sin(tilt)
            turned = ellipse @ [[cosine, sine], [-sine, cosine]]
            outline = (column, row) + scale * turned
            draw.polygon([tuple(point) for point in outline.tolist()], fill=255)
            if hole:
                low, high = -scale * hole, scale * hole
                box = (column + low, row + low, column + high, row + high)
                draw.ellipse(box, fill=0)
    return np.asarray(ink.reduce(_SUPERSAMPLE), dtype="float32") / 255


def _write(directory: Path, settings: dict[str, Any], progress: bool) -> None:
    _import_scipy_io()  # now, not after the first drawing
    numbers = range(1, settings["count"] + 1)
    if progress:
        from tqdm import tqdm

        numbers = tqdm(numbers, desc="Drawing tissue", unit="image")
    for number in numbers:
        # Each image has its own stream, and each two their own order of labels.
        two = np.random.default_rng((settings["seed"], 0, (number - 1) // 2))
        epithelial = bool(two.permutation(2)[(number - 1) % 2])
        rng = np.random.default_rng((settings["seed"], 1, number))
        pixels, nuclei = draw_tissue_image(rng, epithelial, settings["size"])
        _write_image(directory / "Classification" / f"img{number}", pixels, nuclei)


def _write_image(
    folder: Path, pixels: np.ndarray, nuclei: dict[str, np.ndarray]
) -> None:
    """Write an image and its nuclei into a folder of their own."""
    scipy_io = _import_scipy_io()
    try:
        folder.mkdir(parents=True)
        Image.fromarray(pixels).save(image_path(folder))
        for name, points in nuclei.items():
            # As published: x before y, and bytes where there is none.
            centres = points[:, ::-1] if len(points) else np.zeros((0, 2), "uint8")
            scipy_io.savemat(
                nuclei_path(folder, name), {KEY: centres}, do_compression=True
            )
    except OSError as error:
        # What a full disk raises does not say where.
        raise OSError(
            error.errno, f"An image cannot be written ({error.strerror})", str(folder)
        ) from error


def _import_scipy_io() -> ModuleType:
    """Import the writer of MATLAB files, or say which extra brings it."""
    try:
        import scipy.io
    except ImportError as error:
        raise ImportError(
            f"scipy is missing ({error}). Install it by: pip install "
            '"attention-sampling[examples]"'
        ) from error
    return scipy.io


def _is_whole(directory: Path, settings: dict[str, Any]) -> bool:
    n_images, n_nuclei = (
        sum(1 for _ in directory.glob(f"Classification/img*/*.{suffix}"))
        for suffix in ("bmp", "mat")
    )
    count: int = settings["count"]
    return n_images == count and n_nuclei == count * len(NUCLEUS_CLASSES)
