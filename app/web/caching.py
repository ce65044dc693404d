"""Answers that a client may keep: whether it has them already is asked by ETag alone.

Dates and ranges are not read: nothing here has a date, and Werkzeug fails on one far enough away.
"""

from __future__ import annotations

import hashlib
from functools import cache

from flask import Response, request

ASKED = ("REQUEST_METHOD", "HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")


@cache
def find_etag(content: bytes) -> str:
    """Return what tells a file from any other; found once."""
    return hashlib.sha256(content).hexdigest()[:16]


def send_file(content: bytes, kind: str, keep: str) -> Response:
    """Answer a file, or 304 where the client has it already.

    Args:
        content: the file; one object for as long as the process lives.
        kind: its type.
        keep: what ``Cache-Control`` says.
    """
    response = Response(content, content_type=kind)
    response.headers["Cache-Control"] = keep
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.set_etag(find_etag(content))
    response.make_conditional({name: request.environ.get(name) for name in ASKED})
    return response
