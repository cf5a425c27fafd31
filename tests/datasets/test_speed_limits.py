"""Both formats of road scenes: labels, splits, and what is said about bad files."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

import attention_sampling
from attention_sampling.datasets.speed_limits import (
    Sample,
    Sign,
    check_images,
    load_speed_limits,
)
from attention_sampling.datasets.traffic_signs import read_german

REPOSITORY = Path(attention_sampling.__file__).parents[1]
GTSDB = REPOSITORY.parent / "shared" / "data" / "gtsdb"


def paint(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 50).convert("RGB").save(path)


EACH_CLASS = {
    f"{number:05}": signs
    for number, signs in enumerate([[]] * 8 + [[1]] * 4 + [[2]] * 4 + [[4], [5]] * 4)
}


@pytest.fixture
def german(tmp_path):
    """Return a function that writes the German format: image name -> class numbers."""

    def write(images=EACH_CLASS, folder="images", suffix=".png"):
        lines = []
        for name, numbers in images.items():
            paint(tmp_path / folder / f"{name}{suffix}")
            lines += [f"{name}{suffix};5;6;15;16;{number}\n" for number in numbers]
        (tmp_path / "gt.txt").write_text("".join(lines))
        return tmp_path

    return write


@pytest.fixture
def swedish(tmp_path):
    """Return a function that writes the Swedish format: further lines of Set1."""

    def write(*more, folder="Set1Part0"):
        lines = [
            "empty.png:",
            "limit50.png:VISIBLE, 15, 16, 5, 6, PROHIBITORY, 50_SIGN;",
            "limit70.png:VISIBLE, 15, 16, 5, 6, PROHIBITORY, 70_SIGN;",
            "limit80.png:VISIBLE, 15, 16, 5, 6, PROHIBITORY, 80_SIGN;",
        ]
        for name, these in (("Set1", [*lines, *more]), ("Set2", lines)):
            for line in these:
                image = line.partition(":")[0]
                paint(tmp_path / name / folder.replace("Set1", name) / image)
            text = "\n".join(these) + "\n"
            (tmp_path / name / "annotations.txt").write_text(text)
        return tmp_path

    return write


def names_of(samples):
    return [Path(sample.path).name for sample in samples]


def load_all(directory):
    """Load a German tree; return {name less suffix: sample}."""
    data = load_speed_limits(directory)
    return {Path(sample.path).stem: sample for sample in data.train + data.test}


# The German format


def test_german_labels(german):
    images = EACH_CLASS | {
        "00100": [2, 2],  # twice the same limit, at one location: one sign
        "00101": [17, 38, 6],  # no limit; the end of one is none
        "00102": [2, 17],
        "00103": [1, 5],
        "00104": [2, 8],
        "00105": [0],
        "00106": [3, 7],
    }
    directory = german(images)
    with open(directory / "gt.txt", "a") as file:
        file.write("00008.png;25;6;35;16;1\n\n")
    samples = load_all(directory)
    sign = Sign("50", top=6, left=5, bottom=16, right=15)
    labels = {name: samples[name].label for name in ("00100", "00101", "00102")}
    assert labels == {"00100": 2, "00101": 0, "00102": 2}
    assert samples["00100"].signs == samples["00102"].signs == (sign,)
    assert samples["00101"].signs == ()
    assert samples["00008"].signs == (
        Sign("30", 6, 5, 16, 15),
        Sign("30", 6, 25, 16, 35),
    )
    assert images.keys() - samples.keys() == {"00103", "00104", "00105", "00106"}
    assert load_speed_limits(directory).classes == ("empty", "30", "50", "70", "80")


@pytest.mark.parametrize(("suffix", "folder"), [(".jpg", ""), (".ppm", "images")])
def test_german_images_are_found(german, suffix, folder):
    directory = german(folder=folder, suffix=suffix)
    # The original names signs by .ppm, and has folders of single signs.
    text = (directory / "gt.txt").read_text().replace(suffix, ".ppm")
    (directory / "gt.txt").write_text(text)
    paint(directory / "00" / "00000.ppm")
    paint(directory / folder / "._hidden.png")
    samples = load_all(directory)
    assert samples.keys() == EACH_CLASS.keys()
    assert samples["00008"].path == str(directory / folder / f"00008{suffix}")


@pytest.mark.parametrize(
    ("fraction", "tests"),
    [(0.25, [2, 1, 1, 1, 1]), (0.001, [1] * 5), (0.999, [7, 3, 3, 3, 3])],
)
def test_split_of_each_class(german, fraction, tests):
    data = load_speed_limits(german(), test_fraction=fraction)
    assert Counter(s.label for s in data.test) == dict(enumerate(tests))
    assert names_of(data.train) == sorted(names_of(data.train))
    together = sorted(names_of(data.train + data.test))
    assert together == [f"{name}.png" for name in EACH_CLASS]


def test_split_depends_on_the_seed_alone(german):
    directory = german()
    before = load_speed_limits(directory, seed=3)
    assert load_speed_limits(directory, seed=4) != before
    lines = (directory / "gt.txt").read_text().splitlines()
    (directory / "gt.txt").write_text("\n".join(reversed(lines)))
    assert load_speed_limits(directory, seed=3) == before
    # The names themselves, so that a change of the algorithm is seen.
    numbers = [int(name[:-4]) for name in names_of(before.test)]
    assert numbers == [1, 7, 8, 13, 16, 21]


def test_split_of_the_files(german, tmp_path):
    german({"00000": [2], "00001": [], "00002": [4]})
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        (tmp_path / "images").rename(tmp_path / part / "images")
        (tmp_path / "gt.txt").rename(tmp_path / part / "gt.txt")
        german({"00000": [4], "00001": []})
    (tmp_path / "gt.txt").unlink()
    with pytest.warns(UserWarning, match="No image of class 50 is left for testing"):
        data = load_speed_limits(tmp_path)
    assert data.classes == ("empty", "50", "70")
    assert [sample.label for sample in data.train] == [1, 0, 2]
    assert [sample.label for sample in data.test] == [2, 0]
    assert data.test[0].path == str(tmp_path / "test" / "images" / "00000.png")


def test_one_image_of_each_class_leaves_none_to_test_with(german):
    with pytest.raises(ValueError, match=r"left for testing in .*2 for training"):
        load_speed_limits(german({"00000": [2], "00001": []}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_fraction": 0}, "Received: test_fraction=0"),
        ({"test_fraction": float("nan")}, "Received: test_fraction=nan"),
    ],
)
def test_split_out_of_range_is_refused(german, settings, message):
    with pytest.raises(ValueError, match=message):
        load_speed_limits(german(), **settings)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("00001.png;1;2;3;4", "5 fields"),
        (";1;2;3;4;5", "no image name"),
        ("00001.png;1;2;3.5;4;5", "invalid literal.*'3.5'"),
        ("00001.png;5;2;5;4;5", "box is empty"),
        ("00001.png;-1;2;3;4;5", "begins outside"),
        ("00001.png;1;2;3;4;43", "not one of 0 to 42"),
        ("\udcff", "fields"),
    ],
)
def test_german_line_that_does_not_parse_is_named(german, line, reason):
    directory = german()
    text = f"00008.png;5;6;15;16;1\n\n{line}".encode(errors="surrogateescape")
    (directory / "gt.txt").write_bytes(text)
    message = rf"gt\.txt, line 3 does not parse: .*{reason}.*Received: '"
    with pytest.raises(ValueError, match=message):
        load_speed_limits(directory)


def remove_an_image(directory):
    (directory / "images" / "00009.png").unlink()


def remove_most_images(directory):
    for path in (directory / "images").iterdir():
        if path.stem != "00000":
            path.unlink()


def remove_all_images(directory):
    remove_most_images(directory)
    (directory / "images" / "00000.png").unlink()


def empty_annotations(directory):
    (directory / "gt.txt").write_text("\n \n")


def add_an_image_twice(directory):
    paint(directory / "images" / "00003.jpg")


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (remove_an_image, FileNotFoundError, r"missing.*images\. Received: 00009$"),
        (remove_most_images, FileNotFoundError, r"00017 and 6 more$"),
        (remove_all_images, FileNotFoundError, r"no images beside gt\.txt.*\.ppm"),
        (empty_annotations, ValueError, r"No image is annotated.*gt\.txt without"),
        (add_an_image_twice, ValueError, r"twice.*00003\.jpg and .*00003\.png"),
    ],
)
def test_german_tree_that_is_not_whole_is_refused(german, damage, kind, message):
    directory = german()
    damage(directory)
    with pytest.raises(kind, match=message):
        load_speed_limits(directory)


# The Swedish format


@pytest.mark.parametrize("folder", ["", "Set1Part0/Set1Part0"])
def test_swedish_sets(swedish, folder):
    # A sign past the border, and a typing error, as in the published file; a line twice.
    line = "x.png:VISIBLE, 30.6, 25.4376a0, -3.2, 10, PROHIBITORY, 80_SIGN;"
    directory = swedish(line, "empty.png:", folder=folder)
    paint(directory / "Set1" / "not_annotated.png")
    paint(directory / "Set1" / ".Set1Part0.part" / "empty.png")
    data = load_speed_limits(directory)
    assert data.classes == ("empty", "50_SIGN", "70_SIGN", "80_SIGN")
    names = ["empty.png", "limit50.png", "limit70.png", "limit80.png"]
    assert names_of(data.train) == [*names, "x.png"]
    assert names_of(data.test) == names
    assert [sample.label for sample in data.train] == [0, 1, 2, 3, 3]
    path = str(directory / "Set1" / folder / "empty.png")
    assert data.train[0] == Sample(path, 0, ())
    assert data.test[1].signs == (Sign("50_SIGN", 6, 5, 16, 15),)
    assert data.train[-1].signs == (Sign("80_SIGN", 10, 0, 25, 31),)


@pytest.mark.parametrize(
    ("signs", "label"),
    [
        ("MISC_SIGNS;MISC_SIGNS;", 0),
        ("VISIBLE 50_SIGN", 1),
        ("MISC_SIGNS;VISIBLE 50_SIGN;VISIBLE 50_SIGN;", 1),
        ("VISIBLE STOP; VISIBLE 70_SIGN;OCCLUDED GIVE_WAY;", 2),
        ("OCCLUDED 50_SIGN;SIDE_ROAD 70_SIGN;VISIBLE 80_SIGN;", 3),
        ("VISIBLE 80_SIGN;VISIBLE 30_SIGN;", 3),
        ("BLURRED 50_SIGN;VISIBLE STOP;", None),
        ("VISIBLE 50_SIGN;VISIBLE 70_SIGN;", None),
        ("VISIBLE 30_SIGN;", None),
        ("OCCLUDED OTHER;", None),
    ],
)
def test_swedish_labels(swedish, signs, label):
    for visibility in ("VISIBLE", "BLURRED", "SIDE_ROAD", "OCCLUDED"):
        signs = signs.replace(f"{visibility} ", f"{visibility}, 15.0, 16, 5, 6, TYPE, ")
    data = load_speed_limits(swedish(f"x.png:{signs}"))
    labels = {Path(sample.path).name: sample.label for sample in data.train}
    assert labels.get("x.png") == label


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (":MISC_SIGNS;", "no image name before a colon"),
        ("x.png:VISIBLE, 15, 16, 5, 6, 50_SIGN;", "6 fields"),
        ("x.png:HIDDEN, 15, 16, 5, 6, TYPE, 50_SIGN;", "visibility 'HIDDEN'"),
        ("x.png:VISIBLE, 15, 16, 5, nan, TYPE, STOP;", "'nan' is not a number"),
        ("x.png:VISIBLE, 5, 6, 15, 16, TYPE, 50_SIGN;", "box is empty"),
    ],
)
def test_swedish_line_that_does_not_parse_is_named(swedish, line, reason):
    directory = swedish()
    with open(directory / "Set2" / "annotations.txt", "a") as file:
        file.write(line)
    message = rf"Set2.annotations\.txt, line 5 does not parse: .*{reason}"
    with pytest.raises(ValueError, match=message):
        load_speed_limits(directory)


def test_swedish_tree_that_is_not_whole_is_refused(swedish):
    directory = swedish("limit50.png:")
    with pytest.raises(ValueError, match=r"lists an image twice.*limit50\.png"):
        load_speed_limits(directory)
    (swedish() / "Set2" / "Set2Part0" / "limit70.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"missing.*: limit70\.png$"):
        load_speed_limits(directory)


# Both


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such directory.*nowhere$"):
        read_german(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        (None, FileNotFoundError, "data set is not there.*nowhere"),
        ([], FileNotFoundError, r"lacks the files.*gt\.txt.*Set2/annotations\.txt"),
        (["Set1/annotations.txt"], FileNotFoundError, "lacks the files"),
        (["Set1/annotations.txt", "gt.txt"], ValueError, "holds two data sets"),
        (["train/gt.txt", "gt.txt"], ValueError, "holds two data sets"),
        (["train/gt.txt"], FileNotFoundError, "lacks the files"),
    ],
)
def test_format_is_told_by_the_files(tmp_path, files, kind, message):
    directory = tmp_path / "nowhere"
    for name in files or []:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    if files == []:
        directory.mkdir()
    with pytest.raises(kind, match=message):
        load_speed_limits(directory)


@pytest.fixture
def samples(tmp_path):
    paths = [tmp_path / f"{number:02}.jpg" for number in range(14)]
    for path in paths:
        paint(path)
    return [Sample(str(path), 0, ()) for path in paths]


def test_whole_images_have_a_size_and_a_terminal_shows_progress(
    samples, capfd, monkeypatch
):
    assert check_images(samples) == (30, 40)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    check_images(tuple(samples), progress=False)
    assert capfd.readouterr().err == ""
    check_images(tuple(samples))
    assert "Checking images: 100%" in capfd.readouterr().err


def test_broken_images_are_named(samples):
    paths = [Path(sample.path) for sample in samples]
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    paths[2].write_bytes(b"no image")
    paths[3].unlink()
    Image.new("RGB", (8, 8)).save(paths[4], "PPM")
    with pytest.raises(ValueError, match=r"^4 of 14 images cannot be") as caught:
        check_images(samples, progress=False)
    for reason in (
        "01.jpg (OSError: image file is truncated",
        "02.jpg (UnidentifiedImageError",
        "03.jpg (FileNotFoundError",
        "04.jpg (its name says JPEG, it is PPM",
    ):
        assert reason in str(caught.value)
    assert "00.jpg" not in str(caught.value)
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"14 of 14.*09\.jpg \(.*and 4 more$"):
        check_images(samples, progress=False)


def test_images_of_several_sizes_and_no_images_are_refused(samples):
    paint(Path(samples[0].path), (30, 40))
    message = r"differ in size.*\(30, 40\), as 13 of 14.*00\.jpg with \(40, 30\)"
    with pytest.raises(ValueError, match=message):
        check_images(samples, progress=False)
    with pytest.raises(ValueError, match="There is no image to check"):
        check_images([])


@pytest.mark.skipif(not GTSDB.is_dir(), reason=f"the benchmark is not at {GTSDB}")
def test_real_benchmark():
    data = load_speed_limits(GTSDB)
    labels = Counter(sample.label for sample in data.train + data.test)
    assert labels == {0: 290, 1: 46, 2: 50, 3: 23, 4: 24}
    assert Counter(s.label for s in data.test) == {0: 72, 1: 12, 2: 12, 3: 6, 4: 6}
    by_name = {Path(sample.path).name: sample for sample in data.train + data.test}
    assert set(by_name["00073.jpg"].signs) == {
        Sign("50", top=457, left=727, bottom=477, right=748),
        Sign("50", top=453, left=430, bottom=475, right=452),
    }
    assert all(bool(s.signs) == (s.label > 0) for s in by_name.values())
    assert check_images(data.train[:8], progress=False) == (800, 1360)
