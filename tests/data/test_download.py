"""Downloads from a server of the test's own, on this machine."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from vitscratch.data.download import download

DATA = bytes(range(256)) * 41


class Server(BaseHTTPRequestHandler):
    """Serves DATA; `/broken` ends after 1,000 bytes, `/whole` knows no ranges, `/absent` is not there."""

    asked: list[str | None]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.path == "/absent":
            self.send_error(404)
            return
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.path != "/whole" else 0
        if first >= len(DATA):
            self.send_error(416)
            return
        body = DATA[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:1000] if self.path == "/broken" else body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    found = HTTPServer(("127.0.0.1", 0), Server)
    found.asked = []
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def address(server: HTTPServer, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def test_a_download_goes_on_where_it_broke_off(server: HTTPServer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(OSError, match="broke off after 1,000 of 10,496 bytes"):
        download(address(server, "/broken"), path)
    assert path.read_bytes() == DATA[:1000]
    for _ in range(2):  # the second time it is complete
        download(address(server, "/"), path)
        assert path.read_bytes() == DATA
    assert server.asked == [None, "bytes=1000-", "bytes=10496-"]


def test_a_server_that_knows_no_ranges_sends_the_whole_file(server: HTTPServer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 70)
    download(address(server, "/whole"), path)
    assert path.read_bytes() == DATA


def test_what_is_not_there_is_an_error(server: HTTPServer, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="404"):
        download(address(server, "/absent"), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
