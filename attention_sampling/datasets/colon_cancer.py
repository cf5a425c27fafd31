"""Colon cancer: stained tissue with marked nuclei, CRCHistoPhenotypes_2016_04_28.

The set of Sirinukunwattana et al. 2016: 100 images, 500 x 500 pixels, in which the centres
of the nuclei of four classes are marked. It is released for research only; publish neither
the images nor figures made from them without asking its authors, and cite them.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from attention_sampling.datasets.folds import format_ids

__all__ = [
    "NUCLEUS_CLASSES",
    "ColonCancer",
    "ColonCancerImage",
    "load_colon_cancer",
    "read_images",
]

NUCLEUS_CLASSES = ("epithelial", "fibroblast", "inflammatory", "others")

_RELEASE = "CRCHistoPhenotypes_2016_04_28"
_TASK = "Classification"
_VARIABLE = "detection"
# Published centres go from 0.15 to 500: clicks just off a border are no mistakes.
_MARGIN = 1.0


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

    @property
    def numbers(self) -> list[int]:
        """Number of each image, as the ids of a split."""
        return [sample.number for sample in self.samples]

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


def load_colon_cancer(directory: str | os.PathLike[str]) -> ColonCancer:
    """Load the labels and nuclei of the colon cancer images, and check all their files.

    An image is positive if at least one epithelial nucleus is marked in it. Not all of
    the 100 images need be there: print the result to see which are.

    The files hold (x, y); here rows come before columns. Coordinates are as published,
    apart from the few on a border or just beyond, which are moved inside by a pixel at
    most.

    Args:
        directory: the folder ``CRCHistoPhenotypes_2016_04_28``, the one it is in, or
            ``Classification`` in it. Each image has a folder: ``img1/img1.bmp``, with
            ``img1_epithelial.mat``, ``img1_fibroblast.mat``, ``img1_inflammatory.mat``
            and ``img1_others.mat``.

    Returns:
        A `ColonCancer`. Every image was decoded once; `read_images` reads the pixels.

    Raises:
        FileNotFoundError: the directory, or a file of an image, is missing.
        OSError: a file cannot be read.
        ValueError: an image does not decode or has another size than the first; a file of
            nuclei cannot be read, or one of them is outside its image.

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
    folders = _find_folders(Path(directory))
    paths = [folder / f"{folder.name}.bmp" for folder in folders.values()]
    size = _find_size({path: _read_image(path).shape for path in paths})
    samples = []
    for (number, folder), path in zip(folders.items(), paths, strict=True):
        nuclei = {
            name: _read_nuclei(folder / f"{folder.name}_{name}.mat", size)
            for name in NUCLEUS_CLASSES
        }
        label = int(len(nuclei["epithelial"]) > 0)
        samples.append(ColonCancerImage(number, str(path), label, nuclei))
    return ColonCancer(tuple(samples), size)


def read_images(samples: Iterable[ColonCancerImage]) -> npt.NDArray[np.uint8]:
    """Read the pixels of some images into memory: 0.75 MB each, 75 MB for all.

    For the low-resolution views, put them into `attention_sampling.data.ArraySource`:
    its ``read_view`` averages over areas, to any size.

    Args:
        samples: of a `ColonCancer`, in the order that is wanted; at least one.

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
    images = [(Path(sample.path), _read_image(Path(sample.path))) for sample in samples]
    if not images:
        raise ValueError(
            "There is no image to read. Expected: at least one sample. "
            f"Received: samples={samples!r}"
        )
    _find_size({path: pixels.shape for path, pixels in images})
    return np.stack([pixels for _, pixels in images])


def _find_folders(directory: Path) -> dict[int, Path]:
    """Find the folder of each image, by index."""
    if not directory.is_dir():
        raise FileNotFoundError(
            "The data set is not there. Expected: a directory. "
            f"Received: directory={str(directory)!r}"
        )
    for root in (directory / _RELEASE / _TASK, directory / _TASK, directory):
        names = [
            (path, re.fullmatch("img([0-9]+)", path.name)) for path in root.glob("*")
        ]
        folders = {int(name[1]): path for path, name in names if name and path.is_dir()}
        if folders:
            return dict(sorted(folders.items()))
    raise FileNotFoundError(
        f"The directory lacks the images of {_RELEASE}. Expected: {_TASK}/img1/img1.bmp "
        f"and so on, in it or in a folder {_RELEASE} in it. "
        f"Received: directory={str(directory)!r}"
    )


@contextlib.contextmanager
def _reading(path: Path, expected: str) -> Iterator[None]:
    """Name the file in whatever a library raises about it."""
    if not path.is_file():
        raise FileNotFoundError(
            "A file of the data set is missing, or a link to nothing. Expected: "
            f"{expected}. Received: {path}"
        )
    try:
        yield
    except Exception as error:  # nearly anything on bad bytes
        if isinstance(error, OSError) and error.errno is not None:  # of the disk
            raise
        raise ValueError(
            f"A file cannot be decoded. Expected: {expected}. Received: {path} ({error})"
        ) from error


def _read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return an image, (height, width, 3)."""
    from PIL import Image

    with _reading(path, "a whole BMP file"), Image.open(path, formats=["BMP"]) as image:
        return np.asarray(image.convert("RGB"))


def _read_nuclei(path: Path, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return centres of nuclei, (n_nuclei, 2), row before column, in pixels."""
    import scipy.io

    with _reading(
        path, "a whole MATLAB file of version 5 to 7.2, as save -v7 writes it"
    ):
        variables = scipy.io.loadmat(path, appendmat=False)
    centres = variables.get(_VARIABLE, np.array(None))
    if centres.dtype.kind not in "iuf" or centres.shape not in (
        (0, 0),
        (len(centres), 2),
    ):
        names = [name for name in variables if not name.startswith("__")]
        raise ValueError(
            f"A file holds no centres of nuclei. Expected: a variable {_VARIABLE} of real "
            f"numbers, (n_nuclei, 2). Received: {path} with {', '.join(names) or 'none'} "
            f"({_VARIABLE}: {centres.dtype} of shape {centres.shape})"
        )
    points = centres.astype("float64").reshape(-1, 2)[:, ::-1]
    inside = ((points >= -_MARGIN) & (points <= np.add(size, _MARGIN))).all(axis=1)
    if not inside.all():
        row, column = points[~inside][0]
        raise ValueError(
            f"{(~inside).sum()} of {len(points)} nuclei are outside the image. Expected: "
            f"x from 0 to {size[1]}, y from 0 to {size[0]}. Received: {path} with "
            f"x={column:g}, y={row:g}"
        )
    # The greatest number below the extent: its whole part is still a pixel.
    return np.clip(points, 0, np.nextafter(np.array(size, "float64"), 0))


def _find_size(shapes: Mapping[Path, tuple[int, ...]]) -> tuple[int, int]:
    """Return the (height, width) of all images, which must be one."""
    (first, (height, width, _)), *others = shapes.items()
    for path, shape in others:
        if shape[:2] != (height, width):
            raise ValueError(
                f"The images differ in size. Expected: (height, width) = {(height, width)} "
                f"as of {first}. Received: {path} with {shape[:2]}"
            )
    return height, width
