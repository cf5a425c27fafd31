"""The page of results: means, standard errors, and the committed page made again."""

import json
import re
from argparse import Namespace

import pytest
from processes import COMMANDS, REPOSITORY
from processes import run as run_process

from attention_sampling.experiments.report import read_measurements, run, summarize

RESULTS = REPOSITORY / "docs" / "results"
ABOUT = {
    "date": "2026-11-28T01:22:02+00:00",
    "command": "python -m attention_sampling experiments run colon_cancer DATA",
    "versions": {"python": "3.11.7", "backend": "tensorflow", "keras": "3.15.1"},
    "machine": {"processor": "a processor", "cores": 2},
}


def training(method, fits, image_shape=(500, 500, 3), **settings):
    """Return what ``experiments run`` writes; a fit is (seed, fold, n_test, test error)."""
    return {
        "kind": "training",
        "task": "colon_cancer",
        "image_shape": list(image_shape),
        "method": method,
        "settings": {"method": method, "runs": 9, "data": {"images": 70}, **settings},
        "fits": [
            {
                "run": seed,
                "seed": seed,
                "fold": fold,
                "epochs": 2,
                "n_train": 100 - n_test,
                "n_test": n_test,
                "train_loss": 0.5,
                "test_error": error,
                "curve": {"train_loss": [0.7, 0.5], "test_error": [0.9, error]},
            }
            for seed, fold, n_test, error in fits
        ],
        **ABOUT,
    }


def cost():
    row = {
        "method": "ats-10",
        "batch_size": 1,
        "ms_per_sample": 10.0,
        "allocator_mb_per_sample": 20.0,
        "time_ratio": 1.0,
        "allocator_ratio": 1.0,
    }
    rows = [
        row,
        {**row, "method": "deep-mil", "ms_per_sample": 1234.5, "time_ratio": 50.0},
        {**row, "method": "bare networks", "time_ratio": 0.95},
        {"method": "cnn-1", "batch_size": 1, "reason": "out of memory"},
        {**row, "method": "cnn-0.5", "batch_size": 32},
    ]
    about = {**ABOUT, "command": "python -m attention_sampling experiments cost"}
    return {"kind": "cost", "task": "colon_cancer", "rows": rows, **about}


def table_rows(page):
    """Return the rows of all tables of a page as tuples of cells."""
    rows = []
    for line in page.splitlines():
        if match := re.fullmatch(r"   ([* ]) - ?(.*)", line):
            if match[1] == "*":
                rows.append([])
            rows[-1].append(match[2])
    return [tuple(row) for row in rows]


def test_mean_and_standard_error_are_of_whole_runs():
    fits = [(0, 0, 10, 0.1), (0, 1, 30, 0.3), (1, 0, 10, 0.5), (1, 1, 30, 0.1)]
    unfinished = [(2, 0, 10, 0.9)]
    [row] = summarize([training("ats-10", fits + unfinished)]).to_dict("records")
    # Folds count by their images: 0.25 and 0.2; then (0.25 - 0.2) / 2.
    assert row["runs"] == 2
    assert row["epochs"] == 2
    assert row["test_error"] == pytest.approx(0.225)
    assert row["test_error_error"] == pytest.approx(0.025)


def test_files_of_other_seeds_are_one_row_and_other_settings_are_named():
    trainings = [
        training("ats-10", [(0, None, 10, 0.2)], center=True, seed=0),
        training("ats-10", [(1, None, 10, 0.4)], center=True, seed=1, clip="weight"),
        training("ats-10", [(0, None, 10, 0.6)], center=False, seed=0),
        training("ats-10", [(0, None, 10, 0.8)], center=False, paper=True),
        training("u-10", [(0, None, 10, 0.5)], feature_scale=1.0),
        training("u-10", [(0, None, 10, 0.5)]),
        training("cnn-0.5", [(0, None, 10, 0.3)], data={"images": 20}),
        training("cnn-0.5", [(0, None, 10, 0.2)], data={"images": 90}),
    ]
    table = summarize(trainings)
    assert list(table.index) == [
        "U-10",
        "U-10, feature scale 1.0",
        "CNN 0.5",
        "CNN 0.5, images 90",
        "ATS-10",
        "ATS-10, center False",
        "ATS-10, settings of the paper",
    ]
    assert list(table["runs"]) == [1, 1, 1, 1, 2, 1, 1]
    errors = [0.5, 0.5, 0.3, 0.2, 0.3, 0.6, 0.8]
    assert list(table["test_error"]) == pytest.approx(errors)


