"""The rules that every answer must follow."""

from __future__ import annotations

import json
from dataclasses import dataclass

from scripts.hostile.wire import Answer, Exchange

PROBLEM = "application/problem+json"
BUSY = frozenset({429, 503})
# nginx's own: a body in a form that it does not know, and a version of HTTP that nobody speaks.
NOT_SPOKEN = frozenset({501, 505})
MOST_ERROR_BYTES = 4096
MOST_SECONDS = 35.0  # the deadline of a request, and a little for the way


@dataclass(frozen=True)
class Case:
    """Bytes to send, and the answers that are right.

    Attributes:
        name: for the report.
        data: what is sent, as it is.
        also: statuses of 500 and above that are asked for by it.
        most: answers that a compliant server gives at most.
        may_close: the server may close without an answer.
        quiet_s: give the connection up when that long nothing came.
        half_close: the sender closes its side after the bytes.
        secret: what no answer may hold: it stands in a request that is none.
    """

    name: str
    data: bytes
    also: frozenset[int] = NOT_SPOKEN
    most: int = 1
    may_close: bool = False
    quiet_s: float | None = None
    half_close: bool = False
    secret: bytes = b""


def find_fault(case: Case, done: Exchange) -> str:
    """Return the fault of the answers to a case, or an empty text; the kind of fault stands before a colon."""
    if not done.answers and not case.may_close:
        return f"no answer: {done.error or 'closed'} after {done.seconds:.1f} s"
    if len(done.answers) > case.most:
        statuses = [answer.status for answer in done.answers]
        return f"more answers than are right: {len(statuses)} for {case.most}: {statuses[:20]}"
    if not case.quiet_s and done.seconds > MOST_SECONDS:
        return f"slower than {MOST_SECONDS:g} s: {done.seconds:.1f} s"
    if case.secret and any(case.secret in answer.body for answer in done.answers):
        return f"an answer to an embedded request: {case.secret!r}"
    faults = (find_fault_of_answer(case, answer) for answer in done.answers)
    return next((fault for fault in faults if fault), "")


def find_fault_of_answer(case: Case, answer: Answer) -> str:
    """Return the fault of one answer, or an empty text."""
    if answer.status in BUSY:
        return "" if answer.headers.get("retry-after") else f"{answer.status} without Retry-After"
    if answer.status >= 500 and answer.status not in case.also:
        return f"{answer.status}: {answer.body[:200]!r}"
    is_error = answer.status >= 400 and not case.data.startswith(b"HEAD ")
    return find_fault_of_error(answer) if is_error else ""


def find_fault_of_error(answer: Answer) -> str:
    """Return the fault of an error's body, or an empty text."""
    if len(answer.body) > MOST_ERROR_BYTES:
        return f"an error of over {MOST_ERROR_BYTES:,} bytes: {len(answer.body):,}"
    try:
        content = json.loads(answer.body)
    except ValueError:
        return f"an error that is no JSON: {answer.status} {answer.body[:200]!r}"
    is_problem = answer.headers.get("content-type") == PROBLEM
    if isinstance(content, dict) and (is_problem or "error" in content):
        return ""
    return f"an error of no known form: {answer.status} {answer.body[:200]!r}"
