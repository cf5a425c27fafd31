"""What a trained model makes of images: ``python -m attention_sampling predict``."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from attention_sampling.callbacks import check_model_file
from attention_sampling.data.errors import SourceError, is_fault_of_process
from attention_sampling.files import replacing
from attention_sampling.visualize import explain_image, open_for, plot_attention


def predict_files(
    model_file: Path, paths: Sequence[str], output: Path, **keywords: Any
) -> list[tuple[str, str]]:
    """Predict images with a saved model; write a table, and a picture of each.

    Args:
        model_file: ``.keras`` file of a model that ``visualize.explain_image`` takes.
        paths: image files, directories or patterns, as of ``open_source``.
        output: directory for ``predictions.csv`` and the pictures; it is made.
        **keywords: further arguments of ``open_source``.

    Returns:
        (name, reason) of each image left out: it cannot be read, or has another size than
        the model takes.

    Raises:
        OSError: there are no images, the output cannot be written, or the process lacks
            files or memory.
        ValueError: no such model, or images that do not fit it.
    """
    if Path(model_file).is_dir():
        raise ValueError(f"Expected: a .keras file. Received: directory {model_file}")
    check_model_file(model_file)
    model = keras.saving.load_model(model_file, compile=False)
    header, rows = ["file", "picture"], []
    with open_for(model, paths, on_error="skip", **keywords) as source:
        left_out = list(source.skipped)
        output.mkdir(parents=True, exist_ok=True)
        try:
            for index, picture in enumerate(picture_names(source.names)):
                name = source.names[index]
                try:
                    seen = explain_image(model, source, index)
                except (SourceError, ValueError) as error:  # it, or its size
                    if is_fault_of_process(error):
                        raise
                    left_out.append((name, str(error)))
                    continue
                plot_attention(output / picture, **seen)
                answer, columns = _describe(seen["prediction"])
                header = ["file", "picture", *columns]
                rows.append([name, picture, *columns.values()])
                print(f"{name}: {answer}", flush=True)
        finally:  # also of what was done before an interrupt
            with (
                replacing(output / "predictions.csv") as part,
                part.open("w", newline="", encoding="utf-8") as file,
            ):
                csv.writer(file).writerows([header, *rows])
    return left_out


def _describe(prediction: Any) -> tuple[str, dict[str, str]]:
    """Return the prediction of one image in a few words, and as cells of the table."""
    if isinstance(prediction, dict):
        name, value = next(iter(prediction.items()))
        scores = {
            f"score of {key}": f"{prediction[key]:.4f}" for key in sorted(prediction)
        }
        return f"{name} ({value:.2f})", {"label": name, **scores}
    values = np.concatenate([np.ravel(x) for x in keras.tree.flatten(prediction)])
    cells = {f"output {n}": f"{value:.6g}" for n, value in enumerate(values)}
    return ", ".join(cells.values()), cells


def picture_names(names: Sequence[str]) -> list[str]:
    """Return a file name for the picture of each image, no two alike, none an image's."""
    stems = [Path(name).stem for name in names]
    if len({*stems}) < len(stems):
        stems = [f"{number}-{stem}" for number, stem in enumerate(stems)]
    return [f"{stem}.attention.png" for stem in stems]
