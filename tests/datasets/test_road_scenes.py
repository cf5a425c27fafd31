import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attention_sampling.datasets import road_scenes
from attention_sampling.datasets.road_scenes import draw_scene, write_road_scenes

SMALL = (240, 320)
LIMITS = {2: 50, 4: 70, 5: 80}


def write(directory, **settings):
    defaults = {"n_images": 8, "size": SMALL, "seed": 0, "progress": False}
    write_road_scenes(directory, **{**defaults, **settings})


def read_files(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def read_annotations(directory):
    lines = (directory / "gt.txt").read_text("ascii").splitlines()
    return [(name, *map(int, rest)) for name, *rest in (li.split(";") for li in lines)]


# The pictures


@pytest.mark.parametrize("limit", [None, 50, 70, 80])
def test_scene_holds_one_limit_or_none(limit):
    n_others = set()
    for seed in range(12):
        image, signs = draw_scene(np.random.default_rng(seed), limit, SMALL)
        assert image.shape == (*SMALL, 3)
        assert image.dtype == np.uint8
        limits = [LIMITS[sign[0]] for sign in signs if sign[0] in LIMITS]
        assert limits == ([] if limit is None else [limit])
        assert {sign[0] for sign in signs} <= {*LIMITS, 13, 18, 38}
        n_others.add(len(signs) - len(limits))
    assert n_others == {0, 1, 2}


def test_default_scene_has_the_documented_size():
    assert draw_scene(np.random.default_rng(0))[0].shape == (240, 320, 3)


def test_signs_lie_apart_and_inside():
    for seed in range(30):
        _, signs = draw_scene(np.random.default_rng(seed), 50, (240, 240))
        for _, left, top, right, bottom in signs:
            assert 0 <= left < right < 240
            assert 0 <= top < bottom < 240
            assert 26 <= right - left + 1 <= 35
            assert 26 <= bottom - top + 1 <= 35
        lefts, rights = (sorted(sign[side] for sign in signs) for side in (1, 3))
        assert all(right < left for right, left in zip(rights, lefts[1:], strict=False))


def test_speed_sign_is_the_reddest_thing_around_it():
    # The box is where the sign was drawn: its ring is red, what is around it is not.
    inside, outside = [], []
    for seed in range(10):
        image, signs = draw_scene(np.random.default_rng(seed), 80, SMALL)
        _, left, top, right, bottom = signs[0]
        redness = image[..., 0] - image[..., 1:].max(axis=-1).astype("float32")
        middle = (top + bottom) // 2
        inside += [redness[middle, left + 2], redness[middle, right - 2]]
        outside += [redness[middle, left - 4], redness[middle, right + 4]]
    assert np.median(inside) > 60
    assert np.median(outside) < 30


def sign_crops(seeds):
    """Return grey crops of speed signs, from images and from views, and their limits."""
    full, view, limits = [], [], []
    for seed in seeds:
        limit = (50, 70, 80)[seed % 3]
        image, signs = draw_scene(np.random.default_rng((5, seed)), limit, SMALL)
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=90)
        picture = Image.open(file).convert("L")
        _, left, top, right, bottom = signs[0]
        # Both are brought to the same 24 x 24 pixels, aligned on the sign.
        for crops, source, scale in ((full, picture, 1), (view, picture.reduce(4), 4)):
            box = tuple(
                edge / scale for edge in (left + 5, top + 5, right - 4, bottom - 4)
            )
            crop = source.resize((24, 24), Image.Resampling.BICUBIC, box=box)
            crop = np.asarray(crop, "float64").ravel()
            crops.append((crop - crop.mean()) / crop.std())
        limits.append(seed % 3)
    return np.array(full), np.array(view), np.array(limits)


def ridge_accuracy(train, train_labels, test, test_labels):
    """Return the best test accuracy of a linear classifier over its strengths."""
    targets = np.eye(3)[train_labels] - 1 / 3
    accuracies = []
    for strength in (10, 100, 1000):
        gram = train @ train.T + strength * np.eye(len(train))
        scores = test @ (train.T @ np.linalg.solve(gram, targets))
        accuracies.append((scores.argmax(axis=1) == test_labels).mean())
    return max(accuracies)


def test_number_is_legible_at_full_resolution_only():
    full, view, labels = sign_crops(range(300))
    test_full, test_view, test_labels = sign_crops(range(300, 510))
    assert ridge_accuracy(full, labels, test_full, test_labels) > 0.9
    assert ridge_accuracy(view, labels, test_view, test_labels) < 0.55


# The directory


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        write(tmp_path / name, n_images=4, seed=seed)
    first = read_files(tmp_path / "first")
    assert len(first) == 4 + 2
    assert first == read_files(tmp_path / "second")
    other = read_files(tmp_path / "other")
    assert all(other[name] != first[name] for name in first)


def test_a_larger_set_begins_with_the_smaller(tmp_path):
    write(tmp_path / "small", n_images=3)
    write(tmp_path / "large", n_images=6)
    small, large = read_files(tmp_path / "small"), read_files(tmp_path / "large")
    images = [name for name in small if name.endswith(".jpg")]
    assert len(images) == 3
    assert all(small[name] == large[name] for name in images)
    assert large["gt.txt"].startswith(small["gt.txt"])


