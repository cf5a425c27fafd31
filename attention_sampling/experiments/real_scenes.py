"""``experiments real-scenes``: a model that learns from pasted signs and reads real ones."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from attention_sampling.checks import check_count
from attention_sampling.datasets.folds import stratified_folds
from attention_sampling.datasets.pasted_signs import (
    Part,
    read_parts,
    scale_box,
    write_part,
)
from attention_sampling.datasets.pasting import read_image
from attention_sampling.datasets.same_sign import leave_out
from attention_sampling.datasets.traffic_signs import (
    Sample,
    read_german,
    read_german_boxes,
)
from attention_sampling.experiments import figures
from attention_sampling.experiments.circumstances import describe_run
from attention_sampling.experiments.data import Images, load_images
from attention_sampling.experiments.pretraining import begin_with
from attention_sampling.experiments.run import write_json
from attention_sampling.experiments.settings import DEFAULTS
from attention_sampling.experiments.tasks import build_model
from attention_sampling.experiments.training import train
from attention_sampling.files import keep_settings, one_process, replacing
from attention_sampling.pipeline import with_sampling

_SHRINK = 0.5  # of the photographs, to train on: cheaper, and most signs are legible
_SETTINGS = {
    **DEFAULTS["speed_limits"],
    "method": "ats-10",
    "patch_size": 48,
    "scale": 0.5,
    "prediction": "top_k",  # the same answer each time
}
# At prediction: nearly all of the attention, so that the answer is that of sampling.
_N_PATCHES = 30
# What training begins with -> the folds whose scenes and signs it has not seen.
_STARTS = {"start-b": (2, 3, 4), "start-a": (0, 1)}
_OPTIONS = ("n_images", "pretrain", "epochs", "real_epochs", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    parser.add_argument("scenes", type=Path, help="directory of GTSDB")
    parser.add_argument("signs", type=Path, help="directory of GTSRB")
    for name, default, explanation in (
        ("n-images", 4000, "scenes with pasted signs to begin with"),
        ("pretrain", 10, "passes over them in which each network learns from boxes"),
        ("epochs", 2, "passes over them to learn from labels"),
        ("real-epochs", 3, "passes over the real scenes, and as many pasted ones"),
        ("seed", 0, "of scenes, folds, weights and order"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, help=f"{explanation} ({default})"
        )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/real-scenes"), help="directory"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on after the last whole epoch"
    )


def run(arguments: argparse.Namespace) -> None:
    """Train and test in five folds, then train on all scenes, and write the model.

    Writes ``metrics.json``; ``scenes.jpg``, the first six scenes with a limit, each with the
    answer of the model that has not seen it; and ``speed_limits.keras``, trained on all
    scenes, for photographs of full size.

    Raises:
        OSError: a file cannot be read or written, or another process is at work.
        ValueError: images that cannot be read as the two benchmarks.
    """
    options = {name: getattr(arguments, name) for name in _OPTIONS}
    for name, value in options.items():
        check_count(name, value, smallest=name != "seed")
    _, samples = read_german(arguments.scenes)
    output, seed = arguments.output, arguments.seed
    with one_process(output):
        begun = any(output.glob("start-*"))
        if begun and not arguments.resume:
            raise ValueError(
                f"{output} holds a run: go on with --resume, or choose another --output"
            )
        kept = options | {"n_scenes": len(samples)}
        keep_settings(output / "settings.json", kept, begun)
        settings = {**_SETTINGS, "seed": seed}
        settings |= {name: options[name] for name in ("pretrain", "epochs")}
        tuning = {**settings, "epochs": options["real_epochs"]}

        labels = np.array([sample.label for sample in samples])
        stems = [Path(sample.path).stem for sample in samples]
        folds = stratified_folds(labels, 5, seed, names=stems)
        predicted = np.full((2, len(samples)), -1)
        shown = np.flatnonzero(labels)[:6].tolist()
        answers = {}
        for name, held_out in _STARTS.items():
            unseen = [samples[i] for fold in held_out for i in folds[fold].test]
            data = output / name / "data"
            if not data.exists():
                with replacing(data) as directory:
                    _write_images(directory, arguments, unseen)
            images = load_images("speed_limits", data, settings)
            # Pasted scenes come first, then the real ones, by name.
            count = len(images.labels) - len(samples)
            real = count + np.arange(len(samples))
            start = output / name / "model.keras"
            tested = real[np.concatenate([folds[fold].test for fold in held_out])]
            where = {"run": 0, "seed": seed, "fold": None}
            train(images, (np.arange(count), tested), settings, start.parent, where)
            tuning["start"] = str(start)
            for fold in held_out:
                split = _mix(real[folds[fold].train], count), real[folds[fold].test]
                print(f"Fold {fold}", flush=True)
                directory = output / f"fold-{fold}"
                train(images, split, tuning, directory, {**where, "fold": fold})
                for number, path in enumerate((start, directory / "model.keras")):
                    model = keras.saving.load_model(path, compile=False)
                    model = with_sampling(model, _N_PATCHES)
                    of_fold = _predict(model, images, split[1])
                    predicted[number, folds[fold].test] = of_fold
                chosen = [i for i in shown if i in folds[fold].test]
                described = figures.describe_answers(model, images, real[chosen])
                answers |= dict(zip(chosen, described, strict=True))
        # Begun with the last start, the one of most scenes; here nothing is left to test.
        print("All real scenes", flush=True)
        split = _mix(real, count), real[:1]
        train(images, split, tuning, output / "all", where)
        _write_model(
            output / "all" / "model.keras",
            images,
            tuning,
            output / "speed_limits.keras",
        )
        metrics = {
            "kind": "real scenes",
            **describe_run(["real-scenes", "SCENES", "SIGNS", *_describe(options)]),
            "settings": options,
            "classes": images.classes,
            # The classes of all images, which the real ones may lack some of.
            **{
                when: _count(images.labels[real], given, len(images.classes))
                for when, given in zip(("before", "after"), predicted, strict=True)
            },
            "by_width": _count_by_width(samples, predicted != images.labels[real]),
        }
        write_json(output / "metrics.json", metrics)
        figures.plot_grid(output / "scenes.jpg", [answers[i] for i in shown])
    for when in ("before", "after"):
        print(
            "{}: error {error:.3f}, balanced {balanced_error:.3f}, constant answer "
            "{constant_error:.3f}".format(f"{when} the real scenes", **metrics[when])
        )


def _write_images(
    directory: Path, arguments: argparse.Namespace, unseen: list[Sample]
) -> None:
    """Write pasted scenes into ``train`` and all real scenes into ``test``."""
    from PIL import Image

    both = read_parts(arguments.scenes, arguments.signs)
    tracks = {n: both[0].tracks[n] + both[1].tracks[n] for n in both[0].tracks}
    part = Part(both[0].scenes + both[1].scenes, tracks, both[0].places)
    part = leave_out(part, unseen)
    write_part(
        directory / "train", part, arguments.n_images, (arguments.seed, 0), _SHRINK
    )
    (directory / "test" / "images").mkdir(parents=True)
    boxes, lines = read_german_boxes(arguments.scenes / "gt.txt"), []
    for sample in read_german(arguments.scenes)[1]:
        stem = Path(sample.path).stem
        image = Image.fromarray(read_image(Path(sample.path)))
        size = [round(_SHRINK * extent) for extent in image.size]
        image = image.resize(size, Image.Resampling.BOX)
        image.save(directory / "test" / "images" / f"{stem}.jpg", quality=95)
        for box in boxes.get(stem, ()):
            lines.append(";".join(map(str, (f"{stem}.jpg", *scale_box(box, _SHRINK)))))
    (directory / "test" / "gt.txt").write_text("\n".join(lines) + "\n", "ascii")


def _describe(options: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def _mix(real: np.ndarray, count: int) -> np.ndarray:
    """Add as many of the first, pasted scenes: few real ones are learned by heart."""
    return np.concatenate([real, np.arange(min(len(real), count))])


def _predict(model: keras.Model, images: Images, indices: np.ndarray) -> np.ndarray:
    """Return the labels (chosen,) that a model gives some images."""
    batches = images.batches(indices, [entry.name for entry in model.inputs], 16)
    return model.predict(batches, verbose=0).argmax(axis=-1)


def _count(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, Any]:
    """Return errors, that of the constant answer, and how often each answer was given."""
    confusion = np.zeros((n_classes, n_classes), int)
    np.add.at(confusion, (labels, predicted), 1)
    of_class = confusion.sum(axis=1)
    right, there = confusion.diagonal(), of_class > 0
    return {
        "error": float(1 - right.sum() / len(labels)),
        "balanced_error": float(1 - (right[there] / of_class[there]).mean()),
        "constant_error": float(1 - of_class.max() / len(labels)),
        "confusion": confusion.tolist(),
    }


def _count_by_width(samples: Sequence[Sample], wrong: np.ndarray) -> list[Any]:
    """Return the errors by the width of the widest sign of a limit, 0 where there is none.

    Args:
        samples: the photographs.
        wrong: (2, count) bool, answers before the real scenes and after.
    """
    widths = [
        max((sign.right - sign.left for sign in sample.signs), default=0)
        for sample in samples
    ]
    names = ["none", "below 24 pixels", "24 to 31", "32 to 47", "48 and more"]
    groups = np.digitize(widths, [1, 24, 32, 48])
    answers = pd.DataFrame(wrong.T, columns=["before", "after"]).groupby(groups)
    errors = answers.mean().assign(scenes=answers.size())
    return [{"width": names[i], **row} for i, row in errors.to_dict("index").items()]


def _write_model(
    trained: Path, images: Images, settings: dict[str, Any], path: Path
) -> None:
    """Write a trained model for photographs of full size, of any height and width."""
    patch = round(settings["patch_size"] / _SHRINK)
    task = dataclasses.replace(
        images.task,
        image_shape=(None, None, 3),
        view_size=(None, None),
        patch_size=(patch, patch),
    )
    model = build_model(
        task,
        settings["method"],
        seed=settings["seed"],
        entropy=0,
        feature_scale=settings["feature_scale"],
        center=settings["center"],
        sampling={"prediction": settings["prediction"], "class_names": images.classes},
    )
    begin_with(model, keras.saving.load_model(trained, compile=False))
    with replacing(path) as part:
        with_sampling(model, _N_PATCHES).save(part)
