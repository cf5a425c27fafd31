"""Models measured, each in a process of its own, in turns with the one of reference."""

import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from attention_sampling.experiments.cost import process
from attention_sampling.experiments.cost.process import Step
from attention_sampling.files import quiet_imports

Row = dict[str, Any]


class Worker:
    """A process that measures one model. A context manager: it ends the process.

    Args:
        arguments: as of ``process.Measurement``.
    """

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments
        self.steps: list[Step] = []

    def __enter__(self) -> "Worker":
        self._executor = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=process.ignore_interrupts,
        )
        try:
            with quiet_imports():  # of the process, which starts now
                prepared = self._executor.submit(process.prepare, *self._arguments)
            prepared.result()
        except BaseException:
            self._executor.shutdown()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        self._executor.shutdown()

    def ask(self, question: str, *arguments: Any) -> Any:
        """Call a method of the measurement in the process.

        Raises:
            MemoryError: there is not enough memory.
            BrokenProcessPool: the process died, mostly of too little memory.
        """
        return self._executor.submit(process.ask, question, *arguments).result()

    def take_turn(self) -> list[Step]:
        """Take some steps and keep what they took."""
        steps: list[Step] = self.ask("take_turn")
        self.steps += steps
        return steps


def measure(
    names: Sequence[str], subject: str, reference: str, batch_size: int, steps: int
) -> Iterator[Row]:
    """Measure time and memory a sample.

    The processes of a model and of the reference take turns: other work on the machine so
    falls on both, and not more than two hold memory at a time.

    Args:
        names: of the models, as of ``models.build``.
        subject: a task, or the path of a ``.keras`` file.
        reference: the one that ratios are to. It is measured even if it is not named.
        batch_size: images a step.
        steps: to measure of each, at least.

    Yields:
        A row for each model, the reference last: ``method``, ``batch_size``, ``steps``;
        ``ms_per_sample``, the median of the steps, and its quartiles ``ms_low`` and
        ``ms_high``; ``allocator_mb_per_sample``, median of the peaks of TensorFlow's
        allocator, and ``resident_mb_per_sample``; ``time_ratio``, median over the turns,
        and its quartiles; ``allocator_ratio``. Nothing but ``reason`` where memory ran out.

    Raises:
        MemoryError: there is not enough for the reference.
    """
    turns = math.ceil(steps / process.STEPS_A_TURN)
    # The last ratio is to the reference itself.
    with Worker(reference, subject, reference, batch_size) as partner:
        partner.take_turn()
        for name in names:
            if name == reference:
                continue
            try:
                with Worker(name, subject, reference, batch_size) as worker:
                    ratios = [_take_turns(worker, partner, n) for n in range(turns)]
                    yield _row(name, batch_size, worker, partner, ratios)
            except (MemoryError, BrokenProcessPool) as error:
                reason = f"out of memory: {error}"
                yield {"method": name, "batch_size": batch_size, "reason": reason}
        while len(partner.steps) < steps:
            partner.take_turn()
        yield _row(reference, batch_size, partner, partner, [1.0])


def _take_turns(worker: Worker, partner: Worker, number: int) -> float:
    """Let both take some steps, every other time the second first; return the ratio."""
    pair = [worker, partner][:: -1 if number % 2 else 1]
    seconds = {
        one: np.median([step.seconds for step in one.take_turn()]) for one in pair
    }
    return float(seconds[worker] / seconds[partner])


def _row(
    name: str, batch_size: int, worker: Worker, partner: Worker, ratios: list[float]
) -> Row:
    ms, peak = np.transpose(worker.steps) * [[1e3 / batch_size], [1 / batch_size]]
    partner_peak = np.median([step.peak for step in partner.steps]) / batch_size
    resident = worker.ask("resident") / batch_size
    low, middle, high = np.quantile(ms, [0.25, 0.5, 0.75])
    ratio_low, ratio, ratio_high = np.quantile(ratios, [0.25, 0.5, 0.75])
    row = {
        "ms_per_sample": middle,
        "ms_low": low,
        "ms_high": high,
        "allocator_mb_per_sample": np.median(peak),
        "resident_mb_per_sample": resident,
        "time_ratio": ratio,
        "time_ratio_low": ratio_low,
        "time_ratio_high": ratio_high,
        "allocator_ratio": np.median(peak) / partner_peak if partner_peak else math.nan,
    }
    return {
        "method": name,
        "batch_size": batch_size,
        "steps": len(worker.steps),
        **{key: round(float(x), 4) if x == x else None for key, x in row.items()},
        "reason": None,
    }
