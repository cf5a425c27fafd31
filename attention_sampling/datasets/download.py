"""Download the Swedish Traffic Signs set: each part of it whole, or not at all."""

import errno
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from attention_sampling.files import one_process, replacing

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
    """Download the Swedish Traffic Signs set, in the layout `load_speed_limits` reads.

    Files that are there are not downloaded again; a broken download starts again. Needs
    room on the disk for the images of a set twice, as an archive is removed when its
    images are out.

    Args:
        directory: where to put ``Set1`` and ``Set2``; made if need be.
        base_url: where ``SetN/annotations.txt`` and ``SetN/SetNPart0.zip`` are.
        progress: show progress bars.
        annotations_md5: md5 of ``annotations.txt`` for each set.

    Raises:
        ImportError: pooch or tqdm is missing; extra ``experiments``.
        OSError: the server does not give a file, or not the right one; it cannot be
            written, or another process is downloading it.
        ValueError: an archive is broken. It is removed, so that the next run downloads it
            again.

    Example::

        download_swedish("data/swedish")
        data = load_speed_limits("data/swedish")

    Reference:
        Larsson and Felsberg 2011, *Using Fourier descriptors and spatial models for
        traffic sign recognition*.
    """
    for name, md5 in annotations_md5.items():
        with one_process(Path(directory, name)) as folder:
            url = f"{base_url.rstrip('/')}/{name}"
            images, archive = folder / f"{name}Part0", folder / f"{name}Part0.zip"
            annotations = folder / "annotations.txt"
            _download(f"{url}/{annotations.name}", annotations, progress, md5)
            if not images.is_dir() or not any(images.iterdir()):
                _download(f"{url}/{archive.name}", archive, progress)
                _unpack(archive, images, progress)
            archive.unlink(missing_ok=True)


def _download(url: str, path: Path, progress: bool, md5: str | None = None) -> None:
    """Download a file, unless it is there with this md5."""
    import pooch

    if path.exists() and md5 in (None, pooch.file_hash(path, "md5")):
        return
    try:
        with replacing(path) as part:
            # pooch.retrieve would also take ftp and other protocols.
            pooch.HTTPDownloader(progressbar=progress, timeout=30)(url, part, None)
            if md5 is not None and (found := pooch.file_hash(part, "md5")) != md5:
                raise ValueError(f"a file of md5 {found}, not {md5}")
    except (OSError, ValueError) as error:
        raise OSError(
            "The file could not be downloaded. Expected: a whole file, the right one, "
            f"over http or https. Received: {error}, from {url}"
        ) from error


def _unpack(archive: Path, directory: Path, progress: bool) -> None:
    """Unpack a zip archive into a new directory; remove the archive if it is broken."""
    from tqdm import tqdm

    try:
        with replacing(directory) as part, zipfile.ZipFile(archive) as file:
            entries = file.infolist()
            _check_size(entries, archive)
            description = f"Unpacking {archive.name}"
            for entry in tqdm(entries, description, disable=not progress or None):
                file.extract(entry, part)  # never outside of `part`, whatever its name
    except Exception as error:  # each compression has errors of its own
        if isinstance(error, OSError) and error.errno is not None:  # of the disk
            raise
        archive.unlink()
        raise ValueError(
            "The archive is broken; it was removed. Expected: a whole zip file of images. "
            f"Received: {archive} ({error})"
        ) from error


def _check_size(entries: list[zipfile.ZipInfo], archive: Path) -> None:
    """Refuse an archive of no files or too large ones, before anything is written."""
    unpacked, packed = sum(e.file_size for e in entries), archive.stat().st_size
    if not 0 < unpacked <= _MOST_GROWTH * packed:
        raise zipfile.BadZipFile(f"{packed} bytes would become {unpacked}")
    free = shutil.disk_usage(archive.parent).free
    if unpacked > free:
        reason = f"{unpacked} bytes do not fit into {free} free bytes"
        raise OSError(
            errno.ENOSPC, f"The archive cannot be unpacked: {reason}", archive
        )
