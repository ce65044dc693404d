"""``GET /samples``: the sample images of a model, or those that come with the server."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from flask import Blueprint, Response
from msgspec import Struct
from werkzeug.exceptions import NotFound

from app.errors import BundleError
from app.models.samples import check_sample, find_folder, list_samples, open_sample
from app.serving.handoff import call_in_thread
from app.serving.routing import Target
from app.settings import ROOT
from app.web.answers import write_json
from app.web.context import model_server
from app.web.input.options import SampleOptions, read_options
from app.web.static import make_revalidated, stream_file

SAMPLES = ROOT / "samples"

blueprint = Blueprint("samples", __name__)


class SampleImage(Struct):
    """Sample image.

    Attributes:
        name: File name.
        url: URL relative to ``/``.
        labels: Labels of the image; empty if they are unknown.
        width: Width in pixels, upright by the EXIF orientation.
        height: Height in pixels, upright by the EXIF orientation.
    """

    name: str
    url: str
    labels: list[str]
    width: int
    height: int


class Samples(Struct):
    """Response of ``GET /samples``.

    Attributes:
        model: Model that the samples belong to; null: they come with the server, and may not suit the model.
        samples: The samples.
    """

    model: str | None
    samples: list[SampleImage]


@blueprint.get("/samples")
def index() -> Response:
    """Lists the sample images of a model; those that come with the server if it has none, or none is named."""
    model = read_options(SampleOptions, []).model
    if model:
        own = describe_samples(samples_folder(model), f"?model={quote(model, safe='')}")
        if own:
            return make_revalidated(write_json(Samples(model, own)))
    return make_revalidated(write_json(Samples(None, describe_samples(SAMPLES))))


@blueprint.get("/samples/<name>")
def file(name: str) -> Response:
    """Returns the file of a sample image."""
    folder = samples_folder(read_options(SampleOptions, []).model)
    try:
        media_type, status = call_in_thread(lambda: check_sample(folder, name))
    except (FileNotFoundError, BundleError):
        raise NotFound from None
    return stream_file(lambda: open_sample(folder, name), status, media_type)


def samples_folder(model: str) -> Path:
    """Return the folder of a model's samples; without a name that of the server's. Raises UnknownModel, NotReady."""
    return find_folder(model_server().find(Target(model)).model.bundle) if model else SAMPLES


def describe_samples(folder: Path, query: str = "") -> list[SampleImage]:
    """Return the samples in a folder; their URLs end with ``query``."""
    return [
        SampleImage(each.name, f"samples/{quote(each.name)}{query}", each.labels, *each.size)
        for each in call_in_thread(lambda: list_samples(folder))
    ]
