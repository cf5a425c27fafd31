"""``experiments real-scenes``, as a user runs it: interrupted, gone on with, and used."""

import json
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from processes import COMMANDS, run, start, wait_until
from sign_files import LIMITS, SIZE, write_benchmarks

if keras.backend.backend() != "tensorflow":
    pytest.skip("the images come from tf.data", allow_module_level=True)

from attention_sampling.datasets.folds import stratified_folds
from attention_sampling.datasets.traffic_signs import Sample, Sign, read_german
from attention_sampling.experiments.__main__ import main
from attention_sampling.experiments.pretraining import find_networks
from attention_sampling.experiments.real_scenes import _count, _count_by_width, _mix

FEW = ["--n-images=16", "--pretrain=1", "--epochs=1", "--real-epochs=1"]


def add_scenes(scenes):
    """Add five scenes of each limit: as many as there are folds."""
    lines = (scenes / "gt.txt").read_text()
    for number, sign_class in enumerate(sorted(LIMITS) * 5):
        name = f"{100 + number:05}.png"
        image = np.full((SIZE[1], SIZE[0], 3), 60 + number, "uint8")
        image[60:80, 25:45] = np.random.default_rng(number).integers(256, size=3)
        Image.fromarray(image).save(scenes / "images" / name)
        lines += f"{name};25;60;45;80;{sign_class}\n"
    (scenes / "gt.txt").write_text(lines)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_its_model_reads_a_photograph(tmp_path):
    benchmarks = write_benchmarks(tmp_path)
    add_scenes(benchmarks[0])
    output = tmp_path / "runs"
    words = ["real-scenes", *map(str, benchmarks), *FEW, f"--output={output}"]
    with start(*COMMANDS, "experiments", *words) as process:
        wait_until((output / "start-b" / "model.keras").exists, process)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    with pytest.raises(SystemExit, match="--resume"):
        main(words)
    code, printed, errors = run(*COMMANDS, "experiments", *words, "--resume")
    assert code == 0, errors
    assert (output / "scenes.jpg").stat().st_size > 10_000
    metrics = json.loads((output / "metrics.json").read_text())
    for when in ("before", "after"):
        confusion = np.array(metrics[when]["confusion"])
        # Every scene was tested with once: those of write_benchmarks too.
        assert confusion.sum(axis=1).tolist() == [10, 6, 6, 5, 5]
        error = 1 - np.trace(confusion) / confusion.sum()
        assert metrics[when]["error"] == pytest.approx(error)
        assert f"{error:.3f}" in printed
        products = [row["scenes"] * row[when] for row in metrics["by_width"]]
        assert sum(products) / 32 == pytest.approx(error)
    widths = {row["width"]: row["scenes"] for row in metrics["by_width"]}
    assert widths["none"] == 10
    assert widths["below 24 pixels"] >= 20  # those of add_scenes, of 20 pixels
    assert metrics["after"]["constant_error"] == pytest.approx(1 - 10 / 32)
    check_backgrounds(output, benchmarks[0])
    model = keras.saving.load_model(output / "speed_limits.keras")
    photograph = np.zeros((1, 160, 240, 3), "uint8")
    probabilities = model.predict([np.zeros((1, 40, 60, 3)), photograph], verbose=0)
    assert probabilities.shape == (1, 5)
    trained = keras.saving.load_model(output / "all" / "model.keras")
    theirs, ours = find_networks(trained), find_networks(model)
    for name in ("attention", "feature", "label"):
        pairs = zip(ours[name].get_weights(), theirs[name].get_weights(), strict=True)
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)


def check_backgrounds(output, scenes):
    """Signs were pasted into no scene that the model is tested with."""
    _, samples = read_german(scenes)
    stems = [Path(sample.path).stem for sample in samples]
    labels = [sample.label for sample in samples]
    folds = stratified_folds(labels, 5, 0, names=stems)
    for start_name, tested in (("start-a", (0, 1)), ("start-b", (2, 3, 4))):
        unseen = {stems[i] for fold in tested for i in folds[fold].test}
        pasted = list((output / start_name / "data/train/images").iterdir())
        assert len(pasted) == 16
        for path in pasted:
            # Each scene is one grey, which tells its number.
            number = round((np.median(np.asarray(Image.open(path))) - 60) / 5)
            assert f"{number:05}" not in unseen


def test_as_many_pasted_scenes_as_real_ones_but_no_other_real_ones():
    assert _mix(np.array([5, 7, 8]), 5).tolist() == [5, 7, 8, 0, 1, 2]
    assert _mix(np.array([2, 4, 5, 6]), 2).tolist() == [2, 4, 5, 6, 0, 1]


def test_a_class_without_scenes_does_not_count():
    counted = _count(np.array([0, 0, 3, 3]), np.array([0, 2, 3, 3]), 5)
    assert counted["error"] == 0.25
    assert counted["balanced_error"] == pytest.approx((0.5 + 0) / 2)
    assert counted["constant_error"] == 0.5
    assert np.array(counted["confusion"]).sum(axis=1).tolist() == [2, 0, 0, 2, 0]


def test_errors_are_counted_by_the_width_of_the_widest_sign():
    def sample(*widths):
        signs = [Sign("30", 10, 11, 40, 11 + width) for width in widths]
        return Sample("photo.jpg", int(bool(signs)), tuple(signs))

    samples = [sample(), sample(23), sample(24), sample(23, 31), sample(48)]
    wrong = np.array([[1, 1, 0, 1, 0], [0, 1, 0, 0, 0]], bool)
    assert _count_by_width(samples, wrong) == [
        {"width": "none", "before": 1, "after": 0, "scenes": 1},
        {"width": "below 24 pixels", "before": 1, "after": 1, "scenes": 1},
        {"width": "24 to 31", "before": 0.5, "after": 0, "scenes": 2},
        {"width": "48 and more", "before": 0, "after": 0, "scenes": 1},
    ]
