"""``POST /predict``: one picture or many, in any form; labels with scores, timings, and each picture's own error."""

from __future__ import annotations

import time
from dataclasses import replace
from difflib import get_close_matches
from functools import partial

from flask import Blueprint, Response, g

from app.decision import SCORE
from app.errors import InvalidOption, ServingError
from app.heatmap import write_numbers
from app.logs import request_id
from app.prediction import Prediction, Wish
from app.servable import Model
from app.web import model_server
from app.web.answers import (
    DIGITS,
    Answer,
    Fault,
    HeatMap,
    Label,
    ModelName,
    Picture,
    PictureTimings,
    RequestTimings,
    as_rows,
    write_json,
)
from app.web.bodies import abbreviate
from app.web.clients import watch_client
from app.web.options import PredictOptions
from app.web.pictures import Upload, read_request
from app.web.problems import answer_serving_error
from app.web.requests import longest_stages, sign, tell_times, to_ms

SHOWN = 10  # class names that an error lists

blueprint = Blueprint("predictions", __name__)


@blueprint.post("/predict")
def predict() -> Response:
    """Answer each picture by itself; where none has an answer, as the first one's error."""
    server = model_server()
    server.check_room()
    uploads, options = read_request(PredictOptions)
    files = [upload.file for upload in uploads if not isinstance(upload.file, ServingError)]
    wish = Wish(partial(choose_maps, options=options)) if options.heatmap else None
    outcomes = iter(server.classify_each(files, watch_client(), options.target(), wish))
    answers = [
        upload.file if isinstance(upload.file, ServingError) else next(outcomes)
        for upload in uploads
    ]
    pictures = [
        describe_picture(upload, answer, options)
        for upload, answer in zip(uploads, answers, strict=True)
    ]
    predictions = [answer for answer in answers if isinstance(answer, Prediction)]
    if not predictions:
        first = next(answer for answer in answers if isinstance(answer, ServingError))
        return answer_serving_error(first, images=pictures)
    return respond(pictures, predictions)


def respond(pictures: list[Picture], predictions: list[Prediction]) -> Response:
    """Put the answer together, and tell the times also where browsers and proxies look for them."""
    model = predictions[0].model
    timings = RequestTimings(to_ms(g.upload_s), to_ms(time.monotonic() - g.started + g.upload_s))
    answer = Answer(ModelName(model.name, model.version), pictures, timings, request_id.get())
    response = write_json(answer)
    tell_times(response, {"upload": g.upload_s} | longest_stages(predictions), timings.total)
    g.log_fields["labels"] = sum(len(picture.labels or ()) for picture in pictures)
    return sign(response, model, predictions)


def describe_picture(
    upload: Upload, answer: Prediction | ServingError, options: PredictOptions
) -> Picture:
    """Return one picture's part of the answer."""
    if isinstance(answer, ServingError):
        return Picture(upload.name, upload.bytes, error=describe_fault(answer))
    labels = describe_classes(answer)
    width, height = answer.size
    picture = Picture(
        upload.name,
        upload.bytes,
        width=width,
        height=height,
        labels=[labels[index] for index in choose(answer, options)],
        timings_ms=PictureTimings(
            to_ms(answer.decode_s), to_ms(answer.timing.queue_s), to_ms(answer.timing.forward_s)
        ),
        batch=answer.timing.batch,
    )
    if options.scores == "all":
        picture.scores = labels
    return picture


def describe_classes(prediction: Prediction) -> list[Label]:
    """Return every class in the model's order."""
    columns = zip(
        prediction.model.class_names,
        prediction.scores().tolist(),
        prediction.logits.tolist(),
        strict=True,
    )
    labels = [
        Label(name, round(score, DIGITS), round(logit, DIGITS)) for name, score, logit in columns
    ]
    for index, heat_map in prediction.heat_maps.items():
        label = labels[index]
        rows = as_rows(write_numbers(heat_map.values))
        label.heatmap = HeatMap(label.label, round(heat_map.peak, DIGITS), rows)
    return labels


def choose_maps(prediction: Prediction, options: PredictOptions) -> list[int]:
    """Return the classes whose heat maps the request wants."""
    if options.heatmap == "all":
        return choose(prediction, options)
    if options.heatmap == "strongest":
        return [prediction.strongest()]
    return [find_class(prediction.model, "heatmap", options.heatmap)]


def find_class(model: Model, option: str, name: str) -> int:
    """Return the class that an option names. Raises InvalidOption with what there is."""
    if name in model.class_names:
        return model.class_names.index(name)
    close = get_close_matches(name, model.class_names, SHOWN) or model.class_names[:SHOWN]
    more = f" … of {len(model.class_names)}" if len(model.class_names) > len(close) else ""
    raise InvalidOption(
        f"{option} is {abbreviate(name)}: {model.name} has no such class; it has {', '.join(close)}{more}"
    )


def choose(prediction: Prediction, options: PredictOptions) -> list[int]:
    """Return the classes that pass, the strongest first: by the request's rule where it has one, else the model's."""
    decision = prediction.model.card.decision
    if options.threshold is not None:
        decision = replace(decision, threshold=options.threshold, threshold_on=SCORE, top_k=None)
    elif options.top_k is not None:
        decision = replace(decision, top_k=options.top_k)
    return decision.choose(prediction.logits)[::-1][: options.top_k]


def describe_fault(error: ServingError) -> Fault:
    """Return why a picture has no answer."""
    fault = Fault(error.status, error.code, error.message)
    if error.retry_after_s is not None:
        fault.retry_after_s = error.retry_after_s
    return fault
