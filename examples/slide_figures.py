"""Figures of a run on slides: learning curves, and what the model looked at."""

from itertools import zip_longest
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from slide_folder import build_dataset
from tqdm import tqdm

from attention_sampling.files import replacing
from attention_sampling.visualize import attention_viewer, draw_attention

# Pixels of the longer side of a slide in a picture.
PICTURE_SIZE = 1200


def draw_curve(rows, path):
    """Draw loss and accuracy by epoch, on test images too if there are any."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    figure.suptitle("Slides, attention sampling, 1 run")
    epochs = range(1, len(rows) + 1)
    names = ("cross_entropy", "accuracy")
    for axes, name in zip(figure.subplots(1, 2), names, strict=True):
        for prefix, label in (("", "training"), ("val_", "test")):
            values = [row.get(prefix + name) for row in rows]
            if not {None, "", "NA"} & set(values):
                axes.plot(epochs, list(map(float, values)), ".-", label=label)
        axes.set(xlabel="epoch", ylabel=name.replace("_", "-"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    with replacing(path) as part:
        figure.savefig(part)


def draw_pictures(arguments, model, slides, output):
    """Draw what the model looked at in some slides, the classes in turn."""
    directory = output / "pictures"
    directory.mkdir(exist_ok=True)
    by_class = [
        [n for n in slides.test or slides.train if slides.labels[n] == label]
        for label in range(len(slides.classes))
    ]
    in_turn = [n for group in zip_longest(*by_class) for n in group if n is not None]
    numbers = in_turn[: arguments.pictures]
    if not numbers:
        return
    viewer = attention_viewer(model)
    dataset = build_dataset(arguments, slides, numbers, output).unbatch()
    for number, (inputs, _) in zip(
        tqdm(numbers, desc="Drawing pictures"), dataset, strict=True
    ):
        seen = viewer.predict_on_batch([x[None] for x in inputs])
        height, width, channels = slides.source.shape(number)
        scale = min(1, PICTURE_SIZE / max(height, width))
        image = slides.source.read_view(
            number, (max(1, round(scale * height)), max(1, round(scale * width)))
        )
        shown = slice(3 if channels > 2 else 1)  # without alpha
        answer = int(np.argmax(seen["prediction"][0]))
        name = Path(slides.source.names[number])
        draw_attention(
            directory / f"{number:04d}_{name.stem}.png",
            image[..., shown] / 255,
            seen["attention"][0],
            seen["patches"][0][..., shown],
            seen["sampled_attention"][0],
            seen["origins"][0],
            title=f"{name.name}: truth {slides.classes[slides.labels[number]]}, answer "
            f"{slides.classes[answer]} ({seen['prediction'][0, answer]:.2f})",
            image_size=(height, width),
        )
