"""Print a prediction and write strip.png: view, attention map, patches, prediction.

For docs/how_it_works.rst. Run ``python docs/figures/strip.py docs/_static``, which trains
``examples/slides.py`` first, or after it, with ``--run runs/slides``.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

from attention_sampling import with_sampling
from attention_sampling.data import ArraySource
from attention_sampling.datasets.synthetic.slides import generate_slide
from attention_sampling.visualize import explain_image, save_figure

EXAMPLE = Path(__file__).parents[2] / "examples" / "slides.py"
CELLS = "long"  # in the spots of the slide that is plotted


def explain_new_slide(model_file):
    """Return view, and what a trained model looked at, of a slide it has never seen."""
    pixels, _ = generate_slide(np.random.default_rng(3), CELLS, (2048, 2048))
    source = ArraySource([pixels])
    model = keras.saving.load_model(model_file, compile=False)
    seen = explain_image(with_sampling(model, n_patches=9), source, 0)
    return source.read_view(0, 128) / 255, seen


def plot_strip(path, view, seen):
    """Plot the four steps in a row."""
    figure = Figure((8, 2.4), dpi=120, layout="constrained")
    panels = figure.subplots(1, 4, width_ratios=(2, 2, 2, 1.5))
    gap = ((0, 0), (2, 2), (2, 2), (0, 0))
    patches = np.pad(seen["patches"], gap, constant_values=255)
    rows = [np.hstack(patches[k : k + 3]) for k in (0, 3, 6)]
    panels[0].imshow(view)
    panels[1].imshow(np.sqrt(seen["attention"]), cmap="inferno")
    panels[2].imshow(np.vstack(rows))
    names = sorted(seen["prediction"])
    values = [seen["prediction"][name] for name in names]
    panels[3].barh(names, values, color="tab:orange")
    panels[3].set(xlim=(0, 1), xticks=[0, 1])
    panels[3].invert_yaxis()
    panels[3].tick_params(labelsize=12, left=False)
    panels[3].spines[["top", "right"]].set_visible(False)
    for axes in panels[:3]:
        axes.set(xticks=[], yticks=[])
    for axes, title in zip(
        panels, ("view", "attention", "patches", "prediction"), strict=True
    ):
        axes.set_title(title, fontsize=14)
    save_figure(figure, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="output of examples/slides.py")
    parser.add_argument("--epochs", default="24", help="of a training without --run")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        run = arguments.run
        if run is None:
            run = Path(directory, "run")
            words = [EXAMPLE, "--output", run, "--epochs", arguments.epochs]
            subprocess.run([sys.executable, *map(str, words)], check=True)
        view, seen = explain_new_slide(run / "model.keras")
    print(f"a slide with {CELLS} cells in its spots:")
    print({name: round(float(value), 3) for name, value in seen["prediction"].items()})
    plot_strip(arguments.output / "strip.png", view, seen)
