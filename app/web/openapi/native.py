"""The server's own routes."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from app.errors import (
    BodyTooLarge,
    InvalidOption,
    MissingImage,
    NoHeatMap,
    NotAcceptable,
    NotReady,
)
from app.web.answers import Alive, Answer, DrawnHeatMap, Labels, Ready
from app.web.input.client import ROUTING_KEY
from app.web.input.forms import FORM
from app.web.input.options import HeatMapOptions, ModelOptions, PredictOptions
from app.web.input.uploads import JSON
from app.web.native.about import About
from app.web.openapi.errors import FINDING_A_MODEL, PREDICTING, READING_A_PICTURE, TAKING_PICTURES
from app.web.openapi.headers import LABEL, MODEL, TIMING
from app.web.openapi.operations import File, Group, Operation
from app.web.page.routes import Samples

TEXT, HTML = "text/plain", "text/html"


class ImageForm(Struct):
    """A form with one picture; other fields are let be.

    Attributes:
        image: the picture's file.
    """

    image: File


PICTURES = Group(
    "Pictures",
    "One picture or many in, their labels out.",
    [
        Operation(
            "POST",
            "/predict",
            "predict",
            "Classify pictures",
            {JSON: Answer},
            {*TAKING_PICTURES, *FINDING_A_MODEL, *PREDICTING, NoHeatMap},
            takes_pictures="many",
            options=PredictOptions,
            asks=[ROUTING_KEY],
            tells=[*MODEL, TIMING],
        ),
        Operation(
            "POST",
            "/predict/heatmap",
            "heatmap",
            "Show where a label is seen",
            {"image/png": File, JSON: DrawnHeatMap},
            {*TAKING_PICTURES, *FINDING_A_MODEL, *PREDICTING, NoHeatMap, NotAcceptable},
            takes_pictures="one",
            options=HeatMapOptions,
            asks=[ROUTING_KEY],
            tells=[*MODEL, TIMING, LABEL],
        ),
        Operation(
            "POST",
            "/model_predict",
            "model_predict",
            "Classify one picture, in short",
            {JSON: Labels},
            {*READING_A_PICTURE, *PREDICTING, BodyTooLarge, MissingImage},
            takes={FORM: ImageForm},
            asks=[ROUTING_KEY],
            tells=MODEL,
        ),
        Operation("GET", "/samples", "samples", "Pictures to try", {JSON: Samples}),
        Operation(
            "GET",
            "/samples/{file}",
            "sample",
            "One of them",
            {"image/jpeg": File},
            may_be_known=True,
        ),
    ],
)
SERVER = Group(
    "This server",
    "Is it alive, is it ready, what is it, how is it doing.",
    [
        Operation(
            "GET",
            "/",
            "index",
            "What is served",
            {JSON: About, HTML: str},
            {*FINDING_A_MODEL, InvalidOption},
            options=ModelOptions,
            may_be_known=True,
        ),
        Operation("GET", "/healthz", "healthz", "Is it alive?", {JSON: Alive}),
        Operation(
            "GET", "/healthcheck", "healthcheck", "The same for older clients", {JSON: Alive}
        ),
        Operation("GET", "/readyz", "readyz", "Is it ready?", {JSON: Ready}, {NotReady}),
        Operation("GET", "/metrics", "metrics", "How it is doing", {TEXT: str}, is_private=True),
        Operation(
            "GET",
            "/monitoring/prometheus/metrics",
            "metrics_tfserving",
            "The same, where TensorFlow Serving has it",
            {TEXT: str},
            examples="metrics",
            is_private=True,
        ),
        Operation(
            "GET",
            "/openapi.json",
            "openapi",
            "This document",
            {JSON: dict[str, Any]},
            may_be_known=True,
        ),
        Operation("GET", "/docs", "docs", "This page", {HTML: str}, may_be_known=True),
    ],
)
