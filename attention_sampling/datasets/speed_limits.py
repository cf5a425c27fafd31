"""Road scenes labelled with the speed limit on their signs, from two public sets."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attention_sampling.datasets import _gtsdb, _swedish
from attention_sampling.datasets._split import (
    check_classes,
    choose_tests,
    number_image,
)
from attention_sampling.datasets.archive import extract_zip
from attention_sampling.datasets.download import download
from attention_sampling.datasets.samples import Sample, Sign, check_images

__all__ = [
    "SWEDISH_MD5",
    "SWEDISH_URL",
    "Sample",
    "Sign",
    "SpeedLimits",
    "check_images",
    "download_swedish",
    "load_speed_limits",
]

SWEDISH_URL = "http://www.isy.liu.se/cvl/research/trafficSigns/swedishSignsSummer/"
# Of SetN/annotations.txt; nobody publishes those of the images.
SWEDISH_MD5 = {
    "Set1": "9106a905a86209c95dc9b51d12f520d6",
    "Set2": "09debbc67f6cd89c1e2a2688ad1d03ca",
}


@dataclass(frozen=True)
class SpeedLimits:
    """Road scenes for training and for testing.

    Args:
        classes: names of the labels; the first is a road without a speed limit.
        train, test: the samples, sorted by file name.
    """

    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]


def load_speed_limits(
    directory: str | os.PathLike[str],
    test_fraction: float = 0.25,
    test_from: int | None = None,
    seed: int = 0,
) -> SpeedLimits:
    """Load the labels of road scenes in one of two formats, told apart by their files.

    **German Traffic Sign Detection Benchmark**: ``gt.txt`` with the images beside it or
    in ``images``. Classes empty, 30, 50, 70 and 80 km/h, those of them that occur. An
    image that shows two different limits, of any kind, or only limits of another kind,
    is left out; one without any limit is empty, whatever other signs it shows.

    **Swedish Traffic Signs**: ``Set1`` (train) and ``Set2`` (test), each with
    ``annotations.txt`` and the images, in it or in folders inside it. Classes empty,
    50_SIGN, 70_SIGN and 80_SIGN. An image is empty if no sign is annotated, apart from
    MISC_SIGNS. It counts as a limit if its most visible limit sign of these three is
    VISIBLE, the signs that are BLURRED, on a SIDE_ROAD or OCCLUDED being ignored. It is
    left out if two different limits are VISIBLE, if no limit is, or if it shows only
    other signs. Images that are not in ``annotations.txt`` are not used.

    Args:
        directory: the folder with the files named above.
        test_fraction: share of the images of each class that is for testing, rounded
            to whole images, with at least one for training and, of two or more images,
            one for testing. German set only.
        test_from: instead, number of the first image for testing: those whose file name
            holds this number or a higher one. German set only.
        seed: chooses the images for testing. The same seed and file names give the
            same split on every machine.

    Returns:
        A `SpeedLimits`. No image is opened; see `check_images`.

    Raises:
        FileNotFoundError: the directory, a file of its format, or an annotated image is
            missing.
        ValueError: the directory holds both formats; an annotation does not parse, or
            there is none in gt.txt; an image is there or listed twice; a setting is out
            of range or does not apply; no image of some class is left for training, or
            none at all for testing.

    Warns:
        UserWarning: no image of some class is left for testing.

    Example::

        data = load_speed_limits("data/gtsdb", test_fraction=0.3)
        print(data.classes, len(data.train), len(data.test))

    Reference:
        Houben et al. 2013, *Detection of traffic signs in real-world images: the German
        Traffic Sign Detection Benchmark*. Larsson and Felsberg 2011, *Using Fourier
        descriptors and spatial models for traffic sign recognition*.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(
            "`test_fraction` is out of range. Expected: more than 0 and less than 1. "
            f"Received: test_fraction={test_fraction!r}"
        )
    directory = Path(directory)
    if _is_german(directory):
        classes, samples = _gtsdb.read_gtsdb(directory)
        if test_from is None:
            tests = choose_tests(samples, test_fraction, seed)
        else:
            tests = {s for s in samples if number_image(s.path) >= test_from}
        train = tuple(sample for sample in samples if sample not in tests)
        test = tuple(sample for sample in samples if sample in tests)
    else:
        if test_from is not None:
            raise ValueError(
                "`test_from` does not apply to the Swedish Traffic Signs, whose Set2 "
                f"is for testing. Expected: None. Received: test_from={test_from!r}"
            )
        classes = _swedish.CLASSES
        train, test = (
            tuple(_swedish.read_swedish(directory, s)) for s in _swedish.SETS
        )
    check_classes(directory, classes, train, test)
    return SpeedLimits(classes, train, test)


def _is_german(directory: Path) -> bool:
    """Tell the format of a directory by its files."""
    if not directory.is_dir():
        raise FileNotFoundError(
            "The data set is not there. Expected: a directory. "
            f"Received: directory={str(directory)!r}"
        )
    german = (directory / "gt.txt").is_file()
    swedish = [(directory / s / "annotations.txt").is_file() for s in _swedish.SETS]
    if german and any(swedish):
        raise ValueError(
            "The directory holds two data sets. Expected: either gt.txt or Set1 and "
            f"Set2. Received: directory={str(directory)!r}"
        )
    if not german and not all(swedish):
        raise FileNotFoundError(
            "The directory lacks the files of a data set. Expected: gt.txt (German "
            "Traffic Sign Detection Benchmark), or Set1/annotations.txt and "
            "Set2/annotations.txt (Swedish Traffic Signs). "
            f"Received: directory={str(directory)!r}"
        )
    return german


def download_swedish(
    directory: str | os.PathLike[str],
    base_url: str = SWEDISH_URL,
    progress: bool = True,
    annotations_md5: Mapping[str, str] = SWEDISH_MD5,
) -> None:
    """Fetch the Swedish Traffic Signs set, in the layout `load_speed_limits` reads.

    It may be stopped at any moment; run again, it goes on with what is missing. Where
    everything is there, nothing is fetched. Needs tqdm, and room on the disk for the
    images of a set twice, as the archive is removed when its images are out.

    Args:
        directory: where to put ``Set1`` and ``Set2``; made if need be.
        base_url: where to fetch ``SetN/annotations.txt`` and ``SetN/SetNPart0.zip``.
        progress: show progress bars.
        annotations_md5: md5 of ``annotations.txt`` for each set.

    Raises:
        DownloadError: the server does not give a file, or not the right one.
        ValueError: an archive is broken, or would write outside the directory. It is
            removed, so that the next run fetches it anew.

    Example::

        download_swedish("data/swedish")
        data = load_speed_limits("data/swedish")

    Reference:
        Larsson and Felsberg 2011, *Using Fourier descriptors and spatial models for
        traffic sign recognition*.
    """
    base_url = base_url.rstrip("/")
    for name in _swedish.SETS:
        folder = Path(directory) / name
        md5 = annotations_md5[name]
        url = f"{base_url}/{name}/annotations.txt"
        download(url, folder / "annotations.txt", md5=md5, progress=progress)
        images = folder / f"{name}Part0"
        archive = folder / f"{name}Part0.zip"
        if not images.is_dir() or not any(images.iterdir()):
            download(f"{base_url}/{name}/{archive.name}", archive, progress=progress)
            try:
                extract_zip(archive, images, progress=progress)
            except ValueError:
                archive.unlink()
                raise
        archive.unlink(missing_ok=True)
