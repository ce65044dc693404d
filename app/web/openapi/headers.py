"""The headers of requests and answers that the document tells of, by their names."""

from __future__ import annotations

from typing import Any

from app.web.access import HEADER, SAFE_ID
from app.web.input.client import ROUTING_KEY
from app.web.openinference.tensors import HEADER_LENGTH

LABEL = "X-Heatmap-Label"
RETRY_AFTER = "Retry-After"
TIMING = "Server-Timing"
MODEL = ("X-Model-Name", "X-Model-Version")

TEXT = {"type": "string"}
ASKED: dict[str, dict[str, Any]] = {
    HEADER: {
        "description": "A name for the request, taken over into its answer and the log where it is"
        f" `{SAFE_ID.pattern}`; any other is replaced.",
        "schema": TEXT,
    },
    ROUTING_KEY: {
        "description": "Where versions share traffic, requests with the same text get the same one.",
        "schema": TEXT,
    },
    HEADER_LENGTH: {
        "description": "How many bytes of the body are JSON; binary tensors follow. 0: the body is one"
        " picture.",
        "schema": {"type": "integer", "minimum": 0},
    },
}
TOLD: dict[str, dict[str, Any]] = {
    HEADER: {
        "description": "The request's name: the client's, or a new one.",
        "required": True,
        "schema": TEXT | {"pattern": f"^{SAFE_ID.pattern}$"},
    },
    MODEL[0]: {
        "description": "Which model has answered, percent-encoded.",
        "required": True,
        "schema": TEXT,
    },
    MODEL[1]: {
        "description": "Which of its versions.",
        "required": True,
        "schema": {"type": "integer"},
    },
    TIMING: {
        "description": "Where the time went, in ms: upload, decode, queue, forward, total; of several"
        " pictures the longest of each.",
        "required": True,
        "schema": TEXT,
    },
    LABEL: {
        "description": "Whose heat map it is, percent-encoded.",
        "required": True,
        "schema": TEXT,
    },
    RETRY_AFTER: {
        "description": "After how many seconds to try again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    HEADER_LENGTH: {
        "description": "How many bytes of the answer are JSON, where binary tensors follow.",
        "schema": {"type": "integer"},
    },
}
