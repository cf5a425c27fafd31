"""Both formats of road scenes: labels, splits, and what is said about bad files."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import attention_sampling
from attention_sampling.datasets.speed_limits import (
    Sample,
    Sign,
    check_images,
    load_speed_limits,
)

REPOSITORY = Path(attention_sampling.__file__).parents[1]
GTSDB = REPOSITORY.parent / "shared" / "data" / "gtsdb"
needs_gtsdb = pytest.mark.skipif(
    not GTSDB.is_dir(), reason=f"the German benchmark is not at {GTSDB}"
)


def draw(path, size=(40, 30)):
    """Draw a road scene of (width, height) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, "gray")
    ImageDraw.Draw(image).ellipse((5, 5, 15, 15), fill="white", outline="red")
    image.save(path)


@pytest.fixture
def german(tmp_path):
    """Return a function that writes the German format: image name -> class numbers."""

    def write(images, folder="images", suffix=".png"):
        lines = []
        for name, numbers in images.items():
            draw(tmp_path / folder / f"{name}{suffix}")
            lines += [f"{name}{suffix};5;6;15;16;{number}\n" for number in numbers]
        (tmp_path / "gt.txt").write_text("".join(lines))
        return tmp_path

    return write


EACH_CLASS = {
    f"{number:05}": signs
    for number, signs in enumerate([[]] * 8 + [[1]] * 4 + [[2]] * 4 + [[4], [5]] * 4)
}


@pytest.fixture
def swedish(tmp_path):
    """Return a function that writes the Swedish format: lines of both sets."""

    def write(lines=(), folder="Set1Part0", test_lines=()):
        common = [
            "empty.png:",
            "limit50.png:VISIBLE, 15, 16, 5, 6, PROHIBITORY, 50_SIGN;",
            "limit70.png:VISIBLE, 15, 16, 5, 6, PROHIBITORY, 70_SIGN;",
            "limit80.png:VISIBLE, 15, 16, 5, 6, PROHIBITORY, 80_SIGN;",
        ]
        for name, more in (("Set1", lines), ("Set2", test_lines)):
            images = tmp_path / name / folder.replace("Set1", name)
            for line in [*common, *more]:
                draw(images / line.partition(":")[0])
            (tmp_path / name / "annotations.txt").write_text(
                "\n".join([*common, *more]) + "\n"
            )
        return tmp_path

    return write


def names_of(samples):
    return [Path(sample.path).name for sample in samples]


def numbers_of(samples):
    return [int(Path(sample.path).stem) for sample in samples]


def load_all(directory):
    """Load a German tree of any classes; return {number: sample}."""
    data = load_speed_limits(directory)
    return {Path(sample.path).stem: sample for sample in data.train + data.test}


