"""Errors by the kind of route, and an example of the ``detail`` of each.

``app/errors.py`` has their statuses and codes. nginx's own errors are defined in conf/nginx.conf and repeated in
``GATEWAY``; a test compares them.
"""

from __future__ import annotations

from app.errors import (
    BodyTooLarge,
    DeadlinePassed,
    FetchFailed,
    ImageTooLarge,
    InternalError,
    InvalidOption,
    MalformedRequest,
    MissingImage,
    MissingScope,
    NoHeatMap,
    NotAcceptable,
    NotReady,
    OutOfMemory,
    Quarantined,
    QueueFull,
    ServingError,
    Unauthorized,
    UnknownModel,
    UnreadableImage,
    UnsupportedType,
    UrlRefused,
)

BODY_ERRORS = {BodyTooLarge, MalformedRequest, UnsupportedType}
IMAGE_ERRORS = {ImageTooLarge, UnreadableImage, UnsupportedType}
MODEL_ERRORS = {NotReady, UnknownModel}
UPLOAD_ERRORS = {
    *BODY_ERRORS,
    *IMAGE_ERRORS,
    FetchFailed,
    InvalidOption,
    MissingImage,
    UrlRefused,
}
KEY_ERRORS = {MissingScope, Unauthorized}  # of routes that need an API key
PREDICTION_ERRORS = {DeadlinePassed, NotReady, OutOfMemory, Quarantined, QueueFull}

# nginx's error for private routes (metrics): status → code, detail.
FORBIDDEN = {
    403: (
        "forbidden",
        "the metrics are for the addresses in SERVING_METRICS_FROM only, by default this machine",
    )
}
# nginx's errors for any request: status → code, detail.
GATEWAY = {
    400: ("bad_request", "the request is not valid HTTP"),
    401: (
        "unauthorized",
        "the API key is missing or unknown: send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'",
    ),
    403: ("forbidden", "this address may not use the server"),
    408: ("request_timeout", "the request did not arrive in time"),
    413: ("body_too_large", "the body has 40000000 bytes; the limit is 33,554,432"),
    414: ("uri_too_long", "the request line is too long"),
    421: (
        "misdirected_request",
        "the server does not answer under this host name; SERVING_HOSTS lists those that it answers under",
    ),
    429: (
        "too_many_uploads",
        "too many large bodies at once; the limits are 64 over 1 MB, and 16 over 4 MB or in chunks",
    ),
    431: ("headers_too_large", "the request headers are too large"),
    500: ("internal_error", "an unexpected error; the log has it under this request id"),
    501: ("not_implemented", "a body comes with a length or in chunks"),
    502: ("not_ready", "the server is starting or restarting"),
    503: ("not_ready", "the server is starting or restarting"),
    504: ("deadline_passed", "no answer within 45 s, the limit of the gateway"),
    505: ("http_version_not_supported", "HTTP is spoken in versions 1.0 and 1.1"),
}

# Examples of ``detail``.
DETAILS: dict[type[ServingError], str] = {
    BodyTooLarge: "the body has 40,000,000 bytes; the limit is 33,554,432",
    DeadlinePassed: "no answer within 30 s, the limit of a request",
    FetchFailed: "'https://images.example.org/dog.jpg' is answered with the status 404",
    ImageTooLarge: "image has 169,000,000 pixels (13,000 × 13,000); the limit is 50,000,000",
    InternalError: "an unexpected error; the log has it under this request id",
    InvalidOption: 'threshold is "2": expected `float` <= 1.0',
    MalformedRequest: "images[0] needs one of 'b64' and 'url'",
    NoHeatMap: "vit_b_16 has no feature map to draw a heat map of",
    NotAcceptable: "Accept is text/html; there are image/png and application/json",
    MissingScope: "the API key of 'grafana' has the scopes metrics; this needs predict",
    MissingImage: "the form has no file 'image'; it has no field at all",
    NotReady: "the model is loading",
    OutOfMemory: "the GPU is out of memory: CUDA out of memory",
    Quarantined: "this input ended two workers; it is refused until the server is started again",
    QueueFull: "128 requests are waiting; the limit is 128",
    Unauthorized: "the API key is unknown; it may have been removed",
    UnknownModel: "there is no model 'cats'; there is demo",
    UnreadableImage: "image is empty: 0 bytes",
    UnsupportedType: "image is TIFF; accepted are JPEG, PNG, WebP, BMP, GIF; save it as JPEG or PNG",
    UrlRefused: "pictures by URL are off here: send the file, or its base64",
}
DIALECT_DETAILS: dict[str, dict[type[ServingError], str]] = {
    "v1": {
        MalformedRequest: "Missing 'inputs' or 'instances' key",
        UnknownModel: "Servable not found for request: Latest(cats)",
    },
    "v2": {
        MalformedRequest: "'inputs' is null; expected a list of one tensor, image or pixels",
        UnknownModel: "Model with name cats does not exist.",
    },
}
