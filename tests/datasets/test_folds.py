import numpy as np
import pytest

from attention_sampling.datasets.folds import (
    Fold,
    format_ids,
    parse_ids,
    split_by_ids,
    stratified_folds,
)

LABELS = np.array([1] * 41 + [0] * 29)


class TestStratifiedFolds:
    @pytest.mark.parametrize("n_folds", [2, 5, 10, 70])
    def test_every_sample_is_in_one_test_set(self, n_folds):
        folds = stratified_folds(LABELS, n_folds)
        assert len(folds) == n_folds
        tests = np.concatenate([fold.test for fold in folds])
        assert sorted(tests) == list(range(70))
        for train, test in folds:
            assert sorted([*train, *test]) == list(range(70))
            assert list(train) == sorted(train)
            assert list(test) == sorted(test)

    @pytest.mark.parametrize(
        "labels", [LABELS, np.arange(90) % 7 // 2, [0] * 11 + [1] * 11 + [2] * 11]
    )
    def test_classes_and_sizes_are_even(self, labels):
        labels = np.asarray(labels)
        folds = stratified_folds(labels, 5, seed=3)
        assert np.ptp([len(fold.test) for fold in folds]) <= 1
        for number in np.unique(labels):
            assert np.ptp([(labels[f.test] == number).sum() for f in folds]) <= 1

    def test_class_smaller_than_the_folds_is_in_every_training_set(self):
        labels = np.array([0] * 20 + [1] * 2)
        for train, _ in stratified_folds(labels, 5):
            assert set(labels[train]) == {0, 1}

    def test_seed_alone_decides(self):
        folds = {
            str(stratified_folds(LABELS, 5, seed=seed)[0].test) for seed in range(5)
        }
        assert len(folds) == 5
        np.random.seed(1)
        before = stratified_folds(LABELS, 5, seed=2)
        np.random.seed(7)
        after = stratified_folds(LABELS, 5, seed=2)
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one.test, other.test)
        # The numbers themselves, so that a change of the algorithm is seen.
        folds = stratified_folds([0, 0, 0, 0, 1, 1, 1, 1], 4, names=range(1, 9))
        assert [fold.test.tolist() for fold in folds] == [
            [3, 5], [1, 6], [0, 4], [2, 7]
        ]  # fmt: skip

    def test_order_of_the_samples_does_not_matter(self):
        names = np.arange(100, 170)
        shuffled = np.random.default_rng(0).permutation(70)
        before = stratified_folds(LABELS, 5, names=names)
        after = stratified_folds(LABELS[shuffled], 5, names=names[shuffled].tolist())
        for one, other in zip(before, after, strict=True):
            assert set(names[one.test]) == set(names[shuffled][other.test])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"n_folds": 1}, "Received: n_folds=1"),
            ({"seed": -1}, "Received: seed=-1"),
            ({"n_folds": 6}, "too few.*6 folds.*Received: 3 of class 0, 2 of class 1"),
            ({"labels": [0, 0, 0, 0, 1]}, "two of each class.*4 of class 0, 1 of cla"),
            ({"labels": []}, "too few samples.*Received: none"),
            ({"names": [1, 2, 3, 4]}, "`names`.*the 5 samples.*Received: 4 names"),
            ({"names": [1, 2, 3, 4, 4]}, "Received: 5 names, 4 different"),
        ],
    )
    def test_bad_settings(self, settings, message):
        settings = {"labels": [0, 0, 0, 1, 1], "n_folds": 2, **settings}
        with pytest.raises(ValueError, match=message):
            stratified_folds(**settings)


class TestSplitByIds:
    NUMBERS = (3, 4, 5, 60)

    @pytest.mark.parametrize(
        ("train_on", "test_on", "train", "test"),
        [
            ({60, 3}, {5}, [0, 3], [2]),
            ({3, 4}, None, [0, 1], [2, 3]),
            (None, [60], [0, 1, 2], [3]),
        ],
    )
    def test_splits(self, train_on, test_on, train, test):
        fold = split_by_ids(self.NUMBERS, train_on, test_on)
        assert isinstance(fold, Fold)
        assert fold.train.tolist() == train
        assert fold.test.tolist() == test
        assert fold.train.dtype == fold.test.dtype == np.int64

    @pytest.mark.parametrize(
        ("train_on", "test_on", "message"),
        [
            (None, None, "nothing to split by"),
            ({3, 4, 5}, {4, 5, 60}, "without overlap. Received: both hold 4-5$"),
            ({3, 61}, {4, 1, 2}, "among the 4 found. .*3-5,60. Received: 1-2,61$"),
            ({3, 4, 5, 60}, None, "left for testing.*train_on='3-5,60', test_on=''"),
            (None, {3, 4, 5, 60}, "left for training"),
            (set(), {3}, "left for training"),
            ({3}, set(), "left for testing"),
        ],
    )
    def test_refuses(self, train_on, test_on, message):
        with pytest.raises(ValueError, match=message):
            split_by_ids(self.NUMBERS, train_on, test_on)


class TestIds:
    @pytest.mark.parametrize(
        ("text", "numbers"),
        [
            ("7", {7}),
            ("1-3", {1, 2, 3}),
            ("1-3,60", {1, 2, 3, 60}),
            (" 5 , 1 - 2,2-2", {1, 2, 5}),
            ("0", {0}),
        ],
    )
    def test_parses(self, text, numbers):
        assert parse_ids(text) == numbers

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "do not parse at ''. Expected: numbers and ranges, as 1-50,60"),
            ("1,,2", "at ''.*Received: '1,,2'"),
            ("1-", "at '1-'"),
            ("-5", "at '-5'"),
            ("1-2-3", "at '1-2-3'"),
            ("1.5", "at '1.5'"),
            ("all", "at 'all'"),
            ("٣", "at '٣'"),
            ("1,5-4", "range '5-4' goes down.*Received: '1,5-4'"),
            ("1-999999999", "too long"),
        ],
    )
    def test_refuses(self, text, message):
        with pytest.raises(ValueError, match=message):
            parse_ids(text)

    @pytest.mark.parametrize("text", ["", "4", "1-2", "0,2-4,7,9-10"])
    def test_formats_what_it_parses(self, text):
        numbers = parse_ids(text) if text else set()
        assert format_ids(sorted(numbers, reverse=True)) == text
