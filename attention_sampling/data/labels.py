"""Labels of images: from folders, from a table, from a list."""

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_class_names
from attention_sampling.data.source import Source

_COLUMNS = ("file", "label")


def read_table(path: str | os.PathLike[str]) -> dict[str, str]:
    r"""Read a CSV table of labels, with the columns ``file`` and ``label``.

    Args:
        path: the table, in UTF-8, columns separated by commas, semicolons or tabs. Other
            columns are ignored.

    Returns:
        Label of each file, as they are written.

    Raises:
        OSError: it cannot be read.
        ValueError: a column, file or label is missing, or a file has two labels.

    Example:

    >>> _ = Path("labels.csv").write_text("file,label\na.jpg,cat\nb.jpg,dog\n")
    >>> read_table("labels.csv")
    {'a.jpg': 'cat', 'b.jpg': 'dog'}
    """
    labels: dict[str, str] = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        header = file.readline()
        delimiter = max(",;\t", key=header.count)
        file.seek(0)
        rows = csv.DictReader(file, delimiter=delimiter)
        rows.fieldnames = columns = [name.strip() for name in rows.fieldnames or ()]
        if not set(_COLUMNS) <= set(columns):
            raise ValueError(
                "A table of labels needs the columns file and label. Received: "
                f"{os.fspath(path)} with columns {', '.join(columns) or 'none'}"
            )
        for row in rows:
            name, label = ((row[column] or "").strip() for column in _COLUMNS)
            name = os.path.normpath(name) if name else ""
            if not name or not label:
                raise ValueError(
                    f"{os.fspath(path)}, line {rows.line_num}: the file or its label is "
                    "missing"
                )
            if labels.setdefault(name, label) != label:
                raise ValueError(
                    f"{os.fspath(path)}: {name} has two labels, {labels[name]} and {label}"
                )
    if not labels:
        raise ValueError(f"{os.fspath(path)} holds no labels")
    return labels


def encode_labels(
    labels: Any, class_names: Sequence[str] | None = None
) -> tuple[npt.NDArray[Any], tuple[str, ...] | None]:
    """Return labels as numbers, and the names of the classes that text stands for.

    Args:
        labels: one entry for each image: text, for which the index of its class is
            returned; or numbers, which stay.
        class_names: the classes in their order; None for those of the labels, sorted:
            numbers by their value.

    Raises:
        ValueError: a label that is none of ``class_names``.

    Example:

    >>> encode_labels(["dog", "cat", "dog"])
    (array([1, 0, 1], dtype=int32), ('cat', 'dog'))
    """
    names = None if class_names is None else check_class_names(class_names)
    if isinstance(labels, str):
        raise ValueError(
            "`labels` must hold one label for each image, or be the path of a table "
            f"*.csv. Received: labels={labels!r}"
        )
    values = np.asarray(labels)
    if values.dtype.kind not in "UO" or values.ndim != 1:
        return values, names
    texts = [str(label) for label in labels]
    if names is None:
        names = tuple(sorted(set(texts), key=_by_value))
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted(set(texts) - set(numbers))
    if unknown:
        raise ValueError(
            f"Labels must be of the classes {', '.join(names)}. Received: "
            f"{', '.join(unknown)}"
        )
    return np.array([numbers[text] for text in texts], "int32"), names


def label_images(
    source: Source,
    labels: Mapping[str, str] | Sequence[Any],
    class_names: Sequence[str] | None = None,
    directory: str | os.PathLike[str] = ".",
) -> None:
    """Give each image of a source its label.

    Args:
        source: its ``labels`` and ``class_names`` are set.
        labels: one for each image; or by file, as the table says it: a path inside of
            ``directory``, or the name of an image of the source. Text that is numbers,
            some with a fraction, becomes numbers.
        class_names: as of ``encode_labels``.
        directory: where the files of ``labels`` are.

    Raises:
        ValueError: an image has no label, or one that is none of ``class_names``.
    """
    if isinstance(labels, Mapping):
        labels = _numbers(_look_up(source, labels, directory), class_names)
    elif len(labels) != len(source):
        raise ValueError(
            f"`labels` must hold one for each of {len(source)} images. Received: "
            f"{len(labels)} labels"
        )
    source.labels, source.class_names = encode_labels(labels, class_names)


def _look_up(
    source: Source, labels: Mapping[str, str], directory: str | os.PathLike[str]
) -> list[str]:
    """Return the label of each image, by the path of its file or by its name."""
    by_path = {os.path.abspath(Path(directory, name)): labels[name] for name in labels}
    paths = getattr(source, "paths", source.names)
    found = [
        labels.get(name, by_path.get(path))
        for name, path in zip(source.names, paths, strict=True)
    ]
    known = [label for label in found if label is not None]
    if len(known) < len(found):
        first = source.names[found.index(None)]
        raise ValueError(
            f"{len(found) - len(known)} of {len(found)} images have no label; the first: "
            f"{first}. Add them to the table, or open the table itself, for its images "
            "alone"
        )
    return known


def _by_value(text: str) -> tuple[float, str]:
    """Return a key that sorts numbers by their value, before other text."""
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _numbers(
    texts: list[str], class_names: Sequence[str] | None
) -> list[str] | list[float]:
    """Return numbers for text that is measurements; whole numbers are classes."""
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return texts
    whole = all(value.is_integer() for value in values)
    return texts if whole or class_names is not None else values
