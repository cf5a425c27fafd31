"""The code in the documentation runs as it stands."""

import re
import textwrap

import numpy as np
import pytest
from PIL import Image, ImageDraw
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


def write_photographs(directory):
    """Write forty photographs of cats, which are circles, and dogs, which are squares."""
    rng = np.random.default_rng(0)
    for number in range(40):
        kind = ("cat", "dog")[number % 2]
        (directory / kind).mkdir(parents=True, exist_ok=True)
        hills = rng.integers(60, 180, size=(10, 15, 3), dtype="uint8")
        photograph = Image.fromarray(hills).resize(
            (1500, 1000), Image.Resampling.BICUBIC
        )
        plot = ImageDraw.Draw(photograph)
        for row, column in rng.integers(50, (950, 1450), size=(3, 2)).tolist():
            box = [column - 30, row - 30, column + 30, row + 30]
            shape = plot.ellipse if kind == "cat" else plot.rectangle
            shape(box, fill=(230, 30, 40), outline="white", width=6)
        photograph.save(directory / kind / f"{number}.jpg", quality=90)


FIRST = "docs/start/first_model.rst"
# Pages without a training of their own: what shows that the model of the first is good.
LEARNED = {
    "docs/guides/looking.rst": "heat[images[200, :, :, 0] == 255].mean() > 10 * heat.mean()",
    "docs/guides/budget.rst": "accuracy > 0.9",  # of the full model, the last
}


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param(["README.rst"], marks=pytest.mark.slow),
        ["docs/how_it_works.rst"],
        ["docs/experiments.rst"],
        ["docs/coming_from_ats.rst"],
        ["docs/guides/sizes.rst"],
        # These go on from the first.
        [FIRST, "docs/guides/looking.rst"],
        pytest.param([FIRST, "docs/guides/budget.rst"], marks=pytest.mark.slow),
        ["docs/guides/profiling.rst"],
        pytest.param(
            [FIRST, "docs/guides/augmentation.rst", "docs/guides/tasks.rst"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [FIRST, "docs/guides/not_learning.rst", "docs/guides/custom_training.rst"],
            marks=pytest.mark.slow,
        ),
        pytest.param([FIRST, "docs/start/your_images.rst"], marks=pytest.mark.slow),
        ["docs/estimators.rst"],
        ["docs/large_images.rst"],
    ],
    ids=lambda pages: pages[-1],
)
def test_code_runs_from_top_to_bottom(pages, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if pages == ["README.rst"]:
        write_photographs(tmp_path / "photos")
    names = {"__name__": "__main__"}
    for page in pages:
        run_page(page, names, tmp_path)


def run_page(page, names, directory):
    n_blocks = 0
    for code, caption in python_blocks(page):
        n_blocks += 1
        if caption is None:
            exec(compile(code, page, "exec"), names)
            # Where accuracy says nothing, the block itself asserts what it learned.
            if "model.fit(" in code and "assert " not in code:
                history = names["model"].history.history
                accuracy = history.get("val_accuracy", history["accuracy"])
                # Predictions from samples differ from one epoch to the next.
                assert max(accuracy[-3:]) > 0.9
        else:  # a file of its own, run by a process of its own
            (directory / caption).write_text(code)
            status, _, errors = run(caption)
            assert status == 0, errors
    assert n_blocks
    assert eval(LEARNED.get(page, "True"), names)


@pytest.mark.slow
def test_a_backbone_is_frozen_until_it_is_fine_tuned(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    networks, _ = next(python_blocks(FIRST))
    names = {}
    exec(networks, names)
    weights = []
    for code, _ in python_blocks("docs/guides/backbones.rst"):
        # Nothing can be downloaded in a test, and of random weights no accuracy can be
        # asked in a few steps.
        code = code.replace('weights="imagenet"', "weights=None")
        exec(compile(code, "docs/guides/backbones.rst", "exec"), names)
        weights.append({w.path: w.numpy() for w in names["backbone"].weights})
    at_first, frozen, tuned, _ = weights
    np.testing.assert_equal(frozen, at_first)
    changed = [path for path in tuned if (tuned[path] != frozen[path]).any()]
    assert len(changed) > len(tuned) / 4
    assert not any("moving_" in path for path in changed)  # of batch normalization