class TestGerman:
    def test_labels_the_signs(self, german):
        images = EACH_CLASS | {
            "00100": [2, 2],  # twice the same limit: in the same place, so one sign
            "00101": [17, 38, 6],  # no limit; the end of one is none
            "00102": [2, 17],
            "00103": [1, 5],
            "00104": [2, 8],
            "00105": [0],
            "00106": [3, 7],
        }
        samples = load_all(german(images))
        sign = Sign("50", top=6, left=5, bottom=16, right=15)
        assert samples["00100"].label == 2
        assert samples["00100"].signs == (sign,)
        assert samples["00101"].label == 0
        assert samples["00101"].signs == ()
        assert samples["00102"].signs == (sign,)
        left_out = {"00103", "00104", "00105", "00106"}
        assert samples.keys() == images.keys() - left_out
        assert load_speed_limits(german(images)).classes == (
            "empty",
            "30",
            "50",
            "70",
            "80",
        )

    def test_keeps_two_signs_of_one_limit(self, german):
        directory = german(EACH_CLASS)
        with open(directory / "gt.txt", "a") as file:
            file.write("00008.png;25;6;35;16;1\n\n")
        assert load_all(directory)["00008"].signs == (
            Sign("30", 6, 5, 16, 15),
            Sign("30", 6, 25, 16, 35),
        )

    @pytest.mark.parametrize("suffix", [".jpg", ".ppm"])
    @pytest.mark.parametrize("folder", ["", "images"])
    def test_finds_the_images(self, german, suffix, folder):
        directory = german(EACH_CLASS, folder=folder, suffix=suffix)
        # The original names signs by .ppm, and has folders of single signs.
        text = (directory / "gt.txt").read_text().replace(suffix, ".ppm")
        (directory / "gt.txt").write_text(text)
        draw(directory / "00" / "00000.ppm")
        draw(directory / folder / "._hidden.png")
        samples = load_all(directory)
        assert samples.keys() == EACH_CLASS.keys()
        assert samples["00008"].path == str(directory / folder / f"00008{suffix}")

    def test_splits_each_class(self, german):
        data = load_speed_limits(german(EACH_CLASS), test_fraction=0.25)
        assert Counter(s.label for s in data.test) == {0: 2, 1: 1, 2: 1, 3: 1, 4: 1}
        assert sorted(names_of(data.train + data.test)) == [
            f"{name}.png" for name in EACH_CLASS
        ]
        assert names_of(data.train) == sorted(names_of(data.train))

    def test_keeps_both_sides_of_a_class(self, german):
        directory = german(EACH_CLASS)
        few = load_speed_limits(directory, test_fraction=0.001)
        assert Counter(s.label for s in few.test) == dict.fromkeys(range(5), 1)
        many = load_speed_limits(directory, test_fraction=0.999)
        assert Counter(s.label for s in many.train) == dict.fromkeys(range(5), 1)

    def test_splits_by_seed_alone(self, german, monkeypatch):
        directory = german(EACH_CLASS)
        splits = {
            tuple(names_of(load_speed_limits(directory, seed=seed).test))
            for seed in range(5)
        }
        assert len(splits) > 1
        before = load_speed_limits(directory, seed=3)
        iterdir = Path.iterdir
        monkeypatch.setattr(Path, "iterdir", lambda p: reversed(sorted(iterdir(p))))
        lines = (directory / "gt.txt").read_text().splitlines()
        (directory / "gt.txt").write_text("\n".join(reversed(lines)))
        assert load_speed_limits(directory, seed=3) == before
        # The names themselves, so that a change of the algorithm is seen.
        assert numbers_of(before.test) == [1, 7, 8, 13, 16, 21]

    def test_splits_at_a_number(self, german):
        images = EACH_CLASS | {f"{100 + n:05}": s for n, s in enumerate([[], [2]])}
        with pytest.warns(UserWarning, match=r"No image of class 30, 70, 80 is left"):
            data = load_speed_limits(german(images), test_from=100)
        assert names_of(data.test) == ["00100.png", "00101.png"]
        assert len(data.train) == len(EACH_CLASS)

    def test_refuses_an_image_without_number(self, german):
        directory = german(EACH_CLASS)
        draw(directory / "images" / "road.png")
        with pytest.raises(ValueError, match=r"number of each image.*road\.png"):
            load_speed_limits(directory, test_from=3)

    @pytest.mark.parametrize(
        ("number", "missing"), [(0, "empty, 30, 50, 70, 80"), (9, "50, 70, 80")]
    )
    def test_refuses_a_split_without_training_images(self, german, number, missing):
        with pytest.raises(
            ValueError,
            match=rf"^No image of class {missing} is left for training in ",
        ):
            load_speed_limits(german(EACH_CLASS), test_from=number)

    def test_refuses_a_split_without_testing_images(self, german):
        with pytest.raises(
            ValueError, match=r"Nothing is left for testing in .*24 for training"
        ):
            load_speed_limits(german(EACH_CLASS), test_from=1000)

    @pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
    def test_refuses_a_fraction(self, german, fraction):
        with pytest.raises(ValueError, match=r"Received: test_fraction="):
            load_speed_limits(german(EACH_CLASS), test_fraction=fraction)

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("00001.png;1;2;3;4", "5 fields"),
            ("00001.png;1;2;3;4;5;6", "7 fields"),
            (";1;2;3;4;5", "no image name"),
            ("00001.png;1;2;x;4;5", "invalid literal.*'x'"),
            ("00001.png;1;2;3.5;4;5", "invalid literal.*'3.5'"),
            ("00001.png;5;2;5;4;5", "box is empty"),
            ("00001.png;1;9;3;4;5", "box is empty"),
            ("00001.png;-1;2;3;4;5", "begins outside"),
            ("00001.png;1;2;3;4;43", "not one of 0 to 42"),
            ("00001.png;1;2;3;4;-1", "not one of 0 to 42"),
            ("\udcff", "fields"),
        ],
    )
    def test_names_the_line_that_does_not_parse(self, german, line, reason):
        directory = german(EACH_CLASS)
        lines = ["00008.png;5;6;15;16;1", "", line]
        text = "\n".join(lines).encode(errors="surrogateescape")
        (directory / "gt.txt").write_bytes(text)
        with pytest.raises(
            ValueError,
            match=rf"gt\.txt, line 3 does not parse: .*{reason}.*Received: '",
        ):
            load_speed_limits(directory)

    def test_refuses_annotations_of_nothing(self, german):
        directory = german(EACH_CLASS)
        for text in ("", "\n \n"):
            (directory / "gt.txt").write_text(text)
            with pytest.raises(
                ValueError, match=r"No image is annotated.*gt\.txt with"
            ):
                load_speed_limits(directory)

    def test_names_missing_images(self, german):
        directory = german(EACH_CLASS)
        (directory / "images" / "00009.png").unlink()
        with pytest.raises(
            FileNotFoundError, match=r"gt\.txt are missing.*images\. .*: 00009\.png$"
        ):
            load_speed_limits(directory)
        for path in (directory / "images").iterdir():
            if path.stem != "00000":
                path.unlink()
        with pytest.raises(FileNotFoundError, match=r"00017\.png and 6 more$"):
            load_speed_limits(directory)

    def test_refuses_a_folder_without_images(self, german):
        directory = german({})
        with pytest.raises(FileNotFoundError, match=r"no images beside gt\.txt.*\.ppm"):
            load_speed_limits(directory)

    def test_refuses_an_image_that_is_there_twice(self, german):
        directory = german(EACH_CLASS)
        draw(directory / "images" / "00003.jpg")
        with pytest.raises(
            ValueError, match=r"there twice.*00003\.jpg and .*00003\.png"
        ):
            load_speed_limits(directory)


