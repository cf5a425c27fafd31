"""The two kinds of files of the colon cancer images: pixels, and centres of nuclei."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from attention_sampling.datasets._matlab import read_matlab

KEY = "detection"

# Published centres go from 0.15 to 500: clicks just off a border are no mistakes.
_MARGIN = 1.0


def read_bmp(path: Path) -> npt.NDArray[np.uint8]:
    """Return an image, (height, width, 3).

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no BMP file in colours, or not whole.
    """
    from PIL import Image, UnidentifiedImageError

    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=["BMP"]) as image:
            mode, pixels = image.mode, np.asarray(image)
    except MemoryError:
        raise
    except UnidentifiedImageError:  # it names no file, and an address
        raise ValueError(
            "An image does not decode. Expected: a whole BMP file. "
            f"Received: {path} (it is none)"
        ) from None
    except Exception as error:  # Pillow's readers raise nearly anything on bad bytes
        raise ValueError(
            "An image does not decode. Expected: a whole BMP file. "
            f"Received: {path} ({type(error).__name__}: {error})"
        ) from error
    if mode != "RGB":
        raise ValueError(
            f"An image has other colours. Expected: RGB. Received: {path} with {mode}"
        )
    return pixels


def read_nuclei(path: Path, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return centres of nuclei, (n_nuclei, 2), row before column, in pixels.

    Args:
        path: a MATLAB file with (x, y) centres.
        size: (height, width) of the image.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not hold such centres, or some outside the image.
    """
    try:
        variables = read_matlab(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            "A file of nuclei cannot be read. Expected: a whole MATLAB file of version 5 "
            f"to 7.2. Received: {path} ({error})"
        ) from error
    if KEY not in variables:
        raise ValueError(
            f"A file of nuclei lacks the variable of their centres. Expected: {KEY}. "
            f"Received: {path} with {', '.join(variables) or 'no variable'}"
        )
    centres = variables[KEY]
    shape = None if centres is None else centres.shape
    if centres is None or shape not in ((0, 0), (len(centres), 2)):
        raise ValueError(
            f"The variable {KEY} does not hold centres of nuclei. Expected: real "
            "numbers of shape (n_nuclei, 2). "
            f"Received: {path} with {shape or 'no real numbers'}"
        )
    points = centres.reshape(-1, 2)[:, ::-1]
    outside = ~((points >= -_MARGIN) & (points <= np.add(size, _MARGIN))).all(axis=1)
    if outside.any():
        row, column = points[outside][0]
        raise ValueError(
            f"{outside.sum()} of {len(points)} nuclei are outside the image. Expected: "
            f"x from 0 to {size[1]}, y from 0 to {size[0]}. Received: {path} with "
            f"x={column:g}, y={row:g}"
        )
    # The greatest number below the extent: its whole part is still a pixel.
    return np.clip(points, 0, np.nextafter(np.array(size, "float64"), 0))
