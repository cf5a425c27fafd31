"""Scenes with pasted signs: what is in them, what they share, and what is left."""

import errno
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sign_files import (
    ANOTHER_LIMIT,
    LIMITS,
    N_SCENES,
    N_TRACKS,
    OTHERS,
    write_benchmarks,
)

import attention_sampling
from attention_sampling.datasets.pasted_signs import (
    choose_limit,
    make_image,
    read_parts,
    write_pasted_signs,
)
from attention_sampling.datasets.speed_limits import check_images, load_speed_limits

DATA = Path(attention_sampling.__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory):
    return write_benchmarks(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def parts(benchmarks):
    return read_parts(*benchmarks)


def read_files(directory):
    return {path.name: path.read_bytes() for path in directory.rglob("*.jpg")}


def test_is_read_as_speed_limits(benchmarks, tmp_path):
    output, calls = tmp_path / "a" / "b", []
    write_pasted_signs(*benchmarks, output, 30, 15, progress=lambda *n: calls.append(n))
    data = load_speed_limits(output)
    assert data.classes == ("empty", *LIMITS.values())
    assert Counter(s.label for s in data.train) == {0: 14, 1: 4, 2: 4, 3: 4, 4: 4}
    assert Counter(s.label for s in data.test) == {0: 7, 1: 2, 2: 2, 3: 2, 4: 2}
    assert all(len(s.signs) == (s.label > 0) for s in data.train + data.test)
    assert check_images(data.train + data.test, progress=False) == (160, 200)
    assert calls == [(done, 45) for done in range(1, 46)]
    settings = json.loads((output / "pasted.json").read_text())
    assert settings == {"n_train": 30, "n_test": 15, "seed": 0, "scale": 1.0}
    assert len(list(output.iterdir())) == 3


def test_proportions_are_those_of_the_paper():
    limits = Counter(map(choose_limit, range(747)))
    assert limits == {None: 347, **dict.fromkeys(LIMITS, 100)}


def test_an_image_does_not_depend_on_their_number(benchmarks, tmp_path):
    def write(name, *settings, **more):
        write_pasted_signs(*benchmarks, tmp_path / name, *settings, **more)
        return [read_files(tmp_path / name / part) for part in ("train", "test")]

    few, more = write("few", 5, 3), write("more", 9, 4)
    for images, further in zip(few, more, strict=True):
        assert images.items() < further.items()
    lines = [tmp_path / name / "train" / "gt.txt" for name in ("few", "more")]
    few_lines, more_lines = (path.read_text() for path in lines)
    assert more_lines.startswith(few_lines)
    assert few[0]["00000.jpg"] != few[1]["00000.jpg"]
    assert write("other", 5, 3, seed=1)[0]["00000.jpg"] != few[0]["00000.jpg"]


@pytest.mark.parametrize("seed", range(3))
def test_training_and_test_share_no_scene_and_no_sign(benchmarks, seed):
    train, test = read_parts(*benchmarks, seed)
    scenes = [{path for path, _ in part.scenes} for part in (train, test)]
    assert not scenes[0] & scenes[1]
    assert [len(paths) for paths in scenes] == [7, 3]
    assert len(scenes[0] | scenes[1]) == N_SCENES
    assert train.tracks.keys() == test.tracks.keys() == {*LIMITS, *OTHERS}
    for sign_class in train.tracks:
        tracks = [
            {crop.sign.tobytes() for track in part.tracks[sign_class] for crop in track}
            for part in (train, test)
        ]
        assert not tracks[0] & tracks[1]
        assert len(tracks[0] | tracks[1]) == 2 * N_TRACKS
        assert all(len(track) == 2 for track in train.tracks[sign_class])


def test_other_signs_are_in_every_class(parts):
    counts = {}
    for limit in (None, *LIMITS):
        numbers = []
        for seed in range(60):
            _, boxes = make_image(np.random.default_rng(seed), parts[0], limit)
            first, *classes = [box[4] for box in boxes]
            assert first == 13  # of the scene
            assert [n for n in classes if n in LIMITS] == [limit] * (limit is not None)
            assert {*classes} <= {limit, *OTHERS}
            numbers.append(len(classes))
        counts[limit] = Counter(numbers)
    # As many signs with a limit as without: their number says nothing.
    assert all(count == counts[None] for count in counts.values())
    assert min(counts[None][number] for number in (1, 2, 3)) > 3


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_boxes_hold_the_signs(parts, scale):
    height, width = round(160 * scale), round(200 * scale)
    for seed in range(30):
        image, boxes = make_image(np.random.default_rng(seed), parts[0], 2, scale)
        assert image.shape == (height, width, 3)
        assert image.dtype == np.uint8
        scene = image[0, 0].astype(int)
        rest = abs(image - scene).max(axis=-1)
        assert boxes[0] == (*(round(x * scale) for x in (5, 5, 20, 20)), 13)
        for left, top, right, bottom, _ in boxes[1:]:
            assert 0 <= left < right < width
            assert 0 <= top < bottom < height
            sides = np.array([right - left, bottom - top]) + 1
            assert (sides >= 16 * scale).all()
            assert (sides <= 25 * scale).all()
            inside = rest[top : bottom + 1, left : right + 1]
            assert 0.6 < (inside > 20).mean() < 0.9  # of a disk 0.79
            inside[:] = 0
        assert (rest > 20).mean() < 0.01 / scale  # poles


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_leaves_nothing_half_written(benchmarks, tmp_path, monkeypatch, error):
    save = Image.Image.save

    def fail(image, path, **options):
        if ".test." in str(path) and path.stem == "00001":
            raise error
        save(image, path, **options)

    monkeypatch.setattr(Image.Image, "save", fail)
    output = tmp_path / "new"
    with pytest.raises(type(error)) as caught:
        write_pasted_signs(*benchmarks, output, 3, 3)
    assert list(output.iterdir()) == []
    if isinstance(error, OSError):
        assert str(output) in str(caught.value)


def test_leaves_another_data_set(benchmarks, tmp_path):
    (tmp_path / "test").mkdir()
    with pytest.raises(FileExistsError, match="holds a data set already: delete it"):
        write_pasted_signs(*benchmarks, tmp_path, 3, 3)


def keep_two_scenes(scenes, signs):
    (scenes / "gt.txt").write_text("00010.png;25;60;45;80;1\n")
    for number in (*range(1, 10), 11):
        (scenes / "images" / f"{number:05}.png").unlink()


def take_limits_away(scenes, signs):
    text = (scenes / "gt.txt").read_text()
    (scenes / "gt.txt").write_text(text.replace(";1\n", ";9\n").replace(";2\n", ";9\n"))


def keep_one_track(scenes, signs):
    table = signs / "00004" / "GT-00004.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:3]))


def remove_others(scenes, signs):
    for sign_class in OTHERS:
        shutil.rmtree(signs / f"{sign_class:05}")


def replace_in_table(before, after):
    def damage(scenes, signs):
        table = signs / "00001" / "GT-00001.csv"
        table.write_text(table.read_text().replace(before, after))

    return damage


def break_a_crop(scenes, signs):
    (signs / "00001" / "00002_00001.ppm").write_bytes(b"P6")


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (keep_two_scenes, ValueError, r"too few scenes.*with 1 and 1$"),
        (take_limits_away, ValueError, r"too few scenes.*with 12 and 0$"),
        (keep_one_track, ValueError, r"too few signs.*without 70$"),
        (remove_others, ValueError, r"too few signs.*without signs that are no limit$"),
        (
            lambda scenes, signs: shutil.rmtree(signs),
            FileNotFoundError,
            r"There are no signs\..*signs$",
        ),
        (
            lambda scenes, signs: shutil.rmtree(scenes),
            FileNotFoundError,
            r"no such directory.*scenes$",
        ),
        (
            replace_in_table("Roi.X1", "X1"),
            ValueError,
            r"GT-00001\.csv, line 2 does not parse \('Roi\.X1'\)",
        ),
        (
            replace_in_table("00002_00000.ppm;20;20;1", "00002_00000.ppm;20;20;x"),
            ValueError,
            r"GT-00001\.csv, line 6 does not parse \(invalid",
        ),
        (
            replace_in_table(
                "00002_00000.ppm;20;20;1;1;18", "00002_00000.ppm;20;20;1;1;20"
            ),
            ValueError,
            r"outside its crop.*Roi=\(1, 1, 20, 18\) in .*00002_00000\.ppm, 20 x 20",
        ),
        (break_a_crop, OSError, r"00002_00001\.ppm"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, damage, kind, message):
    benchmarks = write_benchmarks(tmp_path)
    damage(*benchmarks)
    with pytest.raises(kind, match=message) as caught:
        write_pasted_signs(*benchmarks, tmp_path / "new", 3, 3)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_train": 0}, "n_train=0"),
        ({"n_test": -1}, "n_test=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"scale": 0}, "more than 0 and at most 1. Received: scale=0"),
        ({"scale": float("nan")}, "scale=nan"),
    ],
)
def test_settings_out_of_range(benchmarks, tmp_path, setting, message):
    with pytest.raises(ValueError, match=message):
        write_pasted_signs(*benchmarks, tmp_path, **setting)


@pytest.mark.skipif(
    not (DATA / "gtsrb").is_dir(), reason=f"the benchmarks are not in {DATA}"
)
def test_real_benchmarks():
    train, test = read_parts(DATA / "gtsdb", DATA / "gtsrb")
    assert [len(part.scenes) for part in (train, test)] == [203, 87]
    tracks = {n: len(train.tracks[n]) + len(test.tracks[n]) for n in train.tracks}
    assert {n: tracks[n] for n in LIMITS} == {1: 62, 2: 65, 4: 34, 5: 49}
    assert ANOTHER_LIMIT not in tracks
    image, boxes = make_image(np.random.default_rng(0), test, 5, scale=0.5)
    assert image.shape == (400, 680, 3)
    assert 5 in [box[4] for box in boxes]