def test_layout_and_balance(tmp_path):
    directory = tmp_path / "deep" / "scenes"
    write(directory, n_images=40)
    names = [f"{number:05d}.jpg" for number in range(40)]
    assert sorted(path.name for path in (directory / "images").iterdir()) == names
    for name in names[:5]:
        with Image.open(directory / "images" / name) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (320, 240))
    annotations = read_annotations(directory)
    limits = dict.fromkeys(names)
    for name, left, top, right, bottom, class_id in annotations:
        assert 0 <= left < right < 320
        assert 0 <= top < bottom < 240
        if class_id in LIMITS:
            assert limits[name] is None
            limits[name] = LIMITS[class_id]
    order = list(limits.values())
    fours = [order[start : start + 4] for start in range(0, 40, 4)]
    assert all(set(four) == {None, 50, 70, 80} for four in fours)
    assert len(set(map(tuple, fours))) > 3
    with_others = {line[0] for line in annotations if line[5] not in LIMITS}
    assert any(limits[name] is None for name in with_others)
    assert any(limits[name] is not None for name in with_others)


def test_complete_directory_is_not_drawn_again(tmp_path, monkeypatch):
    write(tmp_path / "scenes")
    before = read_files(tmp_path / "scenes")
    monkeypatch.setattr(road_scenes, "draw_scene", None)
    write(tmp_path / "scenes")
    assert read_files(tmp_path / "scenes") == before


@pytest.mark.parametrize(
    "settings", [{"n_images": 7}, {"size": (240, 336)}, {"seed": 1}]
)
def test_other_settings_are_refused(tmp_path, settings):
    write(tmp_path / "scenes")
    with pytest.raises(ValueError, match=r"other settings.*Delete it.*Received: "):
        write(tmp_path / "scenes", **settings)


def test_another_version_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "scenes", n_images=1)
    monkeypatch.setattr(road_scenes, "_VERSION", 0)
    with pytest.raises(ValueError, match="other settings"):
        write(tmp_path / "scenes", n_images=1)


def empty(directory):
    shutil.rmtree(directory)
    directory.mkdir()


def remove_an_image(directory):
    (directory / "images" / "00003.jpg").unlink()


def remove_annotations(directory):
    (directory / "gt.txt").unlink()


def spoil_settings(directory):
    (directory / "road_scenes.json").write_text("[1]")


def put_a_file(directory):
    shutil.rmtree(directory)
    directory.write_text("mine")


@pytest.mark.parametrize(
    "damage", [empty, remove_an_image, remove_annotations, spoil_settings, put_a_file]
)
def test_incomplete_directory_is_refused_and_kept(tmp_path, damage):
    directory = tmp_path / "scenes"
    write(directory)
    damage(directory)
    before = read_files(tmp_path)
    with pytest.raises(
        ValueError, match=r"not a complete.*Delete it.*Received: .*scen"
    ):
        write(directory)
    assert read_files(tmp_path) == before


def test_failure_leaves_nothing(tmp_path, monkeypatch):
    drawn = []

    def draw_two_then_fail(*arguments):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(arguments)
        return np.zeros((*SMALL, 3), "uint8"), []

    monkeypatch.setattr(road_scenes, "draw_scene", draw_two_then_fail)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "scenes")
    assert list(tmp_path.iterdir()) == []


WRITE = """
import sys
from attention_sampling.datasets.road_scenes import write_road_scenes
write_road_scenes(sys.argv[1], int(sys.argv[2]), (240, 320), progress=False)
"""


def start(directory, n_images):
    root = Path(road_scenes.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, str(directory), str(n_images)], env=environment
    )


def test_killed_run_leaves_no_directory(tmp_path):
    directory = tmp_path / "scenes"
    process = start(directory, 10_000)
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.rglob("*.jpg"))) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not directory.exists()
    assert list(tmp_path.iterdir())  # what the killed run has left
    write(directory)
    assert list(tmp_path.iterdir()) == [directory]
    assert len(list(directory.glob("images/*.jpg"))) == 8
    write(tmp_path / "fresh")
    assert read_files(directory) == read_files(tmp_path / "fresh")


def test_two_runs_at_once_share_one_directory(tmp_path):
    directory = tmp_path / "scenes"
    processes = [start(directory, 12) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert list(tmp_path.iterdir()) == [directory]
    assert json.loads((directory / "road_scenes.json").read_text())["n_images"] == 12


def test_progress_bar(tmp_path, capsys):
    write(tmp_path / "silent", n_images=2)
    assert capsys.readouterr().err == ""
    write(tmp_path / "shown", n_images=2, progress=True)
    assert "2/2" in capsys.readouterr().err


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_images": 0}, r"`n_images` must be .* at least 1\. Received: n_images=0"),
        ({"n_images": 2.5}, r"Received: n_images=2\.5"),
        ({"seed": -1}, r"`seed` must be .* at least 0\. Received: seed=-1"),
        ({"seed": None}, r"Received: seed=None"),
        ({"size": (480, 200)}, r"`size` must be .* 240 each\. Received: size=\(480, 2"),
        ({"size": 480}, r"Received: size=480"),
        ({"size": (480.0, 640)}, r"Received: size=\(480\.0, 640\)"),
    ],
)
def test_bad_settings(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "scenes", **settings)
    assert list(tmp_path.iterdir()) == []


def test_bad_scene():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"\[50, 70, 80\].*Received: limit=60"):
        draw_scene(rng, 60)
    with pytest.raises(ValueError, match=r"240 each\. Received: size=\(100, 640\)"):
        draw_scene(rng, None, (100, 640))
