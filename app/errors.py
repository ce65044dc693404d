"""The exceptions of the server.

Errors a client may see are ``ServingError``; the stages of a request that raise them:

    client ─▶ route ─────────▶ images ─────────▶ batcher ──────────▶ network ─▶ labels
              MissingImage     UnreadableImage   QueueFull           InternalError
              UnsupportedType  UnsupportedType   NotReady
              BodyTooLarge     ImageTooLarge     DeadlinePassed
              MalformedRequest Quarantined       NoHeatMap
              InvalidOption
              NotAcceptable
              UrlRefused, FetchFailed

``web/problems.py`` turns them into responses; no other layer knows HTTP.
"""

from __future__ import annotations

from typing import ClassVar


class ServingError(Exception):
    """An error that a client may see.

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
    """Our fault; the details are in the log under the request id."""


class MissingImage(ServingError):
    """The request holds no picture."""

    status = 400
    code = "missing_image"


class UnreadableImage(ServingError):
    """The bytes are no picture, or a damaged one."""

    status = 400
    code = "unreadable_image"


class MalformedRequest(ServingError):
    """The request is not what its protocol, or the model, asks for."""

    status = 400
    code = "malformed_request"


class UnknownModel(ServingError):
    """The request names a model, a version or a label that is not served."""

    status = 404
    code = "unknown_model"


class NotAcceptable(ServingError):
    """The client takes no type that there is."""

    status = 406
    code = "not_acceptable"


class BodyTooLarge(ServingError):
    """The request's body is over the limit."""

    status = 413
    code = "body_too_large"


class ImageTooLarge(ServingError):
    """The picture has more pixels, its file more parts, or its decoding takes more memory than the limit."""

    status = 413
    code = "image_too_large"


class UnsupportedType(ServingError):
    """The body or the picture is of a type that is not served."""

    status = 415
    code = "unsupported_type"


class InvalidOption(ServingError):
    """An option that does not exist, or a value that it cannot have."""

    status = 422
    code = "invalid_option"


class NoHeatMap(ServingError):
    """The network has no feature map to draw a heat map of, or its engine cannot."""

    status = 422
    code = "no_heatmap"


class UrlRefused(ServingError):
    """A picture's URL that is not to be fetched: URLs are off, or its host is not allowed."""

    status = 422
    code = "url_refused"


class FetchFailed(ServingError):
    """A picture's URL that cannot be fetched: no answer, another status than 200, too large, too slow."""

    status = 422
    code = "fetch_failed"


class QueueFull(ServingError):
    """More requests are waiting than the queue holds."""

    status = 429
    code = "queue_full"
    retry_after_s = 1


class NotReady(ServingError):
    """The model is loading, failed to load, or the server is shutting down."""

    status = 503
    code = "not_ready"
    retry_after_s = 5


class OutOfMemory(ServingError):
    """The device has no room for a batch of this size; a smaller one may fit."""

    status = 503
    code = "out_of_memory"
    retry_after_s = 1


class Quarantined(ServingError):
    """The input ended two workers, so it is not worked on again (see ``app/quarantine.py``)."""

    status = 500
    code = "quarantined"


class ClientGone(ServingError):
    """The client hung up before its turn came; nobody reads this answer (499 is nginx's number for it)."""

    status = 499
    code = "client_gone"


class DeadlinePassed(ServingError):
    """The answer did not come within the request's deadline."""

    status = 504
    code = "deadline_passed"
    retry_after_s = 1


class BundleError(Exception):
    """A model folder cannot be served; for the operator's log, never for a client."""


class PassingFailure(BundleError):
    """A model cannot be served for a transient reason: a full disk, a killed measurement process."""


class NoDeviceMemory(PassingFailure):
    """The device has too little free memory for the model while other processes use it."""


class DeviceLost(Exception):
    """The device failed and only a new process can use it again; the worker exits and is replaced."""


class SettingsError(Exception):
    """Settings are invalid; the text lists every fault."""


def first_line(error: Exception | str) -> str:
    """Return an error's first line, truncated to 200 characters: torch appends pages of advice."""
    return str(error).strip().split("\n")[0][:200]