class TestSwedish:
    @pytest.mark.parametrize("folder", ["", "Set1Part0", "Set1Part0/Set1Part0"])
    def test_reads_both_sets(self, swedish, folder):
        directory = swedish(folder=folder, test_lines=["more.png:"])
        draw(directory / "Set1" / "not_annotated.png")
        draw(directory / "Set1" / ".Set1Part0.extracting" / "empty.png")
        data = load_speed_limits(directory)
        assert data.classes == ("empty", "50_SIGN", "70_SIGN", "80_SIGN")
        names = ["empty.png", "limit50.png", "limit70.png", "limit80.png"]
        assert names_of(data.train) == names
        assert names_of(data.test) == [*names, "more.png"]
        assert [sample.label for sample in data.train] == [0, 1, 2, 3]
        assert data.train[0] == Sample(
            str(directory / "Set1" / folder / "empty.png"), 0, ()
        )
        assert data.test[1].signs == (Sign("50_SIGN", 6, 5, 16, 15),)

    @pytest.mark.parametrize(
        ("signs", "label"),
        [
            ("", 0),
            ("MISC_SIGNS;", 0),
            ("MISC_SIGNS;MISC_SIGNS;", 0),
            ("VISIBLE 50_SIGN;", 1),
            ("VISIBLE 50_SIGN", 1),
            ("MISC_SIGNS;VISIBLE 50_SIGN;", 1),
            ("VISIBLE 50_SIGN;VISIBLE 50_SIGN;", 1),
            ("VISIBLE STOP; VISIBLE 70_SIGN;OCCLUDED GIVE_WAY;", 2),
            ("BLURRED 50_SIGN;VISIBLE 70_SIGN;", 2),
            ("OCCLUDED 50_SIGN;SIDE_ROAD 70_SIGN;VISIBLE 80_SIGN;", 3),
            ("VISIBLE 80_SIGN;VISIBLE 30_SIGN;", 3),
            ("BLURRED 50_SIGN;", None),
            ("SIDE_ROAD 50_SIGN;", None),
            ("OCCLUDED 50_SIGN;", None),
            ("BLURRED 50_SIGN;VISIBLE STOP;", None),
            ("VISIBLE 50_SIGN;VISIBLE 70_SIGN;", None),
            ("VISIBLE 30_SIGN;", None),
            ("VISIBLE STOP;MISC_SIGNS;", None),
            ("OCCLUDED OTHER;", None),
        ],
    )
    def test_labels_the_signs(self, swedish, signs, label):
        for visibility in ("VISIBLE", "BLURRED", "SIDE_ROAD", "OCCLUDED"):
            signs = signs.replace(
                f"{visibility} ", f"{visibility}, 15.0, 16.0, 5.0, 6.0, TYPE, "
            )
        data = load_speed_limits(swedish([f"x.png:{signs}"]))
        labels = {Path(sample.path).name: sample.label for sample in data.train}
        assert labels.get("x.png") == label

    def test_reads_corners_in_their_order(self, swedish):
        # A sign past the border, and a typing error, as in the published file.
        line = "x.png:VISIBLE, 30.6, 25.4376a0, -3.2, 10, PROHIBITORY, 80_SIGN;"
        data = load_speed_limits(swedish([line]))
        assert data.train[-1].signs == (Sign("80_SIGN", 10, 0, 25, 31),)

    def test_accepts_a_line_that_is_there_twice(self, swedish):
        data = load_speed_limits(swedish(["empty.png:"]))
        assert len(data.train) == 4

    def test_refuses_an_image_with_two_different_lines(self, swedish):
        directory = swedish(["limit50.png:"])
        with pytest.raises(
            ValueError,
            match=r"Set1.annotations\.txt lists an image twice.*limit50\.png",
        ):
            load_speed_limits(directory)

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("x.png", "no image name before a colon"),
            (":MISC_SIGNS;", "no image name before a colon"),
            ("x.png:VISIBLE, 15, 16, 5, 6, 50_SIGN;", "6 fields"),
            ("x.png:HIDDEN, 15, 16, 5, 6, TYPE, 50_SIGN;", "visibility 'HIDDEN'"),
            ("x.png:VISIBLE, 15, 16, 5, y, TYPE, 50_SIGN;", "'y' is not a number"),
            ("x.png:VISIBLE, 15, 16, 5, nan, TYPE, STOP;", "'nan' is not a number"),
            ("x.png:VISIBLE, 5, 6, 15, 16, TYPE, 50_SIGN;", "box is empty"),
            ("x.png:VISIBLE, 15, 6, 5, 6, TYPE, 50_SIGN;", "box is empty"),
        ],
    )
    def test_names_the_line_that_does_not_parse(self, swedish, line, reason):
        directory = swedish()
        with open(directory / "Set2" / "annotations.txt", "a") as file:
            file.write(line)
        with pytest.raises(
            ValueError,
            match=rf"Set2.annotations\.txt, line 5 does not parse: .*{reason}",
        ):
            load_speed_limits(directory)

    def test_names_missing_images(self, swedish):
        directory = swedish()
        (directory / "Set2" / "Set2Part0" / "limit70.png").unlink()
        with pytest.raises(
            FileNotFoundError, match=r"annotations\.txt are missing.*: limit70\.png$"
        ):
            load_speed_limits(directory)

    def test_refuses_test_from(self, swedish):
        with pytest.raises(ValueError, match=r"does not apply.*test_from=0"):
            load_speed_limits(swedish(), test_from=0)


