"""What the paper says beside its tables, and where a measurement falls short of it."""

import math
from collections.abc import Sequence

from attention_sampling.benchmark.report.numbers import divide
from attention_sampling.benchmark.report.series import Series
from attention_sampling.experiments.tasks import (
    Method,
    PublishedRow,
    Task,
    parse_method,
)

TITLES = {
    "megapixel_mnist": "Megapixel MNIST",
    "colon_cancer": "Colon cancer",
    "speed_limits": "Speed limits",
}
# Sections 4.2 to 4.4: runs, images to train and test on, epochs where it names them.
RUNS = {"megapixel_mnist": 5, "colon_cancer": 5, "speed_limits": 3}
IMAGES = {"megapixel_mnist": 6000, "colon_cancer": 100, "speed_limits": 747 + 684}
EPOCHS = {"megapixel_mnist": 500}
_NOISE = "data noise_patches"  # of a series: other numbers are other images
_NAMES = {"ats": "ATS", "u": "U", "cnn": "CNN", "deep-mil": "Deep MIL"}
_KINDS = ("u", "cnn", "deep-mil", "ats")  # in the order of the paper's tables


def method_name(text: str) -> str:
    """Return a method as the paper writes it.

    Example:

    >>> method_name("ats-10"), method_name("cnn-0.5"), method_name("deep-mil-gated")
    ('ATS-10', 'CNN', 'Deep MIL, gated')
    """
    method = parse_method(text)
    if method.n_patches is not None:
        return f"{_NAMES[method.kind]}-{method.n_patches}"
    return _NAMES[method.kind] + (", gated" if method.gated else "")


def method_title(task: Task, text: str) -> str:
    """Return the name of a method, with the scale where that tells it from others."""
    name = method_name(text)
    return f"{name} {method_scale(task, text)}" if name == "CNN" else name


def method_scale(task: Task, text: str) -> str:
    """Return at which scales a method sees the image: of the view and of the patches.

    Example:

    >>> from attention_sampling.experiments.tasks import TASKS
    >>> method_scale(TASKS["colon_cancer"], "ats-10")
    '0.2/1'
    """
    method = parse_method(text)
    if "view" in method.inputs:
        return f"{task.view_size[0] / task.image_shape[0]:.2g}/1"
    return "1" if method.scale is None else f"{method.scale:g}"


def order_methods(task: Task, found: Sequence[str]) -> list[str]:
    """Return the paper's methods in its order, and the others that were found."""

    def position(text: str) -> tuple[int, float, bool]:
        method: Method = parse_method(text)
        size = method.n_patches or method.scale or 0
        return (_KINDS.index(method.kind), size, method.gated)

    others = {str(parse_method(text)) for text in found} - set(task.methods)
    return [*task.methods, *sorted(others, key=position)]


def published(task: Task, method: str) -> PublishedRow:
    """Return the paper's numbers of a method, all ``None`` where it has none."""
    return task.published.get(method, PublishedRow())


def published_ratio(task: Task, method: str, column: str) -> float | None:
    """Return the paper's cost of a method over that of the reference."""
    reference = published(task, task.reference)
    return divide(getattr(published(task, method), column), getattr(reference, column))


def short_of_paper(task: Task, series: Series) -> str:
    """Name in what a series falls short of the paper.

    A test error does where it is above the paper's by more than one standard error of
    the difference.
    """
    paper, short = published(task, series.method), []
    error = series.mean("test_error")
    if error is not None and paper.test_error is not None:
        spread = math.hypot(
            series.error("test_error") or 0, paper.test_error_error or 0
        )
        if error - paper.test_error > spread:
            short.append("test error")
    epochs = min(fit["epochs"] for run in series.fits for fit in run)
    images = min(fit["n_train"] + fit["n_test"] for run in series.fits for fit in run)
    for name, number, most in (
        ("runs", len(series.runs), RUNS[task.name]),
        ("epochs", epochs, EPOCHS.get(task.name, 0)),
        ("images", images, IMAGES[task.name]),
    ):
        if number < most:
            short.append(f"{name} ({number:,} of {most:,})")
    if task.name == "megapixel_mnist" and _NOISE not in series.settings:
        short.append("noise (not recorded)")
    return ", ".join(short)
