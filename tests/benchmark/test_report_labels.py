import pytest

from attention_sampling.benchmark.report_labels import label_settings

OURS = {
    "dataset": "/data/mnist500",
    "paper": False,
    "epochs": 30,
    "decay": 0.25,
    "mix": 1.0,
    "estimator": "unordered",
    "control_variate": True,
    "train_on": None,
    "on_demand": False,
}
PAPER = OURS | {
    "paper": True,
    "decay": 0.0,
    "mix": 0.0,
    "estimator": "ordered",
    "control_variate": False,
}


def labels(*settings):
    return label_settings(
        settings, [f"{number}.json" for number in range(len(settings))]
    )


def test_a_single_series_has_no_label():
    assert labels(OURS) == [""]
    assert labels(PAPER) == [""]


def test_what_the_paper_implies_is_left_out():
    assert labels(OURS, PAPER) == ["", "settings of the paper"]
    assert labels(OURS, PAPER | {"epochs": 500}) == [
        "30 epochs",
        "settings of the paper, 500 epochs",
    ]
    # Ours differ in what the paper's imply.
    assert labels(OURS, OURS | {"mix": 0.0}, PAPER) == [
        "contrast in the proposal 1",
        "no contrast in the proposal",
        "settings of the paper",
    ]
    # What the paper does not imply is said, if all of ours are alike in it.
    assert labels(OURS, PAPER, PAPER | {"mix": 1.0}) == [
        "",
        "settings of the paper",
        "settings of the paper, contrast in the proposal 1",
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("decay", 0.0, ("decay 0.25", "no decay")),
        ("control_variate", False, ("control variate", "no control variate")),
        ("estimator", "ordered", ("unordered estimator", "ordered estimator")),
        ("train_on", "1-4", ("", "trained on 1-4")),
        ("on_demand", True, ("", "read on demand")),
        ("dataset", "/other/mnist", ("data of mnist500", "data of mnist")),
        ("view_size", [60, 60], ("view size not recorded", "views of 60 x 60")),
        ("new_setting", 3, ("new setting not recorded", "new setting 3")),
    ],
)
def test_settings_are_said_in_words(name, value, expected):
    assert labels(OURS, OURS | {name: value}) == list(expected)


def test_what_describes_the_images_is_said_instead_of_their_digest():
    data = {"data digest": "a", "data noise_patches": 10, "data seed": 0}
    one, other = OURS | data, OURS | data | {"data digest": "b", "data seed": 9}
    assert labels(one, other) == ["data of seed 0", "data of seed 9"]
    other = OURS | data | {"data digest": "b"}
    assert labels(one, other) == ["images of digest a", "images of digest b"]


def test_labels_are_never_the_same():
    """The same name of directories that lie in different places."""
    assert labels(OURS, OURS | {"dataset": "/other/mnist500"}) == [
        "data of mnist500, 0.json",
        "data of mnist500, 1.json",
    ]
    assert len({*labels(OURS, {**OURS, "folds": None}, {**OURS, "folds": 0})}) == 3
