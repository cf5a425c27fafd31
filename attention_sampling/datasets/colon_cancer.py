"""Colon cancer: stained tissue with marked nuclei, CRCHistoPhenotypes_2016_04_28.

The set of Sirinukunwattana et al. 2016: 100 images, 500 x 500 pixels, in which the centres
of the nuclei of four classes are marked. It is released for research only; publish neither
the images nor figures made from them without asking its authors, and cite them.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_count
from attention_sampling.datasets._colon_files import read_bmp, read_nuclei
from attention_sampling.datasets._colon_tree import (
    NUCLEUS_CLASSES,
    check_files,
    find_folders,
    image_path,
    is_drawn,
    nuclei_path,
)
from attention_sampling.datasets.folds import format_ids

__all__ = [
    "NUCLEUS_CLASSES",
    "ColonCancer",
    "ColonCancerImage",
    "load_colon_cancer",
    "read_images",
]

_POSITIVE = "epithelial"


@dataclass(frozen=True, eq=False)
class ColonCancerImage:
    """An image of the colon cancer set, with what is marked in it.

    Args:
        number: of the image, from 1, as its folder is called.
        path: the image file.
        label: 1 if there is an epithelial nucleus, else 0.
        nuclei: for each of `NUCLEUS_CLASSES` the centres, (n_nuclei, 2) float64, row
            before column, in pixels of the image: rounded down they are a pixel.
    """

    number: int
    path: str
    label: int
    nuclei: Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class ColonCancer:
    """The colon cancer images that are there.

    Args:
        samples: the images, sorted by number.
        size: (height, width) of each image, in pixels.
        drawn: whether this package drew them, instead of the published ones.

    Example:

    >>> nuclei = dict.fromkeys(NUCLEUS_CLASSES, np.zeros((0, 2)))
    >>> samples = [
    ...     ColonCancerImage(number, f"img{number}/img{number}.bmp", 0, nuclei)
    ...     for number in (7, 8, 10)
    ... ]
    >>> print(ColonCancer(tuple(samples), size=(500, 500)))
    3 images (7-8,10), 0 with epithelial nuclei, 500 x 500 pixels
    """

    samples: tuple[ColonCancerImage, ...]
    size: tuple[int, int]
    drawn: bool = False

    @property
    def numbers(self) -> list[int]:
        """Number of each image, as the ids of a split."""
        return [sample.number for sample in self.samples]

    @property
    def paths(self) -> list[str]:
        """File of each image, as for ``attention_sampling.data.ImageFilesSource``."""
        return [sample.path for sample in self.samples]

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Label of each image, (n_images,)."""
        return np.array([sample.label for sample in self.samples], dtype="int32")

    def __str__(self) -> str:
        return (
            f"{len(self.samples)} images ({format_ids(self.numbers)}), "
            f"{self.labels.sum()} with epithelial nuclei, "
            f"{self.size[0]} x {self.size[1]} pixels"
        )


