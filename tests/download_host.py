"""Play torchvision's download host: a real HTTP server with files, byte ranges and faults."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class DownloadHost(ThreadingHTTPServer):
    """A server of files.

    Attributes:
        files: path → content.
        ranges: the ``Range`` header of each request, "" without one.
        cut_after: bytes after which a connection is cut, for each of the next connections.
        statuses: the statuses of the next answers, before any file is sent.
        has_ranges: whether it answers with a part if one is asked for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.ranges: list[str] = []
        self.cut_after: list[int] = []
        self.statuses: list[int] = []
        self.has_ranges = True

    @property
    def url(self) -> str:
        """The URL of its folder."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Answers GET."""

    server: DownloadHost

    def do_GET(self) -> None:
        """Send a file, a part of it, or an error."""
        host, wanted = self.server, self.headers.get("Range", "")
        host.ranges.append(wanted)
        content = host.files.get(self.path.lstrip("/"))
        if host.statuses or content is None:
            self.send_error(host.statuses.pop(0) if host.statuses else 404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and host.has_ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = host.cut_after.pop(0) if host.cut_after else len(content)
        self.wfile.write(content[start : start + cut])

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def serve_files() -> Iterator[DownloadHost]:
    """Yield a running host."""
    with DownloadHost() as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield host
        finally:
            host.shutdown()
            thread.join()
