"""The script that pastes signs into scenes, as a person runs it."""

import pytest
from processes import EXAMPLES, interrupt, names_in, refuse, run, start, wait_until
from sign_files import write_benchmarks

from attention_sampling.datasets.speed_limits import load_speed_limits

EXAMPLE = EXAMPLES / "make_speed_limits.py"
SMALL = ["--n-train=20", "--n-test=12"]


@pytest.fixture
def benchmarks(tmp_path):
    return write_benchmarks(tmp_path)


def test_makes_a_data_set_and_leaves_it_when_run_again(benchmarks, tmp_path):
    output = tmp_path / "a" / "b"
    command = [EXAMPLE, *benchmarks, output, *SMALL, "--scale=0.5"]
    code, out, err = run(*command)
    assert (code, err) == (0, "")
    assert f"32 of 32 images are in {output}" in out
    assert names_in(output) == ["pasted.json", "test", "train"]
    data = load_speed_limits(output)
    assert (len(data.train), len(data.test)) == (20, 12)
    assert refuse(*command, "--seed=4") == (
        f"error: {output} holds a data set already: delete it, or choose another "
        "directory"
    )


def test_a_second_process_ends_at_once_and_ctrl_c_leaves_nothing(benchmarks, tmp_path):
    output = tmp_path / "new"
    words = [EXAMPLE, *benchmarks, output]
    with start(*words, "--n-train=100000") as first:
        wait_until(lambda: list(output.glob(".train.*.part/images/*.jpg")), first)
        code, out, err = run(*words, *SMALL)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"error: Another process is at work in {output}")
        code, _, err = interrupt(first)
    assert (code, err) == (1, "\ninterrupted: nothing is written\n")
    assert names_in(output) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-train=0"], "`n_train` must be an int of at least 1"),
        (["--scale=1.1"], "`scale` must be more than 0 and at most 1"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    benchmarks, tmp_path, options, message
):
    words = [*benchmarks, tmp_path / "new", *SMALL, *options]
    refused = refuse(EXAMPLE, *words)
    assert refused.startswith("error: ")
    assert message in refused
    assert names_in(tmp_path / "new") == []
    words[1] = tmp_path / "nowhere"
    assert "There are no signs" in refuse(EXAMPLE, *words[:-1])
