"""Generated road scenes: what is in them, what can be read where, and their files."""

import io
import itertools
import sys

import numpy as np
import pytest
from PIL import Image

from attention_sampling.datasets.speed_limits import check_images, load_speed_limits
from attention_sampling.datasets.synthetic.scenes import generate_scene, write_scenes

SMALL = (160, 240)
LIMITS = {2: 50, 4: 70, 5: 80}


def write(directory, **settings):
    write_scenes(
        directory, **{"n_images": 8, "size": SMALL, "progress": False} | settings
    )


def read_files(directory):
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.mark.parametrize("limit", [None, 50, 70, 80])
def test_a_scene_holds_one_limit_or_none(limit):
    n_others = set()
    for seed in range(12):
        image, signs = generate_scene(np.random.default_rng(seed), limit, SMALL)
        assert (image.shape, image.dtype) == ((*SMALL, 3), np.uint8)
        limits = [LIMITS[sign[0]] for sign in signs if sign[0] in LIMITS]
        assert limits == ([] if limit is None else [limit])
        assert {sign[0] for sign in signs} <= {*LIMITS, 13, 18, 38}
        n_others.add(len(signs) - len(limits))
    assert n_others == {0, 1, 2}


def test_signs_are_apart_and_inside_and_where_the_boxes_are():
    redness_inside, redness_around = [], []
    for seed in range(20):
        image, signs = generate_scene(np.random.default_rng(seed), 80, SMALL)
        redness = image[..., 0] - image[..., 1:].max(axis=-1).astype("float32")
        for _, left, top, right, bottom in signs:
            assert 0 <= left < right < SMALL[1]
            assert 0 <= top < bottom < SMALL[0]
            assert 30 <= right - left + 1 <= 39
            assert 30 <= bottom - top + 1 <= 39
        edges = sorted((left, right) for _, left, _, right, _ in signs)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(edges))
        _, left, top, right, bottom = signs[0]
        middle = (left + right) // 2
        redness_inside += [redness[row, middle] for row in (top + 2, bottom - 2)]
        redness_around += [redness[row, middle] for row in (top - 4, bottom + 4)]
    assert np.median(redness_inside) > 50
    assert np.median(redness_around) < 20


def sign_crops(seeds):
    """Return crops of limit signs, from images and from views, and which limit it is."""
    full, view, labels = [], [], []
    for seed in seeds:
        label = seed % 3
        rng = np.random.default_rng((5, seed))
        image, signs = generate_scene(rng, (50, 70, 80)[label], (160, 160))
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=90)
        picture = Image.open(file).convert("L")
        _, left, top, right, bottom = signs[0]
        # Both are brought to the same 24 x 24 pixels, aligned on the sign.
        for crops, source, scale in ((full, picture, 1), (view, picture.reduce(8), 8)):
            box = (left + 5, top + 5, right - 4, bottom - 4)
            box = tuple(edge / scale for edge in box)
            crop = source.resize((24, 24), Image.Resampling.BICUBIC, box=box)
            crop = np.asarray(crop, "float64").ravel()
            crops.append((crop - crop.mean()) / crop.std())
        labels.append(label)
    return np.array(full), np.array(view), np.array(labels)


def read_numbers(train, train_labels, test, test_labels):
    """Return the best test accuracy of ridge regression over its strengths."""
    targets = np.eye(3)[train_labels] - 1 / 3
    accuracies = []
    for strength in (10, 100, 1000):
        gram = train @ train.T + strength * np.eye(len(train))
        scores = test @ (train.T @ np.linalg.solve(gram, targets))
        accuracies.append((scores.argmax(axis=1) == test_labels).mean())
    return max(accuracies)


def test_numbers_are_legible_at_full_resolution_only():
    full, view, labels = sign_crops(range(100))
    test_full, test_view, test_labels = sign_crops(range(100, 160))
    assert read_numbers(full, labels, test_full, test_labels) > 0.9
    assert read_numbers(view, labels, test_view, test_labels) < 0.55


def test_same_seed_same_files_and_a_larger_set_begins_with_them(tmp_path):
    for name, settings in (
        ("first", {}),
        ("second", {}),
        ("other", {"seed": 4}),
        ("larger", {"n_images": 12}),
    ):
        write(tmp_path / name, **settings)
    first, second, other, larger = (
        read_files(tmp_path / name) for name in ("first", "second", "other", "larger")
    )
    images = [name for name in first if name.endswith(".jpg")]
    assert len(images) == 8
    assert first == second
    assert all(other[name] != first[name] for name in first)
    assert all(larger[name] == first[name] for name in images)
    assert larger["gt.txt"].startswith(first["gt.txt"])


def test_the_set_is_balanced_and_loads(tmp_path, capfd, monkeypatch):
    directory = tmp_path / "deep" / "scenes"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    write(directory, n_images=40, progress=True)
    assert "40/40" in capfd.readouterr().err
    data = load_speed_limits(directory)
    assert data.classes == ("empty", "50", "70", "80")
    samples = sorted(data.train + data.test, key=lambda sample: sample.path)
    assert check_images(samples, progress=False) == SMALL
    labels = [sample.label for sample in samples]
    fours = [labels[start : start + 4] for start in range(0, 40, 4)]
    assert all(sorted(four) == [0, 1, 2, 3] for four in fours)
    assert len(set(map(tuple, fours))) > 3
    before = read_files(directory)
    write(directory, n_images=40)
    assert read_files(directory) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_images": 0}, r"Received: n_images=0"),
        ({"seed": -1}, r"Received: seed=-1"),
        ({"size": (480, 100)}, r"160 pixels each\. Received: size=\(480, 100\)"),
        ({"size": (480.0, 640)}, r"Received: size=\(480\.0, 640\)"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        write(tmp_path / "scenes", **settings)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_limit_is_refused():
    with pytest.raises(ValueError, match=r"\[50, 70, 80\].*Received: limit=60"):
        generate_scene(np.random.default_rng(0), 60)
