"""Signs that stand in scenes for testing are not among those to train with."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sign_files import write_benchmarks

import attention_sampling
from attention_sampling.datasets.pasted_signs import read_parts
from attention_sampling.datasets.same_sign import leave_out
from attention_sampling.datasets.traffic_signs import Sample, Sign, read_german

DATA = Path(attention_sampling.__file__).parents[2] / "shared" / "data"


def count(part):
    return {sign_class: len(tracks) for sign_class, tracks in part.tracks.items()}


def test_a_sign_in_a_scene_takes_its_track_and_the_scene_away(tmp_path):
    part, _ = read_parts(*write_benchmarks(tmp_path))
    # A sign of the training crops, twice as large and brighter, in an image of its own.
    crop = part.tracks[2][0][-1].sign
    scene = np.full((300, 300, 3), 90, "uint8")
    large = Image.fromarray(crop).resize((80, 80), Image.Resampling.BICUBIC)
    scene[20:100, 40:120] = np.clip(np.asarray(large) * 0.8 + 30, 0, 255)
    path = part.scenes[0][0].with_suffix(".png")
    Image.fromarray(scene).save(path)
    sample = Sample(str(path), 2, (Sign("50", top=20, left=40, bottom=99, right=119),))
    left = leave_out(part, [sample])
    assert count(left) == {**count(part), 2: len(part.tracks[2]) - 1}
    assert left.scenes == part.scenes[1:]
    empty = leave_out(part, [Sample(str(path), 0, ())])
    assert count(empty) == count(part)
    assert len(empty.scenes) == len(part.scenes) - 1


@pytest.mark.skipif(not (DATA / "gtsrb").is_dir(), reason=f"no {DATA / 'gtsrb'}")
def test_some_of_the_benchmarks_tracks_are_in_its_scenes():
    part, _ = read_parts(DATA / "gtsdb", DATA / "gtsrb")
    _, samples = read_german(DATA / "gtsdb")
    left = leave_out(part, samples)
    assert not left.scenes
    n_before, n_after = (sum(count(p).values()) for p in (part, left))
    assert 0.85 * n_before < n_after < n_before
