"""Cost of methods: each in a process of its own, in turns with that of reference."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, NamedTuple

from attention_sampling.benchmark import processes
from attention_sampling.benchmark.cost import device as cost_device
from attention_sampling.benchmark.cost import process as cost_process
from attention_sampling.benchmark.cost.process import Step
from attention_sampling.benchmark.cost.rows import Cost, cost_row
from attention_sampling.benchmark.tables import Row
from attention_sampling.experiments.tasks import Task, parse_method

# Turns of a method, however long they take.
_FEWEST_TURNS = 3


class Effort(NamedTuple):
    """How long to measure.

    Attributes:
        steps: of each method and batch size.
        warmup: steps before.
        seconds: after which a method gets no further turn, if it had three.
    """

    steps: int = 30
    warmup: int = 3
    seconds: float = 60.0


def measure_batch(
    task: Task,
    methods: Sequence[str],
    batch_size: int,
    effort: Effort,
    memory_limit: float | None = None,
    smaller: Sequence[Row] = (),
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Measure methods at a batch size.

    At any time there are two processes, that of a method and that of the task's method
    of reference. They take turns, so that other work on the machine falls upon both.

    Args:
        task: an experiment.
        methods: of it. The method of reference is always measured.
        batch_size: images a step.
        effort: how long to measure.
        memory_limit: megabytes (10^6 bytes) that a method may take; one that needs more
            gets a row without numbers. None for no limit.
        smaller: rows of smaller batch sizes: what needs too much by them is not tried.
        report: told of each method that was measured.

    Returns:
        A row for each method, as of ``cost_row``, that of reference first if it was not
        asked for.
    """
    names = list(dict.fromkeys(methods))
    if task.reference not in names:
        names.insert(0, task.reference)
    costs = {name: Cost() for name in names}
    reference = costs[task.reference]

    @contextmanager
    def trained(name: str) -> Iterator[_Training]:
        if memory_limit is not None and batch_size > 1:
            row = _smallest(smaller, name) or _measure_one(task, name, memory_limit)
            costs[name].reason = _shortage(row, batch_size, memory_limit)
        with _start(costs[name], memory_limit) as training:
            training.prepare(task, name, batch_size, effort.warmup)
            yield training
            training.end()
        report(f"{name}, batch {batch_size}: {costs[name].summary(batch_size)}")

    with trained(task.reference) as partner:
        for name in names:
            if name != task.reference:
                with trained(name) as training:
                    _take_turns(training, partner, effort)
        if not reference.steps:
            _take_turns(partner, None, effort)
    return [cost_row(name, batch_size, costs[name], reference) for name in names]


@contextmanager
def _start(cost: Cost, memory_limit: float | None) -> Iterator["_Training"]:
    """Start a process to measure a method in."""
    # A GPU says itself when its memory ends, and its driver reserves what it may need.
    if cost_device.device() != "CPU:0":
        memory_limit = None
    with processes.start_process(memory_limit) as executor:
        yield _Training(executor, cost, memory_limit)


class _Training:
    """A method in its process. Nothing is asked of it once memory has run out."""

    def __init__(
        self, executor: Executor, cost: Cost, memory_limit: float | None
    ) -> None:
        self.cost = cost
        self._executor = executor
        self._memory_limit = memory_limit

    def prepare(self, task: Task, name: str, batch_size: int, warmup: int) -> None:
        """Build the model and warm it up."""
        method = parse_method(name)
        self._ask(cost_process.prepare, task, method, batch_size, warmup)

    def take_turn(self) -> list[Step]:
        """Take some steps; none if memory has run out."""
        return self._ask(cost_process.take_turn) or []

    def end(self) -> None:
        """Ask for the memory of the steps."""
        self.cost.memory = self._ask(cost_process.end)

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self.cost.reason is not None:
            return None
        try:
            return self._executor.submit(function, *arguments).result()
        except MemoryError as error:
            self.cost.fail(f"out of memory: {error}")
        except BrokenProcessPool:
            limit = self._memory_limit
            short = "run out of memory"
            if limit is not None:
                short = f"need more than the {limit:,.0f} MB allowed"
            self.cost.fail(f"its process died, as processes do that {short}")
        return None


def _take_turns(training: _Training, partner: _Training | None, effort: Effort) -> None:
    """Let a method and that of reference take steps, and keep what they took."""
    start = time.monotonic()
    pair = [training] if partner is None else [training, partner]
    for turn in range(math.ceil(effort.steps / cost_process.STEPS_A_TURN)):
        late = time.monotonic() - start > effort.seconds
        if training.cost.reason is not None or (late and turn >= _FEWEST_TURNS):
            return
        # Every other turn begins with the last.
        taken = {one: one.take_turn() for one in pair[:: -1 if turn % 2 else 1]}
        if partner is not None:
            training.cost.compare(taken[training], taken[partner])
        for one, steps in taken.items():
            one.cost.steps += steps


def _measure_one(task: Task, name: str, memory_limit: float) -> Row:
    """Return the row of a method at batch 1, for its memory."""
    cost = Cost()
    with _start(cost, memory_limit) as training:
        training.prepare(task, name, 1, 1)
        cost.steps += training.take_turn()
        training.end()
    return cost_row(name, 1, cost, cost)


def _smallest(rows: Sequence[Row], name: str) -> Row | None:
    found = [row for row in rows if row["method"] == name]
    return min(found, key=lambda row: row["batch_size"], default=None)


def _shortage(row: Row, batch_size: int, memory_limit: float) -> str | None:
    """Tell from a smaller batch why there is too little memory for a larger one."""
    if row["reason"] is not None:
        return f"batch {row['batch_size']}: {row['reason']}"
    held = row["allocator_held_mb"]
    peak = row["allocator_mb_per_sample"] * row["batch_size"]
    needed = held + (peak - held) * batch_size / row["batch_size"]
    if needed <= memory_limit:
        return None
    return f"needs about {needed:,.0f} MB of {memory_limit:,.0f} MB allowed"
