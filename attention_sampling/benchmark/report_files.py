"""What measurements left on disk: found and read."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attention_sampling.benchmark.report_schema import (
    FORMATS,
    SIZES,
    check_content,
    refuse_not_finite,
)
from attention_sampling.tasks import TASKS, Task


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
    def images(self) -> "Images":
        """What images it is of."""
        settings = self.content["settings"]
        # An example without a data set draws images that look like it.
        drawn = "dataset" in settings and settings["dataset"] is None
        return Images(*self.task.image_shape, drawn)

    @property
    def of_paper(self) -> bool:
        """Whether images and views are of the paper's size, and not drawn."""
        task = TASKS[self.content["task"]]
        return self.images == images_of_paper(task) and (
            self.task.view_size == task.view_size
        )


class Images(NamedTuple):
    """Images that measurements of a task have in common."""

    height: int
    width: int
    channels: int
    drawn: bool

    def __str__(self) -> str:
        size = f"{self.height} x {self.width} pixels"
        return f"{size}, drawn" if self.drawn else size


def images_of_paper(task: Task) -> Images:
    """Return what the results of the paper are of."""
    return Images(*task.image_shape, drawn=False)


def read_measurements(directory: Path) -> list[Measurement]:
    """Return the measurements in a directory and those below it, by name.

    Raises:
        ValueError: there is none, or a file of such a name is something else.
        OSError: a file cannot be read.
    """
    found = [
        (path.relative_to(directory).as_posix(), path, kind, keys)
        for pattern, (kind, keys) in FORMATS.items()
        for path in directory.rglob(pattern)
    ]
    if not found:
        raise ValueError(
            f"There is nothing to report. Expected: {', '.join(FORMATS)} in a directory "
            f"or below it. Received: DIR={str(directory)!r}"
        )
    measurements = []
    for name, path, kind, keys in sorted(found):
        try:
            content = json.loads(path.read_bytes(), parse_constant=refuse_not_finite)
            check_content(content, kind, keys)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path} is not of a measurement: {error}. Expected: what "
                f"{_writer(kind)} writes. Delete it, or name another directory"
            ) from error
        measurements.append(Measurement(name, kind, content))
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
