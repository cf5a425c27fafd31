"""Generated tissue, in the folder tree of the colon cancer images.

As in the published set, a view shows where the nuclei are, and full resolution what they
look like, which tells the label. The published images are for research only; these are
free.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_count, check_pair
from attention_sampling.datasets.colon_cancer import NUCLEUS_CLASSES
from attention_sampling.datasets.synthetic.generating import generate, noise

__all__ = ["generate_tissue", "write_tissue"]

_VERSION = 1  # raise it whenever the images change
_SMALLEST = 64  # pixels: the nuclei do not shrink with the image
_BORDER = 11  # pixels from a border that no nucleus is nearer to
_DISTANCE = 15.0  # pixels between two nuclei, at least
# Radii of an ellipse and of the hole in it, in pixels. All but "others" have the same
# area, so that a view hardly tells one from another.
_RADII = {
    "epithelial": (6.6, 6.6, 4.5),
    "fibroblast": (10.0, 2.33, 0.0),
    "inflammatory": (4.83, 4.83, 0.0),
    "others": (6.2, 6.2, 0.0),
}
# Amount of stain, in the unit of skimage.color.hed2rgb.
_HAEMATOXYLIN, _EOSIN = 0.11, 0.025


def generate_tissue(
    rng: np.random.Generator, epithelial: bool, size: tuple[int, int] = (500, 500)
) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.float64]]]:
    """Generate an image of stained tissue: clusters of nuclei, and single ones between.

    Args:
        rng: what every choice is made by.
        epithelial: whether a third or more of the clusters are of epithelial nuclei,
            which are rings. The others are of inflammatory ones, which are discs.
        size: (height, width) in pixels, at least 64 each.

    Returns:
        (height, width, 3) uint8, and for each class of nuclei their centres, (n_nuclei,
        2) float64, row before column.

    Raises:
        ValueError: the size is too small.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> pixels, nuclei = generate_tissue(rng, epithelial=False, size=(100, 120))
    >>> pixels.shape, nuclei["epithelial"].shape
    ((100, 120, 3), (0, 2))
    """
    from skimage.color import hed2rgb
    from skimage.filters import gaussian

    height, width = (check_count("size", extent, smallest=_SMALLEST) for extent in size)
    nuclei = _locate_nuclei(rng, epithelial, (height, width))
    # Fat and vessels are pale; fibres are finer.
    coarse, medium, fine = (
        noise(rng, (height, width), sigma, "float64") for sigma in (20, 4, 1.5)
    )
    tissue = np.clip(1.6 + coarse, 0.1, 1)
    fibres = 1 + 0.1 * medium + 0.1 * fine
    haematoxylin = 0.1 * tissue * fibres + gaussian(
        _shape_nuclei(rng, nuclei, (height, width)), sigma=0.7
    )
    stains = [haematoxylin * _HAEMATOXYLIN, tissue * fibres * _EOSIN, 0 * tissue]
    amounts = rng.uniform(0.85, 1.15, 3)  # differ from slide to slide
    colours = hed2rgb(np.stack(stains, axis=-1) * amounts)
    return np.rint(255 * colours).astype("uint8"), nuclei


def write_tissue(
    directory: str | os.PathLike[str],
    count: int = 100,
    size: int | tuple[int, int] = 500,
    seed: int = 0,
) -> Path:
    """Generate a data set that `load_colon_cancer` reads, unless it is there already.

    Of every two images in a row one has epithelial nuclei. The directory holds
    ``Classification/img1/img1.bmp``, with ``img1_epithelial.mat`` and so on, and the
    settings in ``generated.json``. It appears when it is whole, and is never overwritten.

    Args:
        directory: where to write; its parents are made.
        count: how many images to generate. The first images of a larger set are the same.
        size: height and width of the images in pixels, one int or two, at least 64.
        seed: non-negative int; the same seed gives the same images.

    Returns:
        Path of the directory.

    Raises:
        ValueError: a setting is out of range; the directory holds something else, or was
            made with other settings.
        OSError: a file cannot be written, as on a full disk; nothing is left.

    Example::

        write_tissue("tissue", count=40)
        data = load_colon_cancer("tissue")

    Reference:
        The format: Sirinukunwattana et al. 2016, *Locality sensitive deep learning for
        detection and classification of nuclei in routine colon cancer histology images*.
    """
    count = check_count("count", count, smallest=1)
    seed = check_count("seed", seed, smallest=0)
    height, width = (
        check_count("size", extent, smallest=_SMALLEST)
        for extent in check_pair("size", size)
    )

    def write(part: Path) -> None:
        for number in range(1, count + 1):
            # Each image has its own stream, and each two their own order of labels.
            order = np.random.default_rng((seed, 0, (number - 1) // 2)).permutation(2)
            epithelial = bool(order[(number - 1) % 2])
            rng = np.random.default_rng((seed, 1, number))
            image = generate_tissue(rng, epithelial, (height, width))
            _write_image(part / "Classification" / f"img{number}", *image)

    settings = {"count": count, "size": [height, width], "seed": seed}
    return generate(
        directory, {"data": "tissue", "version": _VERSION, **settings}, write
    )


def _locate_nuclei(
    rng: np.random.Generator, epithelial: bool, size: tuple[int, int]
) -> dict[str, npt.NDArray[np.float64]]:
    """Choose where nuclei are: clusters of one class, and single ones between them."""
    inside = (_BORDER, np.subtract(size, _BORDER))
    n_clusters = rng.integers(3, 7)
    n_epithelial = rng.integers(-(-n_clusters // 2), n_clusters + 1) * epithelial
    candidates: list[tuple[str, npt.NDArray[np.float64]]] = []
    for number in range(n_clusters):
        name = "epithelial" if number < n_epithelial else "inflammatory"
        centre = rng.uniform(*inside)
        radius = rng.uniform(0.15, 0.25) * min(*size, 300)
        offsets = rng.uniform(-radius, radius, (400, 2))
        offsets = offsets[np.hypot(*offsets.T) <= radius]
        # The centre first, so that the first nucleus of all is always kept.
        candidates += [(name, point) for point in (centre, *(centre + offsets))]
    n_single = 2 + size[0] * size[1] // 6000
    for name in ("fibroblast", "others"):
        candidates += [
            (name, point) for point in rng.uniform(*inside, (n_single // 2, 2))
        ]
    names: list[str] = []
    points = np.empty((0, 2))
    for name, point in candidates:
        fits = np.all((point >= inside[0]) & (point <= inside[1]))
        if fits and np.all(np.hypot(*(points - point).T) >= _DISTANCE):
            names.append(name)
            points = np.concatenate([points, [point]])
    return {name: points[np.array(names) == name] for name in NUCLEUS_CLASSES}


def _shape_nuclei(
    rng: np.random.Generator,
    nuclei: dict[str, npt.NDArray[np.float64]],
    size: tuple[int, int],
) -> npt.NDArray[np.float64]:
    """Return (height, width), 1 where there is a nucleus and 0 elsewhere."""
    from skimage.draw import ellipse

    shapes = np.zeros(size)
    for name, points in nuclei.items():
        along, across, hole = _RADII[name]
        for row, column in points:
            scale = rng.uniform(0.9, 1.1)
            tilt = rng.uniform(-np.pi, np.pi)
            radii = (scale * along, scale * across)
            shapes[ellipse(row, column, *radii, size, rotation=tilt)] = 1
            if hole:
                shapes[ellipse(row, column, scale * hole, scale * hole, size)] = 0
    return shapes


def _write_image(
    folder: Path,
    pixels: npt.NDArray[np.uint8],
    nuclei: dict[str, npt.NDArray[np.float64]],
) -> None:
    """Write an image and its nuclei into a folder of their own."""
    import scipy.io
    from PIL import Image

    folder.mkdir(parents=True)
    Image.fromarray(pixels).save(folder / f"{folder.name}.bmp")
    for name, points in nuclei.items():
        # As published: x before y, and bytes where there is none.
        centres = points[:, ::-1] if len(points) else np.zeros((0, 2), "uint8")
        path = folder / f"{folder.name}_{name}.mat"
        scipy.io.savemat(path, {"detection": centres}, do_compression=True)
