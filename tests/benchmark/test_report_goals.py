import pytest
from report_contents import (
    cost,
    cross_validated,
    digits,
    goal,
    not_measured,
    overhead,
    row,
    section,
    training,
    write,
)

ABOVE = (
    "Colon cancer: test error of ATS-{}, above Deep MIL's by at most one standard error"
)
BELOW = "Colon cancer: test error of ATS-{}, below U-10's"
DIGITS = "Megapixel MNIST 500 x 500: test error of ATS-10"
BARE = "training step over its bare networks, batch 16"


def write_all(directory, contents):
    for number, content in enumerate(contents):
        write(directory / str(number) / "metrics.json", content)


# Test errors


@pytest.mark.parametrize(
    ("errors", "verdicts"),
    [
        ([0.20] * 5, ("PASS", "PASS")),
        ([0.18, 0.18, 0.21, 0.24, 0.24], ("PASS", "PASS")),  # 0.21 ± 0.013
        ([0.21] * 5, ("MISSED", "PASS")),
        ([0.30] * 5, ("MISSED", "MISSED")),
    ],
)
def test_goals_of_the_colon_cancer(tmp_path, report_of, errors, verdicts):
    others = {"deep-mil": [0.2] * 5, "u-10": [0.3] * 5}
    write_all(
        tmp_path,
        [cross_validated(*one) for one in {**others, "ats-50": errors}.items()],
    )
    page = report_of(tmp_path)
    assert goal(page, ABOVE.format(50))[-1] == verdicts[0]
    assert goal(page, BELOW.format(50))[-1] == verdicts[1]
    assert "test error of ATS-10, below U-10's" in not_measured(page)
    assert "test error of ATS-50" not in not_measured(page)


def test_one_run_of_deep_mil_is_named_and_has_the_spread_of_the_other(
    tmp_path, report_of
):
    ours = [0.08, 0.10, 0.10, 0.10, 0.12]
    write_all(
        tmp_path,
        [cross_validated("ats-10", ours), cross_validated("deep-mil", [0.095])],
    )
    assert goal(report_of(tmp_path), ABOVE.format(10)) == [
        "ATS-10: 0.100 ± 0.006, 5 runs of 2 epochs; Deep MIL: 0.095, 1 run of 2 epochs",
        "<= 0.095 + 0.006, the standard error of ATS-10",
        "PASS",
    ]


def test_one_split_of_four_images_is_no_evidence(tmp_path, report_of):
    """--train-on 1-4 --test-on 9-12."""
    contents = [
        training("colon_cancer", name, [0.5], settings={"dataset": "/data"})
        for name in ("ats-10", "deep-mil", "u-10")
    ]
    for content in contents:
        content["fits"][0] |= {"n_train": 4, "n_test": 4}
    write_all(tmp_path, contents)
    page = report_of(tmp_path)
    rest = "not enough folds (1 of 5), not enough test images (4 of 70)"
    assert goal(page, ABOVE.format(10))[-1] == (
        f"ATS-10: not enough runs (1 of 5), {rest}; Deep MIL: {rest}"
    )
    runs = f"not enough runs (1 of 5), {rest}"
    assert goal(page, BELOW.format(10))[-1] == f"ATS-10: {runs}; U-10: {runs}"
    assert "Reached: 0 of 0; not enough evidence for 2 more, 18 not measured" in page


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "PASS"),
        ({"errors": [0.3] * 4}, "U-10: not enough runs (4 of 5)"),
        ({"errors": [0.3] * 6}, "PASS"),
        ({"folds": 10}, "U-10: other folds (10 instead of 5)"),
        (
            {"seed": 3},
            "U-10: other splits (seeds 0, 1, 2, 3, 4 and 3, 4, 5, 6, 7)",
        ),
        ({"settings": {"dataset": "/other"}}, "U-10: other images"),
        ({"settings": {"data": {"drawn": False, "digest": "a"}}}, "PASS"),
        ({"settings": {"data": {"drawn": True}}}, None),
    ],
)
def test_methods_are_compared_on_the_same_splits(tmp_path, report_of, changes, verdict):
    ours = cross_validated("ats-10", [0.1] * 5)
    theirs = cross_validated("u-10", **{"errors": [0.3] * 5, **changes})
    write_all(tmp_path, [ours, theirs])
    page = report_of(tmp_path)
    if verdict is None:
        assert "test error of ATS-10, below U-10's" in not_measured(page)
    else:
        assert goal(page, BELOW.format(10))[-1] == verdict


@pytest.mark.parametrize(
    ("digest", "verdict"), [("a", "PASS"), ("b", "U-10: other images")]
)
def test_images_are_the_same_by_their_digest(tmp_path, report_of, digest, verdict):
    """Not by the path, where other images may lie, and the same elsewhere."""
    write_all(
        tmp_path,
        [
            cross_validated(name, [error] * 5, settings=settings)
            for name, error, settings in (
                ("ats-10", 0.1, {"data": {"digest": "a"}}),
                ("u-10", 0.3, {"data": {"digest": digest}, "dataset": "/b"}),
            )
        ],
    )
    assert goal(report_of(tmp_path), BELOW.format(10))[-1] == verdict


