"""The digits of MNIST, from its original files."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

__all__ = ["SIDE", "read_mnist"]

SIDE = 28  # height and width of a digit, in pixels

_SOURCE = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_PREFIXES = {"train": "train", "test": "t10k"}


def read_mnist(
    directory: str | os.PathLike[str], split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Read the digits of MNIST from its original files, gzipped or not.

    Args:
        directory: holds ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz``,
            ``t10k-images-idx3-ubyte.gz`` and ``t10k-labels-idx1-ubyte.gz``, or the same
            without ``.gz``.
        split: ``"train"`` or ``"test"``.

    Returns:
        ``(digits, labels)``: (count, 28, 28) and (count,), both uint8.

    Raises:
        ValueError: there is no such split; a file is damaged or something else.
        FileNotFoundError: a file is missing.

    Reference:
        LeCun, Cortes and Burges, *The MNIST database of handwritten digits*.
    """
    if split not in _PREFIXES:
        raise ValueError(
            f"`split` must be one of {sorted(_PREFIXES)}. Received: split={split!r}"
        )
    prefix = _PREFIXES[split]
    digits = _read_idx(Path(directory), f"{prefix}-images-idx3-ubyte", axes=3)
    labels = _read_idx(Path(directory), f"{prefix}-labels-idx1-ubyte", axes=1)
    if len(digits) != len(labels) or digits.shape[1:] != (SIDE, SIDE):
        raise ValueError(
            f"The {split} files of MNIST must hold digits of {SIDE} x {SIDE} pixels "
            f"and a label for each. Received: digits {digits.shape}, labels "
            f"{labels.shape} in {str(directory)!r}"
        )
    return digits, labels


def _read_idx(directory: Path, name: str, axes: int) -> np.ndarray:
    """Read a file of bytes in the idx format."""
    paths = [directory / f"{name}.gz", directory / name]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"A file of MNIST is missing. Expected: {name}.gz or {name}, which can be "
            f"had from {_SOURCE}. Received: directory={str(directory)!r}"
        )
    data = path.read_bytes()
    try:
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        # Two zeros, 8 for unsigned bytes, the number of axes; then each extent.
        if data[:4] != bytes([0, 0, 8, axes]):
            raise ValueError(f"it is no idx file of bytes with {axes} axes")
        header = 4 + 4 * axes
        shape = np.frombuffer(data, ">u4", count=axes, offset=4).tolist()
        if len(data) != header + math.prod(shape):
            raise ValueError(f"{len(data)} bytes are not those of shape {shape}")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(
            f"A file of MNIST is damaged, or something else: {error}. Download it again "
            f"from {_SOURCE}. Received: {str(path)!r}"
        ) from error
    return np.frombuffer(data, "uint8", offset=header).reshape(shape)
