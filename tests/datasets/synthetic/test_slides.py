"""Generated slides: files that a source reads, whose class full resolution alone tells."""

import csv

import numpy as np
import pytest

from attention_sampling.data import TiffSource
from attention_sampling.datasets.synthetic.slides import (
    CELL_SHAPES,
    generate_slide,
    write_slides,
)

SMALL = {"smallest": (512, 512), "largest": (600, 700)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_slides(tmp_path_factory.mktemp("data") / "slides", 6, **SMALL)


def read_labels(directory):
    with (directory / "labels.csv").open(newline="") as file:
        return [(row["file"], row["label"]) for row in csv.DictReader(file)]


def test_a_source_reads_slides_of_each_class_in_every_three(written):
    rows = read_labels(written)
    assert [name for name, _ in rows] == [f"slide_{n:03d}.tif" for n in range(6)]
    labels = [label for _, label in rows]
    assert set(labels[:3]) == set(labels[3:]) == set(CELL_SHAPES)
    with TiffSource([written / name for name, _ in rows]) as source:
        sizes = {source.shape(number)[:2] for number in range(6)}
        assert len(sizes) > 3
        for height, width in sizes:
            assert 512 <= height <= 600
            assert 512 <= width <= 700
        rng = np.random.default_rng((0, 1, 1))
        size = tuple(rng.integers((512, 512), (600, 700), endpoint=True).tolist())
        pixels, _ = generate_slide(rng, labels[1], size)
        stored = source.read_patches([1], [(0, 0)], size)[0]
        np.testing.assert_array_equal(stored, pixels)
        half = source.levels(1)[1]
        assert half == ((size[0] + 1) // 2, (size[1] + 1) // 2)
        assert abs(source.read_view(1, half).mean() - pixels.mean()) < 0.5


def test_a_seed_gives_the_same_slides(written, tmp_path):
    again = write_slides(tmp_path / "again", 2, **SMALL)
    other = write_slides(tmp_path / "other", 1, seed=1, **SMALL)
    for name in ("slide_000.tif", "slide_001.tif"):
        assert (again / name).read_bytes() == (written / name).read_bytes()
    first = "slide_000.tif"
    assert (other / first).read_bytes() != (written / first).read_bytes()
    with pytest.raises(ValueError, match=r"other settings.*'count': 6"):
        write_slides(written, 5, **SMALL)


def crop_spots(cells, seeds):
    """Return the middles of spots, and the same as views show them, as spectra."""
    full, view = [], []
    for seed in seeds:
        pixels, spots = generate_slide(np.random.default_rng(seed), cells, (512, 700))
        for top, left, bottom, right in spots:
            row, column = (top + bottom) // 2 - 48, (left + right) // 2 - 48
            spot = pixels[row : row + 96, column : column + 96].mean(axis=-1)
            assert spot.mean() < 160  # dark: a view shows where it is
            low = spot.reshape(8, 12, 8, 12).mean(axis=(1, 3))
            for crops, values in ((full, spot), (view, low)):
                spectrum = np.abs(np.fft.rfft2(values - values.mean()))
                crops.append(np.log1p(spectrum).ravel())
    return np.array(full), np.array(view)


def ridge_accuracy(train, train_labels, test, test_labels):
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
    train, test = (train - mean) / deviation, (test - mean) / deviation
    gram = train @ train.T + 100 * np.eye(len(train))
    weights = np.linalg.solve(gram, np.eye(3)[train_labels] - 1 / 3)
    return ((test @ (train.T @ weights)).argmax(axis=1) == test_labels).mean()


def test_the_class_shows_at_full_resolution_only():
    parts = []
    for seeds in (range(9), range(9, 14)):
        crops = [crop_spots(cells, seeds) for cells in CELL_SHAPES]
        labels = np.repeat(range(3), [len(full) for full, _ in crops])
        parts.append((*map(np.concatenate, zip(*crops, strict=True)), labels))
    (full, view, labels), (test_full, test_view, test_labels) = parts
    assert ridge_accuracy(full, labels, test_full, test_labels) > 0.9
    assert ridge_accuracy(view, labels, test_view, test_labels) < 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "Received: count=0"),
        ({"seed": -1}, "Received: seed=-1"),
        ({"smallest": (500, 600)}, "Received: smallest=500"),
        ({"largest": (511, 600)}, "Received: largest=511"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        write_slides(tmp_path / "slides", **SMALL | settings)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="square"):
        generate_slide(np.random.default_rng(0), "square")
