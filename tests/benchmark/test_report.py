import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from attention_sampling.benchmark import __main__ as benchmark
from attention_sampling.benchmark import report, report_sections
from attention_sampling.benchmark.report_files import read_measurements
from attention_sampling.benchmark.report_page import (
    Commands,
    Heading,
    Items,
    Paragraph,
    Picture,
    Table,
)
from attention_sampling.benchmark.report_series import collect_series
from attention_sampling.benchmark.report_writers import to_html, to_markdown, to_rst

CIRCUMSTANCES = {
    "settings": {},
    "versions": {"python": "3.11.2", "backend": "tensorflow", "keras": "3.15.1"},
    "machine": {"system": "Linux", "processor": "Model <9>", "cores": 2, "gpu": "H9"},
}
COST = {
    "ms_low": 1.0,
    "ms_high": 2.0,
    "allocator_mb_per_sample": None,
    "resident_mb_per_sample": None,
    "resident_ratio": None,
}


def fit(run, error, fold=None, seed=None, **changes):
    """Return a training of two epochs that ends with a test error."""
    return {
        "run": run,
        "seed": run if seed is None else seed,
        "fold": fold,
        "epochs": 2,
        "n_train": 56,
        "n_test": 14,
        "curve": {
            "train_loss": [1.0, 2 * error],
            "test_error": [0.9, error],
            "seconds": [1.5, 3.0],
        },
        **changes,
    }


def training(task, method, errors, seed=0, settings=(), **changes):
    """Return what an example writes of runs that end with these test errors."""
    fits = [fit(run, error, seed=seed + run) for run, error in enumerate(errors)]
    runs = [
        {
            "run": run,
            "seed": seed + run,
            "train_loss": 2 * error,
            "test_error": error,
        }
        for run, error in enumerate(errors)
    ]
    return {
        "kind": "training",
        "task": task,
        "method": method,
        "command": f"python examples/{task}.py --method {method}",
        **CIRCUMSTANCES,
        "settings": {"seed": seed, "runs": len(errors), "epochs": 2, **dict(settings)},
        "fits": fits,
        "runs": runs,
        **changes,
    }


def cost(task, milliseconds, megabytes=(), batch_size=1, **changes):
    """Return what the benchmark of the cost writes, ratios to 10 ms and 40 MB."""
    megabytes = dict(megabytes)
    rows = [
        {
            **COST,
            "method": method,
            "batch_size": batch_size,
            "ms_per_sample": ms,
            "allocator_mb_per_sample": megabytes.get(method),
            "time_ratio": None if ms is None else ms / 10,
            "allocator_ratio": megabytes[method] / 40 if method in megabytes else None,
        }
        for method, ms in milliseconds.items()
    ]
    content = {"kind": "cost", "task": task, "command": f"cost --task {task}"}
    return {**content, **CIRCUMSTANCES, "rows": rows, **changes}


def overhead(*rows):
    """Return what the benchmark of the overhead writes, of (task, ratio)."""
    rows = [
        {
            "task": task,
            "method": "ats-10",
            "batch_size": 16,
            "step_ms": 600 * ratio,
            "bare_ms": 600.0,
            "ratio": ratio,
            "ratio_low": ratio - 0.01,
            "ratio_high": ratio + 0.01,
        }
        for task, ratio in rows
    ]
    return {"kind": "overhead", "command": "overhead", **CIRCUMSTANCES, "rows": rows}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


@pytest.fixture
def report_of(monkeypatch):
    """Return a function that runs the command and returns the page as plain text.

    Without learning curves: to draw them takes most of the time.
    """

    def draw_nothing(path, series, names):
        Image.new("1", (1, 1)).save(path)

    monkeypatch.setattr(report_sections, "draw_curves", draw_nothing)

    def run(directory):
        benchmark.main(["report", str(directory)])
        text = (directory / "report.md").read_text("utf-8")
        return text.replace("\\", "")  # escapes

    return run


