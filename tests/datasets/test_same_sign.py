"""Signs that stand in scenes for testing are not among those to train with."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import attention_sampling
from attention_sampling.datasets.pasted_signs import Part, read_parts
from attention_sampling.datasets.pasting import Crop
from attention_sampling.datasets.same_sign import leave_out
from attention_sampling.datasets.traffic_signs import Sample, Sign, read_german

DATA = Path(attention_sampling.__file__).parents[2] / "shared" / "data"


def count(part):
    return {sign_class: len(tracks) for sign_class, tracks in part.tracks.items()}


def make_part(rng, directory):
    """Three tracks of two classes, all different, and two scenes."""
    tracks = {}
    for sign_class in (1, 2):
        coarse = rng.integers(256, size=(3, 6, 6, 3), dtype="uint8")
        signs = coarse.repeat(5, axis=1).repeat(5, axis=2)
        tracks[sign_class] = [
            [
                Crop(sign, sign.mean((0, 1)), 0.0),
                Crop(sign[::-1], sign.mean((0, 1)), 0.0),
            ]
            for sign in signs
        ]
    scenes = [(directory / f"{name}.png", ()) for name in "ab"]
    return Part(scenes, tracks, [])


def test_a_sign_in_a_scene_takes_its_track_and_the_scene_away(tmp_path, rng):
    part = make_part(rng, tmp_path)
    # The sign of one crop of a track, larger and with less contrast.
    large = Image.fromarray(part.tracks[2][0][1].sign).resize((80, 80))
    scene = np.full((300, 300, 3), 90, "uint8")
    scene[20:100, 40:120] = np.asarray(large) * 0.7 + 30
    path = tmp_path / "a.png"
    Image.fromarray(scene).save(path)
    sign = Sign("50", top=20, left=40, bottom=99, right=119)
    left = leave_out(part, [Sample(str(path), 2, (sign,))])
    assert left.tracks == {1: part.tracks[1], 2: part.tracks[2][1:]}
    assert left.scenes == part.scenes[1:]
    empty = leave_out(part, [Sample(str(path), 0, ())])
    assert (empty.tracks, empty.scenes) == (part.tracks, part.scenes[1:])


@pytest.mark.skipif(not (DATA / "gtsrb").is_dir(), reason=f"no {DATA / 'gtsrb'}")
def test_some_of_the_benchmarks_tracks_are_in_its_scenes():
    part, _ = read_parts(DATA / "gtsdb", DATA / "gtsrb")
    _, samples = read_german(DATA / "gtsdb")
    samples = samples[:100]
    left = leave_out(part, samples)
    paths = {Path(sample.path) for sample in samples}
    assert left.scenes == [scene for scene in part.scenes if scene[0] not in paths]
    n_before, n_after = (sum(count(p).values()) for p in (part, left))
    assert 0.85 * n_before < n_after < n_before
