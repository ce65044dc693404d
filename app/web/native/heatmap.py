"""``POST /predict/heatmap``: the Grad-CAM heat map of one label, drawn over the image or as numbers."""

from __future__ import annotations

import time
from base64 import b64encode
from typing import BinaryIO, cast

from flask import Blueprint, Response, g, request

from app.errors import MalformedRequest, NotAcceptable, ServingError
from app.logs import request_id
from app.processing.heatmap import Drawing, Style
from app.serving.prediction import HeatMapRequest, Prediction
from app.web.access import (
    encode_header,
    longest_stages,
    set_model_headers,
    set_server_timing,
    to_ms,
)
from app.web.answers import (
    DIGITS,
    DrawingTimings,
    DrawnHeatMap,
    ModelName,
    as_rows,
    write_json,
)
from app.web.context import model_server
from app.web.input.client import watch_client
from app.web.input.options import HeatMapOptions
from app.web.input.uploads import Upload, read_request
from app.web.native.predict import find_class

PNG, JSON = "image/png", "application/json"

blueprint = Blueprint("heatmap", __name__)


@blueprint.post("/predict/heatmap")
def heatmap() -> Response:
    """Answer the drawing as a PNG, or in JSON with its numbers, by the Accept header."""
    mimetype = choose_type()
    servable, uploads, options = read_request(HeatMapOptions)
    label = options.label
    classes = (find_class(servable.model, "label", label),) if label else ()
    style = Style(options.opacity, enlarged=mimetype == JSON and options.size == "picture")
    heat_map = HeatMapRequest(classes, top_k=0 if classes else 1, style=style)
    image = open_one(uploads)
    (prediction,) = model_server().predict(
        servable, [image], watch_client(), heat_map, options.upright
    )
    ((index, _),) = prediction.heat_maps.items()
    stages = {
        "upload": g.upload_s,
        **longest_stages([prediction]),
        "draw": drawing_of(prediction).took_s,
    }
    total_ms = to_ms(time.monotonic() - g.started + g.upload_s)
    if mimetype == JSON:
        times = {stage: to_ms(taken_s) for stage, taken_s in stages.items()}
        response = write_json(describe(prediction, index, DrawingTimings(**times, total=total_ms)))
    else:
        response = Response(drawing_of(prediction).png, mimetype=PNG)
    label = prediction.model.class_names[index]
    response.headers["X-Heatmap-Label"] = encode_header(label)
    response.headers["Vary"] = "Accept"
    set_server_timing(response, stages, total_ms)
    g.log_fields["label"] = label
    return set_model_headers(response, prediction.model, [prediction])


def choose_type() -> str:
    """Return the media type by the Accept header, by default a PNG. Raises NotAcceptable."""
    accepted = request.accept_mimetypes
    wanted = accepted.best_match([PNG, JSON]) if accepted else PNG
    if wanted is None:
        raise NotAcceptable(f"Accept is {accepted}; there are {PNG} and {JSON}")
    return wanted


def open_one(uploads: list[Upload]) -> BinaryIO:
    """Return the only image of the request.

    Raises:
        MalformedRequest: there are several.
        ServingError: why there is none.
    """
    if len(uploads) > 1:
        raise MalformedRequest(
            f"the request has {len(uploads)} pictures; a heat map is drawn of one, POST /predict takes many"
        )
    file = uploads[0].file
    if isinstance(file, ServingError):
        raise file
    return file


def describe(prediction: Prediction, index: int, timings: DrawingTimings) -> DrawnHeatMap:
    """Return the answer in JSON."""
    model, drawing = prediction.model, drawing_of(prediction)
    return DrawnHeatMap(
        model=ModelName(model.name, model.version),
        label=model.class_names[index],
        score=round(float(prediction.scores()[index]), DIGITS),
        logit=round(float(prediction.logits[index]), DIGITS),
        peak=round(prediction.heat_maps[index].peak, DIGITS),
        map=as_rows(drawing.numbers),
        overlay=b64encode(drawing.png).decode(),
        timings_ms=timings,
        request_id=request_id.get(),
    )


def drawing_of(prediction: Prediction) -> Drawing:
    """Return the requested drawing."""
    return cast(Drawing, prediction.drawing)
