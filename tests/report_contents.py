"""What examples and benchmarks write, for a report, and what is read of its page."""

import json
import re

CIRCUMSTANCES = {
    "settings": {},
    "versions": {"python": "3.11.2", "backend": "tensorflow", "keras": "3.15.1"},
    "machine": {"system": "Linux", "processor": "Model <9>", "cores": 2, "gpu": "H9"},
}
COST = {
    "ms_low": 1.0,
    "ms_high": 2.0,
    "allocator_mb_per_sample": None,
    "resident_mb_per_sample": None,
    "resident_ratio": None,
}


def fit(run, error, fold=None, seed=None, **changes):
    """Return a training of two epochs that ends with a test error."""
    return {
        "run": run,
        "seed": run if seed is None else seed,
        "fold": fold,
        "epochs": 2,
        "n_train": 56,
        "n_test": 14,
        "curve": {
            "train_loss": [1.0, 2 * error],
            "test_error": [0.9, error],
            "seconds": [1.5, 3.0],
        },
        **changes,
    }


def training(task, method, errors, seed=0, settings=(), **changes):
    """Return what an example writes of runs that end with these test errors."""
    fits = [fit(run, error, seed=seed + run) for run, error in enumerate(errors)]
    runs = [
        {
            "run": run,
            "seed": seed + run,
            "train_loss": 2 * error,
            "test_error": error,
        }
        for run, error in enumerate(errors)
    ]
    return {
        "kind": "training",
        "task": task,
        "method": method,
        "command": f"python examples/{task}.py --method {method}",
        **CIRCUMSTANCES,
        "settings": {"seed": seed, "runs": len(errors), "epochs": 2, **dict(settings)},
        "fits": fits,
        "runs": runs,
        **changes,
    }


def cross_validated(method, errors, seed=0, folds=5, settings=(), **changes):
    """Return what the colon cancer example writes of whole runs on 70 images."""
    content = training("colon_cancer", method, errors, seed, **changes)
    content["settings"] |= {"dataset": "/data/crchisto", **dict(settings)}
    content["fits"] = [
        fit(run, error, fold, seed + run, n_train=70 - 70 // folds, n_test=70 // folds)
        for run, error in enumerate(errors)
        for fold in range(folds)
    ]
    return content


def digits(errors, seed=0, noise=10, settings=(), train=5000, size=500, **changes):
    """Return what the Megapixel MNIST example writes, by default of the goal's images."""
    content = training("megapixel_mnist", "ats-10", errors, seed, **changes)
    data = {"drawn": False, "images": train + 1000, "noise_patches": noise}
    content["settings"] |= {"data": data, **dict(settings)}
    content["image_shape"] = [size, size, 1]
    for one in content["fits"]:
        one |= {"n_train": train, "n_test": 1000}
    return content


def cost(task, milliseconds, megabytes=(), batch_size=1, **changes):
    """Return what the benchmark of the cost writes, ratios to 10 ms and 40 MB."""
    megabytes = dict(megabytes)
    rows = [
        {
            **COST,
            "method": method,
            "batch_size": batch_size,
            "steps": 10,
            "ms_per_sample": ms,
            "allocator_mb_per_sample": megabytes.get(method),
            "time_ratio": None if ms is None else ms / 10,
            "allocator_ratio": megabytes[method] / 40 if method in megabytes else None,
        }
        for method, ms in milliseconds.items()
    ]
    content = {"kind": "cost", "task": task, "command": f"cost --task {task}"}
    return {**content, **CIRCUMSTANCES, "rows": rows, **changes}


def overhead(*rows):
    """Return what the benchmark of the overhead writes, of (task, ratio)."""
    rows = [
        {
            "task": task,
            "method": "ats-10",
            "batch_size": 16,
            "step_ms": 600 * ratio,
            "bare_ms": 600.0,
            "ratio": ratio,
            "ratio_low": ratio - 0.01,
            "ratio_high": ratio + 0.01,
            "in_order_ratio": ratio - 0.02,
            "processor_ratio": 1.1,
        }
        for task, ratio in rows
    ]
    content = {"kind": "overhead", "command": "overhead", **CIRCUMSTANCES}
    return {**content, "settings": {"steps": 10}, "rows": rows}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def section(page, title):
    """Return what stands under a heading of level 2."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return found[1]


def row(text, *beginning):
    """Return the cells of the only row that begins with these."""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line[:1] == "|"]
    (cells,) = [cells for cells in lines if tuple(cells[: len(beginning)]) == beginning]
    return [cell.strip() for cell in cells]


def not_measured(page):
    """Return the line of the goals that were not measured."""
    (line,) = re.findall("^- Not measured: (.*)$", section(page, "Goals"), re.M)
    return line


def goal(page, beginning):
    """Return measured number, limit and verdict of the only goal of that name."""
    lines = section(page, "Goals").splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {beginning}")]
    return line[2:-2].split(" | ")[1:]
