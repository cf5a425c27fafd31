"""Python as a user starts it: run to the end, stopped on the way, and what it leaves."""

import contextlib
import csv
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = REPOSITORY / "examples"
COMMANDS = ("-m", "attention_sampling")
TIMEOUT = 300  # seconds: a deadlock fails


@contextlib.contextmanager
def start(*words, environment=(), path=(), **keywords):
    """Start Python with these words; what still runs at the end is killed.

    Args:
        words: such as a script and its options.
        environment: variables to add.
        path: where to import from, besides this repository.
        keywords: of Popen.
    """
    variables = os.environ | dict(environment)
    variables["PYTHONPATH"] = os.pathsep.join(map(str, [REPOSITORY, *path]))
    if "TF_CPP_MIN_LOG_LEVEL" not in dict(environment):
        variables.pop("TF_CPP_MIN_LOG_LEVEL", None)  # which TensorFlow sets here
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], env=variables, **pipes | keywords
        )
    finally:
        signal.signal(signal.SIGINT, ours)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def end(process, timeout=TIMEOUT):
    """Wait for the end; return the exit code, and what was printed to both outputs."""
    output, errors = process.communicate(timeout=timeout)
    return process.returncode, output, errors


def run(*words, timeout=TIMEOUT, **keywords):
    """Start Python and wait for its end; return as `end` does."""
    with start(*words, **keywords) as process:
        return end(process, timeout)


def run_code(code, *words, **keywords):
    """Run code in a process of its own, which must succeed; return what it printed."""
    status, output, errors = run("-c", code, *words, **keywords)
    assert status == 0, errors
    return output


def wait_until(condition, process):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def interrupt(process):
    """Press Ctrl-C; return as `end` does."""
    process.send_signal(signal.SIGINT)
    return end(process)


def interrupt_example(words, output, when):
    """Press Ctrl-C in an example when a condition holds, and check what it leaves."""
    with start(*words) as process:
        wait_until(when, process)
        code, _, errors = interrupt(process)
    check_interrupted(code, errors, output)


def interrupt_training(words, output):
    """Press Ctrl-C after the first epoch; a second process before it ends at once."""
    with start(*words) as first:
        wait_until((output / "model.keras").exists, first)
        code, printed, errors = run(*words, "--resume")
        assert (code, printed) == (1, "")
        assert errors.startswith(f"error: Another process is at work in {output}")
        assert errors.count("\n") == 1
        code, _, errors = interrupt(first)
    check_interrupted(code, errors, output)


def check_interrupted(code, errors, output):
    assert code == 1
    assert errors.endswith("interrupted; --resume goes on after the last whole epoch\n")
    assert "Traceback" not in errors
    assert not list(output.rglob("*.part*"))


def refuse_to_overwrite(words, output):
    """Check that an example does not begin anew where there is a trained model."""
    before = (output / "model.keras").read_bytes()
    message = f"error: {output} holds a trained model: go on with it (resume), or "
    assert refuse(*words).startswith(message)
    assert (output / "model.keras").read_bytes() == before


def run_here(script, *words):
    """Run a script in this process: to start another one takes seconds."""
    with mock.patch.object(sys, "argv", [str(script), *map(str, words)]):
        runpy.run_path(str(script), run_name="__main__")


def refuse(script, *words):
    """Return the one line that a script, run in this process, ends with."""
    with pytest.raises(SystemExit) as ended:
        run_here(script, *words)
    assert "\n" not in ended.value.code
    return ended.value.code


def read_table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_epochs(output):
    """Return the epochs in the log of a training."""
    return [int(row["epoch"]) for row in read_table(output / "log.csv")]


def names_in(directory):
    """Return the names of what a user sees in a directory."""
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")
