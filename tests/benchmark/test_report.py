import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from report_contents import (
    cost,
    cross_validated,
    digits,
    fit,
    not_measured,
    row,
    section,
    training,
    write,
)

from attention_sampling.benchmark import __main__ as benchmark
from attention_sampling.benchmark.report import command as report
from attention_sampling.benchmark.report import sections as report_sections
from attention_sampling.benchmark.report.collection import collect_series
from attention_sampling.benchmark.report.files import read_measurements
from attention_sampling.benchmark.report.page import (
    Commands,
    Heading,
    Items,
    Paragraph,
    Picture,
    Table,
)
from attention_sampling.benchmark.report.writers import to_html, to_markdown, to_rst

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
        "plain": [0.10] * 3,
        "in": [0.11, 0.10],
        "out": [0.12, 0.12],
        "one": [0.107],
    }.items():
        path = tmp_path / name / "metrics.json"
        write(
            path, training("colon_cancer", "ats-10", errors, settings={"variant": name})
        )
    text = section(report_of(tmp_path), "Colon cancer, 500 x 500 pixels")
    _, _, runs = text.partition("**Colon cancer: runs**")
    rest = "images (70 of 100)"
    assert row(runs, "ATS-10: variant in")[-1] == f"runs (2 of 5), {rest}"
    assert row(runs, "ATS-10: variant out")[-1] == f"test error, runs (2 of 5), {rest}"
    assert row(runs, "ATS-10: variant one")[-1] == f"runs (1 of 5), {rest}"


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
        r"^\| (ATS-10.*?) \|.* \| (0\.\d+).*?\| ?([\d.]*)", results, re.M
    )
    names = [name for name, *_ in found]
    assert names == [
        "ATS-10",
        "ATS-10: control variate not recorded, sampling mix 0.5",
        "ATS-10: ordered estimator, no control variate",
    ]
    cells = [row(results, name) for name in names]
    assert [cell[4] for cell in cells] == ["0.100 ± 0.000", "0.200", "0.300"]
    assert [cell[6] for cell in cells] == ["17.5 ms", "", ""]
    assert row(results, "U-10")[0] == "U-10"
    assert "say in what these differ from its plain row" in text


def test_settings_of_the_paper_are_compared_with_those_that_are_not(
    tmp_path, report_of
):
    """Though they have more runs. The other row is the first."""
    ours = {"paper": False, "mix": 1.0, "decay": 0.25, "epochs": 30}
    for name, errors, settings in (
        ("a", [0.3] * 3, ours | {"paper": True, "mix": 0.0, "decay": 0.0}),
        ("b", [0.1], ours),
        ("c", [0.2] * 2, ours | {"paper": True, "mix": 0.0, "epochs": 12}),
    ):
        content = training("colon_cancer", "ats-10", errors, settings=settings)
        write(tmp_path / name / "metrics.json", content)
    text = section(report_of(tmp_path), "Colon cancer, 500 x 500 pixels")
    assert re.findall(r"^\| (ATS-10.*?) \| \d \|", text, re.M) == [
        "ATS-10",
        "ATS-10: settings of the paper",
        "ATS-10: settings of the paper, 12 epochs, decay 0.25",
    ]


