"""The code in the documentation runs as it stands."""

import re
import textwrap

import pytest
from processes import REPOSITORY, run

BLOCK = re.compile(
    r"^\.\. code-block:: python\n(?P<options>(?:   :.*\n)*)\n(?P<code>(?:   .*\n|\n)+)",
    re.MULTILINE,
)


def python_blocks(page):
    """Yield the code of each Python block, at its line, and its caption if any."""
    text = (REPOSITORY / page).read_text("utf-8")
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("code"))
        caption = re.search(r":caption: (.+)", match["options"])
        code = "\n" * line + textwrap.dedent(match["code"])
        yield code, caption and caption[1]


@pytest.mark.parametrize(
    "page",
    [
        "README.rst",
        "docs/how_it_works.rst",
        "docs/experiments.rst",
        "docs/coming_from_ats.rst",
        pytest.param("docs/quickstart.rst", marks=pytest.mark.slow),
        pytest.param("docs/estimators.rst", marks=pytest.mark.slow),
        pytest.param("docs/large_images.rst", marks=pytest.mark.slow),
    ],
)
def test_code_of_a_page_runs_from_top_to_bottom(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    n_blocks = 0
    for code, caption in python_blocks(page):
        n_blocks += 1
        if caption is None:
            exec(compile(code, page, "exec"), names)
            if "model.fit(" in code:
                history = names["model"].history.history
                assert history.get("val_accuracy", history["accuracy"])[-1] > 0.9
        else:  # a file of its own, run by a process of its own
            (tmp_path / caption).write_text(code)
            status, _, errors = run(caption)
            assert status == 0, errors
    assert n_blocks
