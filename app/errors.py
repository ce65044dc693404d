"""The exceptions of the server.

Errors a client may see are ``ServingError``; the stages of a request that raise them:

    client ─▶ route ─────────▶ images ─────────▶ batcher ──────────▶ network ─▶ labels
              Unauthorized     UnreadableImage   QueueFull           InternalError
              MissingScope     UnsupportedType   NotReady
              MissingImage     ImageTooLarge     DeadlinePassed
              UnsupportedType  Quarantined       NoHeatMap
              BodyTooLarge
              MalformedRequest
              InvalidOption
              NotAcceptable
              UrlRefused, FetchFailed

``app/web/problems.py`` turns them into responses; no other layer knows HTTP.
"""

from __future__ import annotations

from typing import ClassVar


class ServingError(Exception):
    """Base class of the errors that clients see.

    Attributes:
        status: HTTP status of the response.
        code: stable machine-readable name, snake_case.
        message: one sentence for a person; it names the value and the limit.
        retry_after_s: seconds for ``Retry-After``; None if a retry is pointless.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InternalError(ServingError):
    """Internal error; the log has the details under the request id."""


class MissingImage(ServingError):
    """No image in the request."""

    status = 400
    code = "missing_image"


class UnreadableImage(ServingError):
    """Not an image, or a damaged image."""

    status = 400
    code = "unreadable_image"

    def __init__(self, message: str, first_bytes: bytes = b"") -> None:
        """Keep the first bytes of a file of unknown type, for the log."""
        super().__init__(message)
        self.first_bytes = first_bytes


class MalformedRequest(ServingError):
    """Request that does not follow the protocol, or does not fit the model."""

    status = 400
    code = "malformed_request"


class Unauthorized(ServingError):
    """No API key, or one that is unknown or has expired."""

    status = 401
    code = "unauthorized"


class MissingScope(ServingError):
    """API key without the scope that the route needs."""

    status = 403
    code = "missing_scope"


class UnknownModel(ServingError):
    """Unknown model, version or version label."""

    status = 404
    code = "unknown_model"


class NotAcceptable(ServingError):
    """No supported media type in `Accept`."""

    status = 406
    code = "not_acceptable"


class BodyTooLarge(ServingError):
    """Body over the size limit."""

    status = 413
    code = "body_too_large"


class ImageTooLarge(ServingError):
    """Image over a limit: pixels, parts of the file, or memory for decoding."""

    status = 413
    code = "image_too_large"


class UnsupportedType(ServingError):
    """Unsupported media type of the body, or unsupported image format."""

    status = 415
    code = "unsupported_type"


class InvalidOption(ServingError):
    """Unknown option, or a value out of range."""

    status = 422
    code = "invalid_option"


class NoHeatMap(ServingError):
    """No heat maps: the network has no feature map, or the engine does not support them."""

    status = 422
    code = "no_heatmap"


class UrlRefused(ServingError):
    """Image URL not allowed: URLs are disabled, or the host is not on the list."""

    status = 422
    code = "url_refused"


class FetchFailed(ServingError):
    """Image URL cannot be fetched: no response, a status other than 200, too large, or too slow."""

    status = 422
    code = "fetch_failed"


class QueueFull(ServingError):
    """Queue full; try again later."""

    status = 429
    code = "queue_full"
    retry_after_s = 1


class NotReady(ServingError):
    """Model not ready: it is loading or failed to load, or the server is shutting down."""

    status = 503
    code = "not_ready"
    retry_after_s = 5


class OutOfMemory(ServingError):
    """Device out of memory for a batch of this size; a smaller one may fit."""

    status = 503
    code = "out_of_memory"
    retry_after_s = 1


class Quarantined(ServingError):
    """Input rejected because it crashed two workers."""

    status = 500
    code = "quarantined"


class ClientGone(ServingError):
    """Client disconnected before its request was processed (499 as in nginx); not sent to anyone."""

    status = 499
    code = "client_gone"


class DeadlinePassed(ServingError):
    """No answer within the deadline of the request."""

    status = 504
    code = "deadline_passed"
    retry_after_s = 1


class BundleError(Exception):
    """A model folder cannot be served; for the operator's log, never for a client."""


class TransientError(BundleError):
    """A model cannot be served for a transient reason: a full disk, a killed measurement process."""


class NoDeviceMemory(TransientError):
    """The device has too little free memory for the model while other processes use it."""


class DeviceLost(Exception):
    """The device failed and only a new process can use it again; the worker exits and is replaced."""


class SettingsError(Exception):
    """Settings are invalid; the text lists every fault."""


class KeyFileError(SettingsError):
    """The file of API keys cannot be used; the text names the file and the line, and repeats no key."""


def first_line(error: Exception | str) -> str:
    """Return an error's first line, truncated to 200 characters: torch appends pages of advice."""
    return str(error).strip().split("\n")[0][:200]
