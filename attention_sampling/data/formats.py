"""Tell the format of a file by its first bytes, whatever its name."""

import os

# (place, bytes there) -> format. The first that fits counts.
_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"II+\x00\x08\x00", "TIFF"),  # BigTIFF
    (0, b"MM\x00+\x00\x08", "TIFF"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5"),
    (128, b"DICM", "DICOM"),
    (0, b"ZISRAWFILE", "CZI"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBPVP8", "WebP"),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"P5", "PPM"),
    (0, b"P6", "PPM"),
    (0, b"BM", "BMP"),
)
# Where HDF5 may begin after a block of the user's own.
_HDF5_PLACES = (512, 1024, 2048)


def find_format(path: str | os.PathLike[str]) -> str | None:
    """Return the format of a file, such as ``"JPEG"``; None if it is none of images.

    Args:
        path: a file.

    Raises:
        OSError: it cannot be read, or is no file.

    Example:

    >>> with open("photo.jpg", "wb") as file:
    ...     _ = file.write(bytes([0x89]) + b"PNG" + bytes([13, 10, 26, 10]))
    >>> find_format("photo.jpg")
    'PNG'
    """
    if not os.path.exists(path):
        raise FileNotFoundError("there is no such file")
    if not os.path.isfile(path):  # to open a pipe would wait for ever
        raise OSError("this is no file")
    with open(path, "rb") as file:
        start = file.read(2056)
    for place, signature, name in _SIGNATURES:
        if start[place : place + len(signature)] == signature:
            return name
    for place in _HDF5_PLACES:
        if start[place : place + 8] == b"\x89HDF\r\n\x1a\n":
            return "HDF5"
    return None
