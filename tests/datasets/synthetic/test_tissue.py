"""Generated tissue: its nuclei decide the label, and the loader reads it."""

import numpy as np
import pytest

from attention_sampling.datasets.colon_cancer import (
    NUCLEUS_CLASSES,
    load_colon_cancer,
    read_images,
)
from attention_sampling.datasets.synthetic.generating import is_generated
from attention_sampling.datasets.synthetic.tissue import generate_tissue, write_tissue


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "tissue"
    return write_tissue(directory, count=7, size=(80, 100))


def test_the_loader_reads_what_was_generated(written):
    data = load_colon_cancer(written)
    assert is_generated(written)
    assert not is_generated(written.parent)
    assert data.numbers == list(range(1, 8))
    assert data.size == (80, 100)
    assert (data.labels[:6].reshape(3, 2).sum(axis=1) == 1).all()
    sample = data.samples[2]
    rng = np.random.default_rng((0, 1, 3))
    pixels, nuclei = generate_tissue(rng, bool(sample.label), (80, 100))
    np.testing.assert_array_equal(read_images([sample])[0], pixels)
    for name in NUCLEUS_CLASSES:
        np.testing.assert_array_equal(sample.nuclei[name], nuclei[name])


def test_a_seed_gives_the_same_images(written, tmp_path):
    fewer = write_tissue(tmp_path / "fewer", count=2, size=(80, 100))
    other = write_tissue(tmp_path / "other", count=2, size=(80, 100), seed=1)
    first, same, different = (
        read_images(load_colon_cancer(directory).samples[:2])
        for directory in (written, fewer, other)
    )
    np.testing.assert_array_equal(first, same)
    assert (first != different).any(axis=(1, 2, 3)).all()
    with pytest.raises(ValueError, match=r"other settings.*'count': 7"):
        write_tissue(written, count=2, size=(80, 100))


@pytest.mark.parametrize("epithelial", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (90, 300)])
def test_small_images(epithelial, size):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        pixels, nuclei = generate_tissue(rng, epithelial, size)
        assert pixels.shape == (*size, 3)
        assert bool(len(nuclei["epithelial"])) == epithelial
        points = np.concatenate(list(nuclei.values()))
        assert ((points > 0) & (points < size)).all()


def darkness_around(pixels, points, distance):
    """Return how dark it is at some pixels from each nucleus, on average."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = distance * np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    rows, columns = np.rint(points[:, None] + ring).astype(int).transpose(2, 0, 1)
    return (255 - pixels[rows, columns].astype(float)).mean()


def test_full_resolution_shows_which_nuclei_are_epithelial():
    pixels, nuclei = generate_tissue(np.random.default_rng(1), epithelial=True)
    at, around = (darkness_around(pixels, nuclei["epithelial"], d) for d in (0, 5.5))
    assert around > 1.5 * at
    at, around = (darkness_around(pixels, nuclei["inflammatory"], d) for d in (0, 7.5))
    assert at > 1.5 * around


def test_images_of_both_labels_are_as_dark():
    # The same seed puts as large clusters to the same locations, of either nuclei.
    means = [
        np.mean(generate_tissue(np.random.default_rng(seed), epithelial)[0])
        for epithelial in (False, True)
        for seed in range(4)
    ]
    differences = np.subtract(means[:4], means[4:])
    assert np.abs(differences).max() < 0.5  # discs of that radius: up to 2.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "Received: count=0"),
        ({"seed": -1}, "Received: seed=-1"),
        ({"size": 63}, "Received: size=63"),
        ({"size": (100, 0)}, r"Received: size=\(100, 0\)|Received: size=0"),
    ],
)
def test_settings_out_of_range(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        write_tissue(tmp_path / "tissue", **{"count": 1, **settings})
    assert list(tmp_path.iterdir()) == []
