"""Fetch a file over HTTP: goes on where it was broken off, whole or not at all."""

import hashlib
import os
import time
from pathlib import Path

from attention_sampling.datasets._http import (
    DownloadError,
    DroppedError,
    fetch_rest,
    size_of,
    state_of,
)
from attention_sampling.datasets.archive import extract_zip

__all__ = ["DownloadError", "download", "extract_zip"]

_PAUSE = 1.0  # seconds before the second attempt, doubled with each that fails


def download(
    url: str,
    path: str | os.PathLike[str],
    md5: str | None = None,
    progress: bool = True,
    attempts: int = 5,
    timeout: float = 30.0,
) -> None:
    """Fetch a file, unless it is there.

    What has come so far is kept in ``path.part``, and what it is a part of in
    ``path.part.json``; a later run, also after a kill, asks for the rest only. If the
    file changed on the server meanwhile, or the server cannot give a part, it begins
    again. ``path`` itself appears when the file is whole. One process at a time.

    Args:
        url: an http or https address.
        path: the file to write; its directory is made if need be.
        md5: what the md5 of the file must be, in hexadecimal. A file that is there
            with another md5 is replaced, once the right one has come. None: any file
            that is there will do.
        progress: show a progress bar. Needs tqdm either way.
        attempts: how often in a row to try without getting any farther.
        timeout: seconds to wait for the server to say something.

    Raises:
        ValueError: ``url`` is not an http or https address.
        DownloadError: the server refuses, all attempts failed, or the file has another
            length or md5 than it should.

    Example::

        download("http://host/Set1/annotations.txt", "Set1/annotations.txt", md5=...)
    """
    from tqdm import tqdm

    if not url.startswith(("http://", "https://")):
        raise ValueError(
            "The address cannot be fetched. Expected: http://... or https://... "
            f"Received: url={url!r}"
        )
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    if path.exists() and (md5 is None or _compute_md5(path) == md5.lower()):
        state_of(part).unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    failures, farthest = 0, size_of(part)
    with tqdm(desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar:
        while True:
            try:
                fetch_rest(url, part, timeout, bar)
                break
            except DroppedError as error:
                if size_of(part) > farthest:
                    failures, farthest = 0, size_of(part)
                failures += 1
                if failures >= attempts:
                    raise DownloadError(
                        "The download was broken off. Expected: a whole file within "
                        f"{attempts} attempts; run again to go on. Received: {error} "
                        f"from {url}"
                    ) from error
            time.sleep(_PAUSE * 2 ** (failures - 1))
    received = md5 and _compute_md5(part)
    if md5 and received != md5.lower():
        part.unlink()
        raise DownloadError(
            f"The file has a wrong md5 and was removed. Expected: {md5.lower()}. "
            f"Received: {received} from {url}"
        )
    os.replace(part, path)
    state_of(part).unlink(missing_ok=True)


def _compute_md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
