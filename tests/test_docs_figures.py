"""The scripts that make the figures of the documentation run, on less than they show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = {
    "estimator_variance": ["--problems", "1", "--trials", "20"],
    "large_images": ["--megapixels", "1", "4", "--turns", "2"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [*(ROOT / "docs" / "figures").glob("*.py")],
    ids=lambda script: script.stem,
)
def test_a_script_writes_its_figure(script, tmp_path):
    name = script.stem
    done = subprocess.run(
        [sys.executable, str(script), *OPTIONS[name], str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2
    assert (tmp_path / f"{name}.png").stat().st_size > 1000
    pages = [page.read_text("utf-8") for page in (ROOT / "docs").glob("*.rst")]
    assert any(f"docs/figures/{name}.py" in page for page in pages)
    assert any(f"_static/{name}.png" in page for page in pages)
    assert (ROOT / "docs" / "_static" / f"{name}.png").exists()
