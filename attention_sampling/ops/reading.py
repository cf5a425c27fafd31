"""Patches from a source of images on disk, in a graph."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from attention_sampling import backend
from attention_sampling.ops import geometry

# What a source must have; the kinds of sources are in ``attention_sampling.data``.
_METHODS = ("read_patches", "shape", "channels", "dtype")


class PatchReader:
    """What a layer knows of a source: its kind, and how to read from it in a graph.

    The kind, channels and dtype, is saved with the layer; the source is not, and is
    bound again.

    Args:
        source: ``attention_sampling.data.Source``; or what ``get_config`` returned, to
            be bound later.

    Raises:
        TypeError: it is neither.
    """

    def __init__(self, source: Any) -> None:
        self._source = None
        if isinstance(source, dict) and source.keys() == {"channels", "dtype"}:
            self.channels, self.dtype = int(source["channels"]), str(source["dtype"])
        else:
            _check_source(source)
            self.channels, self.dtype = source.channels, np.dtype(source.dtype).name
            self._source = source

    def bind(self, source: Any) -> None:
        """Read from another source of the same kind from now on.

        Raises:
            TypeError: this is no source.
            ValueError: its images have other channels or another dtype.
        """
        _check_source(source)
        dtype = np.dtype(source.dtype).name
        if (source.channels, dtype) != (self.channels, self.dtype):
            raise ValueError(
                "The source must be of the kind the model was built for. Expected: "
                f"{self.channels} channels of {self.dtype}. Received: {source.channels} "
                f"channels of {dtype}"
            )
        self._source = source

    @contextlib.contextmanager
    def bound_to(self, source: Any) -> Iterator[None]:
        """Read from another source of the same kind for a while."""
        before = self._source
        self.bind(source)
        try:
            yield
        finally:
            self._source = before

    def window_origins(
        self,
        index: Any,
        cells: Any,
        attention_size: tuple[Any, Any],
        low_size: tuple[Any, Any],
        patch_size: tuple[int, int],
        receptive_field: int,
    ) -> Any:
        """Place the window of each cell in its image: ``geometry.window_origins``.

        Args:
            index: (batch,) int tensor, index of each image.
            cells: (batch, n_patches) int32 tensor, flat indices into rows x columns.
            attention_size: (rows, columns) of the attention map.
            low_size: (height, width) of the views, in pixels.
            patch_size: (height, width) of the windows, in full-resolution pixels.
            receptive_field: pixels of the view that one cell sees before any pooling.

        Returns:
            (batch, n_patches, 2) int32 tensor, row and column in pixels.
        """
        self._bound()  # or an error, before a graph runs

        def place(index: Any, cells: Any, sizes: Any) -> Any:
            source = self._bound()
            rows, columns, height, width = sizes.tolist()
            high_sizes = [source.shape(number)[:2] for number in index.tolist()]
            return geometry.window_origins_by_image(
                cells,
                (rows, columns),
                (height, width),
                # A device of several is left without images by a last small batch.
                np.array(high_sizes, "int64").reshape(-1, 2),
                patch_size,
                receptive_field,
            )

        sizes = ops.stack(
            [ops.cast(extent, "int32") for extent in (*attention_size, *low_size)]
        )
        shape = (*cells.shape, 2)
        return backend.call_numpy(place, [index, cells, sizes], shape, "int32")

    def read_patches(
        self, index: Any, origins: Any, patch_size: tuple[int, int]
    ) -> Any:
        """Read windows at full resolution.

        Args:
            index: (batch,) int tensor, index of each image.
            origins: (batch, n_patches, 2) int tensor, row and column in pixels.
            patch_size: (height, width) of the windows, in pixels.

        Returns:
            (batch, n_patches, patch_height, patch_width, channels) tensor of the dtype
            of the source.
        """
        self._bound()  # or an error, before a graph runs

        def read(index: Any, origins: Any) -> Any:
            count = origins.shape[1]
            patches = self._bound().read_patches(
                np.repeat(index, count), origins.reshape(-1, 2), patch_size
            )
            return patches.reshape(len(index), count, *patches.shape[1:])

        shape = (*origins.shape[:2], *patch_size, self.channels)
        return backend.call_numpy(read, [index, origins], shape, self.dtype)

    @property
    def source(self) -> Any:
        """The source; where none is bound, its kind as in ``get_config``."""
        return self.get_config() if self._source is None else self._source

    def get_config(self) -> dict[str, Any]:
        """Return the kind of the source."""
        return {"channels": self.channels, "dtype": self.dtype}

    def _bound(self) -> Any:
        if self._source is None:
            raise ValueError(
                "The model was loaded or copied without its source, which is not saved "
                "with it. Bind one first: attention_sampling.set_source(model, source)"
            )
        return self._source


def _check_source(source: Any) -> None:
    if isinstance(source, type) or not all(hasattr(source, name) for name in _METHODS):
        raise TypeError(
            "`source` must be an image source, such as "
            "attention_sampling.data.open_source(path) returns it. "
            f"Received: source={source!r}"
        )
