"""JSON and CSV files of a run: read with errors that name them, written as a whole."""

import csv
import json

from attention_sampling.files import replacing


def read_json(path):
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or no JSON ({error})") from error


def read_log(path, epochs):
    """Return the rows of the training log for the first epochs, as dicts of text."""
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged, or no log ({error})") from error
    return [row for row in rows if None not in row.values()][:epochs]


def write_rows(path, rows):
    """Write rows, dicts, as a CSV file with a header of all their keys."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as part, part.open("w", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
