import numpy as np
import pytest

from attention_sampling.datasets.folds import (
    Fold,
    block_folds,
    format_ids,
    parse_ids,
    split_by_ids,
    stratified_folds,
)

LABELS = np.array([1] * 41 + [0] * 29)


@pytest.mark.parametrize("n_folds", [2, 5, 10, 70])
@pytest.mark.parametrize("labels", [LABELS, np.arange(90) % 7 // 2])
def test_every_sample_is_in_one_test_set_and_classes_are_even(labels, n_folds):
    folds = stratified_folds(labels, n_folds, seed=3)
    assert len(folds) == n_folds
    everything = list(range(len(labels)))
    assert sorted(np.concatenate([fold.test for fold in folds])) == everything
    for train, test in folds:
        assert sorted([*train, *test]) == everything
        assert list(train) == sorted(train)
        assert list(test) == sorted(test)
        assert set(labels[train]) == set(labels)
    assert np.ptp([len(fold.test) for fold in folds]) <= 1
    for number in np.unique(labels):
        assert np.ptp([(labels[fold.test] == number).sum() for fold in folds]) <= 1


def test_seed_and_names_alone_decide():
    tests = {str(stratified_folds(LABELS, seed=seed)[0].test) for seed in range(5)}
    assert len(tests) == 5
    names = np.arange(100, 170)
    shuffled = np.random.default_rng(0).permutation(70)
    before = stratified_folds(LABELS, 5, names=names)
    after = stratified_folds(LABELS[shuffled], 5, names=names[shuffled].tolist())
    for one, other in zip(before, after, strict=True):
        assert set(names[one.test]) == set(names[shuffled][other.test])
    # The numbers themselves, so that a change of the algorithm is seen.
    folds = stratified_folds([0, 0, 0, 0, 1, 1, 1, 1], 4, names=range(1, 9))
    assert [fold.test.tolist() for fold in folds] == [[3, 5], [1, 6], [0, 4], [2, 7]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_folds": 1}, "Received: n_folds=1"),
        ({"seed": -1}, "Received: seed=-1"),
        ({"n_folds": 6}, r"too few.*6 folds.*Received: .*\{0: 3, 1: 2\}"),
        ({"labels": [0, 0, 0, 0, 1]}, r"two of each class.*\{0: 4, 1: 1\}"),
        ({"labels": []}, "too few samples"),
        ({"names": [1, 2, 3, 4]}, "`names`.*the 5 samples.*Received: 4 names"),
        ({"names": [1, 2, 3, 4, 4]}, "Received: 5 names, 4 different"),
    ],
)
def test_folds_that_cannot_be(settings, message):
    settings = {"labels": [0, 0, 0, 1, 1], "n_folds": 2, **settings}
    with pytest.raises(ValueError, match=message):
        stratified_folds(**settings)


@pytest.mark.parametrize(
    ("train_on", "test_on", "train", "test"),
    [
        ({60, 3}, {5}, [0, 3], [2]),
        ({3, 4}, None, [0, 1], [2, 3]),
        (None, [60], [0, 1, 2], [3]),
    ],
)
def test_a_split_by_ids(train_on, test_on, train, test):
    fold = split_by_ids((3, 4, 5, 60), train_on, test_on)
    assert isinstance(fold, Fold)
    assert (fold.train.tolist(), fold.test.tolist()) == (train, test)
    assert fold.train.dtype == fold.test.dtype == np.int64


@pytest.mark.parametrize(
    ("train_on", "test_on", "message"),
    [
        (None, None, "nothing to split by"),
        ({3, 4, 5}, {4, 5, 60}, "train_on='3-5', test_on='4-5,60'"),
        ({3, 61}, {4, 1, 2}, "some of 3-5,60.*train_on='3,61', test_on='1-2,4'"),
        ({3, 4, 5, 60}, None, "others to test with.*train_on='3-5,60', test_on=''"),
        (set(), {3}, "train_on='', test_on='3'"),
    ],
)
def test_a_split_that_cannot_be(train_on, test_on, message):
    with pytest.raises(ValueError, match=message):
        split_by_ids((3, 4, 5, 60), train_on, test_on)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("7", {7}), ("1-3,60", {1, 2, 3, 60}), (" 5 , 1 - 2,2-2", {1, 2, 5}), ("0", {0})],
)
def test_ids_there_and_back(text, numbers):
    assert parse_ids(text) == numbers
    assert parse_ids(format_ids(numbers)) == numbers
    assert format_ids(()) == ""


@pytest.mark.parametrize(
    "text", ["", "1,,2", "1-", "-5", "1-2-3", "1.5", "all", "٣", "1,5-4", "1-9999999"]
)
def test_ids_that_do_not_parse(text):
    with pytest.raises(ValueError, match=r"do not parse at.*as 1-50,60"):
        parse_ids(text)


def test_blocks_are_of_consecutive_numbers(rng):
    numbers = rng.permutation(np.arange(3, 75))
    folds = block_folds(numbers, 5)
    tested = [sorted(numbers[fold.test].tolist()) for fold in folds]
    assert sorted(tested) == tested
    assert [n for test in tested for n in test] == list(range(3, 75))
    assert {len(test) for test in tested} == {14, 15}
    for train, test in folds:
        assert sorted([*train, *test]) == list(range(72))


@pytest.mark.parametrize("numbers", [[1], [1, 1, 2]])
def test_blocks_that_cannot_be(numbers):
    with pytest.raises(ValueError, match="`numbers` must be different, and at least 2"):
        block_folds(numbers, 2)
