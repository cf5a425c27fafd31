import errno
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attention_sampling.datasets import drawn_colon_cancer
from attention_sampling.datasets.colon_cancer import (
    NUCLEUS_CLASSES,
    load_colon_cancer,
    read_images,
)
from attention_sampling.datasets.drawn_colon_cancer import (
    draw_tissue_image,
    write_colon_cancer,
)

SMALL = {"size": (160, 200), "progress": False}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "drawn"
    write_colon_cancer(directory, count=11, **SMALL)
    return directory


def test_loader_reads_it(written):
    data = load_colon_cancer(written)
    assert data.numbers == list(range(1, 12))
    assert data.size == (160, 200)
    assert all(data.labels[:10].reshape(5, 2).sum(axis=1) == 1)
    assert len(set(data.labels[:10:2])) == 2  # in random order
    settings = json.loads((written / "drawn_colon_cancer.json").read_text())
    assert settings == {"version": 1, "count": 11, "size": [160, 200], "seed": 0}
    assert sorted(path.name for path in written.iterdir()) == [
        "Classification",
        "drawn_colon_cancer.json",
    ]


def test_loader_knows_that_they_are_drawn(written, tmp_path):
    assert load_colon_cancer(written).drawn
    assert load_colon_cancer(written / "Classification", ids=[2]).drawn
    published = shutil.copytree(written / "Classification", tmp_path / "published")
    assert not load_colon_cancer(published).drawn


def test_file_shows_what_is_drawn(written):
    sample = load_colon_cancer(written, ids=[3]).samples[0]
    rng = np.random.default_rng((0, 1, 3))
    pixels, nuclei = draw_tissue_image(rng, bool(sample.label), (160, 200))
    np.testing.assert_array_equal(read_images([sample])[0], pixels)
    for name in NUCLEUS_CLASSES:
        np.testing.assert_array_equal(sample.nuclei[name], nuclei[name])


@pytest.mark.parametrize("epithelial", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (90, 300)])
def test_small_images(epithelial, size):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        pixels, nuclei = draw_tissue_image(rng, epithelial, size)
        assert pixels.shape == (*size, 3)
        assert bool(len(nuclei["epithelial"])) == epithelial
        points = np.concatenate(list(nuclei.values()))
        assert ((points > 0) & (points < size)).all()


