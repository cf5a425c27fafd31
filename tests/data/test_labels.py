import numpy as np
import pytest
from PIL import Image

from attention_sampling.data import ArraySource, Dihedral, open_source
from attention_sampling.data.convert import convert
from attention_sampling.data.labels import encode_labels, label_images, read_table


def write_images(directory, names):
    for number, name in enumerate(names):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (number, 0, 0)).save(path)


@pytest.fixture
def pets(tmp_path):
    write_images(tmp_path, ["cat/10.png", "cat/9.png", "dog/1.jpg", "dog/2.jpg"])
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"\0")
    (tmp_path / "readme.txt").write_text("pets")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_one_directory_a_class(pets):
    with open_source(pets) as source:
        names = [name.removeprefix(f"{pets}/") for name in source.names]
        assert names == ["cat/9.png", "cat/10.png", "dog/1.jpg", "dog/2.jpg"]
        assert source.labels.tolist() == [0, 0, 1, 1]
        assert source.class_names == ("cat", "dog")
    with open_source(pets, class_names=["dog", "bird", "cat"]) as source:
        assert source.labels.tolist() == [2, 2, 0, 0]
        assert source.class_names == ("dog", "bird", "cat")
    with pytest.raises(ValueError, match=r"classes cat, bird\. Received: dog"):
        open_source(pets, class_names=["cat", "bird"])


def test_a_directory_of_images_has_no_labels(pets):
    with open_source(pets / "cat") as source:
        assert len(source) == 2
        assert source.labels is source.class_names is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table(pets, delimiter):
    rows = [
        ["note", "label", "file"],
        ["", "old", "dog/2.jpg"],
        ["x", "young", "cat/9.png"],
    ]
    table = pets / "labels.csv"
    table.write_text("\n".join(delimiter.join(row) for row in rows), "utf-8-sig")
    with open_source(table) as source:
        assert [name[-9:] for name in source.names] == ["dog/2.jpg", "cat/9.png"]
        assert source.labels.tolist() == [0, 1]
        assert source.class_names == ("old", "young")


def test_a_table_of_images_opened_by_themselves(pets, tmp_path_factory):
    table = pets / "ages.csv"
    table.write_text(
        "file,label\ncat/9.png,3.5\ncat/10.png,4\ndog/1.jpg,1\ndog/2.jpg,2\n"
    )
    with open_source(pets, labels=table) as source:
        assert source.labels.tolist() == [3.5, 4, 1, 2]
        assert source.class_names is None
        converted = tmp_path_factory.mktemp("converted") / "pets.h5"
        convert(source, converted, progress=False)
    with open_source(converted, labels=table) as source:
        assert source.names == ("cat/9.png", "cat/10.png", "dog/1.jpg", "dog/2.jpg")
        assert source.labels.tolist() == [3.5, 4, 1, 2]
    table.write_text("file,label\ncat/9.png,3.5\n")
    with pytest.raises(ValueError, match=r"3 of 4 images have no label.*cat/10\.png"):
        open_source(pets, labels=table)


def test_whole_numbers_of_a_table_are_classes_in_the_order_of_their_values(pets):
    rows = "file, label\ncat/9.png, 10\n./dog/1.jpg ,3\ncat/10.png,7\n"
    (pets / "t.csv").write_text(rows)
    with open_source(pets / "t.csv") as source:
        assert source.labels.tolist() == [2, 0, 1]
        assert source.class_names == ("3", "7", "10")


def test_names_of_directories_are_always_classes(tmp_path):
    write_images(tmp_path, ["1.5/a.png", "10/a.png", "2/a.png"])
    with open_source(tmp_path) as source:
        assert source.class_names == ("1.5", "2", "10")
        assert sorted(source.labels.tolist()) == [0, 1, 2]


def test_a_list(pets):
    files = [pets / "dog" / "1.jpg", pets / "cat" / "9.png"]
    with open_source(files, labels=["b", "a"]) as source:
        assert source.labels.tolist() == [1, 0]
    with open_source(files, labels=[[0, 1], [1, 1]], class_names=["x", "y"]) as source:
        assert source.labels.tolist() == [[0, 1], [1, 1]]
        assert source.class_names == ("x", "y")
    with pytest.raises(ValueError, match=r"2 images\. Received: 3 labels"):
        open_source(files, labels=["a", "b", "c"])


def test_a_broken_image_takes_its_label_with_it(pets):
    (pets / "cat" / "10.png").write_bytes(b"broken")
    with open_source(pets, on_error="skip") as source:
        assert source.labels.tolist() == [0, 1, 1]
        assert len(source.skipped) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na,b\n", "columns name, label"),
        ("", "columns none"),
        ("file,label\n", "holds no labels"),
        ("file,label\na.jpg,\n", "line 2: the file or its label is missing"),
        ("file,label\na.jpg,x\n./a.jpg,y\n", "a.jpg has two labels, x and y"),
    ],
)
def test_a_table_that_cannot_be(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(tmp_path / "labels.csv")


def test_numbers_stay_as_they_are():
    labels, names = encode_labels(np.array([2.5, 1.0]))
    assert labels.tolist() == [2.5, 1.0]
    assert names is None


def test_turned_images_keep_their_labels():
    source = ArraySource(np.zeros((2, 4, 4, 1), "uint8"))
    label_images(source, ["b", "a"])
    turned = Dihedral(source)
    assert turned.labels.tolist() == [1, 0]
    assert turned.class_names == ("a", "b")


@pytest.mark.parametrize("names", ["ab", [], ["a", "a"]])
def test_class_names_are_different(pets, names):
    with pytest.raises(ValueError, match="a list of different names"):
        open_source(pets / "cat", class_names=names)
