"""The server's own routes."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from app.errors import BodyTooLarge, InvalidOption, MissingImage, NotReady
from app.web.answers import About, Alive, Answer, Labels, Ready
from app.web.clients import ROUTING_KEY
from app.web.forms import FORM
from app.web.openapi.errors import (
    FETCHING,
    FINDING_A_MODEL,
    PREDICTING,
    READING_A_BODY,
    READING_A_PICTURE,
)
from app.web.openapi.headers import MODEL, TIMING
from app.web.openapi.operations import File, Group, Operation
from app.web.options import PredictOptions
from app.web.pictures import JSON


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
            {
                *READING_A_BODY,
                *READING_A_PICTURE,
                *FETCHING,
                *FINDING_A_MODEL,
                *PREDICTING,
                MissingImage,
                InvalidOption,
            },
            takes_pictures=True,
            options=PredictOptions,
            asks=[ROUTING_KEY],
            tells=[*MODEL, TIMING],
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
    ],
)
SERVER = Group(
    "This server",
    "Is it alive, is it ready, what is it.",
    [
        Operation("GET", "/", "index", "What is served here", {JSON: About}, {NotReady}),
        Operation("GET", "/healthz", "healthz", "Is it alive?", {JSON: Alive}),
        Operation(
            "GET",
            "/healthcheck",
            "healthcheck",
            "The same, as older clients call it",
            {JSON: Alive},
        ),
        Operation("GET", "/readyz", "readyz", "Is it ready?", {JSON: Ready}, {NotReady}),
        Operation(
            "GET",
            "/openapi.json",
            "openapi",
            "This document",
            {JSON: dict[str, Any]},
            may_be_known=True,
        ),
        Operation(
            "GET",
            "/docs",
            "docs",
            "The same to read and to try",
            {"text/html": str},
            may_be_known=True,
        ),
    ],
)
