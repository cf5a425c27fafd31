"""A source whose images are flipped and turned, for augmentation."""

from typing import Any

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_pair
from attention_sampling.data.source import Size, Source

# Bits of the number of a variant.
_FLIP_COLUMNS, _FLIP_ROWS, _TRANSPOSE = 1, 2, 4


class Dihedral(Source):
    """The eight flips and quarter turns of every image of a source.

    Image ``t * n + i`` is image ``i`` of ``n`` under the ``t``-th of them, view and patches
    alike, so that a model that reads its patches from it sees one picture. Image ``i`` is
    the same in both sources. Build the model with
    it, and let ``view_dataset(augment="dihedral")`` pick ``t`` anew for every image and
    epoch. Nothing is copied or written: windows are read from the source and turned.

    Variants 0 to 3 keep height and width: the image as it is, columns flipped, rows
    flipped, both (a half turn). 4 to 7 are the same of the transposed image.

    Args:
        source: the images as they are.

    Attributes:
        source: the images as they are.
        variants: 8.

    Raises:
        TypeError: ``source`` is no source.

    Example:

    >>> from attention_sampling.data import ArraySource
    >>> image = np.arange(6, dtype="uint8").reshape(2, 3, 1)
    >>> turned = Dihedral(ArraySource([image]))
    >>> len(turned), turned.shape(0), turned.shape(4)
    (8, (2, 3, 1), (3, 2, 1))
    >>> turned.read_patches([1], [(0, 0)], (2, 3))[0, :, :, 0].tolist()
    [[2, 1, 0], [5, 4, 3]]
    """

    variants = 8

    def __init__(self, source: Source) -> None:
        if not isinstance(source, Source) or isinstance(source, Dihedral):
            raise TypeError(
                "`source` must be a source of images as they are, such as open_source() "
                f"returns. Received: source={source!r}"
            )
        self.source = source
        super().__init__(
            source.names * self.variants, source.channels, source.dtype, source.threads
        )
        self.skipped, self.labels = source.skipped, source.labels
        self.class_names = source.class_names

    def levels(self, index: int) -> tuple[Size, ...]:
        """Return (height, width) of each level of a turned image."""
        image, variant = self._find(index)
        return tuple(_turn(size, variant) for size in self.source.levels(image))

    def read(
        self, index: int, level: int, origin: Size, size: Size
    ) -> npt.NDArray[Any]:
        """Return a window of a turned image."""
        image, variant = self._find(index)
        height, width = self.levels(index)[level]
        row, column = origin
        if variant & _FLIP_ROWS:
            row = height - row - size[0]
        if variant & _FLIP_COLUMNS:
            column = width - column - size[1]
        window = self.source.read(
            image, level, _turn((row, column), variant), _turn(size, variant)
        )
        return transform(window, variant)

    def read_view(self, index: int, size: int | Size) -> npt.NDArray[np.float32]:
        """Read a low-resolution view of a turned image: that of the image, turned."""
        image, variant = self._find(index)
        view = self.source.read_view(image, _turn(check_pair("size", size), variant))
        return transform(view, variant)

    def close(self) -> None:
        """Close the source."""
        self.source.close()

    def block(self, index: int, level: int) -> Size:
        """Return (height, width) of the tiles of a level."""
        image, variant = self._find(index)
        return _turn(self.source.block(image, level), variant)

    def where(self, index: int) -> str:
        """Return what an error message calls the image."""
        return self.source.where(self._find(index)[0])

    def fingerprint(self, index: int) -> str | None:
        """Return that of the image, and which variant it is."""
        image, variant = self._find(index)
        fingerprint = self.source.fingerprint(image)
        return None if fingerprint is None else f"{fingerprint} {variant}"

    def _find(self, index: int) -> tuple[int, int]:
        """Return the image of the source, and which variant of it."""
        variant, image = divmod(self.check_index(index), len(self.source))
        return image, variant


def transform(window: npt.NDArray[Any], variant: int) -> npt.NDArray[Any]:
    """Flip and turn (height, width, channels), as a variant of ``Dihedral`` is.

    Example:

    >>> transform(np.array([[[1], [2]]]), 4)[:, :, 0].tolist()
    [[1], [2]]
    """
    if variant & _TRANSPOSE:
        window = window.swapaxes(0, 1)
    rows = slice(None, None, -1 if variant & _FLIP_ROWS else 1)
    columns = slice(None, None, -1 if variant & _FLIP_COLUMNS else 1)
    return window[rows, columns]


def _turn(size: Size, variant: int) -> Size:
    """Return a (row, column) pair of the image for one of a variant, or the reverse."""
    return (size[1], size[0]) if variant & _TRANSPOSE else size
