"""The operations of the server's own routes."""

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
from app.web.input.options import HeatMapOptions, ModelOptions, PredictOptions, SampleOptions
from app.web.input.uploads import JSON
from app.web.native.about import ServiceInfo
from app.web.native.health import Health
from app.web.native.samples import Samples
from app.web.openapi.errors import IMAGE_ERRORS, MODEL_ERRORS, PREDICTION_ERRORS, UPLOAD_ERRORS
from app.web.openapi.headers import AGE, CACHE_CONTROL, LABEL, MODEL, TIMING
from app.web.openapi.operations import File, Group, Operation

TEXT, HTML = "text/plain", "text/html"
PREDICT = """\
Classifies one or more images. Each image has its own result or error; if no image has a result, the response is the
error of the first one.
"""
HEATMAP = """\
Draws the heat map (Grad-CAM) of a class over an image. Returns a PNG, or JSON with the numbers, as `Accept` prefers.
"""
MODEL_PREDICT = """\
Classifies one image with the default model. Returns `{"result": [labels, strongest last], "status": 1}`, or
`{"result": "No Categories", "status": 0}`.
"""


class ImageForm(Struct):
    """Form with one image; other fields are ignored.

    Attributes:
        image: The image file.
    """

    image: File


IMAGES = Group(
    "Images",
    "Classify images, show heat maps.",
    [
        Operation(
            "POST",
            "/predict",
            "predict",
            "Classify images",
            {JSON: Answer},
            {*UPLOAD_ERRORS, *MODEL_ERRORS, *PREDICTION_ERRORS, NoHeatMap},
            image_body="many",
            options=PredictOptions,
            description=PREDICT,
            request_headers=[ROUTING_KEY, CACHE_CONTROL],
            response_headers=[*MODEL, TIMING, AGE],
        ),
        Operation(
            "POST",
            "/predict/heatmap",
            "heatmap",
            "Draw a heat map",
            {"image/png": File, JSON: DrawnHeatMap},
            {*UPLOAD_ERRORS, *MODEL_ERRORS, *PREDICTION_ERRORS, NoHeatMap, NotAcceptable},
            image_body="one",
            options=HeatMapOptions,
            description=HEATMAP,
            request_headers=[ROUTING_KEY],
            response_headers=[*MODEL, TIMING, LABEL],
        ),
        Operation(
            "POST",
            "/model_predict",
            "model_predict",
            "Classify one image (labels only)",
            {JSON: Labels},
            {*IMAGE_ERRORS, *PREDICTION_ERRORS, BodyTooLarge, MissingImage},
            request_body={FORM: ImageForm},
            description=MODEL_PREDICT,
            request_headers=[ROUTING_KEY, CACHE_CONTROL],
            response_headers=[*MODEL, AGE],
        ),
        Operation(
            "GET",
            "/samples",
            "samples",
            "List sample images",
            {JSON: Samples},
            {*MODEL_ERRORS, InvalidOption},
            options=SampleOptions,
            has_etag=True,
        ),
        Operation(
            "GET",
            "/samples/{file}",
            "sample",
            "Get a sample image",
            {"image/*": File},
            {*MODEL_ERRORS, InvalidOption},
            options=SampleOptions,
            has_etag=True,
        ),
    ],
)
SERVER = Group(
    "Server",
    "Server and model information, health, metrics, documentation.",
    [
        Operation(
            "GET",
            "/",
            "index",
            "Get server and model information",
            {JSON: ServiceInfo, HTML: str},
            {*MODEL_ERRORS, InvalidOption},
            options=ModelOptions,
            has_etag=True,
        ),
        Operation("GET", "/health", "health", "Get the state of the server", {JSON: Health}),
        Operation("GET", "/healthz", "healthz", "Check liveness", {JSON: Alive}),
        Operation("GET", "/healthcheck", "healthcheck", "Check liveness (alias)", {JSON: Alive}),
        Operation("GET", "/readyz", "readyz", "Check readiness", {JSON: Ready}, {NotReady}),
        Operation("GET", "/metrics", "metrics", "Get metrics", {TEXT: str}, is_private=True),
        Operation(
            "GET",
            "/monitoring/prometheus/metrics",
            "metrics_tfserving",
            "Get metrics (TensorFlow Serving's path)",
            {TEXT: str},
            examples="metrics",
            is_private=True,
        ),
        Operation(
            "GET",
            "/openapi.json",
            "openapi",
            "Get the OpenAPI document",
            {JSON: dict[str, Any]},
            has_etag=True,
        ),
        Operation("GET", "/docs", "docs", "Show the API documentation", {HTML: str}, has_etag=True),
    ],
)