class TestFormats:
    def test_refuses_a_missing_directory(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"data set is not there.*nowhere"):
            load_speed_limits(tmp_path / "nowhere")

    @pytest.mark.parametrize("files", [[], ["Set1/annotations.txt"]])
    def test_says_which_files_are_expected(self, tmp_path, files):
        for name in files:
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
        with pytest.raises(
            FileNotFoundError, match=r"lacks the files.*gt\.txt.*Set2/annotations\.txt"
        ):
            load_speed_limits(tmp_path)

    def test_refuses_both_formats_in_one(self, swedish):
        directory = swedish()
        (directory / "gt.txt").touch()
        with pytest.raises(ValueError, match="holds two data sets"):
            load_speed_limits(directory)

    def test_loads_no_keras(self):
        code = (
            "import sys, attention_sampling.datasets.speed_limits\n"
            "print({'keras', 'tensorflow', 'numpy', 'PIL'} & set(sys.modules))"
        )
        output = subprocess.check_output(
            [sys.executable, "-c", code], cwd=REPOSITORY, text=True
        )
        assert output == "set()\n"


class TestCheckImages:
    @pytest.fixture
    def samples(self, tmp_path):
        paths = [tmp_path / f"{number:02}.jpg" for number in range(14)]
        for path in paths:
            draw(path)
        return [Sample(str(path), 0, ()) for path in paths]

    def test_returns_height_and_width(self, samples, capfd):
        assert check_images(samples, progress=False) == (30, 40)
        assert capfd.readouterr().err == ""
        check_images(tuple(samples))
        assert "Checking images: 100%" in capfd.readouterr().err

    def test_names_broken_images(self, samples):
        paths = [Path(sample.path) for sample in samples]
        paths[1].write_bytes(paths[1].read_bytes()[:-2])
        paths[2].write_bytes(b"no image")
        paths[3].unlink()
        draw(paths[4].with_suffix(".png"), (300, 300))
        content = paths[4].with_suffix(".png").read_bytes()
        paths[4].write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=r"^4 of 14 images cannot be") as caught:
            check_images(samples, progress=False)
        for reason in (
            r"01.jpg (OSError: image file is truncated",
            r"02.jpg (UnidentifiedImageError",
            r"03.jpg (FileNotFoundError",
            r"04.jpg (",
        ):
            assert reason in str(caught.value)
        assert "00.jpg" not in str(caught.value)

    def test_names_ten_and_counts_the_rest(self, samples):
        for sample in samples:
            Path(sample.path).write_bytes(b"")
        with pytest.raises(ValueError, match=r"14 of 14.*09\.jpg \(.*and 4 more$") as e:
            check_images(samples, progress=False)
        assert "10.jpg" not in str(e.value)

    def test_names_an_image_of_another_size(self, samples):
        draw(Path(samples[0].path), (30, 40))
        with pytest.raises(
            ValueError,
            match=r"differ in size.*\(30, 40\), as 13 of 14.*00\.jpg with \(40, 30\)",
        ):
            check_images(samples, progress=False)

    def test_refuses_no_images(self):
        with pytest.raises(ValueError, match="There is no image to check"):
            check_images([])

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
    def test_closes_the_files(self, samples):
        check_images(samples, progress=False)
        Path(samples[0].path).write_bytes(b"broken")
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ValueError, match="1 of 14"):
            check_images(samples, progress=False)
        assert len(os.listdir("/proc/self/fd")) == before


