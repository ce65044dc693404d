"""Request and response headers of the document, by name."""

from __future__ import annotations

from typing import Any

from app.web.access import HEADER, SAFE_ID
from app.web.input.client import ROUTING_KEY
from app.web.openinference.outputs import HEADER_LENGTH

AGE = "Age"
CACHE_CONTROL = "Cache-Control"
LABEL = "X-Heatmap-Label"
RETRY_AFTER = "Retry-After"
TIMING = "Server-Timing"
MODEL = ("X-Model-Name", "X-Model-Version")

TEXT = {"type": "string"}
REQUEST_HEADERS: dict[str, dict[str, Any]] = {
    HEADER: {
        "description": "Request id, repeated in the response and in the log. An id that does not match"
        f" `{SAFE_ID.pattern}` is replaced.",
        "schema": TEXT,
    },
    ROUTING_KEY: {
        "description": "Key for sticky traffic splitting: requests with the same key reach the same version.",
        "schema": TEXT,
    },
    CACHE_CONTROL: {
        "description": "`no-store`: neither read nor write the server's answer cache. `no-cache` or `max-age=N`: do"
        " not read answers, or none as old as N seconds.",
        "schema": TEXT,
    },
    HEADER_LENGTH: {
        "description": "Length of the JSON part of the body in bytes; binary tensors follow it. 0: the body is a"
        " single image file.",
        "schema": {"type": "integer", "minimum": 0},
    },
}
RESPONSE_HEADERS: dict[str, dict[str, Any]] = {
    HEADER: {
        "description": "Request id: the client's, or a generated one.",
        "required": True,
        "schema": TEXT | {"pattern": f"^{SAFE_ID.pattern}$"},
    },
    MODEL[0]: {
        "description": "Name of the model that answered, percent-encoded.",
        "required": True,
        "schema": TEXT,
    },
    MODEL[1]: {
        "description": "Version of the model that answered.",
        "required": True,
        "schema": {"type": "integer"},
    },
    AGE: {
        "description": "Seconds since the answer was computed for an earlier request, if it comes from the answer"
        " cache; of several images, the oldest.",
        "schema": {"type": "integer", "minimum": 0},
    },
    TIMING: {
        "description": "Time per stage in ms: upload, decode, queue, forward, total. With several images each stage"
        " is the maximum over the images.",
        "required": True,
        "schema": TEXT,
    },
    LABEL: {
        "description": "Class that the heat map shows, percent-encoded.",
        "required": True,
        "schema": TEXT,
    },
    RETRY_AFTER: {
        "description": "Seconds to wait before the next attempt.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    HEADER_LENGTH: {
        "description": "Length of the JSON part of the body in bytes, if binary tensors follow it.",
        "schema": {"type": "integer"},
    },
}
