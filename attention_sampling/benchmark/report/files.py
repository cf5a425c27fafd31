"""What measurements left on disk: found and read."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attention_sampling.benchmark.report.images import (
    Images,
    images_of,
    images_of_paper,
)
from attention_sampling.benchmark.report.schema import (
    FORMATS,
    SIZES,
    check_content,
)
from attention_sampling.experiments.tasks import TASKS, Task


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A file that a training or a benchmark wrote.

    Args:
        name: of the file in the directory that was searched.
        kind: ``"training"``, ``"cost"`` or ``"overhead"``.
        content: of the file.
    """

    name: str
    kind: str
    content: dict[str, Any]

    @property
    def task(self) -> Task:
        """The task, at the sizes that the file names."""
        sizes = {
            name: tuple(self.content[name]) for name in SIZES & self.content.keys()
        }
        return dataclasses.replace(TASKS[self.content["task"]], **sizes)

    @property
    def images(self) -> Images:
        """What images it is of."""
        task = TASKS[self.content["task"]]
        return images_of(task, self.task.image_shape, self.content["settings"])

    @property
    def of_paper(self) -> bool:
        """Whether images and views are of the paper's size, and not drawn."""
        task = TASKS[self.content["task"]]
        return self.images == images_of_paper(task) and (
            self.task.view_size == task.view_size
        )


def read_measurements(
    directory: Path, report: Callable[[str], None] = print
) -> list[Measurement]:
    """Return the measurements in a directory and those below it, by name.

    Args:
        directory: to search.
        report: told of the files of such a name that are of something else.

    Raises:
        ValueError: there is none, a file is broken, or the directory is none.
        OSError: a file cannot be read.
    """
    if not directory.is_dir():
        raise ValueError(
            "DIR must be a directory with measurements. "
            f"Received: {str(directory)!r}, where there is "
            + ("a file" if directory.exists() else "nothing")
        )
    found = [
        (path.relative_to(directory).as_posix(), path, kind, keys)
        for pattern, (kind, keys) in FORMATS.items()
        for path in directory.rglob(pattern)
        if not path.is_dir()
    ]
    measurements, others = [], []
    for name, path, kind, keys in sorted(found):
        try:
            content = json.loads(path.read_bytes())
            if not isinstance(content, dict) or content.get("kind") != kind:
                others.append(name)
                continue
            check_content(content, kind, keys)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} cannot be read: {error}. Expected: what {_writer(kind)} "
                "writes. Measure it again, or move it out of the directory"
            ) from error
        measurements.append(Measurement(name, kind, content))
    if others:
        report(f"Skipped, not of a measurement: {', '.join(others)}")
    if not measurements:
        raise ValueError(
            "There is nothing to report. Expected: measurements as "
            f"{', '.join(FORMATS)} in a directory or below it. "
            f"Received: DIR={str(directory)!r}"
        )
    return measurements


def _writer(kind: str) -> str:
    return "an example" if kind == "training" else f"the benchmark {kind!r}"


def of_kind(
    measurements: Sequence[Measurement], kind: str, task: str | None = None
) -> list[Measurement]:
    """Return the measurements of a kind and, if one is named, of a task."""
    return [
        measurement
        for measurement in measurements
        if measurement.kind == kind and task in (None, measurement.content.get("task"))
    ]
