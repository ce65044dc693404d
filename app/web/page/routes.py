"""``GET /``: the page for people, or what is served as JSON for programs; the page's files, and the samples.

Nothing of it comes from elsewhere, and nothing is built: the browser runs what lies in ``page/``. Its
files are read once. Their addresses hold a digest of them all, so that a browser may keep them for ever
and never mixes two releases.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path

from flask import Blueprint, Response, request
from msgspec import Struct
from PIL import Image
from werkzeug.exceptions import NotFound

from app.settings import ROOT
from app.web.answers import write_json
from app.web.caching import send_file
from app.web.input.options import ModelOptions, read_options
from app.web.native.about import describe

FOLDER = Path(__file__).parent / "files"
SAMPLES = ROOT / "samples"
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
FOR_EVER = "public, max-age=31536000, immutable"
ASK_FIRST = "no-cache"  # keep it, but ask whether it is still the same
UNNAMED = b"page/files/"  # what index.html has where the digest belongs
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self' blob:",  # the pictures that were chosen
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

blueprint = Blueprint("page", __name__)


class Sample(Struct):
    """Sample image.

    Attributes:
        name: File name.
        url: URL relative to ``/``.
        labels: Labels of the drawn objects.
        width: Width in pixels.
        height: Height in pixels.
    """

    name: str
    url: str
    labels: list[str]
    width: int
    height: int


class Samples(Struct):
    """Response of ``GET /samples``."""

    samples: list[Sample]


def read_files(paths: Iterable[Path]) -> dict[str, bytes]:
    """Return files by their names."""
    return {path.name: path.read_bytes() for path in sorted(paths)}


def read_samples(folder: Path) -> list[Sample]:
    """Return the samples of a folder in the order of its ``labels.csv``; none where there is none."""
    table = folder / "labels.csv"
    if not table.exists():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    samples = []
    for row in rows:
        with Image.open(folder / row["image"]) as image:
            width, height = image.size
        url = f"samples/{row['image']}"
        samples.append(Sample(row["image"], url, row["labels"].split(" | "), width, height))
    return samples


FILES = read_files(FOLDER.iterdir())
DIGEST = hashlib.sha256(repr(sorted(FILES.items())).encode()).hexdigest()[:12]
PAGE = FILES.pop("index.html").replace(UNNAMED, f"page/{DIGEST}/".encode())
SAMPLE_LIST = read_samples(SAMPLES)
SAMPLE_FILES = read_files(SAMPLES / sample.name for sample in SAMPLE_LIST)


@blueprint.get("/")
def index() -> Response:
    """Returns model, decision rule, limits and routes as JSON, or the web page if `Accept` prefers HTML."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        response = send(PAGE, ".html", ASK_FIRST)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
    else:
        response = write_json(describe(read_options(ModelOptions, []).target()))
    response.headers["Vary"] = "Accept"
    return response


@blueprint.get("/page/<digest>/<name>")
def file(digest: str, name: str) -> Response:
    """One of the page's files; another release's digest gets this one's, but not to keep."""
    return send(find(FILES, name), name, FOR_EVER if digest == DIGEST else ASK_FIRST)


@blueprint.get("/samples")
def list_samples() -> Response:
    """Lists the sample images with their labels."""
    return write_json(Samples(SAMPLE_LIST))


@blueprint.get("/samples/<name>")
def sample(name: str) -> Response:
    """Returns the file of a sample image."""
    return send(find(SAMPLE_FILES, name), name, ASK_FIRST)


def find(files: dict[str, bytes], name: str) -> bytes:
    """Return a file's bytes. Raises NotFound."""
    if name not in files:
        raise NotFound
    return files[name]


def send(content: bytes, name: str, keep: str) -> Response:
    """Answer a file as ``send_file``; its name's ending tells its type."""
    return send_file(content, KINDS[name[name.rindex(".") :]], keep)
