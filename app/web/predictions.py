"""``POST /predict``: one picture or many, in any form; labels with scores, timings, and each picture's own error."""

from __future__ import annotations

import time
from dataclasses import replace

from flask import Blueprint, Response, g

from app.decision import SCORE
from app.errors import ServingError
from app.logs import request_id
from app.prediction import Prediction
from app.web import model_server
from app.web.answers import (
    DIGITS,
    Answer,
    Fault,
    Label,
    ModelName,
    Picture,
    PictureTimings,
    RequestTimings,
    write_json,
)
from app.web.clients import watch_client
from app.web.options import PredictOptions
from app.web.pictures import Upload, read_request
from app.web.problems import answer_serving_error
from app.web.requests import longest_stages, sign, to_ms

blueprint = Blueprint("predictions", __name__)


@blueprint.post("/predict")
def predict() -> Response:
    """Answer each picture by itself; where none has an answer, as the first one's error."""
    server = model_server()
    server.check_room()
    uploads, options = read_request(PredictOptions)
    files = [upload.file for upload in uploads if not isinstance(upload.file, ServingError)]
    outcomes = iter(server.classify_each(files, watch_client(), options.target()))
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
    stages = {"upload": g.upload_s} | longest_stages(predictions)
    times = [f"{name};dur={to_ms(taken_s)}" for name, taken_s in stages.items()]
    response.headers["Server-Timing"] = ", ".join([*times, f"total;dur={timings.total}"])
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
    return [
        Label(name, round(score, DIGITS), round(logit, DIGITS)) for name, score, logit in columns
    ]


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
