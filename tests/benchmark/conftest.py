"""Fixtures of the tests of the benchmarks."""

import pytest
from PIL import Image

from attention_sampling.benchmark import __main__ as benchmark
from attention_sampling.benchmark.report import sections as report_sections


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
