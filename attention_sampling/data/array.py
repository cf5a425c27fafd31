"""A source over arrays in memory, or mapped into it."""

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.data.source import Size, Source

_Array = npt.NDArray[Any]


class ArraySource(Source):
    """Images that are NumPy arrays, in memory or mapped from a file.

    For images that fit into memory, for tests, and for raw files by ``np.memmap`` or
    ``np.load(file, mmap_mode="r")``. The arrays are not copied.

    A source is pickled with all pixels in it, except for those of whole memory maps:
    where it arrives they are mapped from the same file anew, to be read only. (A slice
    of a map, and a map of mode ``"c"``, are pickled as pixels.)

    Args:
        images: arrays (height, width, channels), of different heights and widths if
            need be; or one array (count, height, width, channels).
        names: a name for each image; "array 0", "array 1" and so on by default.
        threads: windows to read at once; more than 1 pays for memory maps alone.

    Raises:
        TypeError: an image is no NumPy array.
        ValueError: no images; an array of another shape; images of several dtypes or
            channel counts, or of neither integers nor floats; not a name for each.

    Example:

    >>> images = [np.ones((4, 6, 3), "uint8"), np.ones((9, 5, 3), "uint8")]
    >>> source = ArraySource(images)
    >>> source.shape(1)
    (9, 5, 3)
    >>> source.read_patches([1], [(7, 0)], (3, 2))[0, :, :, 0].tolist()
    [[1, 1], [1, 1], [0, 0]]
    """

    def __init__(
        self,
        images: _Array | Sequence[_Array],
        names: Sequence[str] | None = None,
        threads: int = 1,
    ) -> None:
        if isinstance(images, np.ndarray) and images.ndim != 4:
            raise ValueError(
                "`images` must be a list of arrays (height, width, channels), or one "
                "array (count, height, width, channels). Put a single image into a "
                f"list. Received: one array of shape {images.shape}"
            )
        for number, array in enumerate(images):
            _check_array(number, array, images[0])
        # A stack stays whole: a map of it is pickled as its file.
        self._given = [images] if isinstance(images, np.ndarray) else list(images)
        self._arrays = _split_stacks(self._given)
        if names is None:
            names = [f"array {number}" for number in range(len(self._arrays))]
        if len(names) != len(self._arrays):
            raise ValueError(
                f"`names` must hold one for each of {len(self._arrays)} images. "
                f"Received: {len(names)} names"
            )
        super().__init__(
            names,
            self._arrays[0].shape[2] if self._arrays else 1,
            self._arrays[0].dtype.newbyteorder("=") if self._arrays else "uint8",
            threads,
        )

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        del state["_arrays"]
        state["_given"] = [_to_pickle(array) for array in self._given]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._arrays = _split_stacks(self._given)

    def levels(self, index: int) -> tuple[Size, ...]:
        """Return (height, width) of an image."""
        return (self._arrays[self.check_index(index)].shape[:2],)

    def read(self, index: int, level: int, origin: Size, size: Size) -> _Array:
        """Return a window of an array."""
        (top, left), (height, width) = origin, size
        window = self._arrays[index][top : top + height, left : left + width]
        return window.astype(self.dtype, copy=False)


class _Mapped:
    """A whole memory map, pickled as its file, to be mapped again."""

    def __init__(self, array: np.memmap[Any, Any]) -> None:
        self.array = array

    def __reduce__(self) -> tuple[Any, ...]:
        array = self.array
        order = "C" if array.flags.c_contiguous else "F"
        file = array.filename, array.dtype, "r", array.offset, array.shape, order
        return np.memmap, file


def _to_pickle(array: _Array) -> _Array | _Mapped:
    """Return a whole memory map as its file, and any other array as it is."""
    if (
        not isinstance(array, np.memmap)
        or not isinstance(array.base, mmap.mmap)  # a slice, whose offset is unknown
        or array.filename is None
        or array.mode == "c"
    ):
        return np.asarray(array)
    return _Mapped(array)


def _split_stacks(given: list[_Array]) -> list[_Array]:
    """Return each image as a plain array: slices of a memmap cost more."""
    stacks = (array if array.ndim == 4 else [array] for array in given)
    return [np.asarray(image) for stack in stacks for image in stack]


def _check_array(number: int, array: Any, first: Any) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(
            "`images` must be NumPy arrays; use np.asarray for what is in memory. "
            f"Received: images[{number}] of type {type(array).__name__}"
        )
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            "Images must have shape (height, width, channels), none of them 0. "
            f"Received: images[{number}] of shape {array.shape}"
        )
    if array.dtype.kind not in "uif":
        raise ValueError(
            "Images must hold integers or floats. Received: "
            f"images[{number}] of dtype {array.dtype}"
        )
    kind, expected = (
        (one.shape[2], one.dtype.newbyteorder("=")) for one in (array, first)
    )
    if kind != expected:
        raise ValueError(
            f"All images must have the channels and dtype of the first, {expected[0]} "
            f"of {expected[1]}. Received: images[{number}] of {kind[0]} of {kind[1]}"
        )