def test_a_page_of_trainings_and_cost_beside_the_papers_numbers(tmp_path):
    trainings = [
        training("ats-10", [(0, None, 10, 0.1), (1, None, 10, 0.2)]),
        training("ats-10", [(0, None, 10, 0.4)], image_shape=(250, 250, 3)),
    ]
    trainings[1]["note"] = "Of small images."
    (tmp_path / "runs").mkdir()
    for number, content in enumerate([*trainings, cost()]):
        (tmp_path / "runs" / f"{number}.json").write_text(json.dumps(content))
    run(Namespace(directory=tmp_path / "runs", output=tmp_path / "page"))
    page = (tmp_path / "page" / "report.rst").read_text("utf-8")
    rows = table_rows(page)
    error, paper = "0.150 ± 0.050", "0.093 ± 0.014"
    loss, papers_loss = "0.500 ± 0.000", "0.083 ± 0.019"
    assert ("ATS-10", "2", "2", error, paper, loss, papers_loss) in rows
    assert ("ATS-10", "1", "2", "0.400", "0.500") in rows  # of a size of its own
    assert "Of small images." in page[page.index("250 x 250 pixels") :].splitlines()
    time, memory = ("10 ms (1.00)", "1.8 ms (1.00)"), ("20 MB (1.00)", "21 MB (1.00)")
    assert ("ATS-10", *time, *memory) in rows
    time, memory = (
        ("1,234 ms (50.0)", "48.5 ms (26.9)"),
        ("20 MB (1.00)", "644 MB (30.7)"),
    )
    assert ("Deep MIL", *time, *memory) in rows
    assert ("bare networks", "10 ms (0.95)", "", "20 MB (1.00)", "") in rows
    assert not [row for row in rows if row[0] == "CNN 0.5"]  # of another batch size
    assert "Not trained: U-10, U-50, CNN 0.5, CNN 1, Deep MIL, ATS-50." in page
    assert "CNN 1 was not measured: out of memory" in page
    for words in (ABOUT["command"], "experiments cost", "a processor", "keras 3.15.1"):
        assert words in page
    for figure in re.findall(r"figure:: (.+)", page):
        assert (tmp_path / "page" / figure).stat().st_size > 1000
    assert page.count("figure::") == 2


def test_a_task_of_which_nothing_was_trained_comes_last(tmp_path):
    contents = [
        {**cost(), "task": "megapixel_mnist"},  # the first of the paper
        training("ats-10", [(0, None, 10, 0.1)]),
    ]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    run(Namespace(directory=tmp_path, output=tmp_path))
    page = (tmp_path / "report.rst").read_text("utf-8")
    trained, rest = page.split("Megapixel MNIST, 1500 x 1500 pixels\n-")
    assert "Colon cancer" in trained
    assert "Nothing was trained" in rest
    assert "Nothing was trained" not in trained


def test_the_committed_page_is_made_again(tmp_path):
    words = [*COMMANDS, "experiments", "report", RESULTS / "measured"]
    code, _, errors = run_process(*words, "--output", tmp_path)
    assert code == 0, errors
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name for path in RESULTS.iterdir() if path.is_file()}
    page = (tmp_path / "report.rst").read_text("utf-8")
    assert page == (RESULTS / "report.rst").read_text("utf-8")


def test_every_measured_file_is_on_the_committed_page():
    found = read_measurements(RESULTS / "measured")
    assert sum(map(len, found)) == len([*RESULTS.rglob("*.json")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "Received: "),
        ('{"kind": "training", "task": "another"}', "Received: "),
        ('{"kind": ', "0.json holds no JSON"),
    ],
)
def test_what_cannot_be_reported_is_refused_by_name(text, message, tmp_path):
    if text is not None:
        (tmp_path / "0.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_measurements(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_errors_by_patches_at_prediction_are_of_the_runs_that_measured_them(tmp_path):
    content = training("ats-10", [(0, None, 10, 0.1), (1, None, 10, 0.2)])
    content["fits"][0]["budgets"] = {"5": 0.4, "10": 0.1}
    content["fits"][1]["budgets"] = {"5": 0.2}
    content["fits"] += training("ats-10", [(2, None, 10, 0.3)])["fits"]
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    run(Namespace(directory=tmp_path, output=tmp_path / "page"))
    rows = table_rows((tmp_path / "page" / "report.rst").read_text("utf-8"))
    assert ("Patches at prediction", "5", "10") in rows
    assert ("ATS-10", "0.300 ± 0.100", "0.100") in rows