def section(page, title):
    """Return what stands under a heading of level 2."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return found[1]


def row(text, *beginning):
    """Return the cells of the only row that begins with these."""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line[:1] == "|"]
    (cells,) = [cells for cells in lines if tuple(cells[: len(beginning)]) == beginning]
    return [cell.strip() for cell in cells]


def goal(page, beginning):
    """Return measured number, limit and verdict of the only goal of that name."""
    lines = section(page, "Goals").splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {beginning}")]
    return line[2:-2].split(" | ")[1:]


# Results


def test_results_stand_beside_those_of_the_paper(tmp_path, report_of):
    errors = [0.10, 0.12, 0.08, 0.10, 0.10]
    write(tmp_path / "a" / "metrics.json", training("colon_cancer", "ats-10", errors))
    write(
        tmp_path / "cost-colon_cancer.json",
        cost("colon_cancer", {"ats-10": 17.52}, {"ats-10": 23.2}),
    )
    text = section(report_of(tmp_path), "Colon cancer, 500 x 500 pixels")
    error = np.std(errors, ddof=1) / np.sqrt(5)
    results, _, _ = text.partition("**Colon cancer: runs**")
    assert row(results, "ATS-10") == [
        "ATS-10",
        "0.2/1",
        f"0.200 ± {2 * error:.3f}",
        "0.083 ± 0.019",
        f"0.100 ± {error:.3f}",
        "0.093 ± 0.014",
        "17.5 ms",
        "1.8 ms",
        "23 MB",
        "21 MB",
    ]
    assert f"{error:.3f}" == "0.006"
    # The other rows of Table 1 are there, in its order.
    methods = re.findall(r"^\| ([\w -]+?) \| (0\.2/1|0\.5|1) \|", results, re.M)
    assert [name for name, _ in methods] == [
        *("U-10", "U-50", "CNN", "CNN", "Deep MIL", "ATS-10", "ATS-50")
    ]
    assert row(results, "CNN", "1")[2:6] == [
        "not measured",
        "0.002 ± 0.000",
        "not measured",
        "0.092 ± 0.012",
    ]
    others = "U-10, U-50, CNN 0.5, CNN 1, Deep MIL, ATS-50"
    assert f"- Not trained: {others}\n- Cost not measured: {others}\n" in text


def test_short_of_the_paper_is_named(tmp_path, report_of):
    """0.093 ± 0.014 of 5 runs on 100 images."""
    for name, errors in {
        "in": [0.11, 0.10],
        "out": [0.12, 0.12],
        "one": [0.107],
    }.items():
        path = tmp_path / name / "metrics.json"
        write(path, training("colon_cancer", "ats-10", errors, settings={"mix": name}))
    text = section(report_of(tmp_path), "Colon cancer, 500 x 500 pixels")
    _, _, runs = text.partition("**Colon cancer: runs**")
    rest = "images (70 of 100)"
    assert row(runs, "ATS-10: mix in")[-1] == f"runs (2 of 5), {rest}"
    assert row(runs, "ATS-10: mix out")[-1] == f"test error, runs (2 of 5), {rest}"
    assert row(runs, "ATS-10: mix one")[-1] == f"runs (1 of 5), {rest}"


def test_nothing_short_is_said_of_what_is_not(tmp_path, report_of):
    content = training("speed_limits", "ats-5", [0.01, 0.02, 0.03])
    for one in content["fits"]:
        one |= {"n_train": 747, "n_test": 684}
    write(tmp_path / "metrics.json", content)
    text = section(report_of(tmp_path), "Speed limits, 960 x 1280 pixels")
    _, _, runs = text.partition("**Speed limits: runs**")
    assert row(runs, "ATS-5") == ["ATS-5", "3", "", "2", "747 + 684", ""]


def test_runs_of_one_setting_are_put_together(tmp_path, report_of):
    for seed, error in enumerate([0.1, 0.2, 0.6]):
        path = tmp_path / str(seed) / "metrics.json"
        write(path, training("megapixel_mnist", "ats-10", [error], seed=seed))
    text = section(report_of(tmp_path), "Megapixel MNIST, 1500 x 1500 pixels")
    assert row(text, "ATS-10", "0.12/1")[4] == "0.300 ± 0.153"
    assert "- Seeds: ats-10 0, 1, 2\n" in text


def test_settings_that_differ_are_rows_and_labels(tmp_path, report_of):
    """Those with most runs first; the cost, which does not depend on them, once."""
    variants = {
        "a": ([0.3], {"estimator": "ordered", "control_variate": False}),
        "b": ([0.1, 0.1], {"estimator": "unordered", "control_variate": True}),
        "c": ([0.2], {"estimator": "unordered", "sampling": {"mix": 0.5}}),
    }
    for name, (errors, settings) in variants.items():
        content = training("colon_cancer", "ats-10", errors, settings=settings)
        write(tmp_path / name / "metrics.json", content)
    write(tmp_path / "u" / "metrics.json", training("colon_cancer", "u-10", [0.4]))
    write(tmp_path / "cost-x.json", cost("colon_cancer", {"ats-10": 17.52}))
    text = section(report_of(tmp_path), "Colon cancer, 500 x 500 pixels")
    results, _, _ = text.partition("**Colon cancer: runs**")
    found = re.findall(
        r"^\| (ATS-10: .*?) \|.* \| (0\.\d+).*?\| ?([\d.]*)", results, re.M
    )
    names = [name for name, *_ in found]
    assert names == [
        "ATS-10: estimator unordered, control variate yes, sampling mix not set",
        "ATS-10: estimator ordered, control variate no, sampling mix not set",
        "ATS-10: estimator unordered, control variate not set, sampling mix 0.5",
    ]
    cells = [row(results, name) for name in names]
    assert [cell[4] for cell in cells] == ["0.100 ± 0.000", "0.300", "0.200"]
    assert [cell[6] for cell in cells] == ["17.5 ms", "", ""]
    assert row(results, "U-10")[0] == "U-10"


def test_images_of_another_size_are_a_section_of_their_own(tmp_path, report_of):
    for shape, error in (([500, 500, 1], 0.12), ([1500, 1500, 1], 0.8)):
        content = training("megapixel_mnist", "ats-10", [error], image_shape=shape)
        write(tmp_path / str(shape[0]) / "metrics.json", content)
    page = report_of(tmp_path)
    small = section(page, "Megapixel MNIST, 500 x 500 pixels")
    assert "paper" not in small
    assert "| ATS-10 | 0.240 | 0.120 |\n" in small
    assert "report_megapixel_mnist_500x500.png" in small
    large = section(page, "Megapixel MNIST, 1500 x 1500 pixels")
    assert row(large, "ATS-10", "0.12/1")[4] == "0.800"
    assert page.index("1500 x 1500 pixels") < page.index("500 x 500 pixels")
    assert "Not measured." in section(page, "Speed limits, 960 x 1280 pixels")


def test_drawn_images_are_not_those_of_the_paper(tmp_path, report_of):
    for name in ("ats-10", "deep-mil", "u-10"):
        content = training("colon_cancer", name, [0.1], settings={"dataset": None})
        write(tmp_path / name / "metrics.json", content)
    content = training("colon_cancer", "ats-10", [0.6], settings={"dataset": "/a"})
    write(tmp_path / "a" / "metrics.json", content)
    page = report_of(tmp_path)
    drawn = section(page, "Colon cancer, 500 x 500 pixels, drawn")
    assert "| Deep MIL | 0.200 | 0.100 |\n" in drawn
    assert "paper" not in drawn
    assert "report_colon_cancer_500x500_drawn.png" in drawn
    real = section(page, "Colon cancer, 500 x 500 pixels")
    assert row(real, "ATS-10", "0.2/1")[4] == "0.600"
    assert row(real, "Deep MIL")[4] == "not measured"
    name = "Colon cancer: test error of ATS-10, above Deep MIL's"
    assert goal(page, name) == ["0.600", "not measured", "not measured"]


def test_unfinished_runs_do_not_count(tmp_path, report_of):
    content = training("colon_cancer", "ats-10", [])
    content["fits"] = [fit(0, 0.1, 0), fit(0, 0.3, 1), fit(1, 0.9, 0)]
    content["runs"] = [{"run": 0, "seed": 0, "train_loss": None, "test_error": 0.2}]
    write(tmp_path / "a" / "metrics.json", content)
    content = training("colon_cancer", "u-10", [])
    write(tmp_path / "b" / "metrics.json", {**content, "fits": [fit(0, 0.1, 0)]})
    text = section(report_of(tmp_path), "Colon cancer, 500 x 500 pixels")
    assert row(text, "ATS-10", "0.2/1")[2:5] == [
        "not measured",
        "0.083 ± 0.019",
        "0.200",
    ]
    assert row(text, "ATS-10", "1")[1:5] == ["1", "2", "2", "70"]
    assert row(text, "U-10")[2] == "not measured"
    assert "left out: 1 of the runs of ATS-10 in a/metrics.json\n" in text
    assert "left out: 1 of the runs of U-10 in b/metrics.json\n" in text


def test_curves_are_means_over_folds_by_their_images(tmp_path):
    parts = [
        fit(0, 0.1, 0, n_train=30, n_test=10),
        fit(0, 0.5, 1, n_train=10, n_test=30),
    ]
    content = training("colon_cancer", "ats-10", [])
    content |= {
        "fits": parts,
        "runs": [{**parts[0], "train_loss": 1, "test_error": 0.4}],
    }
    write(tmp_path / "metrics.json", content)
    (series,) = collect_series(read_measurements(tmp_path))
    np.testing.assert_allclose(series.curve("test_error"), [[0.9, 0.4]])
    np.testing.assert_allclose(series.curve("train_loss"), [[1.0, 0.4]])


def test_curves_of_different_length_are_cut(tmp_path):
    content = training("colon_cancer", "ats-10", [0.2, 0.4])
    longer = {name: [*x, None] for name, x in content["fits"][1]["curve"].items()}
    content["fits"][1] |= {"epochs": 3, "curve": longer}
    write(tmp_path / "metrics.json", content)
    (series,) = collect_series(read_measurements(tmp_path))
    np.testing.assert_allclose(series.curve("test_error"), [[0.9, 0.2], [0.9, 0.4]])


# Costs and goals


def test_costs_are_ratios_to_attention_sampling(tmp_path, report_of):
    milliseconds = {"deep-mil": 270.0, "cnn-1.0": 150.0, "ats-10": 10.0, "ats-25": 20.0}
    megabytes = {"deep-mil": 1200.0, "ats-10": 40.0}
    one = cost("colon_cancer", milliseconds, megabytes)
    five = cost("colon_cancer", {"ats-10": 8.0, "cnn-1": 72.0}, batch_size=5)
    five["rows"][1]["resident_ratio"] = 3.0
    write(tmp_path / "cost-a.json", {**one, "rows": [*one["rows"], *five["rows"]]})
    text = section(report_of(tmp_path), "Colon cancer, 500 x 500 pixels")
    _, _, text = text.partition("cost, ratios to ATS-10")
    assert row(text, "1", "Deep MIL")[3:] == [
        *("270.0 ms", "1.0 to 2.0 ms", "1,200 MB", "not measured", "27.0", "26.9"),
        *("30.0", "30.7", "not measured", "memory ratio"),
    ]
    assert row(text, "1", "CNN", "1")[7:] == [
        *("15.0", "10.4", "not measured", "11.9", "not measured", "")
    ]
    assert row(text, "1", "ATS-25")[7:9] == ["2.00", ""]
    assert row(text, "5", "CNN", "1")[7:] == [
        *("7.20", "", "not measured", "", "3.00", "")
    ]


def test_reasons_are_given_where_a_cost_was_not_measured(tmp_path, report_of):
    content = cost("megapixel_mnist", {"ats-10": 9.0, "cnn-1": None})
    content["rows"][1] |= {
        "ms_low": None,
        "ms_high": None,
        "reason": "out of memory: x",
    }
    write(tmp_path / "cost-a.json", content)
    text = section(report_of(tmp_path), "Megapixel MNIST, 1500 x 1500 pixels")
    assert "- CNN 1, batch 1: not measured, out of memory: x\n" in text
    (line,) = re.findall(r"^- Cost not measured: (.*)$", text, re.M)
    assert {"CNN 1", "ATS-5"} <= set(line.split(", "))
    assert "ATS-10" not in line.split(", ")
    assert row(text, "1", "CNN")[3:5] == ["not measured", "not measured"]


def test_costs_at_other_sizes_are_not_those_of_the_paper(tmp_path, report_of):
    sizes = {"image_shape": [500, 500, 3], "view_size": [50, 50]}
    content = cost("colon_cancer", {"ats-10": 9.0, "cnn-1": 300.0}, **sizes)
    write(tmp_path / "cost-a.json", content)
    page = report_of(tmp_path)
    text = section(page, "Colon cancer, 500 x 500 pixels")
    assert "cost, ratios to ATS-10, views of 50 x 50 pixels**" in text
    assert row(text, "1", "ATS-10")[2:4] == ["0.1/1", "9.0 ms"]
    assert row(text, "1", "CNN", "1")[7:9] == ["30.0", ""]
    assert row(text, "ATS-10")[6] == "not measured"
    name = "Colon cancer: CNN 1 over ATS-10, time a sample, batch 1"
    assert goal(page, name)[-1] == "not measured"


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
    memory = goal(page, name.format("CNN 1", "memory"))
    assert memory == ["not measured", ">= 13", "not measured"]
    said = ["Reached: 1 of 2, 17 more not measured"]
    said.append(f"Missed: {name.format('CNN 1', 'time')}: 7.90, limit >= 8")
    assert capsys.readouterr().out.splitlines()[:2] == said
    assert "".join(f"- {line}\n" for line in said) in page


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
    write(tmp_path / "overhead.json", rows)
    page = report_of(tmp_path)
    bare = "training step over its bare networks, batch 16"
    assert goal(page, f"Colon cancer: {bare}") == ["1.06", "<= 1.05", "MISSED"]
    assert goal(page, f"Megapixel MNIST: {bare}") == ["1.05", "<= 1.05", "PASS"]
    assert goal(page, f"Speed limits: {bare}")[-1] == "not measured"
    step = goal(page, "Megapixel MNIST: training step of ATS-10")
    assert step == ["39.4", "<= 50", "PASS"]
    text = section(page, "Overhead")
    assert row(text, "Speed limits") == [
        *("Speed limits", "ATS-10", "8", "720.0 ms", "600.0 ms", "1.20"),
        *("1.19 to 1.21", "<= 1.05 MISSED"),
    ]


@pytest.mark.parametrize(
    ("errors", "verdicts"),
    [
        ([0.20, 0.20], ("PASS", "PASS")),
        ([0.18, 0.24], ("PASS", "PASS")),  # 0.21 ± 0.03
        ([0.21, 0.21], ("MISSED", "PASS")),
        ([0.30, 0.30], ("MISSED", "MISSED")),
    ],
)
def test_goals_of_the_colon_cancer(tmp_path, report_of, errors, verdicts):
    others = {"deep-mil": [0.2, 0.2], "u-10": [0.3, 0.3]}
    for name, values in {**others, "ats-50": errors}.items():
        path = tmp_path / name / "metrics.json"
        write(path, training("colon_cancer", name, values))
    page = report_of(tmp_path)
    name = "Colon cancer: test error of ATS-{}, {}"
    above, below = "above Deep MIL's by at most one standard error", "below U-10's"
    assert goal(page, name.format(50, above))[-1] == verdicts[0]
    assert goal(page, name.format(50, below))[-1] == verdicts[1]
    assert goal(page, name.format(10, above))[0] == "not measured"
    assert goal(page, name.format(10, above))[-1] == "not measured"


def test_goal_of_megapixel_mnist_is_that_of_its_best_settings(tmp_path, report_of):
    for mix, error in ((0, 0.7), (1, 0.149)):
        content = training("megapixel_mnist", "ats-10", [error], settings={"mix": mix})
        content["image_shape"] = [500, 500, 1]
        write(tmp_path / str(mix) / "metrics.json", content)
    found = goal(report_of(tmp_path), "Megapixel MNIST 500 x 500: test error of ATS-10")
    assert found == ["0.149 (mix 1)", "< 0.15", "PASS"]


# The page


def test_circumstances_stand_under_the_table(tmp_path, report_of):
    dates = ["2026-01-09", "2026-01-02", "2026-01-05", "2026-01-04"]
    for seed, date in enumerate(dates):
        content = training("colon_cancer", "ats-10", [0.1], seed=seed, date=date)
        content["data"] = "70 of 100 images"
        write(tmp_path / f"r{seed}" / "metrics.json", content)
    text = section(report_of(tmp_path), "Colon cancer, 500 x 500 pixels")
    console = "```console\npython examples/colon_cancer.py --method ats-10\n```\n"
    assert console in text
    place = "Model <9>, 2 cores, Linux, gpu H9; python 3.11.2, keras 3.15.1"
    files = ", ".join(f"r{seed}/metrics.json" for seed in range(4))
    assert f"- {place}: {files}\n" in text
    assert "- Seeds: ats-10 0, 1, 2, 3\n" in text
    assert "- Data: 70 of 100 images\n" in text
    assert "- Dates: 2026-01-02 to 2026-01-09\n" in text


def test_figure_and_pages_are_the_same_bytes_again(tmp_path):
    """Wherever the directory is; and what is there is replaced."""
    content = training("colon_cancer", "ats-10", [0.1, 0.3])
    content["fits"][0]["curve"]["test_error"][0] = None
    write(tmp_path / "a" / "x" / "metrics.json", content)
    write(tmp_path / "a" / "y" / "cost-a.json", cost("colon_cancer", {"ats-10": 9.0}))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    benchmark.main(
        ["report", str(tmp_path / "a"), "--output", str(tmp_path / "new/out")]
    )
    (tmp_path / "b" / "report.md").write_text("old")
    benchmark.main(["report", str(tmp_path / "b")])
    written = sorted(path.name for path in (tmp_path / "new/out").iterdir())
    assert written == [
        "report.html",
        "report.md",
        "report.rst",
        "report_colon_cancer.png",
    ]
    for name in written:
        assert (tmp_path / "new/out" / name).read_bytes() == (
            tmp_path / "b" / name
        ).read_bytes()
    with Image.open(tmp_path / "b" / "report_colon_cancer.png") as image:
        image.load()
        assert image.format == "PNG"
    assert (tmp_path / "b" / "report_colon_cancer.png").stat().st_size < 200_000


def test_figure_shows_mean_and_range(tmp_path, monkeypatch):
    """Where one run has no number, there is no point."""
    content = training("colon_cancer", "ats-10", [0.1, 0.3])
    content["fits"][0]["curve"]["test_error"][0] = None
    write(tmp_path / "metrics.json", content)
    series = collect_series(read_measurements(tmp_path))
    figures = []

    def keep(figure, path, **keywords):
        figures.append(figure)
        path.write_bytes(b"")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", keep)
    report_sections.draw_curves(tmp_path / "a.png", series, ["ATS-10"])
    loss, _, error, by_time = figures[0].axes
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [[1, 1.0], [2, 0.4]])
    np.testing.assert_allclose(error.lines[0].get_xydata(), [[2, 0.2]])
    np.testing.assert_allclose(by_time.lines[0].get_xydata(), [[3.0, 0.2]])
    corners = error.collections[0].get_paths()[0].vertices[:, 1]
    assert (corners.min(), corners.max()) == (0.1, 0.3)


class Texts(HTMLParser):
    """What a browser shows, and the tags that it finds."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.links = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)


