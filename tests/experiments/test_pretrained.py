"""The model in the package, as after a plain installation."""

from pathlib import Path

import pytest
from processes import REPOSITORY, run, run_code

from attention_sampling.experiments import load_pretrained, pretrained

FILE = Path(pretrained.__file__).with_name("speed_limits.keras")

PREDICTS = """
import sys
# The extra "experiments" is missing, as after a plain installation.
names = ("matplotlib", "pandas", "pooch", "tensorboard", "tqdm")
sys.modules |= dict.fromkeys(names)
import numpy as np
from attention_sampling.experiments import load_pretrained
from attention_sampling.layers.attention_sampling import sampling_layers

rng = np.random.default_rng(0)
photos = []
for height, width in ((800, 1360), (1808, 1360), (408, 612)):
    image = rng.integers(256, size=(1, height, width, 3), dtype="uint8")
    view = image.reshape(1, height // 4, 4, width // 4, 4, 3).mean(axis=(2, 4))
    photos.append([view, image])
model = load_pretrained("speed_limits")
[layer] = sampling_layers(model)
assert layer.class_names == ("empty", "30", "50", "70", "80")
answers = [model.predict(photo, verbose=0) for photo in photos]
for answer in answers:
    assert answer.shape == (1, 5)
    np.testing.assert_allclose(answer.sum(), 1, rtol=1e-5)
    assert (answer >= 0).all()
# The answer to a photograph does not hang on those before it.
again = load_pretrained("speed_limits")
for photo, answer in zip(photos[::-1], answers[::-1]):
    np.testing.assert_allclose(again.predict(photo, verbose=0), answer, rtol=1e-5)
"""


def test_predicts_after_a_plain_installation():
    run_code(PREDICTS)


def test_is_small_and_installed(tmp_path):
    assert FILE.stat().st_size < 1e6
    words = ["setup.py", "-q", "build_py", "--build-lib", tmp_path]
    code, _, errors = run(*words, cwd=REPOSITORY)
    assert code == 0, errors
    installed = tmp_path / FILE.relative_to(REPOSITORY)
    assert installed.read_bytes() == FILE.read_bytes()


def test_another_name_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="no trained model of this name") as refused:
        load_pretrained("cats")
    files = FILE.parent.glob("*.keras")
    names = ", ".join(sorted(file.stem for file in files))
    assert f"Expected: one of {names}. Received: name='cats'" in str(refused.value)
