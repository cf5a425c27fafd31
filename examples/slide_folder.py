"""Slides in a directory, their labels in a table, and which of them to test with."""

import csv
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attention_sampling.data import Source, open_source
from attention_sampling.data.opening import find_files
from attention_sampling.data.views import view_dataset
from attention_sampling.datasets.drawn_slides import write_drawn_slides


@dataclass
class Slides:
    """Slides with their labels, and which of them are for what.

    Attributes:
        source: the slides.
        classes: names of the labels.
        labels: number of the class of each slide.
        train, test: numbers of the slides for training and testing.
    """

    source: Source
    classes: list[str]
    labels: list[int]
    train: list[int]
    test: list[int]


def load_slides(arguments, output):
    """Open the slides and match them with their labels."""
    directory, table = arguments.slides, arguments.labels
    if directory is None:
        write_drawn_slides(output / "drawn")
        directory, table = output / "drawn" / "slides", output / "drawn" / "labels.csv"
    table = Path(table)
    label_of = match_labels(
        read_labels(table), find_slides(directory, leave_out=table), table, arguments
    )
    source = open_slides(list(label_of), arguments.on_error)
    names = [label_of[path] for path in source.paths]
    classes = sorted(set(names))
    if len(classes) < 2:
        raise ValueError(
            "There is nothing to tell apart. Expected: slides of two labels or more. "
            f"Received: only {classes[0]!r}, slides: {len(source)}, in {table}"
        )
    train, test = split(names, arguments.test_fraction, arguments.seed)
    return Slides(source, classes, [classes.index(n) for n in names], train, test)


def find_slides(directory, leave_out=None):
    """Return the files of a directory, without those in directories inside it."""
    if not Path(directory).is_dir():
        raise ValueError(
            f"The slides must be in a directory. Received: {str(directory)!r}"
        )
    paths = map(os.path.abspath, find_files(directory))
    return [path for path in paths if path != os.path.abspath(leave_out or "")]


def read_labels(table):
    """Return the label of each file that a table names."""
    labels = {}
    try:
        # Bytes that are no text become U+FFFD, and then name no file.
        with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = csv.DictReader(file, strict=True)
            if not {"file", "label"} <= set(rows.fieldnames or ()):
                raise ValueError(
                    f"{table} lacks its header. Expected: a first line with the columns "
                    f"file and label, with commas between. Received: {rows.fieldnames}"
                )
            for row in rows:
                name, label = ((row[key] or "").strip() for key in ("file", "label"))
                if not name or not label or None in row:
                    raise ValueError(
                        f"{table}, line {rows.line_num} does not parse. Expected: a file "
                        f"and its label, as in the header. Received: {row}"
                    )
                if name in labels:
                    raise ValueError(
                        f"{table}, line {rows.line_num}: a file must have one line. "
                        f"Received: {name!r} again"
                    )
                labels[name] = label
    except csv.Error as error:
        raise ValueError(f"{table} is no CSV file: {error}") from error
    return labels


def match_labels(labels, paths, table, arguments):
    """Return the label of each path, named in the table with or without its suffix."""
    named = {}
    for path in paths:
        for name in {Path(path).name, Path(path).stem}:
            named.setdefault(name, []).append(path)
    label_of = {}
    for name, label in labels.items():
        # A whole name goes before one without its suffix.
        found = [p for p in named.get(name, ()) if Path(p).name == name] or named.get(
            name
        )
        if not found or len(found) > 1 or found[0] in label_of:
            raise ValueError(
                f"{table}: each line must name one file of its own among the slides. "
                f"Received: {name!r}, which names "
                + (", ".join(found) if found else "none")
            )
        label_of[found[0]] = label
    missing = [path for path in paths if path not in label_of]
    for path in missing if arguments.on_error == "skip" else ():
        print(f"Left out: {path}: it has no label in {table}")
    if missing and arguments.on_error == "raise":
        raise ValueError(
            f"{len(missing)} of {len(paths)} files have no label in {table}. Label them, "
            f"or leave them out by --on-error skip. Received: {missing[0]}"
        )
    if not label_of:
        raise ValueError(f"{table} must label two slides or more. Received: none")
    return {path: label_of[path] for path in paths if path in label_of}


def open_slides(paths, on_error):
    source = open_source(paths, on_error=on_error)
    for path, reason in source.skipped:
        print(f"Left out: {path}: {reason}")
    if source.dtype != "uint8":
        raise ValueError(
            "The networks of this example take pixels of 8 bits. Received: "
            f"{source.names[0]} of {source.dtype}"
        )
    return source


def split(names, test_fraction, seed):
    """Draw the slides for testing, class by class; return (train, test) numbers."""
    rng = np.random.default_rng(seed)
    test = []
    for name, count in sorted(Counter(names).items()):
        if count < 2 and test_fraction:
            raise ValueError(
                "Each label needs a slide to train on and another to test with. "
                f"Received: a single slide labelled {name!r}. Add slides, or train on "
                "all of them by --test-fraction 0"
            )
        members = [number for number, other in enumerate(names) if other == name]
        n_tests = min(max(round(test_fraction * count), 1), count - 1)
        test += rng.permutation(members)[: n_tests if test_fraction else 0].tolist()
    return [n for n in range(len(names)) if n not in set(test)], sorted(test)


def build_dataset(arguments, slides, numbers, output, training_seed=None):
    """Return the batches of some slides, shuffled if there is a seed."""
    return view_dataset(
        slides.source,
        arguments.view_size,
        slides.labels,
        arguments.batch_size,
        shuffle=training_seed is not None,
        seed=training_seed,
        cache=output / "views",
        indices=numbers,
    )
