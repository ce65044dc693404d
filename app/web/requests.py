"""What is done for every request: its id, who answered it, and one line in the access log."""

from __future__ import annotations

import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

from app.logs import request_id
from app.servable import Model

HEADER = "X-Request-ID"
HEALTH = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
UPLOAD_TIME = "X-Upload-Time"  # how long the body took to reach nginx, in s; nginx sets it
SAFE_ID = re.compile(
    r"[A-Za-z0-9._-]{1,64}"
)  # conf/nginx.conf takes over the same ids from clients

logger = logging.getLogger("access")


def register(app: Flask) -> None:
    """Give every request an id, and log it when it is answered."""
    app.before_request(begin)
    app.after_request(finish)
    app.teardown_request(forget)


def begin() -> None:
    """Take over the client's request id where it is a safe one, else make one."""
    g.started = time.monotonic()
    g.upload_s = read_upload_time(request.headers.get(UPLOAD_TIME, ""))
    g.log_fields = {}
    given = request.headers.get(HEADER, "")
    request_id.set(given if SAFE_ID.fullmatch(given) else uuid.uuid4().hex)


def read_upload_time(text: str) -> float:
    """Return the seconds that the gateway says; 0 where there is none, or one that says something else."""
    return float(text) if re.fullmatch(r"\d{1,6}\.\d{3}", text) else 0.0


def finish(response: Response) -> Response:
    """Tell the client the id, and log the request; health checks only at level DEBUG."""
    response.headers[HEADER] = request_id.get()
    level = logging.DEBUG if request.path in HEALTH else logging.INFO
    fields = {
        "method": request.method,
        "path": request.path,
        "status": response.status_code,
        "duration_ms": round((time.monotonic() - g.started) * 1000, 1),
        "bytes_in": request.content_length or 0,
        "client": request.headers.get("X-Real-IP") or request.remote_addr,
        **g.log_fields,
    }
    logger.log(
        level,
        "%s %s %s",
        request.method,
        request.path,
        response.status_code,
        extra={"fields": fields},
    )
    return response


def sign(response: Response, model: Model) -> Response:
    """Tell the client, and the log, which model and version has answered."""
    response.headers["X-Model-Name"] = model.name
    response.headers["X-Model-Version"] = str(model.version)
    g.log_fields |= {"model": model.name, "version": model.version}
    return response


def forget(_error: BaseException | None) -> None:
    """Let go of the id: the greenlet goes on with the connection's next request."""
    request_id.set("")
