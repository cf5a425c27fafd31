"""Figures of a series of runs: learning curves, and attention beside the truth."""

from itertools import zip_longest

import numpy as np
from experiment_metrics import average_curves
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from attention_sampling.experiments.figures import (
    deep_mil_viewer,
    draw_weighted_patches,
    weigh_patches,
)
from attention_sampling.files import replacing
from attention_sampling.visualize import draw_attention

# In a picture, in the order in which they were drawn.
MOST_PATCHES = 16


def draw_learning_curves(fits, folds, path, title):
    """Draw loss and error of training and test, by epoch and by seconds.

    The line is the mean over the runs, the band reaches from the lowest to the highest.

    Args:
        fits: as of `experiment_metrics.fit_metrics`.
        folds: how many fits make a run.
        path: PNG file to write, replaced as a whole.
        title: what was trained; the number of runs is added.
    """
    curves = average_curves(fits, folds)
    n_runs, epochs = curves["seconds"].shape
    figure = Figure(figsize=(9, 6), layout="constrained")
    figure.suptitle(
        f"{title}: {n_runs} run{'s' * (n_runs != 1)}"
        + (f" of {folds} folds" if folds > 1 else "")
        + (", mean and range" if n_runs > 1 else "")
    )
    by = {
        "epoch": np.arange(1, epochs + 1),
        "seconds of training": curves["seconds"].mean(axis=0),
    }
    for row, measure in zip(figure.subplots(2, 2), ("loss", "error"), strict=True):
        for axes, (label, places) in zip(row, by.items(), strict=True):
            for part, name in (("train", "training"), ("test", "test")):
                values = curves[f"{part}_{measure}"]
                mean = values.mean(axis=0)
                [line] = axes.plot(
                    places, mean, marker="." if epochs == 1 else "", label=name
                )
                if n_runs > 1:
                    axes.fill_between(
                        places,
                        values.min(axis=0),
                        values.max(axis=0),
                        color=line.get_color(),
                        alpha=0.2,
                        linewidth=0,
                    )
            axes.set(xlabel=label, ylabel=measure)
            if label == "epoch":
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_ylim(bottom=0)
            axes.legend()
    with replacing(path) as part:
        figure.savefig(part)


def draw_pictures(model, task, images, inputs, classes, count, directory):
    """Draw what a model looked at in some images, the classes in turn.

    Args:
        model: of attention sampling or Deep MIL, with its weights.
        task: sizes of view and patches.
        images: to choose from, as `experiment.Images`.
        inputs: names of what the model takes.
        classes: name of each label.
        count: of the images to draw.
        directory: for a picture ``NAME.png`` of each image with the truth, beside it
            times its attention, and for attention sampling another ``NAME_patches.png``
            with the first patches it drew.
    """
    directory.mkdir(exist_ok=True)
    viewer = deep_mil_viewer(model)
    numbers = in_turn(images.labels, count)
    for number in tqdm(numbers, desc="Drawing pictures"):
        chosen = images.choose([number])
        values, _ = next(iter(chosen.batches(inputs, batch_size=1)))
        seen = {
            name: value[0]
            for name, value in viewer.predict_on_batch(list(values)).items()
        }
        picture = chosen.picture(0)
        answer = int(np.argmax(seen["prediction"]))
        truth = {
            "boxes": picture.boxes,
            "other_boxes": picture.other_boxes,
            "points": picture.points,
        }
        title = (
            f"{picture.name}: truth {classes[images.labels[number]]}, answer "
            f"{classes[answer]} ({seen['prediction'][answer]:.2f})"
        )
        weighted = weigh_patches(
            picture.image,
            seen["attention"],
            task.patch_size,
            task.view_size,
            task.receptive_field if "patches" in seen else 0,
        )
        draw_weighted_patches(
            directory / f"{picture.name}.png",
            picture.image,
            {"patches times their attention": weighted},
            title=title,
            **truth,
        )
        if "patches" in seen:
            draw_attention(
                directory / f"{picture.name}_patches.png",
                picture.image,
                seen["attention"],
                *(
                    seen[name][:MOST_PATCHES]
                    for name in ("patches", "sampled_attention", "origins")
                ),
                margin=_margin(task),
                title=title,
                **truth,
            )


def in_turn(labels, count):
    """Return the numbers of some images, of the classes in turn."""
    labels = np.asarray(labels)
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    turns = zip_longest(*by_class)
    return [int(n) for turn in turns for n in turn if n is not None][:count]


def _margin(task):
    """Return the pixels at each side of an image that the attention map leaves out."""
    return tuple(
        task.receptive_field / 2 * extent / low
        for extent, low in zip(task.image_shape, task.view_size, strict=False)
    )