def load_colon_cancer(
    directory: str | os.PathLike[str], ids: Collection[int] | None = None
) -> ColonCancer:
    """Load the labels and nuclei of the colon cancer images, and check all their files.

    An image is positive if at least one epithelial nucleus is marked in it. Not all of
    the 100 images need be there: print the result to see which are. Needs Pillow.

    The files hold (x, y); here rows come before columns. Coordinates are as published,
    apart from the few on a border or just beyond, which are moved inside by a pixel at
    most.

    Args:
        directory: the folder ``CRCHistoPhenotypes_2016_04_28``, the one it is in, or
            ``Classification`` in it. Each image has a folder: ``img1/img1.bmp``, with
            ``img1_epithelial.mat``, ``img1_fibroblast.mat``, ``img1_inflammatory.mat``
            and ``img1_others.mat``.
        ids: numbers of the images to load; all that are there by default.

    Returns:
        A `ColonCancer`. Every image was decoded once; `read_images` reads the pixels.

    Raises:
        FileNotFoundError: the directory, or a file of an image, is missing.
        OSError: a file cannot be read.
        ValueError: an image or the nuclei of one cannot be read; a nucleus is outside
            its image; the images differ in size; two are the same; it is another
            release of the data set, or the nuclei of its detection task; no image has
            one of the ``ids``.

    Example::

        data = load_colon_cancer("data/crchisto")
        print(data)
        for train, test in stratified_folds(data.labels, 5, names=data.numbers):
            ...

    Reference:
        Sirinukunwattana et al. 2016, *Locality sensitive deep learning for detection and
        classification of nuclei in routine colon cancer histology images*. The labels:
        Ilse et al. 2018, *Attention-based deep multiple instance learning*;
        Katharopoulos and Fleuret 2019, section 4.3.
    """
    folders = _choose_folders(find_folders(Path(directory)), ids)
    check_files(folders.values())
    sizes: dict[Path, tuple[int, ...]] = {}
    seen: dict[bytes, Path] = {}
    for path in map(image_path, folders.values()):
        pixels = read_bmp(path)
        sizes[path] = pixels.shape[:2]
        first = seen.setdefault(sha256(pixels.tobytes()).digest(), path)
        if first != path:
            # It would be trained on and tested with.
            raise ValueError(
                "Two images are the same. Expected: each image once. "
                f"Received: {first} and {path}"
            )
    size = _find_size(sizes)
    samples = []
    for number, folder in folders.items():
        nuclei = {
            name: read_nuclei(nuclei_path(folder, name), size)
            for name in NUCLEUS_CLASSES
        }
        label = int(len(nuclei[_POSITIVE]) > 0)
        samples.append(ColonCancerImage(number, str(image_path(folder)), label, nuclei))
    drawn = any(map(is_drawn, folders.values()))
    return ColonCancer(tuple(samples), size, drawn)


def read_images(samples: Iterable[ColonCancerImage]) -> npt.NDArray[np.uint8]:
    """Read the pixels of some images into memory: 0.75 MB each, 75 MB for all.

    For the low-resolution views, put them into `attention_sampling.data.ArraySource`:
    its ``read_view`` averages over areas, to any size.

    Args:
        samples: of a `ColonCancer`, in the order that is wanted.

    Returns:
        (n_images, height, width, 3).

    Raises:
        OSError: a file cannot be read.
        ValueError: an image does not decode; the images differ in size; there is none.

    Example::

        data = load_colon_cancer("data/crchisto")
        images = read_images(data.samples)
        source = ArraySource(images)
        views = np.stack([source.read_view(i, (100, 100)) for i in range(len(source))])
    """
    paths = [Path(sample.path) for sample in samples]
    if not paths:
        raise ValueError(
            "There is no image to read. Expected: at least one sample. "
            f"Received: samples={samples!r}"
        )
    images = [read_bmp(path) for path in paths]
    _find_size({p: image.shape[:2] for p, image in zip(paths, images, strict=True)})
    return np.stack(images)


def _choose_folders(
    folders: Mapping[int, Path], ids: Collection[int] | None
) -> dict[int, Path]:
    """Return the folders of the images that are wanted, sorted by number."""
    if ids is None:
        return dict(folders)
    wanted = {check_count("ids", number, smallest=0) for number in ids}
    if not wanted or not wanted <= folders.keys():
        raise ValueError(
            f"Images that are asked for are not among the {len(folders)} found. "
            f"Expected: some of {format_ids(folders)}. "
            f"Received: ids={format_ids(wanted - folders.keys()) or 'none'}"
        )
    return {number: folders[number] for number in sorted(wanted)}


def _find_size(sizes: Mapping[Path, tuple[int, ...]]) -> tuple[int, int]:
    """Return the (height, width) that all images share."""
    (common, count), *others = Counter(sizes.values()).most_common()
    if others:
        path, size = next(item for item in sizes.items() if item[1] != common)
        raise ValueError(
            f"The images differ in size. Expected: (height, width) = {common}, as "
            f"{count} of {len(sizes)} images have. Received: {path} with {size}"
        )
    return common[0], common[1]
