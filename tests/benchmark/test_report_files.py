import json

import numpy as np
import pytest
from report_contents import cost, overhead, row, training, write

from attention_sampling.benchmark import __main__ as benchmark

# What is not of a measurement


def test_nothing_to_report(tmp_path):
    write(tmp_path / "estimators.json", {"rows": []})
    with pytest.raises(
        ValueError,
        match=r"nothing to report. Expected: measurements as metrics\.json, .*Received: DIR=",
    ):
        benchmark.main(["report", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["estimators.json"]


def test_a_directory_that_is_not_there_is_not_an_empty_one(tmp_path):
    (tmp_path / "file").touch()
    for name, there in (("none", "nothing"), ("file", "a file")):
        with pytest.raises(ValueError, match=f"where there is {there}"):
            benchmark.main(["report", str(tmp_path / name)])


def test_a_page_is_not_written_into_a_file(tmp_path):
    write(tmp_path / "metrics.json", good())
    (tmp_path / "page").touch()
    with pytest.raises(ValueError, match="--output must be a directory, or a new one"):
        benchmark.main(["report", str(tmp_path), "--output", str(tmp_path / "page")])


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


BROKEN = {
    "task": ({**good(), "task": "cats"}, "there is no task 'cats'"),
    "method": ({**good(), "method": "ats-0"}, r"Received: method='ats-0'"),
    "no fits": (without(good(), "fits"), "fits is missing"),
    "curve": (
        without(good(), "fits", 0, "curve", "seconds"),
        r"fits\[0\]\.curve\.seconds is missing",
    ),
    "mean": (
        replaced(good(), 0.2, "runs", 0, "test_error"),
        "test_error of run 0 is 0.2, and 0.100000 in its fits",
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
    "data": (
        {**good(), "settings": {"data": {"drawn": 1}}},
        "settings.data.drawn is a JSON number, not boolean",
    ),
    "noise": (
        {**good(), "settings": {"data": {"noise_patches": True}}},
        "settings.data.noise_patches is a JSON boolean, not number",
    ),
    "extended": (
        replaced(good(), 30, "fits", 0, "extended_from"),
        r"fits\[0\]\.extended_from is a JSON number, not array",
    ),
    "date": ({**good(), "date": 3}, "date is a JSON number, not string"),
}


@pytest.mark.parametrize(
    "content", [[], {"train_loss": 0.1}, {"kind": "cost"}, {"loss": float("nan")}]
)
def test_files_of_another_kind_are_skipped(tmp_path, report_of, capsys, content):
    """The slides example leaves a metrics.json that is none of an experiment."""
    write(tmp_path / "good" / "metrics.json", good())
    write(tmp_path / "slides" / "metrics.json", content)
    write(tmp_path / "slides" / "cost-a.json", {"task": "colon_cancer"})
    page = report_of(tmp_path)
    skipped = "Skipped, not of a measurement: slides/cost-a.json, slides/metrics.json"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == skipped
    assert lines[-1].startswith("1 files, reported in ")
    assert row(page, "ATS-10", "0.2/1")[4] == "0.100"


def test_nothing_is_reported_of_files_of_another_kind(tmp_path):
    write(tmp_path / "slides" / "metrics.json", {"train_loss": 0.1})
    with pytest.raises(ValueError, match="There is nothing to report"):
        benchmark.main(["report", str(tmp_path)])


@pytest.mark.parametrize("name", BROKEN)
def test_broken_content_is_named(tmp_path, name):
    content, message = BROKEN[name]
    write(tmp_path / "good" / "metrics.json", good())
    path = tmp_path / "foreign" / "metrics.json"
    write(path, content)
    with pytest.raises(ValueError, match=message) as raised:
        benchmark.main(["report", str(tmp_path)])
    text = str(raised.value)
    assert text.startswith(f"{path} cannot be read: ")
    assert text.endswith(
        "Expected: what an example writes. Measure it again, or move it out of the "
        "directory"
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
            r"runs\[0\]\.test_error is not finite",
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
    assert str(raised.value).startswith(f"{path} cannot be read: ")


def test_a_run_counts_once(tmp_path):
    for name in "ab":
        write(tmp_path / name / "metrics.json", good())
    with pytest.raises(
        ValueError, match=r"one of a/metrics\.json and b/metrics\.json.*seed=0"
    ):
        benchmark.main(["report", str(tmp_path)])
