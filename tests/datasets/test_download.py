"""The Swedish set from a server on this machine: whole files, bad ones, and kills."""

import hashlib
import io
import os
import sys
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest
from processes import start, wait_until

from attention_sampling.datasets.download import download_swedish

TEXT = b"empty.jpg:\n"
MD5 = {"Set1": hashlib.md5(TEXT).hexdigest()}
SHARED = ["Set1/.lock", "Set1/annotations.txt"]
WHOLE = [
    *SHARED[:1],
    "Set1/Set1Part0/deep/two.jpg",
    "Set1/Set1Part0/one.jpg",
    *SHARED[1:],
]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append(self.path)
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        content = server.files[self.path]
        self.send_response(200)
        self.send_header("Content-Length", server.length or str(len(content)))
        self.end_headers()
        if server.stop and self.path.endswith(
            ".zip"
        ):  # in the middle: hang, then hang up
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            server.stop.wait(30)
        else:
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def write_zip(entries, compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return file.getvalue()


IMAGES = [("one.jpg", b"1"), ("deep/", b""), ("deep/two.jpg", os.urandom(5000))]
ARCHIVE = write_zip(IMAGES, zipfile.ZIP_STORED)


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.files = {"/Set1/annotations.txt": TEXT, "/Set1/Set1Part0.zip": ARCHIVE}
    server.requests = []
    server.redirect = server.length = server.stop = None
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def fetch(server, tmp_path):
    def fetch(progress=False):
        download_swedish(tmp_path / "new", f"{server.url}/", progress, MD5)

    return fetch


def files_in(tmp_path):
    found = (path for path in (tmp_path / "new").rglob("*") if not path.is_dir())
    return sorted(str(path.relative_to(tmp_path / "new")) for path in found)


def test_everything_is_downloaded_once(server, fetch, tmp_path, capfd):
    for _ in range(2):
        fetch()
    assert files_in(tmp_path) == WHOLE
    assert server.requests == ["/Set1/annotations.txt", "/Set1/Set1Part0.zip"]
    assert capfd.readouterr() == ("", "")


def test_what_is_missing_or_another_is_downloaded(
    server, fetch, tmp_path, capfd, monkeypatch
):
    images = tmp_path / "new" / "Set1" / "Set1Part0"
    images.mkdir(parents=True)
    (images.parent / "annotations.txt").write_text("an older one")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fetch(progress=True)
    assert files_in(tmp_path) == WHOLE
    assert (images.parent / "annotations.txt").read_bytes() == TEXT
    shown = capfd.readouterr().err
    assert shown.count("100%") == 3
    assert "Unpacking Set1Part0.zip: 100%" in shown


def not_there(server):
    server.files = {}


def too_short(server):
    server.length = str(len(TEXT) + 9)


def strange_length(server):
    server.length = "abc"


def wrong_content(server):
    server.files["/Set1/annotations.txt"] = b"something else"


def redirect_to_ftp(server):
    server.redirect = "ftp://127.0.0.1/file.bin"


def redirect_to_a_file(server):
    server.redirect = "file:///etc/hostname"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (not_there, "404"),
        (too_short, "IncompleteRead|9 more expected"),
        (strange_length, "abc"),
        (wrong_content, f"md5 .*, not {MD5['Set1']}"),
        (redirect_to_ftp, "ftp://"),
        (redirect_to_a_file, "file:///"),
    ],
)
def test_what_is_not_the_file_is_refused(server, fetch, tmp_path, fault, message):
    fault(server)
    path = tmp_path / "new" / "Set1" / "annotations.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    url = rf"{server.url}/Set1/annotations\.txt"
    pattern = rf"could not be downloaded.*({message}).*from {url}"
    with pytest.raises(OSError, match=f"(?s){pattern}"):
        fetch()
    assert path.read_bytes() == b"old"
    assert files_in(tmp_path) == SHARED


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/hostname", "x"])
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(OSError, match="over http or https"):
        download_swedish(tmp_path, url, progress=False)


def test_a_killed_download_starts_again(server, fetch, tmp_path):
    server.stop = Event()
    code = (
        "from attention_sampling.datasets.download import download_swedish\n"
        f"download_swedish({str(tmp_path / 'new')!r}, {server.url!r}, False, {MD5})"
    )
    begun = (tmp_path / "new" / "Set1").glob
    with start("-c", code) as process:
        wait_until(lambda: any(begun(".Set1Part0.*.part.zip")), process)
    server.stop.set()
    server.stop = None
    fetch()
    assert files_in(tmp_path) == WHOLE


# Bad archives


def cut(data):
    return data[:-100]


def flip(data):
    data = bytearray(data)
    data[2000] ^= 1  # in the stored bytes of two.jpg
    return bytes(data)


def encrypt(data):
    data = bytearray(data)
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    return bytes(data)


def spoil_deflated(data):
    data = bytearray(write_zip(IMAGES))
    start = data.index(b"two.jpg") + len("two.jpg")
    data[start : start + 2000] = bytes(2000)
    return bytes(data)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "not a zip"),
        (flip, r"two\.jpg"),
        (encrypt, "password"),
        (spoil_deflated, "while decompressing|CRC"),
        (lambda data: b"<html>not found</html>", "not a zip"),
        (lambda data: write_zip([("folder/", b"")]), "would become 0"),
        (lambda data: write_zip([("0.jpg", bytes(2**24))]), "would become 16777216"),
    ],
)
def test_a_broken_archive_is_removed(server, fetch, tmp_path, spoil, message):
    server.files["/Set1/Set1Part0.zip"] = spoil(ARCHIVE)
    with pytest.raises(
        ValueError, match=rf"archive is broken.*Set1Part0\.zip \(.*{message}"
    ):
        fetch()
    assert files_in(tmp_path) == SHARED
    server.files["/Set1/Set1Part0.zip"] = ARCHIVE
    fetch()
    assert files_in(tmp_path) == WHOLE


def test_an_archive_writes_nowhere_else(server, fetch, tmp_path):
    names = ("../up.jpg", str(tmp_path / "absolute.jpg"))
    server.files["/Set1/Set1Part0.zip"] = write_zip([(name, b"1") for name in names])
    fetch()
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert all(name.startswith("Set1/Set1Part0/") for name in files_in(tmp_path)[1:-1])


def test_too_little_room_keeps_the_archive(server, fetch, tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 4000})
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: full)
        with pytest.raises(OSError, match=r"5001 bytes do not fit .*4000.*Part0\.zip"):
            fetch()
    assert files_in(tmp_path) == [SHARED[0], "Set1/Set1Part0.zip", SHARED[1]]
    fetch()
    assert files_in(tmp_path) == WHOLE
    assert server.requests.count("/Set1/Set1Part0.zip") == 1