def test_a_baseline_that_was_trained_for_less_is_no_evidence(tmp_path, report_of):
    ours = cross_validated("ats-10", [0.1] * 5)
    theirs = cross_validated("deep-mil", [0.3])
    for fit in theirs["fits"]:
        fit["epochs"] = 1
        fit["curve"] = {name: values[1:] for name, values in fit["curve"].items()}
    write_all(tmp_path, [ours, theirs])
    verdict = goal(report_of(tmp_path), ABOVE.format(10))[-1]
    assert verdict == "Deep MIL: other epochs (1 instead of 2)"


def test_settings_are_chosen_by_their_runs_and_not_by_the_error(tmp_path, report_of):
    """Of those with most runs, the ones of the other methods."""
    write_all(
        tmp_path,
        [
            cross_validated("ats-10", [0.35] * 5, settings={"mix": 0.0}),
            cross_validated("ats-10", [0.10] * 5, settings={"mix": 0.5}),
            cross_validated("ats-10", [0.01] * 4, settings={"mix": 0.7}),
            # Many runs, none of which can be judged.
            cross_validated("ats-10", [0.01] * 9, folds=2, settings={"mix": 0.9}),
            cross_validated("u-10", [0.30] * 5, settings={"mix": 0.0}),
        ],
    )
    measured, _, verdict = goal(report_of(tmp_path), BELOW.format(10))
    assert measured == (
        "ATS-10, no contrast in the proposal: 0.350 ± 0.000, 5 runs of 2 epochs; "
        "U-10: 0.300 ± 0.000, 5 runs of 2 epochs"
    )
    assert verdict == "MISSED"


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (digits([0.14] * 3), "PASS"),
        (digits([0.15] * 3), "MISSED"),
        (digits([0.01] * 2), "not enough runs (2 of 3)"),
        (digits([0.01] * 3, noise=0), "not enough patches of noise (0 of 10)"),
        (digits([0.9] * 3, noise=50), "other patches of noise (50 instead of 10)"),
        (
            digits([0.01] * 3, settings={"data": {}}),
            "patches of noise not recorded (10 expected)",
        ),
        (
            digits([0.01] * 3, train=4999),
            "not enough training images (4,999 of 5,000)",
        ),
        (digits([0.01] * 3, size=300), None),
    ],
)
def test_goal_of_megapixel_mnist(tmp_path, report_of, content, verdict):
    write(tmp_path / "metrics.json", content)
    page = report_of(tmp_path)
    if verdict is None:
        assert DIGITS.partition(":")[0] in not_measured(page)
    else:
        assert goal(page, DIGITS)[-1] == verdict


def test_few_test_images_are_no_evidence(tmp_path, report_of):
    content = digits([0.01] * 3)
    content["fits"][1]["n_test"] = 4
    content["fits"][1]["n_train"] = 5996
    write(tmp_path / "metrics.json", content)
    verdict = goal(report_of(tmp_path), DIGITS)[-1]
    assert verdict == "not enough test images (4 of 1,000)"


@pytest.mark.parametrize(
    ("curves", "train", "measured", "verdict"),
    [
        ([[0.9] * 4 + [0.79, 0.3]], 5000, "5", "PASS"),
        ([[0.9] * 4 + [0.79] * 7, [0.9] * 10 + [0.5]], 5000, "11", "MISSED"),
        ([[0.9, 0.8] * 5], 5000, "not in 10", "MISSED"),
        ([[0.9] * 9], 5000, "not in 9", "not enough epochs (9 of 10)"),
        ([[0.5]], 4999, "1", "not enough training images (4,999 of 5,000)"),
    ],
)
def test_goal_of_the_plateau(tmp_path, report_of, curves, train, measured, verdict):
    content = digits([curve[-1] for curve in curves], noise=50, size=1500, train=train)
    for one, curve in zip(content["fits"], curves, strict=True):
        shapes = {name: [2 * error for error in curve] for name in one["curve"]}
        one |= {"epochs": len(curve), "curve": shapes | {"test_error": curve}}
    write(tmp_path / "metrics.json", content)
    text, limit, found = goal(report_of(tmp_path), "Megapixel MNIST: epochs until")
    assert text.partition(" (")[0] == measured
    assert (limit, found) == ("<= 10", verdict)


# Costs


def test_goals_of_the_cost(tmp_path, report_of, capsys):
    write(
        tmp_path / "cost-a.json",
        cost("speed_limits", {"ats-5": 10, "deep-mil": 130, "cnn-1": 79}),
    )
    page = report_of(tmp_path)
    name = "Speed limits: {} over ATS-5, {} a sample, batch 1"
    deep_mil = goal(page, name.format("Deep MIL", "time"))
    assert deep_mil == ["13.0", ">= 13", "PASS"]
    cnn = goal(page, name.format("CNN 1", "time"))
    assert cnn == ["7.90", ">= 8", "MISSED"]
    assert "CNN 1 over ATS-5, memory a sample, batch 1" in not_measured(page)
    said = ["Reached: 1 of 2; not enough evidence for 0 more, 18 not measured"]
    said.append(f"Missed: {name.format('CNN 1', 'time')}: 7.90, limit >= 8")
    assert capsys.readouterr().out.splitlines()[:2] == said
    assert "".join(f"- {line}\n" for line in said) in page


