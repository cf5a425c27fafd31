import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from attention_sampling.data import TiffSource
from attention_sampling.datasets import drawn_slides
from attention_sampling.datasets.drawn_slides import (
    CELL_SHAPES,
    draw_slide,
    write_drawn_slides,
)
from attention_sampling.datasets.tissue import draw_spot, grain

SMALL = {"smallest": (1024, 1024), "largest": (1100, 1300), "progress": False}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "drawn"
    write_drawn_slides(directory, n_slides=6, **SMALL)
    return directory


def read_labels(directory):
    with (directory / "labels.csv").open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)]


def test_directory_holds_slides_of_each_class_in_every_three(written):
    header, *rows = read_labels(written)
    assert header == ("file", "label")
    assert [name for name, _ in rows] == [f"slide_{n:03d}.tif" for n in range(6)]
    labels = [label for _, label in rows]
    assert set(labels[:3]) == set(labels[3:]) == set(CELL_SHAPES)
    files = sorted(path.name for path in (written / "slides").iterdir())
    assert files == [name for name, _ in rows]
    assert json.loads((written / "drawn_slides.json").read_text())["n_slides"] == 6


def test_slides_are_pyramids_of_tiles_and_differ_in_size(written):
    source = TiffSource(sorted((written / "slides").iterdir()))
    assert (source.channels, source.dtype) == (3, np.uint8)
    sizes = {source.shape(number)[:2] for number in range(6)}
    assert len(sizes) > 3
    for number in range(6):
        levels = source.levels(number)
        assert len(levels) == 3
        assert all(1024 <= n <= m for n, m in zip(levels[0], (1100, 1300), strict=True))
        for scale, level in zip((4, 16), levels[1:], strict=True):
            np.testing.assert_allclose(level, np.divide(levels[0], scale), atol=1)
    with tifffile.TiffFile(source.paths[0]) as file:
        assert file.pages[0].is_tiled
        assert file.pages[0].compression == tifffile.COMPRESSION.JPEG


def test_file_shows_the_slide_at_every_level(written):
    path = written / "slides" / "slide_001.tif"
    label = dict(read_labels(written))[path.name]
    rng = np.random.default_rng((0, 1, 1))
    size = tuple(rng.integers((1024, 1024), (1100, 1300), endpoint=True).tolist())
    slide = draw_slide(rng, label, size)
    drawn = np.concatenate(
        [slide.strip(top, min(300, size[0] - top)) for top in range(0, size[0], 300)]
    )
    for level in range(3):
        kept = tifffile.imread(path, level=level).astype("float32")
        expected = np.asarray(Image.fromarray(drawn).reduce(4**level), "float32")
        assert kept.shape == expected.shape
        difference = np.abs(kept - expected)  # of the compression
        assert difference.mean() < 4
        assert np.percentile(difference, 99) < 25


def test_spots_are_dark_apart_and_inside():
    for seed in range(4):
        slide = draw_slide(np.random.default_rng(seed), "round", (1500, 1500))
        pixels = slide.strip(0, 1500).mean(axis=-1)
        assert slide.boxes
        taken = np.zeros((1500, 1500), bool)
        for top, left, bottom, right in slide.boxes:
            assert min(top, left) >= 0
            assert max(bottom, right) <= 1500
            row, column, half = (top + bottom) // 2, (left + right) // 2, 70
            disc = np.s_[row - half : row + half, column - half : column + half]
            assert not taken[disc].any()
            taken[disc] = True
            assert pixels[disc].mean() < 150
        assert np.median(pixels) > 190  # glass and tissue


def spot_crops(cells, seeds):
    """Return spots at full resolution and in a view, as spectra and mean colours."""
    full, view = [], []
    for seed in seeds:
        rng = np.random.default_rng((3, seed))
        colours, _ = draw_spot(rng, cells, radius=80)
        row, column = rng.integers(1024 - 144, size=2)
        light = grain()[row : row + 144, column : column + 144, None] / 255
        spot = np.asarray(colours)[24:168, 24:168] * light
        low = spot.reshape(12, 12, 12, 12, 3).mean(axis=(1, 3))
        for crops, pixels in (
            (full, spot[40:104, 40:104].mean(axis=-1)),
            (view, low.mean(axis=-1)),
        ):
            spectrum = np.abs(np.fft.rfft2(pixels - pixels.mean()))
            crops.append([*np.log1p(spectrum).ravel(), *low.mean(axis=(0, 1))])
    return np.array(full), np.array(view)


def ridge_accuracy(train, train_labels, test, test_labels):
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
    train, test = (train - mean) / deviation, (test - mean) / deviation
    targets = np.eye(3)[train_labels] - 1 / 3
    accuracies = []
    for strength in (10, 100, 1000):
        gram = train @ train.T + strength * np.eye(len(train))
        scores = test @ (train.T @ np.linalg.solve(gram, targets))
        accuracies.append((scores.argmax(axis=1) == test_labels).mean())
    return max(accuracies)


def test_class_is_legible_at_full_resolution_only():
    parts = []
    for seeds in (range(80), range(80, 120)):
        crops = [spot_crops(cells, seeds) for cells in CELL_SHAPES]
        labels = np.repeat(range(3), [len(full) for full, _ in crops])
        parts.append(
            (*(np.concatenate(kind) for kind in zip(*crops, strict=True)), labels)
        )
    (full, view, labels), (test_full, test_view, test_labels) = parts
    assert ridge_accuracy(full, labels, test_full, test_labels) > 0.9
    assert ridge_accuracy(view, labels, test_view, test_labels) < 0.5


def test_a_seed_gives_the_same_slides(written, tmp_path):
    write_drawn_slides(tmp_path / "again", n_slides=2, **SMALL)
    for name in ("slide_000.tif", "slide_001.tif"):
        again = (tmp_path / "again" / "slides" / name).read_bytes()
        assert again == (written / "slides" / name).read_bytes()
    write_drawn_slides(tmp_path / "other", n_slides=1, seed=1, **SMALL)
    other = (tmp_path / "other" / "slides" / "slide_000.tif").read_bytes()
    assert other != (written / "slides" / "slide_000.tif").read_bytes()


def test_complete_directory_is_not_drawn_again(written, monkeypatch):
    monkeypatch.setattr(drawn_slides, "draw_slide", None)
    write_drawn_slides(written, n_slides=6, **SMALL)
    with pytest.raises(ValueError, match=r"drawn slides with other settings"):
        write_drawn_slides(written, n_slides=5, **SMALL)


@pytest.mark.parametrize("name", ["labels.csv", "slides/slide_000.tif"])
def test_incomplete_directory_is_refused(tmp_path, name):
    write_drawn_slides(tmp_path / "drawn", n_slides=1, **SMALL)
    (tmp_path / "drawn" / name).unlink()
    with pytest.raises(ValueError, match="not a complete data set of drawn slides"):
        write_drawn_slides(tmp_path / "drawn", n_slides=1, **SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_slides": 0}, "Received: n_slides=0"),
        ({"seed": -1}, "Received: seed=-1"),
        ({"smallest": (1000, 2000)}, "Received: smallest=1000"),
        ({"largest": (4000, 1023)}, "Received: largest=1023"),
    ],
)
def test_bad_settings(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        write_drawn_slides(tmp_path / "drawn", **{**SMALL, **settings})
    assert list(tmp_path.iterdir()) == []


def test_bad_slide():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="square"):
        draw_slide(rng, "square")
    with pytest.raises(ValueError, match="1000"):
        draw_slide(rng, "round", (2000, 1000))
