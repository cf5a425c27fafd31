"""Road scenes labelled with the speed limit on their signs, from two public sets."""

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from attention_sampling.datasets.download import (
    SWEDISH_MD5,
    SWEDISH_URL,
    download_swedish,
)
from attention_sampling.datasets.traffic_signs import (
    GERMAN_CLASSES,
    SWEDISH_CLASSES,
    SWEDISH_SETS,
    Sample,
    Sign,
    enumerate_names,
    read_german,
    read_swedish,
)
from attention_sampling.threads import map_in_threads

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
    directory: str | os.PathLike[str], test_fraction: float = 0.25, seed: int = 0
) -> SpeedLimits:
    """Load the labels of road scenes in one of two formats, told apart by their files.

    **German Traffic Sign Detection Benchmark**: ``gt.txt`` with the images beside it or
    in ``images``. Classes empty, 30, 50, 70 and 80 km/h, those of them that occur. An
    image that shows two different limits, of any kind, or only limits of another kind,
    is left out; one without any limit is empty, whatever other signs it shows. Or
    ``train`` and ``test`` in the directory, each in this format.

    **Swedish Traffic Signs**: ``Set1`` (train) and ``Set2`` (test), each with
    ``annotations.txt`` and the images, in it or in folders inside it. Classes empty,
    50_SIGN, 70_SIGN and 80_SIGN. An image is empty if no sign is annotated, apart from
    MISC_SIGNS. It counts as a limit if its most visible limit sign of these three is
    VISIBLE, the signs that are BLURRED, on a SIDE_ROAD or OCCLUDED being ignored. It is
    left out if two different limits are VISIBLE, if no limit is, or if it shows only
    other signs. Images that are not in ``annotations.txt`` are not used.

    Args:
        directory: the folder with the files named above.
        test_fraction: fraction of the images of each class that is for testing, rounded
            to whole images, with at least one for training and, of two or more images,
            one for testing. For a single ``gt.txt`` only.
        seed: chooses the images for testing. The same seed and file names give the
            same split on every machine.

    Returns:
        A `SpeedLimits`. No image is opened; see `check_images`.

    Raises:
        FileNotFoundError: the directory, a file of its format, or an annotated image is
            missing.
        ValueError: the directory holds both formats; an annotation does not parse, or
            there is none in gt.txt; an image is there or listed twice; the fraction is
            out of range; no image of some class is left for training, or
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
    form = _find_format(directory)
    if form == "one":
        classes, samples = read_german(directory)
        tests = _choose_tests(samples, test_fraction, seed)
        train = tuple(sample for sample in samples if sample not in tests)
        test = tuple(sample for sample in samples if sample in tests)
    elif form == "split":
        classes, train, test = _read_split(directory)
    else:
        classes = SWEDISH_CLASSES
        train, test = (tuple(read_swedish(directory / s)) for s in SWEDISH_SETS)
    _check_split(directory, classes, train, test)
    return SpeedLimits(classes, train, test)


def _find_format(directory: Path) -> str:
    """Tell the format by the files: German in "one" folder or "split", or "Swedish"."""
    if not directory.is_dir():
        raise FileNotFoundError(
            "The data set is not there. Expected: a directory. "
            f"Received: directory={str(directory)!r}"
        )
    files = {
        "one": ["gt.txt"],
        "split": [f"{part}/gt.txt" for part in ("train", "test")],
        "Swedish": [f"{part}/annotations.txt" for part in SWEDISH_SETS],
    }
    there = {
        form: [(directory / name).is_file() for name in names]
        for form, names in files.items()
    }
    if sum(map(any, there.values())) > 1:
        raise ValueError(
            "The directory holds two data sets. Expected: either gt.txt, or train and "
            f"test, or Set1 and Set2. Received: directory={str(directory)!r}"
        )
    for form, found in there.items():
        if all(found):
            return form
    raise FileNotFoundError(
        "The directory lacks the files of a data set. Expected: gt.txt, or "
        "train/gt.txt and test/gt.txt (German Traffic Sign Detection Benchmark), or "
        "Set1/annotations.txt and Set2/annotations.txt (Swedish Traffic Signs). "
        f"Received: directory={str(directory)!r}"
    )


def _read_split(
    directory: Path,
) -> tuple[tuple[str, ...], tuple[Sample, ...], tuple[Sample, ...]]:
    """Read ``train`` and ``test``; the labels count the classes of both."""
    found = [read_german(directory / part) for part in ("train", "test")]
    classes = tuple(c for c in GERMAN_CLASSES if any(c in names for names, _ in found))
    train, test = (
        tuple(replace(s, label=classes.index(names[s.label])) for s in samples)
        for names, samples in found
    )
    return classes, train, test


def _choose_tests(
    samples: Iterable[Sample], test_fraction: float, seed: int
) -> set[Sample]:
    """Choose the samples for testing, class by class."""
    by_class: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_class[sample.label].append(sample)
    tests: set[Sample] = set()
    for members in by_class.values():
        # A hash of the name shuffles alike for every NumPy and every listing order.
        members.sort(
            key=lambda s: sha256(f"{seed} {Path(s.path).stem}".encode()).digest()
        )
        count = max(round(test_fraction * len(members)), 1)
        tests.update(members[: min(count, len(members) - 1)])
    return tests


def _check_split(
    directory: Path,
    classes: Sequence[str],
    train: Sequence[Sample],
    test: Sequence[Sample],
) -> None:
    """Refuse a split that cannot be trained on or tested with."""
    for samples, purpose in ((train, "training"), (test, "testing")):
        labels = {sample.label for sample in samples}
        missing = [name for label, name in enumerate(classes) if label not in labels]
        if not missing:
            continue
        message = (
            f"No image of class {', '.join(missing)} is left for {purpose} in "
            f"{directory}. Expected: some of each of {', '.join(classes)}. "
            f"Received: {len(train)} for training, {len(test)} for testing"
        )
        if samples is train or not labels:
            raise ValueError(message)
        warnings.warn(message, stacklevel=3)


def check_images(samples: Sequence[Sample], progress: bool = True) -> tuple[int, int]:
    """Decode every image once, so that no broken one stops a training later.

    Args:
        samples: the samples to check.
        progress: show a progress bar in a terminal. Needs tqdm either way.

    Returns:
        (height, width) in pixels, which all images have.

    Raises:
        ValueError: an image is missing, broken or cut off (all are counted, the first
            ten named), or the images differ in size, or there is none.

    Example::

        data = load_speed_limits("data/gtsdb")
        height, width = check_images(data.train + data.test)
    """
    from tqdm import tqdm

    if not samples:
        raise ValueError(
            "There is no image to check. Expected: at least one sample. "
            f"Received: samples={samples!r}"
        )
    paths = [sample.path for sample in samples]
    threads = min(16, os.cpu_count() or 1)
    with closing(map_in_threads(_decode, paths, threads)) as found:
        bar = tqdm(found, "Checking images", len(paths), disable=not progress or None)
        sizes = dict(zip(paths, bar, strict=True))
    broken = [f"{path} ({e})" for path, e in sizes.items() if isinstance(e, str)]
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(paths)} images cannot be decoded. Expected: whole "
            f"files in a format that Pillow reads. Received: {enumerate_names(broken)}"
        )
    (common, count), *others = Counter(sizes.values()).most_common()
    if others:
        path, size = next(item for item in sizes.items() if item[1] != common)
        raise ValueError(
            "The images differ in size. Expected: (height, width) = "
            f"{common}, as {count} of {len(sizes)} images have. "
            f"Received: {path} with {size}"
        )
    return common


def _decode(path: str) -> tuple[int, int] | str:
    """Return the (height, width) of an image, or what keeps it from being read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            formats = Image.registered_extensions()
            promised = formats.get(Path(path).suffix.lower(), image.format)
            # A reader that goes by the name would fail in the middle of a training.
            if image.format not in (promised, "MPO"):
                return f"its name says {promised}, it is {image.format}"
            image.load()
            return image.height, image.width
    except Exception as error:  # Pillow's readers raise nearly anything on bad bytes
        return f"{type(error).__name__}: {error}"
