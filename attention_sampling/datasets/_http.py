"""One attempt to fetch a file over HTTP, from where the last one was broken off."""

import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_BLOCK = 1 << 16  # bytes
_PASSING = (408, 429, 500, 502, 503, 504)  # HTTP statuses worth another attempt


class DownloadError(OSError):
    """A file could not be fetched, or is not the right one."""


class DroppedError(Exception):
    """An attempt failed in a way that the next one may not."""


def fetch_rest(url: str, part: Path, timeout: float, bar: Any) -> None:
    """Make one attempt to complete the part file."""
    state, offset = _read_state(part), size_of(part)
    if state.get("url") != url or not state.get("validator"):
        offset = 0
    elif offset and offset == state["size"]:
        return  # killed before it got its name
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": state["validator"]}
    with _open(urllib.request.Request(url, headers=headers), part, timeout) as response:
        if response.status == http.client.PARTIAL_CONTENT:
            _check_range(response.headers, state, offset, part)
        else:
            offset = 0
            state = _describe(url, response.headers)
            # In this order: whenever killed, the state is that of the part.
            part.unlink(missing_ok=True)
            state_of(part).write_text(json.dumps(state), encoding="utf-8")
        bar.reset(total=state["size"])
        bar.update(offset)
        with part.open("ab") as file:
            while block := _read_block(response):
                file.write(block)
                file.flush()  # what has come outlives a kill
                bar.update(len(block))
            os.fsync(file.fileno())
    if state["size"] not in (None, size_of(part)):
        raise DroppedError(f"{size_of(part)} of {state['size']} bytes")


def _open(request: urllib.request.Request, part: Path, timeout: float) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink(missing_ok=True)
        elif error.code not in _PASSING:
            raise DownloadError(
                "The server does not give the file. Expected: HTTP status 200. "
                f"Received: {error.code} {error.reason} from {request.full_url}"
            ) from error
        raise DroppedError(f"HTTP status {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise DroppedError(f"{type(error).__name__}: {error}") from error


def _read_block(response: Any) -> bytes:
    # Apart from the writing, as a full disk is an OSError too, and no reason to retry.
    try:
        block: bytes = response.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise DroppedError(f"{type(error).__name__}: {error}") from error
    return block


def _describe(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return what tells this version of the file from others."""
    length = headers.get("Content-Length")
    if length is None and headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise DownloadError(
            "The server does not say how long the file is, so nobody can tell whether "
            "it is whole. Expected: a Content-Length. "
            f"Received: {dict(headers.items())} from {url}"
        )
    return {
        "url": url,
        "validator": _choose_validator(headers),
        "size": None if length is None else int(length),
    }


def _choose_validator(headers: Mapping[str, str]) -> str | None:
    """Return what the server takes in If-Range: a strong ETag, or else the date."""
    tag = headers.get("ETag", "W/")
    return headers.get("Last-Modified") if tag.startswith("W/") else tag


def _check_range(
    headers: Mapping[str, str], state: dict[str, Any], offset: int, part: Path
) -> None:
    """Begin again if the server's part is not the rest of ours, whatever was asked."""
    found = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip()
    )
    if (
        found is None
        or not offset
        or int(found[1]) != offset
        or found[2] not in ("*", str(state["size"]))
        or _choose_validator(headers) not in (None, state["validator"])
    ):
        part.unlink(missing_ok=True)
        raise DroppedError(
            f"a part that does not fit, {headers.get('Content-Range')!r},"
        )


def state_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads(state_of(part).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # or killed while it was written
        return {}
    return state


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