def test_images_of_another_size_are_a_section_of_their_own(tmp_path, report_of):
    for shape, error in (([500, 500, 1], 0.12), ([1500, 1500, 1], 0.8)):
        sizes = {
            "image_shape": shape,
            "view_size": [size * 6 // 25 for size in shape[:2]],
        }
        content = training("megapixel_mnist", "ats-10", [error], **sizes)
        write(tmp_path / str(shape[0]) / "metrics.json", content)
    page = report_of(tmp_path)
    small = section(page, "Megapixel MNIST, 500 x 500 pixels")
    assert "paper" not in small
    assert "| ATS-10 | 0.24/1 | 0.240 | 0.120 |\n" in small
    assert "report_megapixel_mnist_500x500.png" in small
    large = section(page, "Megapixel MNIST, 1500 x 1500 pixels")
    assert row(large, "ATS-10", "0.24/1")[4] == "0.800"
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
    assert "| Deep MIL | 1 | 0.200 | 0.100 |\n" in drawn
    assert "paper" not in drawn
    assert "report_colon_cancer_500x500_drawn.png" in drawn
    real = section(page, "Colon cancer, 500 x 500 pixels")
    assert row(real, "ATS-10", "0.2/1")[4] == "0.600"
    assert row(real, "Deep MIL")[4] == "not measured"
    assert "test error of ATS-10, above Deep MIL's" in not_measured(page)


def test_images_say_themselves_whether_they_are_drawn(tmp_path, report_of):
    """Tissue that was drawn before has a path, as the published images do."""
    for name, drawn, error in (("u-10", True, 0.1), ("ats-10", False, 0.6)):
        settings = {"dataset": "/a/tissue", "data": {"drawn": drawn}}
        content = training("colon_cancer", name, [error], settings=settings)
        write(tmp_path / name / "metrics.json", content)
    page = report_of(tmp_path)
    drawn = section(page, "Colon cancer, 500 x 500 pixels, drawn")
    assert "| U-10 | 0.2/1 | 0.200 | 0.100 |\n" in drawn
    real = section(page, "Colon cancer, 500 x 500 pixels")
    assert row(real, "U-10")[4] == "not measured"
    assert row(real, "ATS-10", "0.2/1")[4] == "0.600"


def test_digits_with_other_noise_are_not_those_of_the_paper(tmp_path, report_of):
    for noise, error in ((50, 0.5), (0, 0.1), (20, 0.2)):
        content = digits([error], noise=noise, size=1500)
        write(tmp_path / str(noise) / "metrics.json", content)
    write(tmp_path / "10" / "metrics.json", digits([0.4]))
    page = report_of(tmp_path)
    size = "Megapixel MNIST, 1500 x 1500 pixels"
    paper = section(page, size)
    assert row(paper, "ATS-10", "0.12/1")[4] == "0.500"
    assert row(paper, "ATS-10", "1")[-1] == "runs (1 of 5), epochs (2 of 500)"
    assert "- Data: 6,000 images, 50 patches of noise in each\n" in paper
    for title, cells in (
        (f"{size}, no patches of noise", "0.12/1 | 0.200 | 0.100"),
        (f"{size}, 20 patches of noise", "0.12/1 | 0.400 | 0.200"),
        (
            "Megapixel MNIST, 500 x 500 pixels, 10 patches of noise",
            "0.36/1 | 0.800 | 0.400",
        ),
    ):
        text = section(page, title)
        assert f"| ATS-10 | {cells} |\n" in text
        assert "paper" not in text
    assert "report_megapixel_mnist_1500x1500_noise0.png" in page


def test_noise_that_is_not_recorded_falls_short_of_the_paper(tmp_path, report_of):
    content = digits([0.5] * 5, size=1500)
    del content["settings"]["data"]
    write(tmp_path / "metrics.json", content)
    text = section(report_of(tmp_path), "Megapixel MNIST, 1500 x 1500 pixels")
    short = row(text, "ATS-10", "5")[-1]
    assert short == "epochs (2 of 500), noise (not recorded)"


def test_runs_on_other_images_or_backends_are_not_averaged(tmp_path, report_of):
    """The same seed on another backend is another run."""
    for number, (digest, backend, seed) in enumerate(
        [("a", "tensorflow", 0), ("a", "torch", 0), ("b", "torch", 1)]
    ):
        settings = {"backend": backend, "data": {"digest": digest}, "dataset": number}
        content = training(
            "colon_cancer", "ats-10", [number / 10], seed, settings=settings
        )
        write(tmp_path / str(number) / "metrics.json", content)
    # The same images elsewhere, and a file that does not say its backend itself.
    settings = {"dataset": "/b", "data": {"digest": "a"}}
    content = training("colon_cancer", "ats-10", [0.2], seed=7, settings=settings)
    write(tmp_path / "7" / "metrics.json", content)
    text = section(report_of(tmp_path), "Colon cancer, 500 x 500 pixels")
    runs = text.partition("**Colon cancer: runs**")[2]
    assert row(runs, "ATS-10")[1] == "2"
    assert row(runs, "ATS-10: torch")[1] == "1"
    assert row(runs, "ATS-10: torch, images of digest b")[1] == "1"
    assert row(text, "ATS-10", "0.2/1")[4] == "0.100 ± 0.100"


def test_extended_trainings_are_named(tmp_path, report_of):
    content = cross_validated("ats-10", [0.1, 0.2])
    for one in content["fits"][5:]:
        one["extended_from"] = [1]
    write(tmp_path / "a" / "metrics.json", content)
    content = cross_validated("u-10", [0.1])
    for one in content["fits"]:
        one["extended_from"] = None
    write(tmp_path / "b" / "metrics.json", content)
    text = section(report_of(tmp_path), "Colon cancer, 500 x 500 pixels")
    assert row(text, "ATS-10", "2")[3] == "2 (5 of 10 extended from 1)"
    assert row(text, "U-10", "1")[3] == "2"


def test_extended_trainings_are_a_series_of_their_own(tmp_path, report_of):
    """Which others are not compared with, though it has most runs."""
    for seed, extended, errors in ((0, None, [0.1]), (1, [1], [0.1, 0.2])):
        content = training("colon_cancer", "ats-10", errors, seed)
        for one in content["fits"]:
            one["extended_from"] = extended
        write(tmp_path / str(seed) / "metrics.json", content)
    text = section(report_of(tmp_path), "Colon cancer, 500 x 500 pixels")
    assert row(text, "ATS-10", "1")[3] == "2"
    assert row(text, "ATS-10: extended from 1 epoch", "2")[3] == "2 (extended from 1)"


def test_notes_say_what_the_numbers_are_of(tmp_path, report_of):
    write(tmp_path / "a" / "metrics.json", training("speed_limits", "ats-5", [0.1]))
    write(tmp_path / "b" / "metrics.json", cross_validated("ats-10", [0.1]))
    page = report_of(tmp_path)
    speed, colon = (
        section(page, title)
        for title in (
            "Speed limits, 960 x 1280 pixels",
            "Colon cancer, 500 x 500 pixels",
        )
    )
    assert "losses here are without these weights" in speed
    assert "as the German one, each run draws them with its seed" in speed
    assert "Each run draws its folds with its seed" in colon
    assert "weights" not in colon
    assert "folds" not in speed


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
        "runs": [{**parts[0], "train_loss": 0.4, "test_error": 0.4}],
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


# Costs


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
        *("27.0", "26.9", "30.0", "30.7", "270.0 ms", "1.0 to 2.0 ms", "1,200 MB"),
        *("not measured", "not measured", "memory ratio"),
    ]
    assert row(text, "1", "CNN", "1")[3:7] == ["15.0", "10.4", "not measured", "11.9"]
    assert row(text, "1", "ATS-25")[3:5] == ["2.00", ""]
    assert row(text, "5", "CNN", "1")[3:7] == ["7.20", "", "not measured", ""]
    assert row(text, "5", "CNN", "1")[-2:] == ["3.00", ""]


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
    assert row(text, "1", "CNN")[7:9] == ["not measured", "not measured"]


