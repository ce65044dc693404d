"""Static content: held in memory, sent with an ETag, and with 304 if the client has it.

Only ETags are compared, not dates and ranges: the content has no date, and Werkzeug raises OverflowError for a
date far in the future. Flask's ``send_from_directory`` would open the file for every request, on the hub.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

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
    ".woff2": "font/woff2",
}
# Values of Cache-Control.
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "no-cache"  # may be stored, but not used without asking
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
    response.headers["Cache-Control"] = cache_control
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.set_etag(find_etag(content))
    response.make_conditional({name: request.environ.get(name) for name in CONDITION})
    return response
