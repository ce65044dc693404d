"""The error answers of an operation: each error that it may meet, in the form of its dialect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from app.errors import InternalError, ServingError
from app.web.access import HEADER
from app.web.input.uploads import JSON
from app.web.openapi.errors import DIALECT_WORDS, FORBIDDEN, GATEWAY, WORDS
from app.web.openapi.headers import RETRY_AFTER
from app.web.openapi.operations import Operation
from app.web.openapi.schemas import REF, Schema
from app.web.problems import DIALECTS

PROBLEM = "application/problem+json"
COME_AGAIN = {429, 502, 503, 504}  # these have Retry-After, wherever they come from


@dataclass(frozen=True)
class Row:
    """One error: its status in the route's dialect, its code, what it means, and its detail for example."""

    status: int
    code: str
    meaning: str
    words: str


def list_own(operation: Operation) -> list[Row]:
    """Return what the application itself may answer instead."""
    dialect = operation.path.split("/")[1]
    statuses, words = DIALECTS.get(dialect, {}), WORDS | DIALECT_WORDS.get(dialect, {})
    errors: set[type[ServingError]] = {*operation.errors, InternalError}
    rows = [
        Row(statuses.get(error.status, error.status), error.code, error.__doc__ or "", words[error])
        for error in errors
    ]
    if "{" in operation.path and dialect != "v1":  # there it is a malformed request
        told = "there is nothing at /cats; GET / lists the routes"
        rows.append(Row(404, "not_found", "There is no such path.", told))
    return sorted(rows, key=lambda row: row.code)


def list_gateways(operation: Operation) -> list[Row]:
    """Return what nginx may answer instead of the application."""
    rows = GATEWAY | FORBIDDEN if operation.is_private else GATEWAY
    return [
        Row(status, code, f"{words} ({status})", words) for status, (code, words) in rows.items()
    ]


def describe_errors(operation: Operation) -> Iterator[tuple[str, str, Schema]]:
    """Yield the error answers of an operation: status, a name by which to share it, and what OpenAPI says.

    Those that only nginx gives stand together under 4XX and 5XX: a reader seldom wants to know them.
    """
    own, gateways = list_own(operation), list_gateways(operation)
    dialect = operation.path.split("/")[1]
    speaker = dialect if dialect in DIALECTS else "native"
    statuses = {row.status for row in own} | (FORBIDDEN.keys() if operation.is_private else set())
    for status in sorted(statuses):
        ours = [row for row in own if row.status == status]
        theirs = [row for row in gateways if row.status == status]
        every = unite(ours, theirs)
        if speaker == "native":
            content = {PROBLEM: show_problems(every)}
        else:
            content = {JSON: show_dialect(ours)} | (
                {PROBLEM: show_problems(theirs)} if theirs else {}
            )
        codes = ".".join(row.code for row in every)
        headers = [HEADER, RETRY_AFTER] if status in COME_AGAIN else [HEADER]
        yield str(status), f"{speaker}.{status}.{codes}", tell(every, headers, content)
    for family in (4, 5):
        rest = [
            row for row in gateways if row.status // 100 == family and row.status not in statuses
        ]
        shown = "_".join(str(row.status) for row in rest)
        content = {PROBLEM: show_problems(rest)}
        yield f"{family}XX", f"gateway.{shown}", tell(rest, [HEADER], content)


def tell(rows: Sequence[Row], headers: Iterable[str], content: Schema) -> Schema:
    """Return a response."""
    lines = [f"`{row.code}`: {row.meaning}" for row in rows]
    return {"description": "  \n".join(lines), "headers": refer(headers), "content": content}


def unite(ours: Sequence[Row], theirs: Sequence[Row]) -> list[Row]:
    """Return both; of a code that both have, ours."""
    codes = {row.code for row in ours}
    return [*ours, *(row for row in theirs if row.code not in codes)]


def show_problems(rows: Sequence[Row]) -> Schema:
    """Return errors as problem+json; every code has an example."""
    examples = {f"{row.status} {row.code}": {"value": show_problem(row)} for row in rows}
    return {"schema": {"$ref": f"{REF}Problem"}, "examples": examples}


def show_problem(row: Row) -> dict[str, Any]:
    """Return an error as it may come."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(row.status).phrase,
        "status": row.status,
        "detail": row.words,
        "instance": "/predict",
        "code": row.code,
        "request_id": "5d0c0a1f6b1e4f0c8f6f3f0b8f1a2c3d",
    }


def show_dialect(rows: Sequence[Row]) -> Schema:
    """Return errors of one status as other servers' clients know them."""
    examples = {row.code: {"value": {"error": row.words}} for row in rows}
    return {"schema": {"$ref": f"{REF}DialectProblem"}, "examples": examples}


def refer(headers: Iterable[str]) -> dict[str, Schema]:
    """Return the headers of an answer."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
