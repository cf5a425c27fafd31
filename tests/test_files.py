import errno
import importlib
import os
import subprocess

import pytest
from processes import start

from attention_sampling.files import (
    keep_settings,
    one_process,
    quiet_imports,
    replacing,
)


def test_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(str(path)) as part:
        assert (part.parent, part.suffix) == (tmp_path, ".txt")
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def fail_to_replace(path, error):
    with replacing(path) as part:
        part.write_text("ne")
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_failure_leaves_what_was_there_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error):
        fail_to_replace(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_before_anything_is_written_is_the_one_that_shows(tmp_path):
    with pytest.raises(RuntimeError, match="first"), replacing(tmp_path / "a.txt"):
        raise RuntimeError("first")


def test_full_disk_is_said_of_the_file(tmp_path):
    """What ends the writing of an open file knows no name."""
    with pytest.raises(OSError, match=r"File too large: '.*a\.txt'"):
        fail_to_replace(tmp_path / "a.txt", OSError(errno.EFBIG, "File too large"))


def make(directory):
    directory.mkdir()
    (directory / "a.txt").write_text("whole")


def test_directory_appears_as_a_whole(tmp_path):
    path = tmp_path / "data"
    for _ in range(2):
        with replacing(path) as part:
            make(part)
            assert not (path / "a.txt").exists()
        assert (path / "a.txt").read_text() == "whole"
        assert list(tmp_path.iterdir()) == [path]
        (path / "a.txt").unlink()  # an empty one is replaced
    make_again = replacing(path)
    (path / "mine.txt").touch()
    with pytest.raises(OSError, match="not empty"), make_again as part:
        make(part)
    assert [file.name for file in path.iterdir()] == ["mine.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_share_a_part(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


HOLD = """
import sys
from attention_sampling.files import one_process
with one_process(sys.argv[1]):
    print("holds", flush=True)
    sys.stdin.read()
"""


def test_second_process_ends_at_once_and_a_killed_one_leaves_the_way_free(tmp_path):
    directory = tmp_path / "runs" / "a"
    with start("-c", HOLD, directory, stdin=subprocess.PIPE) as first:
        assert first.stdout.readline() == "holds\n"
        (directory / ".model.0123abcd.part.keras").write_text("half")
        with pytest.raises(BlockingIOError, match="Another process is at work in"):
            one_process(directory).__enter__()
        first.kill()
    with one_process(directory) as output:
        assert [path.name for path in output.iterdir()] == [".lock"]


def test_parts_of_a_process_in_a_directory_below_are_left_alone(tmp_path):
    with one_process(tmp_path / "runs" / "a") as inner:
        with replacing(inner / "model.keras") as part:
            part.write_text("whole")
            (tmp_path / "runs" / "b").mkdir()
            stale = tmp_path / "runs" / "b" / ".log.0123abcd.part.csv"
            stale.write_text("half")
            with one_process(tmp_path / "runs"):
                assert not stale.exists()
        assert (inner / "model.keras").read_text() == "whole"


def test_a_missing_directory_is_named_by_the_path_of_the_user(tmp_path):
    with (
        pytest.raises(FileNotFoundError) as caught,
        replacing(tmp_path / "no" / "a.txt") as part,
    ):
        part.write_text("a")
    assert caught.value.filename == str(tmp_path / "no" / "a.txt")


def test_settings_are_kept_and_others_are_refused(tmp_path):
    path = tmp_path / "settings.json"
    keep_settings(path, {"seed": 0, "n_patches": 5}, resuming=True)
    assert not path.exists()
    keep_settings(path, {"seed": 0, "n_patches": 5}, resuming=False)
    keep_settings(path, {"seed": 0, "n_patches": 5}, resuming=True)
    with pytest.raises(ValueError, match="n_patches was 5, is 7"):
        keep_settings(path, {"seed": 0, "n_patches": 7}, resuming=True)
    keep_settings(path, {"seed": 1, "n_patches": 7}, resuming=False)


@pytest.mark.parametrize("level", [None, "0"])
def test_imports_are_quiet_and_errors_come_through(capfd, monkeypatch, level):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    with quiet_imports():
        os.write(2, b"a line of oneDNN\n")
    with pytest.raises(ModuleNotFoundError, match="no_such"), quiet_imports():
        importlib.import_module("no_such")
    os.write(2, b"after it\n")
    assert capfd.readouterr().err == "after it\n"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == (level or "3")
