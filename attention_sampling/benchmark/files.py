"""Files that are replaced as a whole: nobody finds half of one."""

import contextlib
import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows of the same columns, replacing the file as a whole."""
    with replacing(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, content: Any) -> None:
    """Write what JSON can say, replacing the file as a whole."""
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Name a file to write in place of another, and put it there when it is whole."""
    part = path.with_name(f".{path.name}.part")
    yield part
    os.replace(part, path)
