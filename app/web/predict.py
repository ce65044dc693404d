"""``POST /model_predict``: one picture in a multipart form, its labels back."""

from __future__ import annotations

from typing import BinaryIO, cast

from flask import Blueprint, Response, g, jsonify, request

from app.errors import MissingImage, UnsupportedType
from app.web import model_server

FIELD = "image"
FORM = "multipart/form-data"

blueprint = Blueprint("predict", __name__)


@blueprint.post("/model_predict")
def model_predict() -> Response:
    """Answer ``{"result": [labels by rising output], "status": 1}``, or "No Categories" and status 0."""
    labels = model_server().classify(read_image_field()).labels()
    g.log_fields = {"labels": len(labels)}
    return jsonify(result=labels or "No Categories", status=int(bool(labels)))


def read_image_field() -> BinaryIO:
    """Return the uploaded file.

    Raises:
        UnsupportedType: the body is no multipart form.
        MissingImage: the form has no file under the name ``image``.
    """
    if request.mimetype != FORM:
        found = f"{request.mimetype!r}" if request.mimetype else "no content type"
        raise UnsupportedType(f"expected {FORM} with a file in the field {FIELD!r}, found {found}")
    upload = request.files.get(FIELD)
    if upload is not None:
        return cast(BinaryIO, upload.stream)
    if FIELD in request.form:
        raise MissingImage(
            f"the field {FIELD!r} holds text, not a file; curl sends one with -F {FIELD}=@picture.jpg"
        )
    names = ", ".join(sorted({*request.files, *request.form})) or "no field at all"
    raise MissingImage(f"the form has no file field {FIELD!r}; it has {names}")
