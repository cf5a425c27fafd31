"""Rows and settings as CSV and JSON files."""

import csv
import json
import re
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
    """Write what JSON can say, replacing the file as a whole; numbers side by side.

    Raises:
        ValueError: a number is not finite, which JSON cannot say.
    """
    text = json.dumps(content, indent=2, allow_nan=False)
    # No text of JSON holds an end of line as it is: these are lists without texts.
    text = re.sub(
        r"\[\n\s*([^][{}\"]*?)\n\s*\]",
        lambda found: "[" + re.sub(r",\s+", ", ", found[1]) + "]",
        text,
    )
    with replacing(path) as part:
        part.write_text(text + "\n", "utf-8")
