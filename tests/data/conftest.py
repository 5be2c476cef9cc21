import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no COURSE_DATA."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("COURSE_CACHE", str(folder))
    monkeypatch.delenv("COURSE_DATA", raising=False)
    return folder


class Handler(SimpleHTTPRequestHandler):
    """A server of a folder; below /cut/ it hangs up half-way, below /slow/ it dawdles."""

    def log_message(self, *words):
        pass

    def do_GET(self):
        kind, _, rest = self.path.lstrip("/").partition("/")
        if kind not in ("cut", "slow"):
            return super().do_GET()
        data = Path(self.directory, rest).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        if kind == "slow":
            self.wfile.flush()
            self.server.half_sent.set()
            self.server.go_on.wait(30)
        self.close_connection = True


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of tmp_path/files on this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    serving = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=tmp_path / "files")
    )
    serving.half_sent, serving.go_on = threading.Event(), threading.Event()
    serving.url = f"http://127.0.0.1:{serving.server_port}/"
    thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
    thread.start()
    yield serving
    serving.go_on.set()
    serving.shutdown()
    thread.join()
    serving.server_close()
