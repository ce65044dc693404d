"""Static content and metadata, sent with an ETag, and with 304 if the client has it.

Files of the program are held in memory.

Only ETags are compared, not dates and ranges: the content has no date, and Werkzeug raises OverflowError for a
date far in the future. Flask's ``send_from_directory`` would open the file for every request, on the hub.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

from flask import Response, request
from werkzeug.exceptions import NotFound

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
# Values of Cache-Control.
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"  # may be stored, but not used without asking
PIECE_BYTES = 64 * 1024  # of a file that is sent in pieces: 20 µs of the hub each
CONDITION = ("REQUEST_METHOD", "HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")


@cache
def read_file(path: Path) -> bytes:
    """Return the content of a file; read once per process."""
    return path.read_bytes()


@cache
def find_etag(content: bytes) -> str:
    """Return the ETag of a content; computed once per process."""
    return hashlib.sha256(content).hexdigest()[:16]


def send_file(files: Mapping[str, Path], name: str, cache_control: str) -> Response:
    """Return the response for one of ``files``. Raises NotFound."""
    if name not in files:
        raise NotFound
    return send_content(read_file(files[name]), files[name].suffix, cache_control)


def send_page(html: bytes, policy: Mapping[str, str]) -> Response:
    """Return the response for an HTML page.

    Args:
        html: the page; one object for the life of the process.
        policy: directives of its Content-Security-Policy; everything else is blocked.
    """
    response = send_content(html, ".html", REVALIDATE)
    blocked = dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'")
    directives = {"default-src": "'none'", **policy, **blocked}
    response.headers["Content-Security-Policy"] = "; ".join(map(" ".join, directives.items()))
    return response


def send_content(content: bytes, suffix: str, cache_control: str) -> Response:
    """Return the response for a content, or 304 if the request's If-None-Match names its ETag.

    Args:
        content: one object for the life of the process.
        suffix: the file name suffix, which decides the content type.
        cache_control: the value of Cache-Control.
    """
    response = Response(content, content_type=CONTENT_TYPES[suffix])
    return make_conditional(response, find_etag(content), cache_control)


def stream_file(
    open_file: Callable[[], BinaryIO], status: os.stat_result, media_type: str
) -> Response:
    """Return the response for a file that may be large and may change: it is read piece by piece, and not kept.

    Args:
        open_file: opens the file, once its first byte is needed.
        status: of the file; its ETag is made of size and mtime.
        media_type: the content type.
    """

    def read_pieces() -> Iterator[bytes]:
        with open_file() as file:
            yield from iter(partial(file.read, PIECE_BYTES), b"")

    response = Response(read_pieces(), content_type=media_type)
    response.content_length = status.st_size
    return make_conditional(response, f"{status.st_mtime_ns:x}-{status.st_size:x}", REVALIDATE)


def make_revalidated(response: Response) -> Response:
    """Let clients keep a response to GET, but ask each time whether it has changed; its ETag is made of its body."""
    etag = hashlib.blake2b(response.get_data(), digest_size=8).hexdigest()
    return make_conditional(response, etag, REVALIDATE)


def make_conditional(response: Response, etag: str, cache_control: str) -> Response:
    """Set the headers of content that has an ETag; answer 304 if the request's If-None-Match names the ETag."""
    response.headers["Cache-Control"] = cache_control
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.set_etag(etag)
    response.make_conditional({name: request.environ.get(name) for name in CONDITION})
    return response
