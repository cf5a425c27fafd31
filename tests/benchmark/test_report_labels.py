import importlib
from pathlib import Path

import pytest

from attention_sampling.benchmark.report.labels import PAPER as IMPLIED
from attention_sampling.benchmark.report.labels import label_settings

EXAMPLES = Path(__file__).parents[2] / "examples"

OURS = {
    "dataset": "/data/mnist500",
    "paper": False,
    "epochs": 30,
    "decay": 0.25,
    "mix": 1.0,
    "estimator": "unordered",
    "control_variate": True,
    "train_on": None,
    "on_demand": True,
}
PAPER = OURS | {
    "paper": True,
    "decay": 0.0,
    "mix": 0.0,
    "estimator": "ordered",
    "control_variate": False,
}


def labels(*settings):
    files = [f"{number}/metrics.json" for number in range(len(settings))]
    return label_settings(settings, 0, files)


def test_the_settings_that_others_are_compared_with_have_no_label():
    assert labels(OURS) == [""]
    assert labels(PAPER) == [""]


def test_what_the_paper_implies_is_left_out():
    others = [PAPER, PAPER | {"epochs": 500}, PAPER | {"mix": 0.5}]
    assert labels(OURS, *others) == [
        "",
        "settings of the paper",
        "settings of the paper, 500 epochs",
        "settings of the paper, contrast in the proposal 0.5",
    ]
    # Whether others have it or not.
    assert labels(OURS, OURS | {"mix": 0.0}, PAPER) == [
        "",
        "no contrast in the proposal",
        "settings of the paper",
    ]
    assert labels(PAPER, PAPER | {"decay": 0.5}) == ["", "decay 0.5"]


def test_a_setting_that_the_paper_has_not_is_said_of_its_settings():
    """Though the row that it is compared with has it too."""
    assert labels(OURS, PAPER | {"decay": 0.25}) == [
        "",
        "settings of the paper, decay 0.25",
    ]


@pytest.mark.parametrize("name", ["mnist", "colon_cancer", "speed_limits_options"])
def test_settings_of_the_paper_are_those_of_the_examples(monkeypatch, name):
    pytest.importorskip("tensorflow")
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module(name)
    ours, paper = example.SETTINGS, example.PAPER_SETTINGS
    differ = {key for key in paper if paper[key] != ours[key]}
    differ -= {"epochs", "batch_size"}  # which are said
    assert differ <= IMPLIED.keys()
    for key in IMPLIED.keys() & paper.keys():
        assert paper[key] in IMPLIED[key]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epochs": 1}, "1 epoch"),
        ({"decay": 0.0}, "no decay"),
        ({"decay": 0.5}, "decay 0.5"),
        ({"control_variate": False}, "no control variate"),
        ({"estimator": "ordered"}, "ordered estimator"),
        ({"clip": "global"}, "global clipping"),
        ({"train_on": "1-4", "test_on": "9-12"}, "trained on 1-4, tested on 9-12"),
        ({"on_demand": False}, "read as a whole"),
        ({"dataset": "/other/mnist"}, "data of mnist"),
        ({"view_size": [60, 60]}, "views of 60 x 60"),
        ({"new_setting": 3}, "new setting 3"),
        ({"new_setting": True}, "new setting"),
        ({"extended": [1, 20]}, "extended from 1, 20 epochs"),
    ],
)
def test_settings_are_said_in_words(changes, expected):
    assert labels(OURS, OURS | changes) == ["", expected]


def test_what_describes_the_images_is_said_instead_of_their_digest():
    one = OURS | {"data digest": "a", "data noise_patches": 10, "data seed": 9}
    others = [{"data seed": 0}, {"data noise_patches": 0}, {}]
    assert labels(one, *(one | {"data digest": "b"} | other for other in others)) == [
        "",
        "data of seed 0",
        "no noise",
        "images of digest b",
    ]


def test_what_an_older_file_lacks_is_said():
    data = {"data drawn": False, "data digest": "a", "data noise_patches": 10}
    assert labels(OURS, OURS | data) == ["", "10 patches of noise"]
    assert labels(OURS | data, OURS) == ["", "noise not recorded"]
    del data["data noise_patches"]
    assert labels(OURS, OURS | data) == ["", "images of digest a"]


def test_labels_are_never_the_same():
    """The same name of directories that lie in different places."""
    one, other = ({"dataset": f"/{name}/mnist"} for name in "ab")
    assert labels(OURS, OURS | one, OURS | other) == [
        "",
        "data of mnist, 1/metrics.json",
        "data of mnist, 2/metrics.json",
    ]
    assert labels(OURS, OURS | {"folds": 0}) == ["", "1/metrics.json"]
