"""What images a measurement is of."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from attention_sampling.experiments.tasks import Task

# Section 4.2: patches of noise in an image.
_NOISE = {"megapixel_mnist": 50}


class Images(NamedTuple):
    """Images that measurements of a task have in common.

    Attributes:
        height, width, channels: in pixels.
        drawn: whether this package drew them in place of the published ones.
        noise: patches of noise in each, where the task has them and their number is not
            the paper's for this size. None also where a file does not say.
    """

    height: int
    width: int
    channels: int
    drawn: bool
    noise: int | None = None

    def __str__(self) -> str:
        texts = [f"{self.height} x {self.width} pixels"]
        if self.noise is not None:
            texts.append(f"{self.noise or 'no'} patches of noise")
        return ", ".join(texts + ["drawn"] * self.drawn)

    @property
    def file_name(self) -> str:
        """What tells them from others in the name of a file."""
        noise = "" if self.noise is None else f"_noise{self.noise}"
        return f"{self.height}x{self.width}{noise}{'_drawn' * self.drawn}"


def images_of_paper(task: Task) -> Images:
    """Return what the results of the paper are of."""
    return Images(*task.image_shape, drawn=False)


def images_of(
    task: Task, image_shape: tuple[int, ...], settings: Mapping[str, Any]
) -> Images:
    """Return what images the settings of a measurement name.

    Args:
        task: at the sizes of the paper.
        image_shape: (height, width, channels) of the images.
        settings: of a training; those of a benchmark name no images.
    """
    data = settings.get("data", {})
    # An example without a data set draws images that look like it.
    drawn = data.get("drawn", "dataset" in settings and settings["dataset"] is None)
    noise = None
    if task.name in _NOISE:
        noise = data.get("noise_patches")
        if (image_shape, noise) == (task.image_shape, _NOISE[task.name]):
            noise = None
    return Images(*image_shape, drawn, noise)
