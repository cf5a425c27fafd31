"""The published folder tree of the colon cancer images: directory -> folder of each."""

import re
from collections.abc import Collection
from pathlib import Path

NUCLEUS_CLASSES = ("epithelial", "fibroblast", "inflammatory", "others")

# Beside images that this package has drawn.
DRAWN_FILE = "drawn_colon_cancer.json"

_PREFIX = "CRCHistoPhenotypes_"
_RELEASE = f"{_PREFIX}2016_04_28"
_TASK = "Classification"
_NAMED_AT_MOST = 10


def find_folders(directory: Path) -> dict[int, Path]:
    """Find the folder of each image, by the number of the image, in its order.

    Raises:
        FileNotFoundError: the directory, or every folder, is missing.
        ValueError: it is another release; a folder is there twice, or has no number.
    """
    if not directory.is_dir():
        raise FileNotFoundError(
            "The data set is not there. Expected: a directory. "
            f"Received: directory={str(directory)!r}"
        )
    root = _find_root(directory)
    folders: dict[int, Path] = {}
    for folder in sorted(path for path in root.glob("img*") if path.is_dir()):
        number = _number_folder(folder)
        if number in folders:
            raise ValueError(
                "An image is there twice. Expected: one folder for each number. "
                f"Received: {folders[number]} and {folder}"
            )
        folders[number] = folder
    if not folders:
        raise FileNotFoundError(
            f"The directory lacks the images of {_RELEASE}. Expected: "
            f"{_TASK}/img1/img1.bmp and so on, in it or in a folder {_RELEASE} in it. "
            f"Received: directory={str(directory)!r}"
        )
    return dict(sorted(folders.items()))


def check_files(folders: Collection[Path]) -> None:
    """Refuse folders that have not one image, and one file for each class.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: they are of the other task, or the classes are others.
    """
    missing = []
    for folder in folders:
        expected = {image_path(folder).name} | {
            nuclei_path(folder, name).name for name in NUCLEUS_CLASSES
        }
        found = {
            path.name
            for path in folder.iterdir()
            if path.suffix in (".bmp", ".mat")
            and not path.name.startswith(".")
            and path.is_file()
        }
        if f"{folder.name}_detection.mat" in found:
            raise ValueError(
                "These are the nuclei of the detection task, which have no class. "
                f"Expected: the folder {_TASK}. Received: {folder.parent}"
            )
        if found - expected:
            raise ValueError(
                f"There are other files than those of {_RELEASE}. Expected: an image, "
                f"and the nuclei of {', '.join(NUCLEUS_CLASSES)}. Received: {folder} "
                f"with {', '.join(sorted(found - expected))}"
            )
        missing += [str(folder / name) for name in sorted(expected - found)]
    if missing:
        shown = ", ".join(missing[:_NAMED_AT_MOST])
        more = len(missing) - _NAMED_AT_MOST
        raise FileNotFoundError(
            f"{len(missing)} files of the {len(folders)} images found are missing. "
            f"Expected: in each folder an image, and the nuclei of "
            f"{', '.join(NUCLEUS_CLASSES)}. Received: no {shown}"
            f"{f' and {more} more' if more > 0 else ''}"
        )


def image_path(folder: Path) -> Path:
    """Return the image in a folder."""
    return folder / f"{folder.name}.bmp"


def nuclei_path(folder: Path, nucleus_class: str) -> Path:
    """Return the file of the nuclei of one class in a folder."""
    return folder / f"{folder.name}_{nucleus_class}.mat"


def is_drawn(folder: Path) -> bool:
    """Tell whether the image in a folder was drawn by this package."""
    root = folder.parent
    return any((place / DRAWN_FILE).is_file() for place in (root, root.parent))


def _find_root(directory: Path) -> Path:
    """Return the folder that has the images in it, if any has."""
    inside = directory / _RELEASE
    if not inside.is_dir():
        # A file beside them may be the archive that they came in.
        others = [path for path in directory.glob(f"{_PREFIX}*") if path.is_dir()]
        here = directory.absolute()
        for folder in (here, here.parent, *others):
            if folder.name.startswith(_PREFIX) and folder.name != _RELEASE:
                raise ValueError(
                    "This is another release of the data set, whose images may have "
                    f"other numbers. Expected: {_RELEASE}. Received: {folder}"
                )
        inside = directory
    return inside / _TASK if (inside / _TASK).is_dir() else inside


def _number_folder(folder: Path) -> int:
    match = re.fullmatch("img([0-9]{1,9})", folder.name)
    if match is None:
        raise ValueError(
            "A folder of an image has no number. Expected: img1, img2 and so on. "
            f"Received: {folder}"
        )
    return int(match[1])