@needs_gtsdb
class TestRealBenchmark:
    def test_counts_what_its_readme_says(self):
        data = load_speed_limits(GTSDB)
        labels = Counter(sample.label for sample in data.train + data.test)
        assert labels == {0: 200, 1: 46, 2: 50, 3: 23, 4: 24}
        assert Counter(sample.label for sample in data.test) == {
            0: 50,
            1: 12,
            2: 12,
            3: 6,
            4: 6,
        }

    def test_knows_the_signs_of_an_image(self):
        data = load_speed_limits(GTSDB)
        by_name = dict(zip(names_of(data.train), data.train, strict=True))
        by_name.update(zip(names_of(data.test), data.test, strict=True))
        assert by_name["00073.jpg"].signs == (
            Sign("50", top=457, left=727, bottom=477, right=748),
            Sign("50", top=453, left=430, bottom=475, right=452),
        )
        assert all(bool(s.signs) == (s.label > 0) for s in by_name.values())

    def test_splits_at_a_number(self):
        data = load_speed_limits(GTSDB, test_from=400)
        assert max(names_of(data.train)) < "00400.jpg" <= min(names_of(data.test))

    def test_decodes(self):
        samples = load_speed_limits(GTSDB).train[:8]
        assert check_images(samples, progress=False) == (800, 1360)


def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path):
    path = tmp_path / "0.jpg"
    Image.new("RGB", (8, 8)).save(path, "PPM")
    with pytest.raises(ValueError, match="its name says JPEG, it is PPM"):
        check_images([Sample(str(path), 0, ())], progress=False)
