"""A photograph for a model in memory: upright, scaled, with its view."""

import os

import numpy as np
import numpy.typing as npt

from attention_sampling.data.area import average_area
from attention_sampling.data.errors import SourceError


def read_photograph(
    path: str | os.PathLike[str],
    size: tuple[int | None, int],
    view_size: tuple[int, int] | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Read a photograph of any size, and scale it for a model.

    Where a model learned things of one size, as ``load_pretrained("speed_limits")`` did,
    a photograph has to be scaled to show them in this size. What a camera stored turned is
    turned back.

    Args:
        path: a file that Pillow reads; it becomes RGB.
        size: (height, width) of the image in pixels; a height of None follows from the
            shape of the photograph, and is a multiple of 16.
        view_size: (height, width) of the view in pixels, not larger; None for a quarter of the image.

    Returns:
        The view, (height, width, 3) float32 from 0 to 255, each pixel the mean of the
        area it covers; and the image, (height, width, 3) uint8.

    Raises:
        SourceError: the file cannot be read.

    Example:

    >>> from PIL import Image
    >>> Image.new("L", (3000, 2000)).save("photo.jpg")
    >>> view, image = read_photograph("photo.jpg", (None, 1360))
    >>> view.shape, image.shape
    ((228, 340, 3), (912, 1360, 3))
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            photo = ImageOps.exif_transpose(file).convert("RGB")
    except Exception as error:  # Pillow's readers raise nearly anything on bad bytes
        raise SourceError(f"{os.fspath(path)} cannot be read: {error}") from error
    height, width = size
    if height is None:
        height = max(16, 16 * round(width * photo.height / photo.width / 16))
    smaller = width < photo.width
    method = Image.Resampling.BOX if smaller else Image.Resampling.BICUBIC
    image = np.asarray(photo.resize((width, height), method))
    return average_area(image, view_size or (height // 4, width // 4)), image