def test_costs_at_other_sizes_are_not_those_of_the_paper(tmp_path, report_of):
    sizes = {"image_shape": [500, 500, 3], "view_size": [50, 50]}
    content = cost("colon_cancer", {"ats-10": 9.0, "cnn-1": 300.0}, **sizes)
    write(tmp_path / "cost-a.json", content)
    page = report_of(tmp_path)
    text = section(page, "Colon cancer, 500 x 500 pixels")
    assert "cost, ratios to ATS-10, views of 50 x 50 pixels**" in text
    assert row(text, "1", "ATS-10")[7] == "9.0 ms"
    assert row(text, "1", "CNN", "1")[2:5] == ["1", "30.0", ""]
    assert row(text, "ATS-10")[6] == "not measured"
    assert "CNN 1 over ATS-10, time a sample, batch 1" in not_measured(page)


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


def keep_figures(monkeypatch):
    """Return a list that figures come into as they are saved."""
    figures, save = [], Figure.savefig

    def keep(figure, *arguments, **keywords):
        figures.append(figure)
        save(figure, *arguments, **keywords)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_figure_shows_mean_and_range(tmp_path, monkeypatch):
    """Where one run has no number, there is no point."""
    content = training("colon_cancer", "ats-10", [0.1, 0.3])
    content["fits"][0]["curve"]["test_error"][0] = None
    write(tmp_path / "metrics.json", content)
    series = collect_series(read_measurements(tmp_path))
    figures = keep_figures(monkeypatch)
    report_sections.draw_curves(tmp_path / "a.png", series, ["ATS-10"])
    loss, _, error, by_time = figures[0].axes
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [[1, 1.0], [2, 0.4]])
    np.testing.assert_allclose(error.lines[0].get_xydata(), [[2, 0.2]])
    np.testing.assert_allclose(by_time.lines[0].get_xydata(), [[3.0, 0.2]])
    corners = error.collections[0].get_paths()[0].vertices[:, 1]
    assert (corners.min(), corners.max()) == (0.1, 0.3)


def test_curves_of_one_epoch_are_seen(tmp_path, monkeypatch):
    for name, epochs in (("ats-10", 1), ("u-10", 2)):
        content = training("colon_cancer", name, [0.1])
        curve = {key: x[-epochs:] for key, x in content["fits"][0]["curve"].items()}
        content["fits"][0] |= {"epochs": epochs, "curve": curve}
        write(tmp_path / name / "metrics.json", content)
    series = collect_series(read_measurements(tmp_path))
    figures = keep_figures(monkeypatch)
    report_sections.draw_curves(tmp_path / "a.png", series, ["ATS-10", "U-10"])
    for axes in figures[0].axes:
        assert [line.get_marker() for line in axes.lines] == ["o", ""]


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


def test_the_page_of_the_documentation_is_made_of_what_lies_beside_it(tmp_path):
    """As docs/experiments.rst says. The figures are left to the eye."""
    docs = Path(__file__).resolve().parents[2] / "docs/results"
    benchmark.main(["report", str(docs / "measured"), "--output", str(tmp_path)])
    made, page = (path / "report.rst" for path in (tmp_path, docs))
    assert made.read_text("utf-8") == page.read_text("utf-8")
    drawn, figures = (
        {file.name for file in path.glob("*.png")} for path in (tmp_path, docs)
    )
    assert drawn == figures
