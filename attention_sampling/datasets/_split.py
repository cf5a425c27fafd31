"""Which samples are for training and which for testing."""

import re
import warnings
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from attention_sampling.datasets.samples import Sample


def choose_tests(
    samples: Iterable[Sample], test_fraction: float, seed: int
) -> set[Sample]:
    """Draw the samples for testing, class by class."""
    by_class: dict[int, list[Sample]] = {}
    for sample in samples:
        by_class.setdefault(sample.label, []).append(sample)
    tests: set[Sample] = set()
    for members in by_class.values():
        # A hash of the name shuffles alike for every NumPy and every listing order.
        members.sort(
            key=lambda s: sha256(f"{seed} {Path(s.path).stem}".encode()).digest()
        )
        count = max(round(test_fraction * len(members)), 1)
        tests.update(members[: min(count, len(members) - 1)])
    return tests


def number_image(path: str) -> int:
    numbers = re.findall(r"[0-9]+", Path(path).stem)
    if not numbers:
        raise ValueError(
            "`test_from` needs the number of each image. Expected: digits in the file "
            f"name. Received: {path}"
        )
    return int(numbers[-1])


def check_classes(
    directory: Path,
    classes: Sequence[str],
    train: Sequence[Sample],
    test: Sequence[Sample],
) -> None:
    """Refuse a split that cannot be trained on or tested with."""
    labels = {sample.label for sample in train}
    missing = [name for label, name in enumerate(classes) if label not in labels]
    if missing:
        raise ValueError(
            f"No image of class {', '.join(missing)} is left for training in {directory}. "
            f"Expected: some of each of {', '.join(classes)}. "
            f"Received: {len(train)} for training, {len(test)} for testing"
        )
    if not test:
        raise ValueError(
            f"Nothing is left for testing in {directory}. Expected: at least one image. "
            f"Received: {len(train)} for training"
        )
    labels = {sample.label for sample in test}
    missing = [name for label, name in enumerate(classes) if label not in labels]
    if missing:
        warnings.warn(
            f"No image of class {', '.join(missing)} is left for testing in "
            f"{directory}.",
            stacklevel=3,
        )
