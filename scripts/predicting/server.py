"""HTTP client of a server: connections, options, retries."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import threading
import time
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from .errors import Stop, describe
from .rows import Row, make_row

TIMEOUT_S = 60  # nginx gives up after 45
RETRIED = {429, 502, 503, 504}
IMAGE_ERRORS = {400, 408, 413, 415, 429, 500, 504}  # any other error would hit every image
KEY = "SERVING_API_KEY"  # not an argument: every user of the machine can read those
BACKOFF_S, LONGEST_WAIT_S = 0.5, 30  # eight retries wait 90 seconds in total


class Server:
    """Client of a server, with a connection per thread and retries.

    Args:
        url: the server's base URL.
        query: options of every request.
        retries: maximum per image.

    The API key, if the server needs one, is the environment variable ``SERVING_API_KEY``.

    Attributes:
        trouble: why an image is being retried, or "".

    Raises:
        Stop: the URL is invalid.
    """

    def __init__(self, url: str, query: dict[str, str], retries: int) -> None:
        try:
            parts = urlsplit(url)
            self._address = (parts.hostname or "", parts.port)
        except ValueError as error:
            raise Stop(f"--url {url}: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Stop(f"--url {url}: expected an address such as http://localhost:8999")
        https = parts.scheme == "https"
        self._connect = http.client.HTTPSConnection if https else http.client.HTTPConnection
        self._url, self._root = url, parts.path.rstrip("/")
        self._predict = f"/predict?{urlencode(query)}" if query else "/predict"
        selected = [(name, text) for name, text in query.items() if name in ("model", "version")]
        self._about = f"/?{urlencode(selected)}"
        self._retries = retries
        key = os.environ.get(KEY, "")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._local = threading.local()
        self.trouble = ""

    def check(self) -> None:
        """Check that a server answers, ready or not. Raises Stop."""
        try:
            self._exchange("GET", "/readyz")
        except (OSError, http.client.HTTPException) as error:
            raise Stop(
                f"no server answers at {self._url}: {describe(error)}."
                " scripts/serve starts one; --url names another"
            ) from error

    def list_classes(self) -> list[str]:
        """Return the class names of the model that the options select. Raises Stop."""
        status, body = self._ask("GET", self._about)
        if status != 200:
            raise Stop(f"{self._url} answers {': '.join(read_problem(status, body))}")
        try:
            return [str(name) for name in json.loads(body)["classes"]]
        except (ValueError, LookupError, TypeError) as error:
            raise self._refuse(body) from error

    def predict(self, file: str) -> Row:
        """Return the row of an image, with its answer or its error. Raises Stop."""
        try:
            data = Path(file).read_bytes()
        except OSError as error:
            return Row(file, "unreadable_file", describe(error))
        status, body = self._ask("POST", self._predict, data)
        if status in IMAGE_ERRORS:
            return Row(file, *read_problem(status, body))
        if status != 200:
            raise Stop(f"{self._url} answers {': '.join(read_problem(status, body))}")
        try:
            return make_row(file, json.loads(body))
        except (ValueError, LookupError, TypeError) as error:
            raise self._refuse(body) from error

    def _refuse(self, body: bytes) -> Stop:
        """Return the error for an answer that is not this server's."""
        return Stop(f"{self._url} is another kind of server; it answers {body[:80]!r}")

    def _ask(self, method: str, path: str, data: bytes | None = None) -> tuple[int, bytes]:
        """Send a request and retry while the server is busy or gone. Raises Stop."""
        for attempt in itertools.count():
            wait_s = BACKOFF_S * 2**attempt
            last = attempt >= self._retries
            try:
                status, headers, body = self._exchange(method, path, data)
            except (OSError, http.client.HTTPException) as error:
                self._local.connection.close()  # the next request opens it again
                self.trouble = describe(error)
                if last:
                    raise Stop(
                        f"{self._url} answers no more: {self.trouble}."
                        " When it does, the same command goes on"
                    ) from error
            else:
                if status not in RETRIED or last:
                    self.trouble = ""
                    return status, body
                self.trouble = f"{status} {read_problem(status, body)[0]}"
                retry_after = headers.get("Retry-After", "")
                wait_s = max(wait_s, int(retry_after) if retry_after.isdecimal() else 0)
            # Never earlier than Retry-After; with jitter.
            time.sleep(min(wait_s, LONGEST_WAIT_S) * random.uniform(1, 1.5))  # noqa: S311 (not secret)
        raise AssertionError("count() has no end")

    def _exchange(
        self, method: str, path: str, data: bytes | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Return status, headers and body of a response. Raises OSError or HTTPException."""
        if not hasattr(self._local, "connection"):
            self._local.connection = self._connect(*self._address, timeout=TIMEOUT_S)
        connection = self._local.connection
        content = {} if data is None else {"Content-Type": "application/octet-stream"}
        headers = self._headers | content
        # A server that rejects a large body answers and closes the connection before all of it is sent.
        with contextlib.suppress(BrokenPipeError):
            connection.request(method, self._root + path, data, headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def read_problem(status: int, body: bytes) -> tuple[str, str]:
    """Return an error's code and detail, or status and body of a response in another format."""
    try:
        problem = json.loads(body)
        return problem["code"], problem["detail"]
    except (ValueError, LookupError, TypeError):
        return f"http_{status}", body[:200].decode("utf-8", "replace").strip()