def ink_at(pixels, points, distance):
    """Return how dark it is at some pixels from each nucleus, (n_nuclei, 16)."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = distance * np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    rows, columns = np.rint(points[:, None] + ring).astype(int).transpose(2, 0, 1)
    return 255 - pixels[rows, columns].astype(float).mean(axis=-1)


def test_nuclei_are_where_they_are_said_to_be():
    drawn = [
        draw_tissue_image(np.random.default_rng(seed), bool(seed % 2))
        for seed in range(4)
    ]
    ink = {
        name: [
            np.mean([ink_at(pixels, nuclei[name], d).mean() for pixels, nuclei in some])
            for d in (0, 3, 5.5, 9)
        ]
        for name in NUCLEUS_CLASSES
        for some in [[drawn[1], drawn[3]] if name == "epithelial" else drawn]
    }
    # A ring; a disc; a larger one; and a line, of which a circle hits little.
    assert ink["epithelial"][2] > 1.7 * max(ink["epithelial"][0], ink["epithelial"][3])
    assert ink["inflammatory"][1] > 2 * ink["inflammatory"][2]
    assert ink["others"][2] > 2 * ink["others"][3]
    assert ink["fibroblast"][0] > 1.5 * ink["fibroblast"][2] > 0
    for some in ink.values():
        assert some[3] < 90
    darkest = {
        name: np.mean([ink_at(p, n[name], 7).max(axis=1).mean() for p, n in drawn[::2]])
        for name in ("fibroblast", "inflammatory")
    }
    assert darkest["fibroblast"] > 1.5 * darkest["inflammatory"]


def test_classes_of_clusters_have_as_much_ink():
    amounts = []
    for name in ("epithelial", "inflammatory"):
        nuclei = dict.fromkeys(NUCLEUS_CLASSES, np.empty((0, 2)))
        nuclei[name] = np.array([[20.0, 20.0]])
        rngs = (np.random.default_rng(seed) for seed in range(20))
        inks = [drawn_colon_cancer._draw_ink(rng, nuclei, (40, 40)) for rng in rngs]
        amounts.append(np.sum(inks))
    assert 0.9 < amounts[0] / amounts[1] < 1.1


def test_a_seed_gives_the_same_images(written, tmp_path):
    write_colon_cancer(tmp_path / "again", count=4, **SMALL)
    write_colon_cancer(tmp_path / "other", count=4, seed=1, **SMALL)
    first, again, other = (
        load_colon_cancer(directory, ids=[1, 2, 3, 4])
        for directory in (written, tmp_path / "again", tmp_path / "other")
    )
    images = read_images(first.samples)
    np.testing.assert_array_equal(images, read_images(again.samples))
    assert (images != read_images(other.samples)).any(axis=(1, 2, 3)).all()
    for one, same in zip(first.samples, again.samples, strict=True):
        for name in NUCLEUS_CLASSES:
            np.testing.assert_array_equal(one.nuclei[name], same.nuclei[name])


def test_complete_directory_is_not_drawn_again(written, monkeypatch):
    monkeypatch.setattr(drawn_colon_cancer, "draw_tissue_image", None)
    write_colon_cancer(written, count=11, **SMALL)
    with pytest.raises(ValueError, match="colon cancer images with other settings"):
        write_colon_cancer(written, count=10, **SMALL)


@pytest.mark.parametrize("name", ["img1.bmp", "img1_others.mat"])
def test_incomplete_directory_is_refused(tmp_path, name):
    write_colon_cancer(tmp_path / "drawn", count=1, **SMALL)
    (tmp_path / "drawn" / "Classification" / "img1" / name).unlink()
    with pytest.raises(ValueError, match="not a complete data set of drawn colon"):
        write_colon_cancer(tmp_path / "drawn", count=1, **SMALL)


@pytest.mark.parametrize("what", ["image", "nuclei"])
def test_full_disk_leaves_nothing(tmp_path, monkeypatch, what):
    def fail(place, *args, **kwargs):
        if "img2" in str(args[0] if what == "image" else place):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(place, *args, **kwargs)

    import scipy.io

    owner, name = (Image.Image, "save") if what == "image" else (scipy.io, "savemat")
    save = getattr(owner, name)
    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(OSError, match=r"written \(No space left.*/img2'$") as caught:
        write_colon_cancer(tmp_path / "drawn", count=3, **SMALL)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_scipy_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    monkeypatch.setattr(drawn_colon_cancer, "draw_tissue_image", None)  # said before it
    with pytest.raises(ImportError, match=r"pip install .*attention-sampling\[exam"):
        write_colon_cancer(tmp_path / "drawn", count=1, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_shows_progress(tmp_path, capfd):
    write_colon_cancer(tmp_path / "drawn", count=1, size=64)
    assert "Drawing tissue: 100%" in capfd.readouterr().err
    assert Path(tmp_path / "drawn" / "Classification" / "img1").is_dir()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "Received: count=0"),
        ({"seed": -1}, "Received: seed=-1"),
        ({"size": 63}, "Received: size=63"),
        ({"size": (100, 0)}, r"Received: size=\(100, 0\)"),
    ],
)
def test_bad_settings(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        write_colon_cancer(tmp_path / "drawn", **{**SMALL, "count": 1, **settings})
    assert list(tmp_path.iterdir()) == []


def test_bad_image():
    with pytest.raises(ValueError, match="size=10"):
        draw_tissue_image(np.random.default_rng(0), True, (100, 10))
