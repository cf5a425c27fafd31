"""The digits of MNIST, from its original files."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

SIDE = 28  # pixels of a digit, each way

_SOURCE = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_PREFIXES = {"train": "train", "test": "t10k"}


def read_mnist(
    directory: str | os.PathLike[str], split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Read the digits of MNIST from its original files, gzipped or not.

    Args:
        directory: where ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz``,
            ``t10k-images-idx3-ubyte.gz`` and ``t10k-labels-idx1-ubyte.gz`` lie, or the
            same without ``.gz``.
        split: ``"train"`` or ``"test"``.

    Returns:
        ``(digits, labels)``: (count, 28, 28) and (count,), both uint8.

    Raises:
        ValueError: there is no such split; a file is not what its name says, or not
            whole; not as many labels as digits.
        FileNotFoundError: a file is missing.

    Reference:
        LeCun, Cortes and Burges, *The MNIST database of handwritten digits*.
    """
    if split not in _PREFIXES:
        raise ValueError(
            f"`split` must be one of {sorted(_PREFIXES)}. Received: split={split!r}"
        )
    prefix = _PREFIXES[split]
    digits = _read_idx(Path(directory), f"{prefix}-images-idx3-ubyte", dimensions=3)
    labels = _read_idx(Path(directory), f"{prefix}-labels-idx1-ubyte", dimensions=1)
    if len(digits) != len(labels) or digits.shape[1:] != (SIDE, SIDE):
        raise ValueError(
            f"The {split} files of MNIST must hold digits of {SIDE} x {SIDE} pixels "
            f"and a label for each. Received: digits {digits.shape}, labels "
            f"{labels.shape} in {str(directory)!r}"
        )
    return digits, labels


def _read_idx(directory: Path, name: str, dimensions: int) -> np.ndarray:
    paths = [directory / f"{name}.gz", directory / name]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"A file of MNIST is missing. Expected: {name}.gz or {name}, which can be "
            f"had from {_SOURCE}. Received: directory={str(directory)!r}"
        )
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"The file is no whole gzip file ({error}). Fetch it again from "
                f"{_SOURCE}. Received: {str(path)!r}"
            ) from error
    # Two zeros, 8 for unsigned bytes, the number of dimensions; then each extent.
    magic = bytes([0, 0, 8, dimensions])
    if data[:4] != magic:
        raise ValueError(
            f"The file is no idx file of bytes in {dimensions} dimensions. Expected: it "
            f"begins with {magic.hex(' ')}. Received: {data[:4].hex(' ')} in "
            f"{str(path)!r}"
        )
    header = 4 + 4 * dimensions
    shape = tuple(
        int.from_bytes(data[start : start + 4], "big") for start in range(4, header, 4)
    )
    if len(data) != header + math.prod(shape):
        raise ValueError(
            f"The file is not whole. Expected: {header} + {math.prod(shape)} bytes for "
            f"shape {shape}. Received: {len(data)} bytes in {str(path)!r}. Fetch it "
            f"again from {_SOURCE}"
        )
    return np.frombuffer(data, "uint8", offset=header).reshape(shape)
