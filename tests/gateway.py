"""Run nginx as scripts/run-nginx does, in front of an application that answers what it was sent."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

from tests.helpers import ROOT, wait_until
from tests.server import free_port


class Echo(BaseHTTPRequestHandler):
    """A handler that answers the headers of its request as JSON."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_HEAD = do_OPTIONS = do_TRACE = answer

    def address_string(self) -> str:
        """Return a name: a Unix socket's client has no address."""
        return "nginx"

    def log_message(self, *_) -> None:
        """Log nothing."""


class Application(ThreadingUnixStreamServer):
    """The server behind nginx."""

    daemon_threads = True


@dataclass
class Answer:
    """What a client got.

    Attributes:
        status: the status.
        headers: the headers.
        body: the JSON: an error, or the headers that the application was sent; empty without a body.
    """

    status: int
    headers: http.client.HTTPMessage
    body: dict


class Gateway:
    """nginx with the project's configuration, on a port of its own.

    Attributes:
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        """Start it with some settings, named without their prefix."""
        self.port = free_port()
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._application = Application(str(folder / "gunicorn.sock"), Echo)
        threading.Thread(target=self._application.serve_forever, daemon=True).start()
        rows = {"run": str(folder), "port": str(self.port), "host": "127.0.0.1"} | settings
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SERVING_")}
        kept["PATH"] = f"{Path(sys.executable).parent}:{kept['PATH']}:/usr/sbin"
        self.environment = kept | {f"SERVING_{name.upper()}": text for name, text in rows.items()}
        with (folder / "nginx.log").open("wb") as log:
            self.process = subprocess.Popen(
                [ROOT / "scripts" / "run-nginx"],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self.is_up, 60, "nginx listens")

    def is_up(self) -> bool:
        assert self.process.poll() is None, (self._folder / "nginx.log").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def ask(
        self,
        path: str = "/",
        method: str = "GET",
        source: str = "127.0.0.1",
        body: bytes | None = None,
        **headers: str,
    ) -> Answer:
        """Send a request from a loopback address; underscores in names of headers are dashes."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=30, source_address=(source, 0)
        )
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        return Answer(response.status, response.headers, json.loads(text) if text else {})

    def close(self) -> None:
        """Stop everything."""
        self.process.terminate()
        self.process.wait(timeout=30)
        self._application.shutdown()
        self._application.server_close()