HOSTILE = "<b>&amp; *x* `y` _z_ | a_ [l](u) \\n"
BLOCKS = [
    Heading(HOSTILE, 1),
    Paragraph(HOSTILE),
    Items(["1. no list", "- nor this", HOSTILE]),
    Table(HOSTILE, ["a", HOSTILE], [["-", "0.1 ± 0.2"], ["", f"x\n{HOSTILE}"]]),
    Commands([HOSTILE, "``` --x", "  y"]),
]


def test_html_shows_texts_as_they_are(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    page = to_html([*BLOCKS, Picture(tmp_path / "a.png", f'"{HOSTILE}"')])
    found = Texts(page)
    assert {"b", "l", "script"}.isdisjoint(found.tags)
    shown = "".join(found.texts)
    assert shown.count(HOSTILE) == 9  # with the title of the window, and the caption
    assert "0.1 ±\u00a00.2" in shown
    (link,) = found.links
    assert link.startswith("data:image/png;base64,")


def test_markdown_shows_texts_as_they_are():
    page = to_markdown(BLOCKS)
    escaped = r"\<b\>\&amp; \*x\* \`y\` \_z\_ \| a\_ \[l\](u) \\n"
    lines = page.splitlines()
    assert lines[0] == f"# {escaped}"
    assert lines[2] == escaped
    assert lines[4:7] == [r"- 1\. no list", r"- \- nor this", f"- {escaped}"]
    table = [line for line in lines if line.startswith("|")]
    assert table == [
        f"| a | {escaped} |",
        "| --- | --- |",
        r"| \- | 0.1 ± 0.2 |",
        f"|  | x {escaped} |",
    ]
    # No line of the listing may end it.
    assert page.endswith(f"````console\n{HOSTILE}\n``` --x\n  y\n````\n")


def test_rst_shows_texts_as_they_are(tmp_path):
    core = pytest.importorskip("docutils.core", reason="extra docs is not installed")
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    page = to_rst([*BLOCKS, Picture(tmp_path / "a.png", HOSTILE)])
    settings = {"halt_level": 2, "report_level": 2, "_disable_config": True}
    tree = core.publish_doctree(page, settings_overrides=settings)
    texts = [node.astext() for node in tree.findall(lambda node: not node.children)]
    assert [text for text in texts if text == HOSTILE] == [HOSTILE] * 6
    assert {"1. no list", "- nor this", "-", f"x {HOSTILE}"} <= set(texts)
    assert "0.1 ±\u00a00.2" in texts
    assert f"{HOSTILE}\n``` --x\n  y" in tree.astext()
    assert not list(tree.findall(condition=lambda node: node.tagname == "problematic"))


def test_rst_of_a_table():
    page = to_rst([Table("t", ["a", "b"], [["1 ms", ""]])])
    assert page == (
        ".. list-table:: t\n   :header-rows: 1\n   :widths: auto\n\n"
        "   * - a\n     - b\n   * - 1\u00a0ms\n     -\n"
    )


def test_page_that_cannot_be_written_leaves_the_earlier(
    tmp_path, report_of, monkeypatch
):
    write(tmp_path / "metrics.json", training("colon_cancer", "ats-10", [0.1]))
    report_of(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(blocks):
        raise OSError("No space left on device")

    monkeypatch.setitem(report.WRITERS, "report.rst", fail)
    write(tmp_path / "metrics.json", training("colon_cancer", "ats-10", [0.9]))
    with pytest.raises(OSError, match="No space"):
        benchmark.main(["report", str(tmp_path)])
    for name in ("report.md", "report.html"):
        assert (tmp_path / name).read_bytes() == before[name]


# What is not of a measurement


def test_nothing_to_report(tmp_path):
    write(tmp_path / "estimators.json", {"rows": []})
    with pytest.raises(
        ValueError,
        match=r"nothing to report. Expected: metrics\.json, .*Received: DIR=",
    ):
        benchmark.main(["report", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["estimators.json"]


def without(content, *keys):
    *path, last = keys
    inner = content
    for key in path:
        inner = inner[key]
    del inner[last]
    return content


def replaced(content, value, *keys):
    *path, last = keys
    inner = content
    for key in path:
        inner = inner[key]
    inner[last] = value
    return content


def good():
    return training("colon_cancer", "ats-10", [0.1])


FOREIGN = {
    "[]": ([], "it is a JSON array, not object"),
    "no kind": (without(good(), "kind"), "kind is missing"),
    "kind": ({**good(), "kind": "cost"}, "its kind is 'cost', not 'training'"),
    "task": ({**good(), "task": "cats"}, "there is no task 'cats'"),
    "method": ({**good(), "method": "ats-0"}, r"Received: method='ats-0'"),
    "no fits": (without(good(), "fits"), "fits is missing"),
    "curve": (
        without(good(), "fits", 0, "curve", "seconds"),
        r"fits\[0\]\.curve\.seconds is missing",
    ),
    "text": (
        replaced(good(), "0.1", "fits", 0, "curve", "test_error", 1),
        r"fits\[0\]\.curve\.test_error\[1\] is a JSON string, not number",
    ),
    "boolean": (
        replaced(good(), True, "runs", 0, "test_error"),
        r"runs\[0\]\.test_error is a JSON boolean, not number",
    ),
    "short": (
        replaced(good(), [0.1], "fits", 0, "curve", "test_error"),
        r"the curves of fits\[0\] are not of its epochs",
    ),
    "no images": (
        replaced(good(), 0, "fits", 0, "n_test"),
        r"fits\[0\] has no epochs or no images",
    ),
    "runs": (
        replaced(good(), 7, "runs", 0, "run"),
        "its runs are not those of its fits",
    ),
    "shape": ({**good(), "image_shape": [500, 500]}, "image_shape is not of height"),
    "view": ({**good(), "view_size": [9, 0]}, "view_size is not of height, width"),
    "date": ({**good(), "date": 3}, "date is a JSON number, not string"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_file_is_named(tmp_path, name):
    content, message = FOREIGN[name]
    write(tmp_path / "good" / "metrics.json", good())
    path = tmp_path / "foreign" / "metrics.json"
    write(path, content)
    with pytest.raises(ValueError, match=message) as raised:
        benchmark.main(["report", str(tmp_path)])
    text = str(raised.value)
    assert text.startswith(f"{path} is not of a measurement: ")
    assert text.endswith(
        "Expected: what an example writes. Delete it, or name another directory"
    )
    assert not list(tmp_path.glob("report*"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", b'{"kind": "trai', "Unterminated string"),
        ("metrics.json", b"\xff\xfe\xfd", "decode"),
        ("metrics.json", b"[" * 100_000, "recursion"),
        (
            "metrics.json",
            json.dumps(replaced(good(), np.nan, "runs", 0, "test_error")).encode(),
            "NaN is not a number of JSON",
        ),
        (
            "metrics.json",
            json.dumps(good()).replace("0.1", "1e999").encode(),
            r"test_error\[1\] is not finite",
        ),
        (
            "cost-a.json",
            json.dumps(cost("colon_cancer", {})).encode(),
            "it has no rows. Expected: what the benchmark 'cost' writes",
        ),
        (
            "overhead-gpu.json",
            json.dumps(overhead(("cats", 1.0))).encode(),
            "there is no task 'cats'",
        ),
        (
            "cost-a.json",
            json.dumps(
                cost("colon_cancer", {"u-10": 1}, settings={"reference": "ats-50"})
            ).encode(),
            "its ratios are to ats-50, not ats-10",
        ),
    ],
)
def test_broken_file_is_named(tmp_path, name, content, message):
    path = tmp_path / "a" / name
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        benchmark.main(["report", str(tmp_path)])
    assert str(raised.value).startswith(f"{path} is not of a measurement: ")


def test_a_run_counts_once(tmp_path):
    for name in "ab":
        write(tmp_path / name / "metrics.json", good())
    with pytest.raises(
        ValueError, match=r"one of a/metrics\.json and b/metrics\.json.*seed=0"
    ):
        benchmark.main(["report", str(tmp_path)])
