"""Print the fraction of each saliency that is on the signs of road scenes; write saliency.png.

For docs/guides/not_learning.rst. Run ``python docs/figures/saliency.py SCENES docs/_static``
with the German Traffic Sign Detection Benchmark in SCENES.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from attention_sampling import ColorContrast, LocalContrast
from attention_sampling.data import open_source
from attention_sampling.datasets.traffic_signs import read_german

SCALE = 8  # pixels of the image for one of the view
SALIENCIES = {
    "uniform": lambda views: np.ones(views.shape[:3]),
    "LocalContrast(5)": LocalContrast(5),
    "LocalContrast(3)": LocalContrast(3),
    "ColorContrast(power=1)": ColorContrast(power=1),
    "ColorContrast()": ColorContrast(),
}


def read_scenes(directory):
    """Return the view of each scene with a limit, and where its signs are."""
    _, samples = read_german(directory)
    samples = [sample for sample in samples if sample.signs]
    source = open_source([sample.path for sample in samples])
    for index, sample in enumerate(samples):
        height, width = (extent // SCALE for extent in source.shape(index)[:2])
        signs = np.zeros((height, width), bool)
        for s in sample.signs:
            rows = slice(s.top // SCALE, -(-s.bottom // SCALE))
            signs[rows, s.left // SCALE : -(-s.right // SCALE)] = True
        yield source.read_view(index, (height, width)), signs


def main():
    """Print a table and plot one scene with the saliencies."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scenes", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    fractions = {name: [] for name in SALIENCIES}
    shown, largest = None, 0
    for view, signs in read_scenes(arguments.scenes):
        maps = {name: np.array(s(view[None]))[0] for name, s in SALIENCIES.items()}
        for name, saliency in maps.items():
            fractions[name].append(saliency[signs].sum() / saliency.sum())
        if signs.sum() > largest:
            shown, largest = (view, maps), signs.sum()
    for name, values in fractions.items():
        print(f"{name}: mean {np.mean(values):.4f}, median {np.median(values):.4f}")
    view, maps = shown
    figure = Figure(figsize=(10, 2.4), layout="constrained")
    axes = figure.subplots(1, 3)
    pictures = {
        "view": view / 255,
        **{n: maps[n] for n in ("LocalContrast(3)", "ColorContrast()")},
    }
    for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(picture, cmap="magma")
        axis.set(title=name, xticks=[], yticks=[])
    figure.savefig(arguments.output / "saliency.png", dpi=75)


if __name__ == "__main__":
    main()
