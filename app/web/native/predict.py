"""``POST /predict``: labels, scores, timings and errors of one or many images, in any encoding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches

from flask import Blueprint, Response, g
from msgspec import json

from app.errors import InvalidOption, ServingError
from app.logs import request_id
from app.processing.decision import SCORE
from app.processing.heatmap import write_numbers
from app.serving.model import Model
from app.serving.prediction import ClassRule, HeatMapRequest, Prediction, TooManyHeatMaps
from app.web.access import longest_stages, set_model_headers, set_server_timing, to_ms
from app.web.answers import (
    DIGITS,
    Answer,
    ImageError,
    ImageResult,
    ImageTimings,
    Label,
    LabelHeatMap,
    ModelName,
    RequestTimings,
    as_results,
    as_rows,
    write_json,
)
from app.web.context import model_server
from app.web.input.bodies import check_rows, write_rows
from app.web.input.client import read_cache_use, watch_client
from app.web.input.options import PredictOptions
from app.web.input.uploads import Upload, read_request
from app.web.limits import MAX_FAULT, MAX_GUESSED, MAX_GUESSES, MAX_MAPS, MAX_NAMED
from app.web.problems import answer_serving_error, log_first_bytes
from app.web.quoting import abbreviate, cut

ROWS_OF_A_MAP = 20  # encoding a map takes as long as this many labels

blueprint = Blueprint("predict", __name__)


@blueprint.post("/predict")
def predict() -> Response:
    """Answer with one result or error for each image; if all images fail, with the error of the first."""
    servable, uploads, options = read_request(PredictOptions)
    files = [upload.file for upload in uploads if not isinstance(upload.file, ServingError)]
    heat_maps = request_heat_maps(servable.model, options)
    try:
        outcomes = iter(
            model_server().predict_each(
                servable, files, watch_client(), heat_maps, options.upright, read_cache_use()
            )
        )
    except TooManyHeatMaps as error:
        raise refuse_heat_maps(options, error) from None
    answers = [
        upload.file if isinstance(upload.file, ServingError) else next(outcomes)
        for upload in uploads
    ]
    predictions = [answer for answer in answers if isinstance(answer, Prediction)]
    if not predictions:
        errors = [answer for answer in answers if isinstance(answer, ServingError)]
        results = [
            describe_error(upload, error) for upload, error in zip(uploads, errors, strict=True)
        ]
        return answer_serving_error(errors[0], images=results)
    return respond(uploads, answers, predictions, options)


def request_heat_maps(model: Model, options: PredictOptions) -> HeatMapRequest | None:
    """Return the heat maps that the options ask for. Raises InvalidOption for an unknown class."""
    top_k = options.heatmap_top_k or 0
    if not options.heatmap and not top_k:
        return None
    if options.heatmap == "all":
        return HeatMapRequest(rule=class_rule(model, options), top_k=top_k, limit=MAX_MAPS)
    if options.heatmap in ("", "strongest"):
        return HeatMapRequest(top_k=max(1, top_k), limit=MAX_MAPS)
    named = find_class(model, "heatmap", options.heatmap)
    return HeatMapRequest((named,), top_k=top_k, limit=MAX_MAPS)


def refuse_heat_maps(options: PredictOptions, error: TooManyHeatMaps) -> InvalidOption:
    """Return the error for a request of too many heat maps; it names the options that asked for them."""
    asked = {"heatmap": options.heatmap, "heatmap_top_k": options.heatmap_top_k}
    given = " and ".join(f"{name} is {abbreviate(value)}" for name, value in asked.items() if value)
    return InvalidOption(
        f"{given}: {error.message}. Choose fewer classes by heatmap_top_k, top_k or threshold,"
        " or send fewer images"
    )


def class_rule(model: Model, options: PredictOptions) -> ClassRule:
    """Return the request's own rule for the classes to list, or the model's."""
    decision = model.config.decision
    if options.threshold is not None:
        decision = replace(decision, threshold=options.threshold, threshold_on=SCORE, top_k=None)
    elif options.top_k is not None:
        decision = replace(decision, top_k=options.top_k)
    return ClassRule(decision, options.top_k)


def respond(
    uploads: Sequence[Upload],
    answers: Sequence[Prediction | ServingError],
    predictions: Sequence[Prediction],
    options: PredictOptions,
) -> Response:
    """Return the answer, with the times also in the Server-Timing header."""
    model = predictions[0].model
    maps = sum(len(prediction.heat_maps) for prediction in predictions)
    most = len(predictions) * len(model.class_names) + maps * ROWS_OF_A_MAP
    rule = class_rule(model, options)
    written, labels = write_rows(most, lambda: write_results(uploads, answers, rule, options))
    results = as_results(written)
    timings = RequestTimings(to_ms(g.upload_s), to_ms(time.monotonic() - g.started + g.upload_s))
    answer = Answer(ModelName(model.name, model.version), results, timings, request_id.get())
    response = write_json(answer)
    set_server_timing(response, {"upload": g.upload_s} | longest_stages(predictions), timings.total)
    g.log_fields["labels"] = labels
    log_first_bytes(answers)
    return set_model_headers(response, model, predictions)


def write_results(
    uploads: Sequence[Upload],
    answers: Sequence[Prediction | ServingError],
    rule: ClassRule,
    options: PredictOptions,
) -> tuple[list[bytes], int]:
    """Return the JSON of each image, and the number of labels; on any thread."""
    passing = [
        rule.select(answer.logits) if isinstance(answer, Prediction) else [] for answer in answers
    ]
    labels = sum(map(len, passing))
    every = sum(len(answer.logits) for answer in answers if isinstance(answer, Prediction))
    check_rows(labels + (every if options.scores == "all" else 0))
    written = []
    for upload, answer, classes in zip(uploads, answers, passing, strict=True):
        if isinstance(answer, ServingError):
            written.append(json.encode(describe_error(upload, answer)))
        else:
            written.append(json.encode(describe_prediction(upload, answer, classes, options)))
    return written, labels


def describe_error(upload: Upload, error: ServingError) -> ImageResult:
    """Return the entry of an image that failed."""
    return ImageResult(upload.name, upload.bytes, error=describe_fault(error))


def describe_prediction(
    upload: Upload, prediction: Prediction, passing: Sequence[int], options: PredictOptions
) -> ImageResult:
    """Return the entry of a predicted image; ``passing`` are the classes to list."""
    width, height = prediction.size
    result = ImageResult(
        upload.name,
        upload.bytes,
        width=width,
        height=height,
        labels=describe_classes(prediction, passing),
        timings_ms=ImageTimings(
            to_ms(prediction.decode_s),
            to_ms(prediction.timing.queue_s),
            to_ms(prediction.timing.forward_s),
        ),
        batch=prediction.timing.batch,
    )
    if options.scores == "all":
        every = range(len(prediction.model.class_names))
        result.scores = describe_classes(prediction, every)
    return result


def describe_classes(prediction: Prediction, classes: Sequence[int]) -> list[Label]:
    """Return the labels of some classes, in the given order."""
    scores, logits = prediction.scores().tolist(), prediction.logits.tolist()
    labels = []
    for index in classes:
        name = prediction.model.class_names[index]
        label = Label(name, round(scores[index], DIGITS), round(logits[index], DIGITS))
        if heat_map := prediction.heat_maps.get(index):
            rows = as_rows(write_numbers(heat_map.values))
            label.heatmap = LabelHeatMap(name, round(heat_map.peak, DIGITS), rows)
        labels.append(label)
    return labels


def find_class(model: Model, option: str, name: str) -> int:
    """Return the index of the class that an option names. Raises InvalidOption, which lists similar names."""
    names = model.class_names
    if name in names:
        return names.index(name)
    may_guess = len(name) <= MAX_GUESSED and len(names) <= MAX_GUESSES
    close = (get_close_matches(name, names, MAX_NAMED) if may_guess else ()) or names[:MAX_NAMED]
    more = f" … of {len(names)}" if len(names) > len(close) else ""
    raise InvalidOption(
        f"{option} is {abbreviate(name)}: {model.name} has no such class;"
        f" it has {', '.join(map(cut, close))}{more}"
    )


def describe_fault(error: ServingError) -> ImageError:
    """Return an error as the entry of an image has it."""
    fault = ImageError(error.status, error.code, cut(error.message, MAX_FAULT))
    if error.retry_after_s is not None:
        fault.retry_after_s = error.retry_after_s
    return fault
