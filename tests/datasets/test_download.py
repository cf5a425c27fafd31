"""Downloads from a server on this machine, and zip archives from strangers."""

import hashlib
import os
import stat
import subprocess
import sys
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

import attention_sampling
from attention_sampling.datasets.download import download, download_swedish, unzip

CONTENT = bytes(range(256)) * 2048  # 512 KiB
REPOSITORY = Path(attention_sampling.__file__).parents[1]


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
        if server.stop is not None:  # in the middle: hang, then hang up
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            server.stop.wait(30)
        else:
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.files, server.requests = {"/file.bin": CONTENT}, []
    server.redirect = server.length = server.stop = None
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def md5_of(content):
    return hashlib.md5(content).hexdigest()


def files_in(directory):
    found = (path for path in directory.rglob("*") if not path.is_dir())
    return sorted(str(path.relative_to(directory)) for path in found)


# A file


def test_fetches_a_file_once(server, tmp_path, capfd):
    path = tmp_path / "new" / "file.bin"
    for _ in range(2):
        download(
            f"{server.url}/file.bin", path, md5_of(CONTENT).upper(), progress=False
        )
    assert path.read_bytes() == CONTENT
    assert server.requests == ["/file.bin"]
    assert os.listdir(path.parent) == ["file.bin"]
    assert capfd.readouterr() == ("", "")
    download(f"{server.url}/file.bin", tmp_path / "shown")
    assert "100%" in capfd.readouterr().err


def test_replaces_a_file_with_another_md5(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    download(f"{server.url}/file.bin", path, progress=False)
    assert path.read_bytes() == b"old"
    download(f"{server.url}/file.bin", path, md5_of(CONTENT), progress=False)
    assert path.read_bytes() == CONTENT


def not_there(server):
    server.files = {}


def too_short(server):
    server.length = str(len(CONTENT) + 9)


def strange_length(server):
    server.length = "abc"


def wrong_content(server):
    server.files["/file.bin"] = b"something else"


def redirect_to_ftp(server):
    server.redirect = "ftp://127.0.0.1/file.bin"


def redirect_to_a_file(server):
    server.redirect = "file:///etc/hostname"


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (not_there, "404"),
        (too_short, "IncompleteRead|9 more expected"),
        (strange_length, "abc"),
        (wrong_content, md5_of(b"something else")),
        (redirect_to_ftp, "ftp://"),
        (redirect_to_a_file, "file:///"),
    ],
)
def test_what_is_not_the_file_is_refused(server, tmp_path, fault, message, progress):
    fault(server)
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    pattern = rf"could not be fetched.*({message}).*from {server.url}/file.bin"
    with pytest.raises(OSError, match=f"(?s){pattern}"):
        download(f"{server.url}/file.bin", path, md5_of(CONTENT), progress)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/hostname", "x"])
def test_other_addresses_are_refused(tmp_path, url):
    with pytest.raises(OSError, match="over http or https"):
        download(url, tmp_path / "x", progress=False)
    assert os.listdir(tmp_path) == []


def test_a_killed_download_starts_again(server, tmp_path):
    path = tmp_path / "file.bin"
    server.stop = Event()
    code = (
        "from attention_sampling.datasets.download import download\n"
        f"download({server.url!r} + '/file.bin', {str(path)!r}, progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + 60
        while not any((tmp_path / ".file.bin.part").glob("*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
        server.stop.set()
    assert not path.exists()
    server.stop = None
    download(f"{server.url}/file.bin", path, progress=False)
    assert path.read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["file.bin"]


# A zip archive


def write_zip(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
    return path


GOOD = [("one.txt", b"1"), ("deep/", b""), ("deep/two.bin", os.urandom(5000))]


@pytest.mark.parametrize("exists", [False, True])
def test_unzips(tmp_path, exists, capfd):
    path, directory = write_zip(tmp_path / "a.zip", GOOD), tmp_path / "new" / "out"
    if exists:
        directory.mkdir(parents=True)
    (tmp_path / "new" / ".out.part").mkdir(parents=True)  # of a killed run
    unzip(path, directory, progress=False)
    assert files_in(directory) == ["deep/two.bin", "one.txt"]
    assert os.listdir(directory.parent) == ["out"]
    assert capfd.readouterr() == ("", "")
    unzip(path, tmp_path / "again")
    assert "Unpacking a.zip: 100%" in capfd.readouterr().err


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[2000] ^= 1  # in the stored bytes of two.bin
    path.write_bytes(content)


def encrypt(path):
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + 8] |= 1
    content[6] |= 1
    path.write_bytes(content)


def no_zip(path):
    path.write_bytes(b"<html>not found</html>")


def hold_nothing(path):
    write_zip(path, [("folder/", b"")])


def leave_the_directory(path):
    write_zip(path, [("../escape.txt", b"1")])


def be_absolute(path):
    write_zip(path, [("/tmp/escape.txt", b"1")])


def bomb(path):
    write_zip(path, [(f"{number}.bin", bytes(2**24)) for number in range(4)])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "archive is broken"),
        (flip, "archive is broken.*two.bin"),
        (encrypt, "archive is broken.*password"),
        (no_zip, "archive is broken.*not a zip"),
        (hold_nothing, "archive is broken.*holds no file"),
        (leave_the_directory, r"outside of its directory.*'\.\./escape\.txt'"),
        (be_absolute, "outside of its directory.*'/tmp/escape.txt'"),
        (bomb, "at most 20 times its size.*67108864 bytes unpacked"),
    ],
)
def test_a_bad_archive_leaves_nothing(tmp_path, spoil, message):
    path = write_zip(tmp_path / "a.zip", GOOD, zipfile.ZIP_STORED)
    spoil(path)
    with pytest.raises(ValueError, match=message):
        unzip(path, tmp_path / "out", progress=False)
    assert os.listdir(tmp_path) == ["a.zip"]