@pytest.mark.parametrize(
    ("steps", "machine", "verdict"),
    [
        ((10, 10), {"device": "CPU:0"}, "PASS"),
        ((30, 3), {}, "CNN 1: not enough steps (3 of 10)"),
        ((9, 10), {}, "ATS-10: not enough steps (9 of 10)"),
        ((None, 10), {}, "ATS-10: steps not recorded (10 expected)"),
        ((10, 10), {"cores": 16}, "other cores (16 instead of 2)"),
        ((10, 10), {"device": "GPU:0, H200"}, "not on a CPU (GPU:0, H200)"),
    ],
)
def test_cost_is_judged_by_enough_steps_on_two_cores(
    tmp_path, report_of, steps, machine, verdict
):
    content = cost("megapixel_mnist", {"ats-10": 10, "cnn-1": 300})
    content["machine"] = content["machine"] | machine
    for one, number in zip(content["rows"], steps, strict=True):
        one["steps"] = number
    write(tmp_path / "cost-a.json", content)
    name = "Megapixel MNIST: CNN 1 over ATS-10, time a sample, batch 1"
    assert goal(report_of(tmp_path), name) == ["30.0", ">= 30", verdict]


def test_each_machine_has_its_goals_of_the_cost(tmp_path, report_of):
    for name, ms in (("a", 300), ("b", 200)):
        content = cost("megapixel_mnist", {"ats-10": 10, "cnn-1": ms})
        write(tmp_path / name / "cost-megapixel_mnist.json", content)
    page = report_of(tmp_path)
    name = "Megapixel MNIST: CNN 1 over ATS-10, time a sample, batch 1, {}/cost-"
    assert goal(page, name.format("a"))[-1] == "PASS"
    assert goal(page, name.format("b"))[-1] == "MISSED"
    assert page.count("**Megapixel MNIST: cost, ratios to ATS-10**") == 2


def test_goals_of_the_overhead(tmp_path, report_of):
    """The worst method counts, and batches of 16."""
    rows = overhead(
        ("colon_cancer", 1.06),
        ("colon_cancer", 1.04),
        ("megapixel_mnist", 1.05),
        ("speed_limits", 1.2),
    )
    rows["rows"][-1]["batch_size"] = 8
    del rows["rows"][2]["in_order_ratio"]  # of a file from before there was one
    write(tmp_path / "overhead.json", rows)
    page = report_of(tmp_path)
    assert goal(page, f"Colon cancer: {BARE}") == ["1.06", "<= 1.05", "MISSED"]
    assert goal(page, f"Megapixel MNIST: {BARE}") == ["1.05", "<= 1.05", "PASS"]
    assert not_measured(page).endswith(f"{BARE})")  # of the speed limits
    step = goal(page, "Megapixel MNIST: training step of ATS-10")
    assert step == ["39.4", "<= 50", "PASS"]
    text = section(page, "Overhead")
    assert row(text, "Speed limits") == [
        *("Speed limits", "ATS-10", "8", "720.0 ms", "600.0 ms", "1.20"),
        *("1.19 to 1.21", "1.18", "1.10"),
    ]
    assert row(text, "Megapixel MNIST")[-2:] == ["not measured", "1.10"]


def test_overhead_is_judged_by_enough_steps(tmp_path, report_of):
    """Those that can be judged count, where others are worse too."""
    few = overhead(("colon_cancer", 1.02), ("megapixel_mnist", 1.2))
    few["settings"]["steps"] = 3
    write(tmp_path / "a" / "overhead.json", few)
    write(tmp_path / "b" / "overhead.json", overhead(("megapixel_mnist", 1.01)))
    page = report_of(tmp_path)
    verdict = goal(page, f"Colon cancer: {BARE}")[-1]
    assert verdict == "not enough steps (3 of 10)"
    assert goal(page, f"Megapixel MNIST: {BARE}") == ["1.01", "<= 1.05", "PASS"]


def test_step_time_is_judged_on_two_cores(tmp_path, report_of):
    content = overhead(("megapixel_mnist", 1.01))
    content["machine"] = content["machine"] | {"cores": 16}
    write(tmp_path / "overhead.json", content)
    page = report_of(tmp_path)
    verdict = goal(page, "Megapixel MNIST: training step of ATS-10")[-1]
    assert verdict == "other cores (16 instead of 2)"
    assert goal(page, f"Megapixel MNIST: {BARE}")[-1] == "PASS"


def test_goals_stand_after_the_results(tmp_path, report_of):
    write(tmp_path / "metrics.json", cross_validated("ats-10", [0.1]))
    page = report_of(tmp_path)
    assert page.index("## Colon cancer") < page.index("## Goals")
    assert "| not measured |" not in section(page, "Goals")
