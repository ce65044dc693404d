"""``/openapi.json``: every route for programs; ``/docs``: the same to read and to try, in Swagger UI.

Swagger UI comes out of the package flask-swagger-ui, of which nothing but these files is used. Nothing
comes from another host.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from flask import Blueprint, Response, current_app
from msgspec import json
from werkzeug.exceptions import NotFound

from app.web.caching import send_file
from app.web.openapi.document import build_document

FOLDER = Path(__file__).parent / "files"
# Found without being imported.
SWAGGER_UI = Path(getattr(find_spec("flask_swagger_ui"), "origin", "")).parent / "dist"
FILES = {
    "favicon-32x32.png": (SWAGGER_UI, "image/png"),
    "start.js": (FOLDER, "text/javascript"),
    "swagger-ui-bundle.js": (SWAGGER_UI, "text/javascript"),
    "swagger-ui.css": (SWAGGER_UI, "text/css"),
}
PAGE = (FOLDER / "index.html").read_bytes()
ASK_FIRST = "no-cache"  # keep it, but ask whether it is still the same
KEEP_S = 3600  # a newer release brings other files under the same names
DOCUMENT = "openapi"  # among the application's extensions
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Swagger UI writes styles
        "img-src 'self' data: blob:",  # its icons; the pictures that are answered
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

blueprint = Blueprint("docs", __name__)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """Returns this OpenAPI 3.1 document."""
    return send_file(write_document(), "application/json", ASK_FIRST)


@blueprint.get("/docs")
def show() -> Response:
    """Shows this document in Swagger UI."""
    response = send_file(PAGE, "text/html; charset=utf-8", ASK_FIRST)
    response.headers["Content-Security-Policy"] = POLICY
    return response


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """One of the files that the page is made of."""
    if name not in FILES:
        raise NotFound
    return send_file(read_asset(name), FILES[name][1], f"public, max-age={KEEP_S}")


@cache
def read_asset(name: str) -> bytes:
    """Return one of these files; read once."""
    return (FILES[name][0] / name).read_bytes()


def write_document() -> bytes:
    """Return the document as JSON; it is built once, when it is asked for first."""
    if DOCUMENT not in current_app.extensions:
        current_app.extensions[DOCUMENT] = json.encode(build_document(current_app))
    document: bytes = current_app.extensions[DOCUMENT]
    return document
