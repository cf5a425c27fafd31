import errno

import pytest

from attention_sampling.files import replacing


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
