"""download and extract_zip against a real server on this machine, and hostile zips."""

import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import attention_sampling
from attention_sampling.datasets import download as download_module
from attention_sampling.datasets.download import DownloadError, download, extract_zip
from attention_sampling.datasets.speed_limits import download_swedish

CONTENT = bytes(range(256)) * 2048  # 512 KiB
OTHER = CONTENT[::-1]
REPOSITORY = Path(attention_sampling.__file__).parents[1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append((self.path, asked))
        self.close_connection = True
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        if self.path not in server.files:
            self.send_error(404)
            return
        content = server.files[self.path]
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        unchanged = server.ignore_if_range or self.headers.get("If-Range") == tag
        if asked and server.ranges and unchanged:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            last, total = len(content) - 1, len(content)
            start += server.shift
            self.send_header("Content-Range", f"bytes {start}-{last}/{total}")
        else:
            self.send_response(200)
        if server.tags:
            self.send_header("ETag", tag)
        if server.lengths:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if server.drops:
            sent, then = server.drops.pop(0)
            self.wfile.write(rest[:sent])
            self.wfile.flush()
            then()
        else:
            self.wfile.write(rest)

    def log_message(self, *args):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {"/file.bin": CONTENT}
        self.requests = []  # (path, Range) as they came
        self.statuses = []  # answers for the next requests, instead of the file
        self.drops = []  # (bytes sent, what to do before the connection is closed)
        self.ranges = self.tags = self.lengths = True
        self.ignore_if_range = False
        self.shift = 0  # how far a part begins from where it was asked for
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # a client that was killed


@pytest.fixture
def server():
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(download_module, "_PAUSE", 0.001)


def nothing():
    pass


def fetch(server, path, **settings):
    settings = {"progress": False, "timeout": 5.0, **settings}
    download(f"{server.url}/file.bin", path, **settings)


def md5_of(content):
    return hashlib.md5(content).hexdigest()


def run_and_kill(code, is_time):
    """Run Python code in a process, kill it when ``is_time()``."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    try:
        end = time.monotonic() + 15
        while not is_time():
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < end, "never got that far"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


class TestDownload:
    def test_fetches_a_file_into_a_new_directory(self, server, tmp_path):
        path = tmp_path / "new" / "file.bin"
        fetch(server, path, md5=md5_of(CONTENT).upper())
        assert path.read_bytes() == CONTENT
        assert os.listdir(path.parent) == ["file.bin"]

    def test_shows_progress(self, server, tmp_path, capfd):
        fetch(server, tmp_path / "file.bin", progress=True)
        assert "file.bin: 100%" in capfd.readouterr().err

    @pytest.mark.parametrize("md5", [None, md5_of(CONTENT)])
    def test_leaves_a_file_that_is_there(self, server, tmp_path, md5):
        (tmp_path / "file.bin").write_bytes(CONTENT)
        fetch(server, tmp_path / "file.bin", md5=md5)
        assert server.requests == []

    def test_replaces_a_file_with_another_md5(self, server, tmp_path):
        (tmp_path / "file.bin").write_bytes(OTHER)
        fetch(server, tmp_path / "file.bin", md5=md5_of(CONTENT))
        assert (tmp_path / "file.bin").read_bytes() == CONTENT

    def test_goes_on_after_dropped_connections(self, server, tmp_path):
        # More drops than attempts: what counts is those without getting any farther.
        server.drops = [(70_000, nothing)] * 4
        fetch(server, tmp_path / "file.bin", attempts=2)
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        ranges = [asked for _, asked in server.requests]
        assert ranges == [None, *(f"bytes={n * 70_000}-" for n in range(1, 5))]

    def test_begins_again_without_ranges(self, server, tmp_path):
        server.ranges = False
        server.drops = [(70_000, nothing)]
        fetch(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == CONTENT

    def test_begins_again_without_a_version(self, server, tmp_path):
        server.tags = False
        server.drops = [(70_000, nothing)]
        fetch(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        assert [asked for _, asked in server.requests] == [None, None]

    @pytest.mark.parametrize("ignore_if_range", [False, True])
    @pytest.mark.parametrize("other", [OTHER, OTHER[:-1]], ids=["same", "shorter"])
    def test_begins_again_when_the_file_changed(
        self, server, tmp_path, ignore_if_range, other
    ):
        server.ignore_if_range = ignore_if_range
        server.drops = [(70_000, lambda: server.files.update({"/file.bin": other}))]
        fetch(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == other

    def test_begins_again_when_the_file_became_shorter_than_the_part(
        self, server, tmp_path
    ):
        server.ignore_if_range = True
        server.drops = [(70_000, lambda: server.files.update({"/file.bin": b"short"}))]
        fetch(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == b"short"

    def test_begins_again_when_the_part_is_of_another_address(self, server, tmp_path):
        server.files["/other.bin"] = OTHER
        server.drops = [(70_000, nothing)]
        with pytest.raises(DownloadError):
            download(f"{server.url}/other.bin", tmp_path / "file.bin", attempts=1)
        fetch(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        assert server.requests[-1] == ("/file.bin", None)

    def test_refuses_a_part_that_begins_elsewhere(self, server, tmp_path):
        server.shift = 5
        server.drops = [(70_000, nothing)]
        with pytest.raises(
            DownloadError, match=r"part that does not fit, 'bytes 70005"
        ):
            fetch(server, tmp_path / "file.bin", attempts=2)
        assert not (tmp_path / "file.bin").exists()

    def test_gives_a_whole_part_its_name(self, server, tmp_path):
        # Killed after the last byte: the next run has nothing to fetch.
        server.drops = [(len(CONTENT) - 1, nothing)]
        with pytest.raises(DownloadError):
            fetch(server, tmp_path / "file.bin", attempts=1)
        with open(tmp_path / "file.bin.part", "ab") as part:
            part.write(CONTENT[-1:])
        fetch(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == CONTENT
        assert len(server.requests) == 1

    def test_begins_again_with_a_half_written_state(self, server, tmp_path):
        (tmp_path / "file.bin.part").write_bytes(OTHER[:100])
        (tmp_path / "file.bin.part.json").write_text('{"url": "htt')
        fetch(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == CONTENT

    def test_tries_again_while_the_server_is_busy(self, server, tmp_path):
        server.statuses = [503, 429]
        fetch(server, tmp_path / "file.bin")
        assert (tmp_path / "file.bin").read_bytes() == CONTENT

    def test_gives_up_and_keeps_the_part(self, server, tmp_path):
        server.drops = [(70_000, nothing)] + [(0, nothing)] * 3
        with pytest.raises(
            DownloadError, match=r"broken off.* 3 attempts.*70000 of 524288 bytes"
        ):
            fetch(server, tmp_path / "file.bin", attempts=3)
        assert len(server.requests) == 3
        assert not (tmp_path / "file.bin").exists()
        assert (tmp_path / "file.bin.part").stat().st_size == 70_000

    def test_gives_up_on_a_silent_server(self, server, tmp_path):
        end = threading.Event()
        server.drops = [(70_000, lambda: end.wait(10))]
        try:
            with pytest.raises(DownloadError, match=r"TimeoutError"):
                fetch(server, tmp_path / "file.bin", attempts=1, timeout=0.2)
        finally:
            end.set()

    def test_refuses_a_file_the_server_does_not_give(self, server, tmp_path):
        with pytest.raises(DownloadError, match=r"does not give.*404.*nothing\.bin"):
            download(f"{server.url}/nothing.bin", tmp_path / "x", progress=False)
        assert len(server.requests) == 1
        assert os.listdir(tmp_path) == []

    def test_refuses_a_wrong_md5_and_removes_the_file(self, server, tmp_path):
        (tmp_path / "file.bin").write_bytes(b"old")
        expected, received = md5_of(OTHER), md5_of(CONTENT)
        with pytest.raises(
            DownloadError, match=f"wrong md5.*{expected}.*{received}.*{server.url}"
        ):
            fetch(server, tmp_path / "file.bin", md5=expected)
        assert (tmp_path / "file.bin").read_bytes() == b"old"
        assert not (tmp_path / "file.bin.part").exists()

    def test_refuses_a_file_of_unknown_length(self, server, tmp_path):
        server.lengths = False
        with pytest.raises(DownloadError, match="does not say how long"):
            fetch(server, tmp_path / "file.bin")
        assert not (tmp_path / "file.bin").exists()

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "x.zip"])
    def test_refuses_other_addresses(self, tmp_path, url):
        with pytest.raises(ValueError, match=r"cannot be fetched.*Received: url="):
            download(url, tmp_path / "x")

    def test_does_not_try_again_when_the_disk_is_full(
        self, server, tmp_path, monkeypatch
    ):
        if not os.path.exists("/dev/full"):
            pytest.skip("no /dev/full on this system")
        original = Path.open
        monkeypatch.setattr(
            Path,
            "open",
            lambda path, *rest, **settings: original(
                Path("/dev/full") if path.suffix == ".part" else path, *rest, **settings
            ),
        )
        with pytest.raises(OSError, match="No space left"):
            fetch(server, tmp_path / "file.bin")
        assert len(server.requests) == 1
        assert not (tmp_path / "file.bin").exists()

    def test_goes_on_after_a_kill(self, server, tmp_path):
        end = threading.Event()
        server.drops = [(300_000, lambda: end.wait(15))]
        part = tmp_path / "file.bin.part"
        run_and_kill(
            "from attention_sampling.datasets.download import download\n"
            f"download('{server.url}/file.bin', {str(tmp_path / 'file.bin')!r},"
            " progress=False)",
            lambda: part.exists() and part.stat().st_size > 200_000,
        )
        end.set()
        assert not (tmp_path / "file.bin").exists()
        size = part.stat().st_size
        fetch(server, tmp_path / "file.bin", md5=md5_of(CONTENT))
        assert server.requests[-1][1] == f"bytes={size}-"
        assert os.listdir(tmp_path) == ["file.bin"]


def write_zip(path, entries, compression=zipfile.ZIP_DEFLATED):
    """Write a zip of (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def make_entry(name, mode):
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3  # Unix
    entry.external_attr = mode << 16
    return entry


class TestExtractZip:
    def test_extracts_files_in_folders(self, tmp_path, capfd):
        path = write_zip(
            tmp_path / "a.zip",
            [("x.jpg", b"x"), ("sub/", b""), ("sub/y.jpg", b"y" * 9)],
        )
        extract_zip(path, tmp_path / "new" / "out")
        assert (tmp_path / "new" / "out" / "x.jpg").read_bytes() == b"x"
        assert (tmp_path / "new" / "out" / "sub" / "y.jpg").read_bytes() == b"y" * 9
        assert os.listdir(tmp_path / "new") == ["out"]
        assert "Extracting a.zip: 100%" in capfd.readouterr().err

    @pytest.mark.parametrize(
        "entry",
        [
            "../evil.txt",
            "sub/../../evil.txt",
            "sub/..",
            "/evil.txt",
            "//host/evil.txt",
            "C:/evil.txt",
            "C:evil.txt",
            "..\\evil.txt",
            "sub\\evil.txt",
            make_entry("link", stat.S_IFLNK | 0o777),
            make_entry("pipe", stat.S_IFIFO | 0o644),
        ],
        ids=str,
    )
    def test_refuses_a_hostile_entry_before_writing_anything(self, tmp_path, entry):
        inside = tmp_path / "a" / "b"
        inside.mkdir(parents=True)
        path = write_zip(inside / "a.zip", [("good.txt", b"x"), (entry, b"../x")])
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=r"not safe to extract.*entry .*a\.zip"):
            extract_zip(path, inside / "out", progress=False)
        assert sorted(tmp_path.rglob("*")) == before

    def test_refuses_a_name_cut_at_nul(self, tmp_path):
        path = write_zip(tmp_path / "a.zip", [("good.txt_", b"x")])
        path.write_bytes(path.read_bytes().replace(b"good.txt_", b"good.txt\0"))
        with pytest.raises(ValueError, match="not safe to extract"):
            extract_zip(path, tmp_path / "out", progress=False)

    @pytest.mark.parametrize("names", [("x", "x"), ("x", "x/y"), ("x/y", "x")], ids=str)
    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_refuses_two_entries_in_one_place(self, tmp_path, names):
        path = write_zip(tmp_path / "a.zip", [(name, b"x") for name in names])
        with pytest.raises(ValueError, match=r"same place.*'x.*a\.zip"):
            extract_zip(path, tmp_path / "out", progress=False)
        assert os.listdir(tmp_path) == ["a.zip"]

    def test_refuses_a_wrong_checksum(self, tmp_path):
        path = write_zip(
            tmp_path / "a.zip", [("x.txt", b"content")], zipfile.ZIP_STORED
        )
        path.write_bytes(path.read_bytes().replace(b"content", b"kontent"))
        with pytest.raises(ValueError, match=r"broken.*a\.zip \(x.txt: Bad CRC-32"):
            extract_zip(path, tmp_path / "out", progress=False)
        assert os.listdir(tmp_path) == ["a.zip"]

    def test_refuses_a_file_that_is_cut_off(self, tmp_path):
        path = write_zip(tmp_path / "a.zip", [("x.txt", os.urandom(5000))])
        path.write_bytes(path.read_bytes()[:4000])
        with pytest.raises(ValueError, match=r"archive is broken.*a\.zip \("):
            extract_zip(path, tmp_path / "out", progress=False)

    def test_refuses_an_archive_without_files(self, tmp_path):
        path = write_zip(tmp_path / "a.zip", [("sub/", b"")])
        with pytest.raises(ValueError, match="it holds no file"):
            extract_zip(path, tmp_path / "out", progress=False)

    def test_refuses_a_directory_that_is_taken(self, tmp_path):
        path = write_zip(tmp_path / "a.zip", [("x.txt", b"x")])
        with pytest.raises(FileExistsError, match="place to extract to is taken"):
            extract_zip(path, tmp_path, progress=False)

    def test_takes_an_empty_directory(self, tmp_path):
        path = write_zip(tmp_path / "a.zip", [("x.txt", b"x")])
        (tmp_path / "out").mkdir()
        extract_zip(path, tmp_path / "out", progress=False)
        assert os.listdir(tmp_path / "out") == ["x.txt"]

    @pytest.mark.skipif(os.name != "posix", reason="needs a limit on file sizes")
    def test_leaves_nothing_when_the_disk_is_full(self, tmp_path):
        path = write_zip(tmp_path / "a.zip", [("x", b"x"), ("y", bytes(100_000))])
        code = (
            "import resource\n"
            "from attention_sampling.datasets.archive import extract_zip\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
            f"extract_zip({str(path)!r}, {str(tmp_path / 'out')!r}, progress=False)"
        )
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert "OSError: [Errno 27] File too large" in run.stderr
        assert os.listdir(tmp_path) == ["a.zip"]

    def test_begins_again_after_a_kill(self, tmp_path):
        path = write_zip(tmp_path / "a.zip", [(f"{n}.txt", b"x") for n in range(200)])
        hidden = tmp_path / ".out.extracting"
        run_and_kill(
            "import time, tqdm\n"
            "from attention_sampling.datasets.archive import extract_zip\n"
            "tqdm.tqdm.update = lambda *_: time.sleep(0.1)\n"
            f"extract_zip({str(path)!r}, {str(tmp_path / 'out')!r}, progress=False)",
            lambda: hidden.exists() and os.listdir(hidden),
        )
        assert not (tmp_path / "out").exists()
        (hidden / "stray.txt").write_text("of an older archive")
        extract_zip(path, tmp_path / "out", progress=False)
        assert sorted(os.listdir(tmp_path)) == ["a.zip", "out"]
        assert len(os.listdir(tmp_path / "out")) == 200


class TestDownloadSwedish:
    @pytest.fixture
    def fetch_set(self, server, tmp_path):
        server.files = {}
        md5 = {}
        for name in ("Set1", "Set2"):
            text = f"{name}.jpg:\n".encode()
            buffer = io.BytesIO()
            write_zip(
                buffer, [(f"{name}.jpg", os.urandom(300_000))], zipfile.ZIP_STORED
            )
            server.files[f"/{name}/annotations.txt"] = text
            server.files[f"/{name}/{name}Part0.zip"] = buffer.getvalue()
            md5[name] = md5_of(text)
        self.code = (
            "from attention_sampling.datasets.speed_limits import download_swedish\n"
            f"download_swedish({str(tmp_path)!r}, {server.url!r}, False, {md5!r})"
        )
        return lambda: download_swedish(tmp_path, f"{server.url}/", False, md5)

    def check(self, tmp_path):
        found = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert sorted(str(path.relative_to(tmp_path)) for path in found) == [
            "Set1/Set1Part0/Set1.jpg",
            "Set1/annotations.txt",
            "Set2/Set2Part0/Set2.jpg",
            "Set2/annotations.txt",
        ]

    def test_fetches_once(self, server, fetch_set, tmp_path):
        fetch_set()
        self.check(tmp_path)
        assert len(server.requests) == 4
        fetch_set()
        assert len(server.requests) == 4

    def test_completes_after_a_kill_in_an_archive(self, server, fetch_set, tmp_path):
        end = threading.Event()
        whole = len(server.files["/Set1/annotations.txt"])
        server.drops = [(whole, nothing), (200_000, lambda: end.wait(15))]
        part = tmp_path / "Set1" / "Set1Part0.zip.part"
        run_and_kill(self.code, lambda: part.exists() and part.stat().st_size > 100_000)
        end.set()
        fetch_set()
        self.check(tmp_path)
        paths = [path for path, _ in server.requests]
        assert paths.count("/Set1/annotations.txt") == 1
        assert server.requests[2][1].startswith("bytes=1")

    def test_completes_after_a_kill_in_an_extraction(self, server, fetch_set, tmp_path):
        fetch_set()
        images = tmp_path / "Set2" / "Set2Part0"
        images.rename(images.with_name(".Set2Part0.extracting"))
        archive = images.with_suffix(".zip")
        archive.write_bytes(server.files["/Set2/Set2Part0.zip"])
        fetch_set()
        self.check(tmp_path)
        assert len(server.requests) == 4

    def test_removes_a_broken_archive(self, server, fetch_set, tmp_path):
        good = server.files["/Set1/Set1Part0.zip"]
        server.files["/Set1/Set1Part0.zip"] = good[:-500]
        with pytest.raises(ValueError, match="archive is broken"):
            fetch_set()
        server.files["/Set1/Set1Part0.zip"] = good
        fetch_set()
        self.check(tmp_path)

    def test_checks_the_annotations(self, server, fetch_set, tmp_path):
        server.files["/Set2/annotations.txt"] = b"something else"
        with pytest.raises(DownloadError, match=r"wrong md5.*Set2/annotations\.txt"):
            fetch_set()
        assert not (tmp_path / "Set2" / "annotations.txt").exists()
