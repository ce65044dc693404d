"""``GET /``: the page for people, JSON for programs; the page's files.

There is no build step: browsers run the files in ``files/``. Their URLs contain a digest of all of them, so
that they can be cached as immutable and two releases never mix.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from flask import Blueprint, Response, request

from app.web import keys
from app.web.answers import write_json
from app.web.context import settings
from app.web.input.options import ModelOptions, read_options
from app.web.native.about import describe
from app.web.static import (
    IMMUTABLE,
    REVALIDATE,
    make_revalidated,
    read_file,
    send_file,
    send_page,
)

FOLDER = Path(__file__).parent / "files"
DIGEST_PLACE = b"page/files/"  # replaced in index.html by the URL with the digest
MODULES_PLACE = b"<!-- modules -->"  # replaced by links that load all modules at once
IMPORT = re.compile(rb' from "\./([\w-]+\.js)"')
POLICY = {
    "script-src": "'self'",
    "style-src": "'self'",
    "font-src": "'self'",
    "img-src": "'self' blob:",  # the images that were chosen
    "connect-src": "'self'",
    "manifest-src": "'self'",
}

blueprint = Blueprint("page", __name__)


def write_page(index: bytes) -> bytes:
    """Return the page: modules are loaded at once, not one import after the other; URLs have the digest."""
    modules = {name for _, content in CONTENTS for name in IMPORT.findall(content)}
    links = [b'<link rel="modulepreload" href="page/files/%b">' % name for name in sorted(modules)]
    return index.replace(MODULES_PLACE, b"\n  ".join(links)).replace(
        DIGEST_PLACE, f"page/{DIGEST}/".encode()
    )


FILES = {path.name: path for path in sorted(FOLDER.iterdir())}
CONTENTS = [(name, read_file(path)) for name, path in FILES.items()]
DIGEST = hashlib.sha256(repr(CONTENTS).encode()).hexdigest()[:12]
PAGE = write_page(read_file(FILES.pop("index.html")))


def page_policy(hosts: Sequence[str]) -> dict[str, str]:
    """Return the page's policy; browsers preview images of ``hosts``, which the server fetches by URL."""
    return POLICY | {"img-src": " ".join((POLICY["img-src"], *hosts))}


@blueprint.get("/")
def index() -> Response:
    """Returns model, decision rule, limits and routes as JSON, or the web page if `Accept` prefers HTML."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        response = send_page(PAGE, page_policy(settings().url_hosts))
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Permissions-Policy"] = "camera=(self), geolocation=(), microphone=()"
    else:
        keys.require_json()
        response = make_revalidated(write_json(describe(read_options(ModelOptions, []).target())))
    response.headers["Vary"] = "Accept"
    return response


@blueprint.get("/page/<digest>/<name>")
def file(digest: str, name: str) -> Response:
    """Return a file of the page; immutable only under the digest of this release."""
    return send_file(FILES, name, IMMUTABLE if digest == DIGEST else REVALIDATE)
