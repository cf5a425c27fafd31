"""The colon cancer example as a user runs it: a process, resumed, twice, interrupted."""

import re
import runpy
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from processes import (
    EXAMPLES,
    interrupt_example,
    interrupt_training,
    names_in,
    read_epochs,
    refuse,
    refuse_to_overwrite,
    run,
    run_here,
)

from attention_sampling.datasets.synthetic.tissue import write_tissue
from attention_sampling.files import one_process

if keras.backend.backend() != "tensorflow":
    pytest.skip("the examples are for TensorFlow", allow_module_level=True)

EXAMPLE = EXAMPLES / "colon_cancer.py"


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    return write_tissue(tmp_path_factory.mktemp("data") / "tissue", 10, size=80)


@pytest.mark.slow
def test_twice_at_once_interrupted_and_resumed(tissue, tmp_path, capsys):
    output = tmp_path / "new" / "run"
    words = [EXAMPLE, f"--dataset={tissue}", f"--output={output}", "--n-patches=3"]
    # The first --resume finds nothing, and begins.
    interrupt_training([*words, "--epochs=10000", "--resume"], output)
    refuse_to_overwrite(words, output)
    epochs = read_epochs(output)[-1] + 3
    code, printed, errors = run(*words, f"--epochs={epochs}", "--resume")
    assert (code, errors) == (0, "")  # no lines of CUDA, oneDNN or absl either
    assert "10 images (1-10), 5 with epithelial nuclei" in printed
    assert "8 to train on, 2 to test with" in printed
    assert re.search("cross_entropy: .* val_cross_entropy: ", printed)
    assert f"Epoch {epochs}/{epochs}" in printed
    assert "Epoch 1/" not in printed
    assert re.search(r"^Test accuracy [01]\.\d+\. ", printed, re.MULTILINE)
    assert read_epochs(output) == list(range(epochs))
    pictures = names_in(output / "pictures")
    assert len(pictures) == 2
    for name in pictures:
        with Image.open(output / "pictures" / name) as image:
            assert min(image.size) > 300

    # What is finished is evaluated again.
    shutil.rmtree(output / "pictures")
    run_here(*words, f"--epochs={epochs}", "--resume")
    printed = capsys.readouterr().out
    assert "Epoch" not in printed
    assert "Test accuracy" in printed
    assert names_in(output / "pictures") == pictures


@pytest.mark.slow
def test_interrupted_while_it_generates_and_the_default_run_learns(tmp_path):
    words = [EXAMPLE, f"--output={tmp_path}"]
    interrupt_example(words, tmp_path, lambda: any(tmp_path.rglob("*.part/*/img3")))
    assert names_in(tmp_path) == ["settings.json"]
    code, printed, errors = run(*words, timeout=1500)
    assert (code, errors) == (0, "")
    assert "100 images (1-100), 50 with epithelial nuclei" in printed
    [accuracy] = re.findall(r"^Test accuracy (\d\.\d+)\.", printed, re.MULTILINE)
    assert float(accuracy) >= 0.8


def test_what_cannot_be_done_is_one_line_and_leaves_nothing(tissue, tmp_path):
    output = tmp_path / "taken"
    with one_process(output):
        refused = refuse(EXAMPLE, f"--dataset={tissue}", f"--output={output}")
    assert refused.startswith(f"error: Another process is at work in {output}")
    assert names_in(output) == []
    nowhere = tmp_path / "nowhere"
    refused = refuse(EXAMPLE, f"--dataset={nowhere}", f"--output={tmp_path}")
    assert refused.startswith("error: The data set is not there.")
    assert refused.endswith(f"{nowhere}'")


@pytest.mark.slow
def test_a_training_that_diverged_is_not_evaluated(tissue, tmp_path):
    train = runpy.run_path(str(EXAMPLE))["train"]
    train.__globals__["LEARNING_RATE"] = 1e36
    with pytest.raises(ValueError, match=r"loss is NaN; .* keeps the last good epoch"):
        train(tmp_path, tissue, 3, 5, 3, seed=0, resume=False)
    assert not (tmp_path / "model.keras").exists()
    assert not (tmp_path / "pictures").exists()


def test_training_images_are_changed_together_with_their_views():
    make_batches = runpy.run_path(str(EXAMPLE))["make_batches"]
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), "uint8")
    labels = np.arange(4, dtype="int32")
    [((_, pixels), order)] = list(make_batches(images, labels, batch_size=4))
    np.testing.assert_array_equal(pixels, images)
    np.testing.assert_array_equal(order, labels)
    changed = make_batches(images, labels, batch_size=4, seed=0)
    epochs = [next(iter(changed)) for _ in range(2)]
    for (views, pixels), order in epochs:
        assert sorted(order) == [0, 1, 2, 3]
        assert (pixels.numpy() != images[order]).any(axis=(1, 2, 3)).all()
        means = pixels.numpy().reshape(4, 4, 5, 4, 5, 3).mean(axis=(2, 4))
        np.testing.assert_allclose(views, means, atol=0.01)
    (_, first), _ = epochs[0]
    (_, second), _ = epochs[1]
    assert not np.array_equal(np.sort(first, axis=0), np.sort(second, axis=0))
