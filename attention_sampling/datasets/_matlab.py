"""Matrices of numbers from MATLAB files of version 5 to 7.2.

Not by scipy, which crashes the process on some files with one damaged byte (1.17); here
lengths, types and the checksum of what is compressed are looked at first. Nothing in a
file is ever run.
"""

import math
import struct
import zlib

import numpy as np
import numpy.typing as npt

_HEADER = 128  # bytes
_LARGEST = 2**26  # bytes of a variable: a broken file must not fill the memory
_ORDERS = {b"IM": "<", b"MI": ">"}
_NAME, _DIMENSIONS, _FLAGS, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
# Type of an element -> how NumPy calls its numbers.
_NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
_NUMERIC_CLASSES = range(6, 16)  # of a matrix: from double to uint64
_IS_COMPLEX = 0x0800


def read_matlab(data: bytes) -> dict[str, npt.NDArray[np.float64] | None]:
    """Return the variables of a file by name, None for what is no real numeric matrix.

    Args:
        data: the file.

    Raises:
        ValueError: it is broken or cut, or of another version; says which.
    """
    if not data.startswith(b"MATLAB 5.0 MAT-file"):
        if data.startswith((b"MATLAB 7.3 MAT-file", b"\x89HDF")):
            raise ValueError("it is of version 7.3, which is HDF5; save it with -v7")
        raise ValueError("it does not begin with 'MATLAB 5.0 MAT-file'")
    order = _ORDERS.get(data[_HEADER - 2 : _HEADER])
    if order is None:
        raise ValueError("its header is broken or cut")
    variables: dict[str, npt.NDArray[np.float64] | None] = {}
    rest = memoryview(data)[_HEADER:]
    while rest:
        kind, content, rest = _split(rest, order)
        if kind == _COMPRESSED:
            try:
                unpacked = memoryview(_decompress(content))
            except zlib.error as error:
                raise ValueError(f"what is compressed is broken: {error}") from error
            kind, content, _ = _split(unpacked, order)
        if kind != _MATRIX:
            raise ValueError(f"a variable is of the unknown type {kind}")
        name, values = _parse_matrix(content, order)
        if name in variables:
            raise ValueError(f"the variable {name} is there twice")
        variables[name] = values
    return variables


def _decompress(content: memoryview) -> bytes:
    """Return what was compressed, whole."""
    stream = zlib.decompressobj()
    unpacked = stream.decompress(content, _LARGEST)
    if stream.unconsumed_tail:
        raise ValueError(f"a variable has more than {_LARGEST:,} bytes")
    if not stream.eof:
        raise ValueError("what is compressed is cut")
    return unpacked


def _split(data: memoryview, order: str) -> tuple[int, memoryview, memoryview]:
    """Return type and content of the first element, and what comes after it."""
    if len(data) < 8:
        raise ValueError("it is cut")
    kind, length = struct.unpack_from(f"{order}II", data)
    start = 8
    if kind >> 16:  # a short one: type, length and content within eight bytes
        kind, length, start = kind & 0xFFFF, kind >> 16, 4
    end = start + length
    if end > len(data) or (start == 4 and end > 8):
        raise ValueError("it is cut, or a length in it is wrong")
    padding = 0 if kind == _COMPRESSED else -end % 8
    return kind, data[start:end], data[end + padding :]


def _parse_matrix(
    data: memoryview, order: str
) -> tuple[str, npt.NDArray[np.float64] | None]:
    """Return name and values of a matrix, None if they are not real numbers."""
    parts = []
    for expected in (_FLAGS, _DIMENSIONS, _NAME):
        kind, content, data = _split(data, order)
        if kind != expected or not content:
            raise ValueError("the description of a variable is broken")
        parts.append(content)
    flags = int(np.frombuffer(parts[0], f"{order}u4")[0])
    shape = np.frombuffer(parts[1], f"{order}i4").tolist()
    name = bytes(parts[2]).decode("ascii", errors="replace")
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & _IS_COMPLEX:
        return name, None
    kind, content, _ = _split(data, order)
    if kind not in _NUMBERS:
        raise ValueError(f"the numbers of {name} are of the unknown type {kind}")
    values = np.frombuffer(content, order + _NUMBERS[kind]).astype("float64")
    if min(shape) < 0 or math.prod(shape) != values.size:
        raise ValueError(f"{name} has {values.size} numbers, its size is {shape}")
    return name, values.reshape(shape, order="F")
