"""Fetch a file or a data set from the web, and unpack a zip archive: whole, or not at all."""

import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

SWEDISH_URL = "http://www.isy.liu.se/cvl/research/trafficSigns/swedishSignsSummer/"
# Of SetN/annotations.txt; nobody publishes those of the images.
SWEDISH_MD5 = {
    "Set1": "9106a905a86209c95dc9b51d12f520d6",
    "Set2": "09debbc67f6cd89c1e2a2688ad1d03ca",
}
# An archive of images that grows more than this is no archive of images.
_MOST_GROWTH = 20


def download_swedish(
    directory: str | os.PathLike[str],
    base_url: str = SWEDISH_URL,
    progress: bool = True,
    annotations_md5: Mapping[str, str] = SWEDISH_MD5,
) -> None:
    """Fetch the Swedish Traffic Signs set, in the layout `load_speed_limits` reads.

    Files that are there are not fetched again; a file whose download was broken off is
    fetched from its beginning. Needs room on the disk for the images of a set twice, as
    an archive is removed when its images are out.

    Args:
        directory: where to put ``Set1`` and ``Set2``; made if need be.
        base_url: where to fetch ``SetN/annotations.txt`` and ``SetN/SetNPart0.zip``.
        progress: show progress bars.
        annotations_md5: md5 of ``annotations.txt`` for each set.

    Raises:
        ImportError: pooch or tqdm is missing; extra ``experiments``.
        OSError: the server does not give a file, or not the right one; or the folder of
            the images is a link.
        ValueError: an archive is broken, or not safe to unpack. It is removed, so that
            the next run fetches it anew.

    Example::

        download_swedish("data/swedish")
        data = load_speed_limits("data/swedish")

    Reference:
        Larsson and Felsberg 2011, *Using Fourier descriptors and spatial models for
        traffic sign recognition*.
    """
    for name, md5 in annotations_md5.items():
        url, folder = f"{base_url.rstrip('/')}/{name}", Path(directory) / name
        download(f"{url}/annotations.txt", folder / "annotations.txt", md5, progress)
        images, archive = folder / f"{name}Part0", folder / f"{name}Part0.zip"
        if not images.is_dir() or not any(images.iterdir()):
            download(f"{url}/{archive.name}", archive, progress=progress)
            try:
                unzip(archive, images, progress)
            except ValueError:
                archive.unlink()
                raise
        archive.unlink(missing_ok=True)


def download(
    url: str,
    path: str | os.PathLike[str],
    md5: str | None = None,
    progress: bool = True,
) -> None:
    """Fetch a file, unless it is there.

    The file appears when it is whole. A download that was broken off starts again.

    Args:
        url: an http or https address.
        path: the file to write; its directory is made if need be.
        md5: what the md5 of the file must be, in hexadecimal. A file that is there with
            another md5 is replaced, once the right one has come. None: any file that is
            there will do.
        progress: show a progress bar.

    Raises:
        ImportError: pooch or tqdm is missing; extra ``experiments``.
        OSError: the server does not give the file, or not the right one, or it cannot
            be written.

    Example::

        download("http://host/Set1/annotations.txt", "Set1/annotations.txt", md5=...)
    """
    import logging

    import pooch

    path = Path(path)
    if path.exists() and (md5 is None or pooch.file_hash(path, "md5") == md5.lower()):
        return
    pooch.get_logger().setLevel(logging.ERROR)  # or it prints what we print
    part = path.with_name(f".{path.name}.part")  # what a killed run left is cleared
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        pooch.retrieve(
            url,
            known_hash=None if md5 is None else f"md5:{md5}",
            fname=path.name,
            path=part,
            # Whatever the address says, and wherever it leads.
            downloader=pooch.HTTPDownloader(progressbar=progress, timeout=30),
        )
        os.replace(part / path.name, path)
    except (OSError, ValueError) as error:
        raise OSError(
            "The file could not be fetched. Expected: a whole file, the right one, over "
            f"http or https. Received: {error}, from {url}"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def unzip(
    path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    progress: bool = True,
) -> None:
    """Unpack a zip archive of images into a new directory, wholly or not at all.

    Sizes and names are looked at before anything is written. The files go to a hidden
    directory beside ``directory``, which gets its name when all are there.

    Args:
        path: the archive.
        directory: where its files go. Must not be there yet, or be empty.
        progress: show a progress bar. Needs tqdm either way.

    Raises:
        FileExistsError: ``directory`` holds something already, or is a link.
        OSError: there is too little room.
        ValueError: the archive is broken or empty, would write outside ``directory``, or
            would unpack to more than 20 times its size.

    Example::

        unzip("Set1Part0.zip", "Set1/Set1Part0")
    """
    from tqdm import tqdm

    path, directory = Path(path), Path(os.path.abspath(directory))
    if directory.is_symlink() or (
        directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    ):
        raise FileExistsError(
            "There is something where the archive would be unpacked. Expected: no such "
            f"directory, or an empty one. Received: directory={str(directory)!r}"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    part = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(path, entries, directory)
            description = f"Unpacking {path.name}"
            for entry in tqdm(entries, description, disable=not progress):
                archive.extract(entry, part)
        if directory.exists():
            directory.rmdir()
        part.rename(directory)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        # Not zlib.error alone: each compression has errors of its own.
        raise _broken(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], directory: Path) -> None:
    """Refuse an archive that would write too much, or elsewhere, or nothing."""
    if all(entry.is_dir() for entry in entries):
        raise _broken(path, "it holds no file")
    for entry in entries:
        name = PurePosixPath(entry.orig_filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in entry.orig_filename:
            raise ValueError(
                "The archive would write outside of its directory. Expected: relative "
                f"names. Received: entry {entry.orig_filename!r} of {path}"
            )
    unpacked, packed = sum(e.file_size for e in entries), path.stat().st_size
    if unpacked > _MOST_GROWTH * packed:
        raise ValueError(
            f"The archive is no archive of images. Expected: at most {_MOST_GROWTH} "
            f"times its size when unpacked. Received: {path} of {packed} bytes, "
            f"{unpacked} bytes unpacked"
        )
    free = shutil.disk_usage(directory.parent).free
    if unpacked > free:
        raise OSError(
            f"There is too little room to unpack the archive. Expected: {unpacked} "
            f"bytes. Received: {free} bytes in {directory.parent}"
        )


def _broken(path: Path, reason: object) -> ValueError:
    return ValueError(
        f"The archive is broken. Expected: a whole zip file. Received: {path} ({reason})"
    )
