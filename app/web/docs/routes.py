"""``/openapi.json``: the OpenAPI document; ``/docs``: Swagger UI, which shows it.

Swagger UI is served from the package flask-swagger-ui, of which only the files below are used.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from flask import Blueprint, Response, current_app
from msgspec import json

from app.web.openapi.document import build_document
from app.web.static import REVALIDATE, read_file, send_content, send_file, send_page

FOLDER = Path(__file__).parent / "files"
# Found without importing the package.
SWAGGER_UI = Path(getattr(find_spec("flask_swagger_ui"), "origin", "")).parent / "dist"
FILES = {
    "docs.css": FOLDER / "docs.css",
    "favicon-32x32.png": SWAGGER_UI / "favicon-32x32.png",
    "start.js": FOLDER / "start.js",
    "swagger-ui-bundle.js": SWAGGER_UI / "swagger-ui-bundle.js",
    "swagger-ui.css": SWAGGER_UI / "swagger-ui.css",
}
ONE_HOUR = "public, max-age=3600"  # another release has other files under the same names
DOCUMENT = "openapi"  # key among the application's extensions
POLICY = {
    "script-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",  # Swagger UI sets styles
    "img-src": "'self' data: blob:",  # its icons; images in responses
    "connect-src": "'self'",
}

blueprint = Blueprint("docs", __name__)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """Returns this OpenAPI 3.1 document."""
    return send_content(encode_document(), ".json", REVALIDATE)


@blueprint.get("/docs")
def show() -> Response:
    """Shows this document in Swagger UI."""
    return send_page(read_file(FOLDER / "index.html"), POLICY)


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """Return a file of Swagger UI."""
    return send_file(FILES, name, ONE_HOUR)


def encode_document() -> bytes:
    """Return the document as JSON; built at the first request, once per application."""
    if DOCUMENT not in current_app.extensions:
        current_app.extensions[DOCUMENT] = json.encode(build_document(current_app))
    document: bytes = current_app.extensions[DOCUMENT]
    return document
