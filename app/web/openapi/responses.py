"""The error responses of an operation: the errors that it may return, in the format of its dialect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.errors import InternalError, ServingError
from app.web.access import HEADER
from app.web.input.uploads import JSON
from app.web.openapi.errors import DETAILS, DIALECT_DETAILS, FORBIDDEN, GATEWAY
from app.web.openapi.headers import RETRY_AFTER
from app.web.openapi.operations import Operation, Schema
from app.web.openapi.schemas import REF
from app.web.problems import DIALECTS, find_title

PROBLEM = "application/problem+json"
RETRY_STATUSES = {429, 502, 503, 504}  # have Retry-After, from the application and from nginx


@dataclass(frozen=True)
class ErrorRow:
    """One error.

    Attributes:
        status: the HTTP status in the dialect of the route.
        code: the machine-readable name.
        meaning: a sentence for the description.
        detail: an example of ``detail``.
    """

    status: int
    code: str
    meaning: str
    detail: str


def list_own(operation: Operation) -> list[ErrorRow]:
    """Return the errors that the application itself may return."""
    dialect = operation.path.split("/")[1]
    statuses = DIALECTS.get(dialect, {})
    details = DETAILS | DIALECT_DETAILS.get(dialect, {})
    errors: set[type[ServingError]] = {*operation.errors, InternalError}
    rows = [
        ErrorRow(
            statuses.get(error.status, error.status),
            error.code,
            error.__doc__ or "",
            details[error],
        )
        for error in errors
    ]
    if "{" in operation.path and dialect != "v1":  # v1 answers a malformed request instead
        detail = "there is nothing at /cats; GET / lists the routes"
        rows.append(ErrorRow(404, "not_found", "No such path.", detail))
    return sorted(rows, key=lambda row: row.code)


def list_gateways(operation: Operation) -> list[ErrorRow]:
    """Return the errors that nginx may return instead of the application."""
    rows = GATEWAY | FORBIDDEN if operation.is_private else GATEWAY
    return [
        ErrorRow(status, code, f"{detail[:1].upper()}{detail[1:]}.", detail)
        for status, (code, detail) in rows.items()
    ]


def describe_errors(operation: Operation) -> Iterator[tuple[str, str, Schema]]:
    """Yield the error responses of an operation: status, component name and Response object.

    Errors that only nginx returns are grouped under 4XX and 5XX, to keep the list short.
    """
    own, gateways = list_own(operation), list_gateways(operation)
    dialect = operation.path.split("/")[1]
    dialect = dialect if dialect in DIALECTS else "native"
    prefix = f"{dialect}.private" if operation.is_private else dialect  # other details of 403
    statuses = {row.status for row in own} | (FORBIDDEN.keys() if operation.is_private else set())
    for status in sorted(statuses):
        by_app = [row for row in own if row.status == status]
        by_nginx = [row for row in gateways if row.status == status]
        rows = merge_rows(by_app, by_nginx)
        if dialect == "native":
            content = {PROBLEM: show_problems(rows)}
        else:
            content = {JSON: show_dialect(by_app)} | (
                {PROBLEM: show_problems(by_nginx)} if by_nginx else {}
            )
        codes = ".".join(row.code for row in rows)
        headers = [HEADER, RETRY_AFTER] if status in RETRY_STATUSES else [HEADER]
        yield str(status), f"{prefix}.{status}.{codes}", build_response(rows, headers, content)
    for family in (4, 5):
        rest = [
            row for row in gateways if row.status // 100 == family and row.status not in statuses
        ]
        name = "gateway." + "_".join(str(row.status) for row in rest)
        listed = [replace(row, meaning=f"{row.meaning} ({row.status})") for row in rest]
        yield f"{family}XX", name, build_response(listed, [HEADER], {PROBLEM: show_problems(rest)})


def build_response(rows: Sequence[ErrorRow], headers: Iterable[str], content: Schema) -> Schema:
    """Return a Response object that describes each row."""
    lines = [f"`{row.code}`: {row.meaning}" for row in rows]
    return {
        "description": "  \n".join(lines),
        "headers": refer_headers(headers),
        "content": content,
    }


def merge_rows(by_app: Sequence[ErrorRow], by_nginx: Sequence[ErrorRow]) -> list[ErrorRow]:
    """Merge the two lists; on duplicate codes the application's row wins."""
    codes = {row.code for row in by_app}
    return [*by_app, *(row for row in by_nginx if row.code not in codes)]


def show_problems(rows: Sequence[ErrorRow]) -> Schema:
    """Return the problem+json media type with an example for each row."""
    examples = {f"{row.status} {row.code}": {"value": show_problem(row)} for row in rows}
    return {"schema": {"$ref": f"{REF}Problem"}, "examples": examples}


def show_problem(row: ErrorRow) -> dict[str, Any]:
    """Return an example of an error."""
    return {
        "type": "about:blank",
        "title": find_title(row.status),
        "status": row.status,
        "detail": row.detail,
        "instance": "/predict",
        "code": row.code,
        "request_id": "5d0c0a1f6b1e4f0c8f6f3f0b8f1a2c3d",
    }


def show_dialect(rows: Sequence[ErrorRow]) -> Schema:
    """Return the JSON media type of the other servers' protocols with an example for each row."""
    examples = {row.code: {"value": {"error": row.detail}} for row in rows}
    return {"schema": {"$ref": f"{REF}DialectProblem"}, "examples": examples}


def refer_headers(headers: Iterable[str]) -> dict[str, Schema]:
    """Return references to shared headers."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
