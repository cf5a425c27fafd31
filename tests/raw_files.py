"""A format that is nothing but a line and pixels, to test what all files have in common.

A module of its own: other processes must be able to import it.
"""

import os
from pathlib import Path

import numpy as np

from attention_sampling.data.files import FileSource, Image, OpenFile

HEADER = 32


class RawFile(OpenFile):
    def __init__(self, path):
        self.number = os.open(path, os.O_RDONLY)
        try:
            words = os.pread(self.number, HEADER, 0).decode("ascii").split()
            self.dtype, *shape = words
            height, width, channels = self.shape = tuple(map(int, shape))
        except BaseException:
            self.close()
            raise
        self.images = [
            Image(None, ((height, width),), ((8, width),), channels, self.dtype)
        ]

    def read(self, image, level, origin, size):
        (top, left), (rows, columns) = origin, size
        _, width, channels = self.shape
        row = width * channels * np.dtype(self.dtype).itemsize
        data = os.pread(self.number, rows * row, HEADER + top * row)
        pixels = np.frombuffer(data, self.dtype).reshape(-1, width, channels)
        return pixels[:, left : left + columns]

    def close(self):
        number, self.number = self.number, None
        if number is not None:
            os.close(number)


class RawSource(FileSource):
    def open_file(self, path):
        return RawFile(path)


def write(path, image):
    shape = " ".join(map(str, image.shape))
    header = f"{image.dtype.name} {shape} ".encode().ljust(HEADER)
    Path(path).write_bytes(header + image.tobytes())
    return path


def write_all(directory, images):
    return [write(directory / f"{n}.raw", image) for n, image in enumerate(images)]
