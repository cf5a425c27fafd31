"""The reader of MATLAB files, against scipy's writer, and on broken files."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from attention_sampling.datasets import _matlab
from attention_sampling.datasets._matlab import read_matlab

DTYPES = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


def save(compressed=True, **variables):
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=compressed)
    return file.getvalue()


CENTRES = np.array([[1.5, 2], [3, 4], [5, 6]])
PLAIN, COMPRESSED = (save(kind, detection=CENTRES) for kind in (False, True))


def element(kind, content, order="<"):
    return struct.pack(f"{order}II", kind, len(content)) + content.ljust(
        -(-len(content) // 8) * 8, b"\0"
    )


def write(numbers=((9, "f8"), [1, 2, 3, 4]), shape=(2, 2), flags=6, order="<"):
    """Write a file by hand, as scipy does not: other orders, types and mistakes."""
    (kind, dtype), values = numbers
    parts = [
        element(6, struct.pack(f"{order}II", flags, 0), order),
        element(5, np.array(shape, f"{order}i4").tobytes(), order),
        element(1, b"detection", order),
        element(kind, np.array(values, order + dtype).tobytes(), order),
    ]
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}HH", 256, 0x4D49)
    return header + element(14, b"".join(parts), order)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 2), (1, 1), (0, 2), (0, 0), (2, 3, 2)])
def test_reads_what_scipy_writes(compressed, dtype, shape):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    read = read_matlab(save(compressed, detection=values, n=values))
    assert list(read) == ["detection", "n"]
    for found in read.values():
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    "other",
    [
        "text",
        {"struct": 1.0},
        np.array([CENTRES, 1.0, "cell"], dtype=object),
        1j * CENTRES,
        scipy.sparse.csc_array(CENTRES),
    ],
)
def test_what_is_no_real_numeric_matrix_is_none(other):
    read = read_matlab(save(other=other, detection=CENTRES))
    assert read["other"] is None
    np.testing.assert_array_equal(read["detection"], CENTRES)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("numbers", [(9, "f8"), (2, "u1"), (3, "i2"), (4, "u2")])
def test_byte_orders_and_types_narrower_than_the_class(order, numbers):
    data = write((numbers, [1, 2, 3, 200]), order=order)
    np.testing.assert_array_equal(read_matlab(data)["detection"], [[1, 3], [2, 200]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not begin with 'MATLAB 5.0 MAT-file'"),
        (b"\0" * 500, "does not begin with"),
        (b"MATLAB 7.3 MAT-file, Platform".ljust(600), "7.3.*save it with -v7"),
        (b"\x89HDF\r\n\x1a\n", "version 7.3, which is HDF5"),
        (PLAIN[:126], "header is broken or cut"),
        (PLAIN[:126] + b"XX" + PLAIN[128:], "header is broken or cut"),
        (PLAIN[:-1], "cut, or a length in it is wrong"),
        (PLAIN[:133], "it is cut"),
        (COMPRESSED[:-1], "cut, or a length in it is wrong"),
        (COMPRESSED[:-4] + b"abcd", "compressed is broken.*incorrect data check"),
        (COMPRESSED[:150] + b"\0" + COMPRESSED[151:], "compressed is broken"),
        (PLAIN + PLAIN[128:], "variable detection is there twice"),
        (PLAIN[:128] + element(9, b"number.."), "variable is of the unknown type 9"),
        (PLAIN[:128] + struct.pack("<I", 6 << 16 | 14) + bytes(12), "a length in it"),
        (PLAIN[:128] + element(14, element(6, b"")), "description .* is broken"),
        (write(((8, "f8"), [1.0])), "numbers of detection are of the unknown type 8"),
        (write(shape=(3, 2)), r"4 numbers, its size is \[3, 2\]"),
        (write(shape=(-1, 2)), r"4 numbers, its size is \[-1, 2\]"),
        (write(shape=(-2, -2)), r"4 numbers, its size is \[-2, -2\]"),
    ],
)
def test_refuses(data, message):
    with pytest.raises(ValueError, match=message):
        read_matlab(data)


def test_a_small_file_does_not_fill_the_memory(monkeypatch):
    many = save(detection=np.zeros((1000, 1000)))
    assert read_matlab(many)["detection"].shape == (1000, 1000)
    monkeypatch.setattr(_matlab, "_LARGEST", 7_000_000)
    with pytest.raises(ValueError, match=r"a variable has more than 7,000,000 bytes"):
        read_matlab(many)


def test_a_compressed_variable_cut_inside():
    content = zlib.compress(INSIDE)[:-9]
    with pytest.raises(ValueError, match="what is compressed is cut"):
        read_matlab(PLAIN[:128] + struct.pack("<II", 15, len(content)) + content)


def test_a_file_without_variable():
    assert read_matlab(PLAIN[:128]) == {}


@pytest.mark.parametrize("data", [PLAIN, COMPRESSED])
def test_a_file_cut_anywhere_is_refused(data):
    for length in range(len(data)):
        if length != 128:
            with pytest.raises(ValueError, match=r"cut|begin with"):
                read_matlab(data[:length])


INSIDE = zlib.decompress(COMPRESSED[136:])


@given(
    st.sampled_from([PLAIN, COMPRESSED, INSIDE]),
    st.dictionaries(st.integers(0, 400), st.integers(0, 255), min_size=1, max_size=4),
)
def test_damaged_bytes_give_an_error_or_numbers(data, damage):
    damaged = bytearray(data)
    for place, value in damage.items():
        damaged[place % len(damaged)] = value
    if data is INSIDE:  # so that the checksum is right
        packed = zlib.compress(bytes(damaged))
        damaged = PLAIN[:128] + struct.pack("<II", 15, len(packed)) + packed
    with contextlib.suppress(ValueError):
        read_matlab(bytes(damaged))
