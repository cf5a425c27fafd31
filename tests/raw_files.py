"""A format that is nothing but a line and pixels, to test what all files share.

A module of its own: other processes must be able to import it.
"""

import os
from pathlib import Path

import numpy as np

from attention_sampling.data.files import FileSource, Image

HEADER = 32


class RawFile:
    def __init__(self, path):
        self.number = os.open(path, os.O_RDONLY)
        try:
            words = os.pread(self.number, HEADER, 0).decode("ascii").split()
            self.dtype, *shape = words
            self.shape = tuple(map(int, shape))
        except Exception:
            os.close(self.number)
            raise

    def read(self, top, left, rows, columns):
        _, width, channels = self.shape
        row = width * channels * np.dtype(self.dtype).itemsize
        data = os.pread(self.number, rows * row, HEADER + top * row)
        pixels = np.frombuffer(data, self.dtype).reshape(-1, width, channels)
        return pixels[:, left : left + columns]

    def close(self):
        os.close(self.number)


class RawSource(FileSource):
    def _open(self, path):
        return RawFile(path)

    def _describe(self, opened):
        height, width, channels = opened.shape
        size = ((height, width),)
        return [Image(None, size, ((8, width),), channels, opened.dtype)]

    def _read_from(self, opened, image, level, origin, size):
        return opened.read(*origin, *size)


def write(path, image):
    shape = " ".join(map(str, image.shape))
    header = f"{image.dtype.name} {shape} ".encode().ljust(HEADER)
    Path(path).write_bytes(header + image.tobytes())
    return path


def write_all(directory, images):
    return [write(directory / f"{n}.raw", image) for n, image in enumerate(images)]
