"""The scripts that make the figures of the documentation run, on less than they show."""

import pytest
from processes import REPOSITORY, run

DOCS = REPOSITORY / "docs"
SCENES = REPOSITORY.parent / "shared" / "data" / "gtsdb"
OPTIONS = {
    "budget": [
        *("--images", "32", "--test-images", "8"),
        *("--epochs", "1", "--repeats", "2"),
    ],
    "estimator_variance": ["--problems", "1", "--trials", "20"],
    "large_images": ["--megapixels", "1", "4", "--turns", "2"],
    "saliency": [SCENES],
    "saliency_epochs": ["--images", "40", "--epochs", "1", "--runs", "1"],
    "strip": ["--epochs", "1"],
    "plateau": ["--epochs", "2"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", [*(DOCS / "figures").glob("*.py")], ids=lambda script: script.stem
)
def test_a_script_writes_its_figure(script, tmp_path):
    name = script.stem
    if name == "saliency" and not SCENES.is_dir():
        pytest.skip("the German Traffic Sign Detection Benchmark is not here")
    code, printed, errors = run(script, *OPTIONS[name], tmp_path)
    assert code == 0, errors
    assert len(printed.splitlines()) >= 2
    assert (tmp_path / f"{name}.png").stat().st_size > 1000
    pages = [page.read_text("utf-8") for page in DOCS.rglob("*.rst")]
    assert any(f"docs/figures/{name}.py" in page for page in pages)
    assert any(f"_static/{name}.png" in page for page in pages)
    assert (DOCS / "_static" / f"{name}.png").exists()
