"""Rows and settings as CSV and JSON files."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attention_sampling.files import replacing


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
