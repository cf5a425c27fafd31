"""Goals of the test error, and whether they are reached."""

from collections.abc import Mapping, Sequence

from attention_sampling.benchmark.report.evidence import (
    Lacks,
    choose_series,
    not_comparable,
    not_cross_validated,
    not_enough,
    not_equal,
)
from attention_sampling.benchmark.report.images import Images, images_of_paper
from attention_sampling.benchmark.report.numbers import NOT_MEASURED, format_mean
from attention_sampling.benchmark.report.paper import TITLES, method_name
from attention_sampling.benchmark.report.series import Series
from attention_sampling.benchmark.tables import MISSED, PASS
from attention_sampling.experiments.tasks import TASKS

AllSeries = Mapping[tuple[str, Images], Sequence[Series]]
Goal = tuple[str, str, str, str]  # what, measured, limit, verdict

# Colon cancer: cross-validation of the images at hand, and the least runs of each method.
# A run of Deep MIL takes more than an hour on two cores.
_FOLDS, _IMAGES = 5, 70
_RUNS = {"ats-10": 5, "ats-50": 5, "u-10": 5, "deep-mil": 1}

# Megapixel MNIST with 10 patches: the test error is to be below.
_TEST_ERROR = 0.15
_SIZE, _NOISE = (500, 500), 10
_SEEDS, _TRAIN, _TEST = 3, 5000, 1000
# At the paper's size: below this the test error has left chance, 0.9, and after at most so
# many epochs it has to.
_LEFT_CHANCE, _PLATEAU = 0.8, 10


def error_goals(series: AllSeries) -> list[Goal]:
    """Hold test errors against their goals.

    Args:
        series: by task and images.
    """
    colon = series.get(("colon_cancer", images_of_paper(TASKS["colon_cancer"])), [])
    compared = [one for one in colon if one.method in _RUNS]
    digits = [
        one
        for (task, images), some in series.items()
        if task == "megapixel_mnist" and images[:2] == _SIZE and not images.drawn
        for one in some
    ]
    return [
        *(goal for name in ("ats-10", "ats-50") for goal in _colon(compared, name)),
        _megapixel_mnist(digits),
        _plateau(
            series.get(
                ("megapixel_mnist", images_of_paper(TASKS["megapixel_mnist"])), []
            )
        ),
    ]


def _colon(series: Sequence[Series], name: str) -> list[Goal]:
    """Compare attention sampling with Deep MIL, and with places drawn blindly."""
    what = f"{TITLES['colon_cancer']}: test error of {method_name(name)}"
    ours = choose_series(series, name, _colon_lacks)
    goals: list[Goal] = []
    for baseline, compared in (
        ("deep-mil", "above Deep MIL's by at most one standard error"),
        ("u-10", "below U-10's"),
    ):

        def lacks(one: Series) -> Lacks:
            found = _colon_lacks(one)
            return found if ours is None else [*found, *not_comparable(ours, one)]

        theirs = choose_series(series, baseline, lacks)
        if ours is None or theirs is None:
            goals.append((f"{what}, {compared}", "", "", NOT_MEASURED))
            continue
        error, limit = ours.mean("test_error"), theirs.mean("test_error")
        missing = [
            f"{method_name(method)}: {', '.join(texts)}"
            for method, texts in ((name, _colon_lacks(ours)), (baseline, lacks(theirs)))
            if texts
        ]
        if baseline == "deep-mil":
            # That of attention sampling is known, as it has several runs.
            spread = ours.error("test_error") or 0.0
            text = f"{spread:.3f}, the standard error of {method_name(name)}"
            text = f"<= {format_mean(limit)} + {text}"
            reached = None not in (error, limit) and error <= limit + spread
        else:
            text = f"< {format_mean(limit)}"
            reached = None not in (error, limit) and error < limit
        if None in (error, limit):
            missing.append("no test error")
        measured = f"{_say(ours)}; {_say(theirs)}"
        verdict = "; ".join(missing) or (PASS if reached else MISSED)
        goals.append((f"{what}, {compared}", measured, text, verdict))
    return goals


def _colon_lacks(series: Series) -> Lacks:
    return not_cross_validated(series, _RUNS[series.method], _FOLDS, _IMAGES)


def _megapixel_mnist(series: Sequence[Series]) -> Goal:
    size = " x ".join(map(str, _SIZE))
    what = f"{TITLES['megapixel_mnist']} {size}: test error of ATS-10"
    ours = choose_series(series, "ats-10", _digits_lacks)
    if ours is None:
        return (what, "", "", NOT_MEASURED)
    error = ours.mean("test_error")
    missing = _digits_lacks(ours)
    if error is None:
        missing.append("no test error")
    reached = error is not None and error < _TEST_ERROR
    verdict = ", ".join(missing) or (PASS if reached else MISSED)
    return (what, _say(ours), f"< {_TEST_ERROR}", verdict)


def _digits_lacks(series: Series) -> Lacks:
    return [
        *not_enough("runs", len(series.runs), _SEEDS),
        *not_equal(
            "patches of noise", series.settings.get("data noise_patches"), _NOISE
        ),
        *_few_images(series),
    ]


def _plateau(series: Sequence[Series]) -> Goal:
    """Find the epoch after which the slowest run has left chance."""
    what = (
        f"{TITLES['megapixel_mnist']}: epochs until the test error of ATS-10 leaves "
        f"chance, below {_LEFT_CHANCE}"
    )
    ours = choose_series(series, "ats-10", _few_images)
    if ours is None:
        return (what, "", "", NOT_MEASURED)
    left = ours.curve("test_error") < _LEFT_CHANCE
    epochs = left.shape[1]
    needed = int(left.argmax(axis=1).max()) + 1 if left.any(axis=1).all() else None
    missing = _few_images(ours)
    if needed is None:
        missing += not_enough("epochs", epochs, _PLATEAU)
    measured = f"not in {epochs}" if needed is None else str(needed)
    reached = needed is not None and needed <= _PLATEAU
    verdict = ", ".join(missing) or (PASS if reached else MISSED)
    return (what, f"{measured} ({_say(ours)})", f"<= {_PLATEAU}", verdict)


def _few_images(series: Series) -> Lacks:
    fits = [fit for run in series.fits for fit in run]
    return [
        *not_enough("training images", min(fit["n_train"] for fit in fits), _TRAIN),
        *not_enough("test images", min(fit["n_test"] for fit in fits), _TEST),
    ]


def _say(series: Series) -> str:
    """Return the row of the results that is meant, its test error and its runs."""
    name = method_name(series.method)
    row = f"{name}, {series.label}" if series.label else name
    error = format_mean(series.mean("test_error"), series.error("test_error"))
    runs, epochs = len(series.runs), series.epochs
    return (
        f"{row}: {error}, {runs} run{'s' * (runs > 1)} of {epochs} "
        f"epoch{'s' * (epochs != '1')}{series.extended}"
    )
