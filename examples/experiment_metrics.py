"""Numbers of a series of runs: of each fit, of each run, and their mean."""

import numpy as np
from run_progress import extensions

MEASURES = ("train_loss", "train_error", "test_loss", "test_error")
# Numbers of images that a measure is the mean over.
_WEIGHTS = {"test_loss": "n_test", "test_error": "n_test"}
_AVERAGED = (*MEASURES, "epochs", "seconds")


def fit_metrics(rows, run, seed, fold, n_train, n_test):
    """Return what is kept of one training.

    Args:
        rows: of its log, as `run_files.read_log` returns them.
        run: its number.
        seed: of the run.
        fold: number of the part that is tested on, None for a single split.
        n_train: images trained on.
        n_test: images tested with.
    """
    curve = {
        "train_loss": [_number(row["cross_entropy"]) for row in rows],
        "train_error": [_number(1 - float(row["accuracy"])) for row in rows],
        "test_loss": [_number(row["val_cross_entropy"]) for row in rows],
        "test_error": [_number(1 - float(row["val_accuracy"])) for row in rows],
        "seconds": np.cumsum([float(row["seconds"]) for row in rows]).round(3).tolist(),
    }
    return {
        "run": run,
        "seed": seed,
        "fold": fold,
        "epochs": len(rows),
        "extended_from": extensions(rows),
        "seconds": curve["seconds"][-1],
        "n_train": n_train,
        "n_test": n_test,
        **{name: curve[name][-1] for name in MEASURES},
        "curve": curve,
    }


def check_fit(fit):
    """Raise `ValueError` if something lacks what is read of `fit_metrics` later."""
    names = ("run", "seed", "fold", "n_train", "n_test", *_AVERAGED, "curve")
    missing = [name for name in names if name not in fit]
    if not missing:
        names = (*MEASURES, "seconds")
        missing = [f"curve of {name}" for name in names if name not in fit["curve"]]
    if missing:
        raise ValueError(f"a training lacks {', '.join(missing)}")


def average_fits(fits, folds):
    """Return the runs, their mean, and the standard error of the mean.

    Args:
        fits: as of `fit_metrics`.
        folds: how many fits make a run. A run that lacks some does not count.

    Returns:
        Dict of ``runs``, each the mean over its folds weighted by their images,
        ``mean`` over the runs, None where there is no whole run, and ``standard_error``,
        None where there is one.
    """
    by_run = {}
    for fit in fits:
        by_run.setdefault(fit["run"], []).append(fit)
    runs = [
        {
            "run": run,
            "seed": parts[0]["seed"],
            **{name: _average(parts, name) for name in _AVERAGED},
        }
        for run, parts in sorted(by_run.items())
        if len(parts) == folds
    ]
    mean = dict.fromkeys(_AVERAGED)
    standard_error = dict.fromkeys(_AVERAGED)
    for name in _AVERAGED:
        values = [run[name] for run in runs]
        if runs:
            mean[name] = _number(np.mean(values))
        if len(runs) > 1:
            deviation = np.std(values, ddof=1)
            standard_error[name] = _number(deviation / np.sqrt(len(runs)))
    return {"runs": runs, "mean": mean, "standard_error": standard_error}


def average_curves(fits, folds):
    """Return the learning curves of the whole runs: (runs, epochs) arrays by name.

    Runs of different length are cut to the shortest.
    """
    by_run = {}
    for fit in fits:
        by_run.setdefault(fit["run"], []).append(fit)
    whole = [parts for parts in by_run.values() if len(parts) == folds]
    epochs = min((fit["epochs"] for parts in whole for fit in parts), default=0)
    return {
        name: np.array(
            [
                np.average(
                    [fit["curve"][name][:epochs] for fit in parts],
                    axis=0,
                    weights=[fit[_WEIGHTS.get(name, "n_train")] for fit in parts],
                )
                for parts in whole
            ]
        )
        for name in (*MEASURES, "seconds")
    }


def _average(parts, name):
    weights = [fit[_WEIGHTS.get(name, "n_train")] for fit in parts]
    return _number(np.average([fit[name] for fit in parts], weights=weights))


def _number(value):
    # float32 was what it was measured in: more digits say nothing.
    return round(float(value), 6)
