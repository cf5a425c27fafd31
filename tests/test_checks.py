"""Checks of arguments: what each takes, and what it says of the rest."""

import numpy as np
import pytest

from attention_sampling import checks

NAN = float("nan")
CHECKS = {
    "pair": (
        lambda value: checks.check_pair("it", value),
        {(5, 6): (5, 6), 5: (5, 5), np.int64(7): (7, 7)},
        [0, -1, (5, 0), (5,), (5, 5, 5), 2.5, (2.0, 2), "50", None, True, (True, 5)],
    ),
    "count": (
        lambda value: checks.check_count("it", value, smallest=0),
        {0: 0, np.int32(3): 3},
        [-1, 2.0, "3", None, True],
    ),
    "fraction": (
        lambda value: checks.check_fraction("it", value),
        {0: 0.0, 1: 1.0, np.float32(0.5): 0.5},
        [-0.1, 1.5, NAN, "half", None, True],
    ),
    "flag": (
        lambda value: checks.check_flag("it", value),
        {True: True, np.bool_(False): False},
        [0, 1, 0.0, "yes", None],
    ),
    "choice": (
        lambda value: checks.check_choice("it", value, (None, "one", True)),
        {None: None, "one": "one", True: True},
        ["two", 1, 1.0, False],
    ),
}


@pytest.mark.parametrize(("check", "right", "wrong"), CHECKS.values(), ids=CHECKS)
def test_takes_what_is_right_and_names_what_is_wrong(check, right, wrong):
    for value, expected in right.items():
        assert check(value) == expected
        assert type(check(value)) is type(expected)  # goes into a JSON file
    for value in wrong:
        with pytest.raises(ValueError, match=r"`it` must be .* Received: it="):
            check(value)
