"""``GET /``: the page for people, JSON for programs; the page's files and the samples.

There is no build step: browsers run the files in ``files/``. Their URLs contain a digest of all of them, so
that they can be cached as immutable and two releases never mix.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from flask import Blueprint, Response, request
from msgspec import Struct
from PIL import Image

from app.settings import ROOT
from app.web.answers import write_json
from app.web.input.options import ModelOptions, read_options
from app.web.native.about import describe
from app.web.static import IMMUTABLE, REVALIDATE, read_file, send_file, send_page

FOLDER = Path(__file__).parent / "files"
SAMPLES = ROOT / "samples"
DIGEST_PLACE = b"page/files/"  # replaced in index.html by the URL with the digest
POLICY = {
    "script-src": "'self'",
    "style-src": "'self'",
    "font-src": "'self'",
    "img-src": "'self' blob:",  # the images that were chosen
    "connect-src": "'self'",
}

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


def read_samples(folder: Path) -> list[Sample]:
    """Return the samples in the order of the folder's ``labels.csv``; none if the file is missing."""
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


FILES = {path.name: path for path in sorted(FOLDER.iterdir())}
CONTENTS = [(name, read_file(path)) for name, path in FILES.items()]
DIGEST = hashlib.sha256(repr(CONTENTS).encode()).hexdigest()[:12]
PAGE = read_file(FILES.pop("index.html")).replace(DIGEST_PLACE, f"page/{DIGEST}/".encode())
SAMPLE_LIST = read_samples(SAMPLES)
SAMPLE_FILES = {sample.name: SAMPLES / sample.name for sample in SAMPLE_LIST}


@blueprint.get("/")
def index() -> Response:
    """Returns model, decision rule, limits and routes as JSON, or the web page if `Accept` prefers HTML."""
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        response = send_page(PAGE, POLICY)
        response.headers["Referrer-Policy"] = "no-referrer"
    else:
        response = write_json(describe(read_options(ModelOptions, []).target()))
    response.headers["Vary"] = "Accept"
    return response


@blueprint.get("/page/<digest>/<name>")
def file(digest: str, name: str) -> Response:
    """Return a file of the page; immutable only under the digest of this release."""
    return send_file(FILES, name, IMMUTABLE if digest == DIGEST else REVALIDATE)


@blueprint.get("/samples")
def list_samples() -> Response:
    """Lists the sample images with their labels."""
    return write_json(Samples(SAMPLE_LIST))


@blueprint.get("/samples/<name>")
def sample(name: str) -> Response:
    """Returns the file of a sample image."""
    return send_file(SAMPLE_FILES, name, REVALIDATE)
