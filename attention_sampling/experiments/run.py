"""The command ``python -m attention_sampling experiments run``: runs, folds, metrics."""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from attention_sampling.callbacks import check_model_file
from attention_sampling.checks import check_count
from attention_sampling.datasets.synthetic.generating import is_generated
from attention_sampling.experiments import figures, report
from attention_sampling.experiments.circumstances import describe_run
from attention_sampling.experiments.data import Images, load_images
from attention_sampling.experiments.settings import add_settings, choose_settings
from attention_sampling.experiments.tasks import TASKS
from attention_sampling.experiments.training import load_model, measure_budgets, train
from attention_sampling.files import keep_settings, one_process, replacing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes to its parser."""
    parser.add_argument("task", choices=list(TASKS), help="experiment of the paper")
    parser.add_argument(
        "data",
        nargs="?",
        type=Path,
        help="directory of the images: of examples/make_mnist.py, of "
        "CRCHistoPhenotypes_2016_04_28, of the Swedish or German traffic signs; without "
        "it, tissue and scenes are generated",
    )
    parser.add_argument(
        "--method", help="ats-N, u-N, cnn-S, deep-mil or deep-mil-gated"
    )
    for name, default, explanation in (
        ("runs", 1, "to average over; each has the next seed"),
        ("seed", 0, "of weights, sampling, order and folds of the first run"),
        ("pictures", 8, "test images of the first run to plot what was looked at"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, help=f"{explanation} ({default})"
        )
    parser.add_argument(
        "--budgets",
        type=_parse_budgets,
        default=(),
        metavar="N,N,...",
        help="test each trained model of attention sampling with so many patches too",
    )
    parser.add_argument(
        "--paper", action="store_true", help="begin with the settings of the paper"
    )
    parser.add_argument(
        "--output", type=Path, help="directory (default: runs/TASK-METHOD)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on after the last whole epoch"
    )
    add_settings(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train all runs and folds, write ``metrics.json`` and plot what came out.

    Raises:
        ValueError: options or images that do not go together, or a training diverged.
        OSError: another process is at work in the output, or a file cannot be read.
    """
    settings = choose_settings(arguments)
    if arguments.budgets and not settings["method"].startswith("ats"):
        raise ValueError(f"--budgets does nothing for {settings['method']}")
    check_count("runs", arguments.runs, smallest=1)
    check_count("pictures", arguments.pictures, smallest=0)
    output = arguments.output or Path(f"runs/{arguments.task}-{settings['method']}")
    with one_process(output):
        trained = any(output.glob("run-*/**/*.keras"))
        if trained and not arguments.resume:
            raise ValueError(
                f"{output} holds trained models: go on with --resume, or choose another "
                "--output"
            )
        if settings.get("start") and not trained:
            check_model_file(settings["start"])
        directory = arguments.data or _generate(arguments.task, output / "data")
        images = load_images(arguments.task, directory, settings)
        settings["data"] = {"generated": is_generated(directory), **images.about}
        # Without decay, a training that is done may be gone on with.
        free = () if settings["decay"] else ("epochs",)
        kept = {name: settings[name] for name in settings if name not in free}
        keep_settings(output / "settings.json", kept, trained)
        height, width, _ = images.task.image_shape
        print(f"{len(images.labels)} images of {width} x {height} pixels")
        if settings.get("start") and arguments.runs > 1:
            one, other = (images.splits(seed)[0][1].tolist() for seed in (0, 1))
            if one != other:
                raise ValueError(
                    "Each run tests with other images, and --start may have learned from "
                    "them. Expected: --runs 1, and the --seed of that training. "
                    f"Received: --runs {arguments.runs}"
                )
        fits = []
        for number in range(arguments.runs):
            seed = arguments.seed + number
            splits = images.splits(seed)
            for fold, split in enumerate(splits):
                fold = fold if len(splits) > 1 else None
                name = f"run-{number}" + ("" if fold is None else f"/fold-{fold}")
                print(f"{settings['method']}, {name}, seed {seed}", flush=True)
                where = {"run": number, "seed": seed, "fold": fold}
                watched = []
                if not fits and settings["method"].startswith("ats"):
                    watched = figures.choose_in_turn(
                        images.labels, split[1], min(2, arguments.pictures)
                    )
                fit = train(images, split, settings, output / name, where, watched)
                if arguments.budgets:
                    fit["budgets"] = measure_budgets(
                        output / name / "model.keras",
                        images,
                        split[1],
                        arguments.budgets,
                    )
                fits.append(where | fit)
                metrics = _write_metrics(output, arguments, settings, images, fits)
        summary = report.summarize([metrics])
        report.plot_curves(output / "curve.png", summary)
        if settings["method"].startswith(("ats", "deep-mil")):
            _, test = images.splits(arguments.seed)[0]
            model = load_model(min(output.glob("run-0/**/model.keras")), images.source)
            chosen = figures.choose_in_turn(images.labels, test, arguments.pictures)
            figures.plot_pictures(model, images, chosen, output / "pictures")
    print(_summarize(summary.iloc[0], images.labels))


def _parse_budgets(text: str) -> tuple[int, ...]:
    budgets = tuple(map(int, text.split(",")))
    if min(budgets) < 1:
        raise ValueError(text)
    return budgets


def _generate(task: str, directory: Path) -> Path:
    """Generate the images of a task where they are not there yet."""
    if task == "megapixel_mnist":
        raise ValueError(
            "Megapixel MNIST has to be made first: python examples/make_mnist.py DATA. "
            "Expected: the directory DATA. Received: none"
        )
    if task == "speed_limits":
        from attention_sampling.datasets.synthetic.scenes import write_scenes

        # Smaller than those of the example, whose attention begins with red rings: the
        # paper's network has to find out first where the signs are.
        write_scenes(directory, n_images=960, size=(240, 320))
    else:
        from attention_sampling.datasets.synthetic.tissue import write_tissue

        write_tissue(directory)
    return directory


def _write_metrics(
    output: Path,
    arguments: argparse.Namespace,
    settings: dict[str, Any],
    images: Images,
    fits: list[dict[str, Any]],
) -> dict[str, Any]:
    """Write what the runs have come to so far, and return it."""
    words = [
        "DATA" if Path(word) == arguments.data else word
        for word in arguments.words
        if not word.startswith(("--output", "--resume"))
        and Path(word) != arguments.output
    ]
    metrics = {
        "kind": "training",
        "task": arguments.task,
        "image_shape": list(images.task.image_shape),
        "view_size": list(images.task.view_size),
        "method": settings["method"],
        **describe_run(words),
        "settings": settings,
        "fits": fits,
    }
    write_json(output / "metrics.json", metrics)
    return metrics


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")


def _summarize(row: Any, labels: np.ndarray) -> str:
    said = []
    for name in ("test_error", "train_loss"):
        said.append(f"{name.replace('_', ' ')} {row[name]:.3f}")
        if row["runs"] > 1:
            said[-1] += f" ± {row[f'{name}_error']:.3f}"
    chance = 1 - max(Counter(map(int, labels)).values()) / len(labels)
    seconds = row["curves"]["seconds"].mean()
    return (
        f"{', '.join(said)} ({row['runs']} runs, {seconds:.0f} s for each training). "
        f"Always the most frequent class: test error {chance:.3f}."
    )