def test_a_link_in_an_archive_is_no_link_on_disk(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = write_zip(tmp_path / "a.zip", [(link, b"/etc/hostname")])
    unzip(path, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "link").is_symlink()


def test_a_taken_target_is_refused_before_unpacking(tmp_path):
    path = write_zip(tmp_path / "a.zip", GOOD)
    (tmp_path / "target").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = files_in(tmp_path)
    for name in ("full", "file", "link", "dangling"):
        with pytest.raises(FileExistsError, match=f"There is something.*{name}'"):
            unzip(path, tmp_path / name, progress=False)
    assert files_in(tmp_path) == before


def test_too_little_room_is_seen_before_unpacking(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", GOOD)
    full = type("Usage", (), {"free": 4000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    with pytest.raises(OSError, match=r"too little room.*Expected: 5001.*4000 bytes"):
        unzip(path, tmp_path / "out", progress=False)
    assert os.listdir(tmp_path) == ["a.zip"]


# The Swedish set


@pytest.fixture
def fetch_set(server, tmp_path):
    server.files, md5 = {}, {}
    for name in ("Set1", "Set2"):
        text = f"{name}.jpg:\n".encode()
        archive = write_zip(tmp_path / "a.zip", [(f"{name}.jpg", os.urandom(3000))])
        server.files[f"/{name}/annotations.txt"] = text
        server.files[f"/{name}/{name}Part0.zip"] = archive.read_bytes()
        md5[name] = md5_of(text)
        archive.unlink()
    return lambda: download_swedish(tmp_path, f"{server.url}/", False, md5)


SWEDISH_FILES = [
    "Set1/Set1Part0/Set1.jpg",
    "Set1/annotations.txt",
    "Set2/Set2Part0/Set2.jpg",
    "Set2/annotations.txt",
]


def test_the_swedish_set_is_fetched_once(server, fetch_set, tmp_path):
    fetch_set()
    fetch_set()
    assert files_in(tmp_path) == SWEDISH_FILES
    assert len(server.requests) == 4


def test_what_is_missing_of_the_swedish_set_is_fetched(server, fetch_set, tmp_path):
    archives = {name: server.files[name] for name in server.files if "zip" in name}
    server.files["/Set2/Set2Part0.zip"] = archives["/Set2/Set2Part0.zip"][:-50]
    with pytest.raises(ValueError, match=r"archive is broken.*Set2Part0\.zip"):
        fetch_set()
    assert files_in(tmp_path) == [f for f in SWEDISH_FILES if "Set2Part0" not in f]
    server.files.update(archives)
    server.requests.clear()
    fetch_set()
    assert files_in(tmp_path) == SWEDISH_FILES
    assert server.requests == ["/Set2/Set2Part0.zip"]


def test_the_swedish_annotations_are_checked(server, fetch_set, tmp_path):
    server.files["/Set1/annotations.txt"] = b"something else"
    with pytest.raises(OSError, match=r"MD5.*Set1/annotations\.txt"):
        fetch_set()
    assert files_in(tmp_path) == []
