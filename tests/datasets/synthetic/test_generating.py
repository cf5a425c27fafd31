"""A generated directory is there as a whole or not at all, and is never overwritten."""

import errno
import json
import signal

import pytest
from processes import run

from attention_sampling.datasets.synthetic.generating import generate
from attention_sampling.files import one_process

SETTINGS = {"size": (2, 3), "seed": 0}


def write(directory):
    (directory / "data").mkdir()
    (directory / "data" / "answer.txt").write_text("42")


def refuse_to_write(directory):
    raise RuntimeError("it is there already")


@pytest.mark.parametrize("exists", [False, True])
def test_writes_once(tmp_path, exists):
    directory = tmp_path / "new" / "answers"
    if exists:
        directory.mkdir(parents=True)
    assert generate(directory, SETTINGS, write) == directory
    assert (directory / "data" / "answer.txt").read_text() == "42"
    settings = json.loads((directory / "generated.json").read_text())
    assert settings == {"size": [2, 3], "seed": 0}
    assert [path.name for path in directory.parent.iterdir()] == ["answers"]
    generate(str(directory), SETTINGS, refuse_to_write)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"photo.jpg": "mine"}, "something else than generated"),
        ({"generated.json": "{"}, "something else than generated"),
        ({"generated.json": '{"seed": 1}'}, r"other settings, \{'seed': 1\}"),
    ],
)
def test_never_overwrites(tmp_path, content, message):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(
        ValueError, match=f"{message}.*Received: directory='{tmp_path}'"
    ):
        generate(tmp_path, SETTINGS, refuse_to_write)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == content


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_leaves_nothing_half_written(tmp_path, error):
    def fail(directory):
        write(directory)
        raise error

    with pytest.raises(type(error)) as caught:
        generate(tmp_path / "answers", SETTINGS, fail)
    assert list(tmp_path.iterdir()) == []
    if isinstance(error, OSError):
        assert caught.value.filename == str(tmp_path / "answers")


def test_what_a_killed_process_leaves_is_cleared_away(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from attention_sampling.datasets.synthetic.generating import generate\n"
        "def write(directory):\n"
        "    (directory / 'half.txt').touch()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "generate(sys.argv[1], {}, write)\n"
    )
    assert run("-c", code, tmp_path / "answers")[0] == -signal.SIGKILL
    assert not (tmp_path / "answers").exists()
    with one_process(tmp_path):
        generate(tmp_path / "answers", SETTINGS, write)
        assert not list(tmp_path.glob("*.part"))
    assert (tmp_path / "answers" / "data").is_dir()
