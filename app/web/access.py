"""Request ids, deadlines, the access log and the metrics of every request."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from urllib.parse import quote

from flask import Flask, Response, g, request
from prometheus_client import Counter, Histogram

from app import metrics
from app.logs import request_id
from app.serving.model import Model
from app.serving.prediction import Prediction, count_passing
from app.web.context import model_server
from app.web.tracing import TRACEPARENT, read_trace

HEADER = "X-Request-ID"
QUIET = {"/health", "/healthz", "/healthcheck", "/readyz", "/v2/health/live", "/v2/health/ready"}
QUIET |= {"/metrics", "/monitoring/prometheus/metrics"}
UPLOAD_TIME = "X-Upload-Time"  # how long the body took to reach nginx, in s; nginx sets it
# When nginx passed the request on, by this machine's clock, in s: t=1700000000.123. Ignored if that is longer
# ago than any client waits: the clock was set, or a client made it up.
PASSED_ON = "X-Request-Start"
MAX_ACCEPT_S = 600
GATEWAY_ID = "X-Serving-Request"  # nginx's own id of a request, the same for its retries
SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # conf/nginx.conf accepts the same ids from clients
METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
OTHER = "(other)"  # a label of what clients make up would be a series forever

logger = logging.getLogger("access")


def register(app: Flask) -> None:
    """Register the hooks that run around every request."""
    app.before_request(begin)
    app.after_request(finish)
    app.teardown_request(forget)


def begin() -> None:
    """Start a request: set its id (the client's if it is safe), its deadline, its record for the quarantine."""
    g.started = time.monotonic()
    g.upload_s = read_upload_time(request.headers.get(UPLOAD_TIME, ""))
    g.accept_s = read_accept_time(request.headers.get(PASSED_ON, ""))
    g.log_fields = {}
    g.is_flood = False  # of requests that are refused, whose lines would push others out of the log
    g.computed_by = "", ""  # model and version
    given = request.headers.get(HEADER, "")
    request_id.set(given if SAFE_ID.fullmatch(given) else uuid.uuid4().hex)
    g.trace = read_trace(request.headers.get(TRACEPARENT, ""))
    g.held = ExitStack()
    deadlines = model_server().deadlines
    g.held.callback(deadlines.end, deadlines.start(g.accept_s))
    visit = read_gateway_id(request.headers.get(GATEWAY_ID, ""))
    model_server().in_flight.enter(visit)
    g.held.callback(model_server().in_flight.leave, visit)


def read_gateway_id(text: str) -> bytes:
    """Return the gateway's id of a request, 16 bytes, or empty."""
    return bytes.fromhex(text) if re.fullmatch(r"[0-9a-f]{32}", text) else b""


def read_upload_time(text: str) -> float:
    """Return the upload time in s, or 0 if the header is missing or malformed."""
    return float(text) if re.fullmatch(r"\d{1,6}\.\d{3}", text) else 0.0


def read_accept_time(text: str) -> float:
    """Return the seconds since the gateway passed the request on, or 0 if unknown."""
    if not re.fullmatch(r"t=\d{1,12}\.\d{3}", text):
        return 0.0
    passed_s = time.time() - float(text[2:])
    return passed_s if 0 < passed_s < MAX_ACCEPT_S else 0.0


def finish(response: Response) -> Response:
    """Set the id header, and log and count the request; health checks and floods are logged at level DEBUG."""
    response.headers[HEADER] = request_id.get()
    duration_s = time.monotonic() - g.started
    level = logging.DEBUG if request.path in QUIET or g.is_flood else logging.INFO
    fields = {
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "upload_ms": to_ms(g.upload_s),
        "accept_ms": to_ms(g.accept_s),
        "duration_ms": to_ms(duration_s),
        "bytes_in": request.content_length or 0,
        "bytes_out": response.content_length or 0,
        "client": request.headers.get("X-Real-IP") or request.remote_addr,
        **(g.trace.log_fields() if g.trace else {}),
        **g.log_fields,
    }
    # A path can have any length: it goes into its field only, which is cut.
    logger.log(level, "%s %s", request.method, response.status_code, extra={"fields": fields})
    count(response.status_code, duration_s)
    return response


def count(status: int, duration_s: float) -> None:
    """Count the request by the route's pattern, because clients make up paths."""
    route = request.url_rule.rule if request.url_rule else OTHER
    method = request.method if request.method in METHODS else OTHER
    requests, seconds = find_series(route, method, status, *g.computed_by)
    requests.inc()
    seconds.observe(duration_s)
    if request.content_length and UPLOAD_TIME in request.headers:
        metrics.upload_seconds.observe(g.upload_s)
    if PASSED_ON in request.headers:
        metrics.accept_seconds.observe(g.accept_s)
    if (code := g.log_fields.get("code")) and request.path not in QUIET:
        metrics.errors.labels(code).inc()


@cache
def find_series(
    route: str, method: str, status: int, *version: str | int
) -> tuple[Counter, Histogram]:
    """Return the series of a kind of request; cached, which halves the cost of counting."""
    count = metrics.requests.labels(route, method, status, *version)
    return count, metrics.request_seconds.labels(route, *version)


def set_model_headers(
    response: Response, model: Model, predictions: Sequence[Prediction] = ()
) -> Response:
    """Set the headers of a response about its model and its age, and the log fields of its model, images and times.

    Existing log fields are kept.
    """
    response.headers["X-Model-Name"] = encode_header(model.name)
    response.headers["X-Model-Version"] = str(model.version)
    fields: dict[str, object] = {"model": model.name, "version": model.version}
    if predictions:
        g.computed_by = model.name, model.version
        fields["pictures"] = len(predictions)
        response.headers["Cache-Control"] = "private"  # it is about this client's images
        if ages := [each.age_s for each in predictions if each.age_s is not None]:
            response.headers["Age"] = str(int(max(ages)))
            fields["cached"] = len(ages)
        if "labels" not in g.log_fields:  # otherwise it was counted on a native thread
            fields["labels"] = count_passing(predictions)
        stages = longest_stages(predictions).items()
        fields |= {f"{stage}_ms": to_ms(taken_s) for stage, taken_s in stages}
        fields["batch"] = max(prediction.timing.batch for prediction in predictions)
    g.log_fields = fields | g.log_fields
    return response


def encode_header(text: str) -> str:
    """Percent-encode a name: a model or a label is any text, a header is printable ASCII."""
    return quote(text)


def longest_stages(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return the seconds of decode, queue and forward; for several images, the longest of each."""
    return {
        "decode": max(prediction.decode_s for prediction in predictions),
        "queue": max(prediction.timing.queue_s for prediction in predictions),
        "forward": max(prediction.timing.forward_s for prediction in predictions),
    }


def set_server_timing(response: Response, stages: Mapping[str, float], total_ms: float) -> None:
    """Set the Server-Timing header; the stages are in seconds."""
    times = [f"{stage};dur={to_ms(taken_s)}" for stage, taken_s in stages.items()]
    response.headers["Server-Timing"] = ", ".join([*times, f"total;dur={total_ms}"])


def to_ms(seconds: float) -> float:
    """Convert to milliseconds, rounded to the microsecond."""
    return round(seconds * 1000, 3)


def forget(_error: BaseException | None) -> None:
    """Clear the request: the greenlet serves the next request of this connection."""
    if "held" in g:
        g.held.close()
    request_id.set("")
