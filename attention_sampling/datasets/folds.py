"""Which images are for training and which for testing: in folds, or by number."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_count

__all__ = [
    "Fold",
    "block_folds",
    "format_ids",
    "parse_ids",
    "split_by_ids",
    "stratified_folds",
]


class Fold(NamedTuple):
    """One split of a data set.

    Args:
        train: (n_train,) int64, positions of the samples to train on, ascending.
        test: (n_test,) int64, positions of those to test with, ascending.
    """

    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def stratified_folds(
    labels: Sequence[int] | npt.NDArray[Any],
    n_folds: int = 5,
    seed: int = 0,
    names: Sequence[Any] | None = None,
) -> list[Fold]:
    """Split a data set for cross-validation: each sample is in exactly one test set.

    The test sets are stratified: they differ by one sample at most, and so do their
    samples of each class. A class with fewer samples than there are folds is missing
    from some test sets, never from what is trained on.

    Args:
        labels: (n_samples,), class of each sample.
        n_folds: how many splits, at least 2.
        seed: non-negative int; another one gives other folds.
        names: what each sample is called, such as its number, one each; its position by
            default. The same seed, names and labels give the same folds on every
            machine, in whatever order the samples are.

    Raises:
        ValueError: fewer than two folds, or more than samples; a class of one sample
            only; not one name for each sample; a negative seed.

    Example:

    >>> labels = [0, 0, 0, 1, 1, 1, 1, 0]
    >>> for train, test in stratified_folds(labels, n_folds=4):
    ...     print(test, [labels[position] for position in test])
    [2 6] [0, 1]
    [1 4] [0, 1]
    [5 7] [1, 0]
    [0 3] [0, 1]
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(
            "`labels` must be one for each sample, (n_samples,). Received: labels of "
            f"shape {labels.shape}; None of a source says that it has no labels"
        )
    n_folds = check_count("n_folds", n_folds, smallest=2)
    seed = check_count("seed", seed, smallest=0)
    keys = [str(name) for name in (range(len(labels)) if names is None else names)]
    if len(keys) != len(labels) or len(set(keys)) != len(keys):
        raise ValueError(
            f"`names` must be one for each of the {len(labels)} samples, all different. "
            f"Received: {len(keys)} names, {len(set(keys))} different ones"
        )
    counts = Counter(labels.tolist())
    if n_folds > len(labels) or 1 in counts.values():
        raise ValueError(
            f"There are too few samples for {n_folds} folds. Expected: a sample for "
            "each fold, and two of each class. "
            f"Received: samples of each class: {dict(sorted(counts.items()))}"
        )
    # A hash of the name shuffles alike for every NumPy and every order of the samples.
    order = sorted(
        range(len(labels)),
        key=lambda i: (labels[i], sha256(f"{seed} {keys[i]}".encode()).digest()),
    )
    # Dealt class by class, each going on where the last one ended.
    fold_of = np.empty(len(labels), dtype="int64")
    fold_of[order] = np.arange(len(labels)) % n_folds
    return [
        Fold(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold))
        for fold in range(n_folds)
    ]


def block_folds(numbers: Sequence[int], n_folds: int = 5) -> list[Fold]:
    """Split a data set into blocks of consecutive numbers, each of them tested on once.

    For images of which neighbors in number are alike, such as those of one patient: in random
    folds a test image has its like in training.

    Args:
        numbers: (n_samples,), the number of each sample, all different.
        n_folds: how many blocks, at least 2. Their sizes differ by one at most.

    Raises:
        ValueError: fewer than two folds, or more than samples; a number that is there twice.

    Example:

    >>> for train, test in block_folds([7, 1, 2, 9], n_folds=2):
    ...     print(train, test)
    [0 3] [1 2]
    [1 2] [0 3]
    """
    n_folds = check_count("n_folds", n_folds, smallest=2)
    if n_folds > len(numbers) or len({*numbers}) < len(numbers):
        raise ValueError(
            f"`numbers` must be different, and at least {n_folds}, one for each fold. "
            f"Received: {len(numbers)} numbers, {len({*numbers})} different ones"
        )
    blocks = np.array_split(np.argsort(numbers, kind="stable"), n_folds)
    everything = np.arange(len(numbers))
    return [
        Fold(np.setdiff1d(everything, block), np.sort(block).astype("int64"))
        for block in blocks
    ]


def split_by_ids(
    numbers: Sequence[int],
    train_on: Collection[int] | None = None,
    test_on: Collection[int] | None = None,
) -> Fold:
    """Split a data set by the numbers of its samples.

    Args:
        numbers: number of each sample, all different.
        train_on: numbers of the samples to train on; all but ``test_on`` by default.
        test_on: numbers of the samples to test with; all but ``train_on`` by default.

    Raises:
        ValueError: both are given and overlap; both are missing; a number is that of no
            sample; nothing is left for training or for testing.

    Example:

    >>> train, test = split_by_ids([3, 4, 5, 6], train_on={3, 5})
    >>> train.tolist(), test.tolist()
    ([0, 2], [1, 3])
    """
    there = set(numbers)
    if train_on is None and test_on is None:
        raise ValueError(
            "There is nothing to split by. Expected: `train_on`, `test_on` or both. "
            "Received: train_on=None, test_on=None"
        )
    train = there - set(test_on or ()) if train_on is None else set(train_on)
    test = there - train if test_on is None else set(test_on)
    if not train or not test or train & test or not train | test <= there:
        raise ValueError(
            f"The {len(there)} samples cannot be split like this. Expected: some of "
            f"{format_ids(there)} to train on, and others to test with. Received: "
            f"train_on={format_ids(train)!r}, test_on={format_ids(test)!r}"
        )
    return Fold(*(np.flatnonzero(np.isin(numbers, [*part])) for part in (train, test)))


def parse_ids(text: str) -> set[int]:
    """Return the numbers that a text such as ``"1-50,60"`` names; ends are included.

    Raises:
        ValueError: it names none; a range goes down, or a number has more than six digits.

    Example:

    >>> sorted(parse_ids("1-3, 60"))
    [1, 2, 3, 60]
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,6})\s*(?:-\s*([0-9]{1,6})\s*)?", part)
        if match is None or int(match[1]) > int(match[2] or match[1]):
            raise ValueError(
                f"The numbers do not parse at {part!r}. Expected: numbers and ranges that "
                f"go up, as 1-50,60. Received: {text!r}"
            )
        numbers.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return numbers


def format_ids(numbers: Iterable[int]) -> str:
    """Return numbers as `parse_ids` reads them, ascending.

    Example:

    >>> format_ids([60, 1, 2, 3])
    '1-3,60'
    """
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
