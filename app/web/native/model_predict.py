"""``POST /model_predict``: the labels of one image in a multipart form."""

from __future__ import annotations

import io
from typing import BinaryIO

from flask import Blueprint, Response, jsonify

from app.errors import MissingImage
from app.serving.routing import Target
from app.web.access import set_model_headers
from app.web.answers import Labels
from app.web.context import model_server
from app.web.input.client import find_model, read_cache_use, routing_key, watch_client
from app.web.input.forms import parse_form, read_form_body
from app.web.input.uploads import FIELD, FIELD_IS_TEXT
from app.web.quoting import list_names

blueprint = Blueprint("model_predict", __name__)


@blueprint.post("/model_predict")
def model_predict() -> Response:
    """Answer ``{"result": [labels by rising output], "status": 1}``, or "No Categories" and status 0."""
    servable = find_model(Target(sticky=routing_key()))
    servable.check_capacity()
    (prediction,) = model_server().predict(
        servable, [read_image_field()], watch_client(), cache=read_cache_use()
    )
    labels = prediction.labels()
    answer = Labels(result=labels or "No Categories", status=1 if labels else 0)
    return set_model_headers(jsonify(answer), prediction.model, [prediction])


def read_image_field() -> BinaryIO:
    """Return the file of the form's field ``image``.

    Raises:
        ServingError: the errors of ``read_form_body`` and ``parse_form``.
        MissingImage: the form has no such file.
    """
    parts = parse_form(read_form_body())
    named = [part for part in parts if part.name == FIELD]
    file = next((part for part in named if part.is_file), None)
    if file is not None:
        return io.BytesIO(file.data)
    if named:
        raise MissingImage(FIELD_IS_TEXT)
    names = list_names(part.name for part in parts) or "no field at all"
    raise MissingImage(f"the form has no file field {FIELD!r}; it has {names}")
