"""Unpack a zip archive from a stranger: all of it, and nowhere else."""

import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_BLOCK = 1 << 20  # bytes


def extract_zip(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    progress: bool = True,
) -> None:
    """Extract a zip archive into a new directory, wholly or not at all.

    The files go to a hidden directory beside ``directory`` and are checked against
    their CRC-32; only when all are written does it get its name. So ``directory`` is
    whole if it is there, also when the process is killed; what a killed run left
    behind, the next one removes.

    Args:
        path: the archive.
        directory: where its files go. Must not be there yet, or be empty.
        progress: show a progress bar. Needs tqdm either way.

    Raises:
        FileExistsError: ``directory`` holds something already.
        ValueError: the archive is broken or empty, or an entry would be written outside
            ``directory``, is a link or a device, or takes the place of another.

    Example::

        extract_zip("Set1Part0.zip", "Set1/Set1Part0")
    """
    from tqdm import tqdm

    directory = Path(os.path.abspath(directory))
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(
            "The place to extract to is taken. Expected: no such directory, or an "
            f"empty one. Received: directory={str(directory)!r}"
        )
    temporary = directory.with_name(f".{directory.name}.extracting")
    if temporary.exists():
        shutil.rmtree(temporary)
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise _describe_broken(path, error) from error
    with archive:
        entries = [info for info in archive.infolist() if not info.is_dir()]
        for info in archive.infolist():
            _check_entry(path, info)
        if not entries:
            raise _describe_broken(path, "it holds no file")
        bar = tqdm(
            total=sum(info.file_size for info in entries),
            desc=f"Extracting {Path(path).name}",
            unit="B",
            unit_scale=True,
            disable=not progress,
        )
        try:
            temporary.mkdir(parents=True)
            with bar:
                for info in entries:
                    with _create(path, info, temporary) as file:
                        for block in _read_blocks(path, archive, info):
                            file.write(block)
                            bar.update(len(block))
            if directory.exists():
                directory.rmdir()
            temporary.rename(directory)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _describe_broken(path: str | os.PathLike[str], reason: object) -> ValueError:
    return ValueError(
        "The archive is broken. Expected: a whole zip file. "
        f"Received: {os.fspath(path)} ({reason})"
    )


def _check_entry(path: str | os.PathLike[str], info: zipfile.ZipInfo) -> None:
    """Refuse an entry that could end up outside the directory, on any system."""
    # As it stands in the archive: `filename` is already cut at a NUL character.
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if (
        any(character in name for character in "\\:\0")
        or not {"", ".."}.isdisjoint(name.removesuffix("/").split("/"))
        or kind not in (0, stat.S_IFREG, stat.S_IFDIR)
    ):
        raise ValueError(
            "The archive is not safe to extract. Expected: plain files with relative "
            f"names that stay inside the directory. Received: entry {name!r} of "
            f"{os.fspath(path)}"
        )


def _create(
    path: str | os.PathLike[str], info: zipfile.ZipInfo, directory: Path
) -> BinaryIO:
    """Open a new file for an entry."""
    target = directory / info.filename
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            "Two entries of the archive have the same place. Expected: each file "
            f"once. Received: entry {info.filename!r} of {os.fspath(path)}"
        ) from error


def _read_blocks(
    path: str | os.PathLike[str], archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> Iterator[bytes]:
    """Yield the content of an entry; the last block is checked against the CRC-32."""
    try:
        with archive.open(info) as file:
            while block := file.read(_BLOCK):
                yield block
    except Exception as error:  # each compression method has its own
        raise _describe_broken(path, f"{info.filename}: {error}") from error
