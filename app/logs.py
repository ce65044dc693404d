"""Logs: one JSON object a line on standard output, with the id of the request that the line belongs to.

A line has ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message`` and ``pid``; a line that is
written while a request is handled also has ``request_id``, the same that the client reads in
``X-Request-ID``. Whatever is passed as ``extra={"fields": {...}}`` stands beside them. A line is
printable ASCII of at most ``MAX_LINE_BYTES``, whatever clients sent.

Logging never waits: app/system/log_writer.py has the thread that writes.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any

from app.system.log_writer import MAX_LINE_BYTES, stdout

MAX_TEXT = 300  # characters of one value; of a message twice as many
MAX_FIELDS = 32
MAX_NAME = 40  # characters of a logger's name, or of a field's
MAX_INT = 2**63
FRAMES = 8  # the innermost of a traceback, before they are fitted into the line
CAUSES = 3  # errors of a chain of causes
LOUD = ("PIL", "python_multipart", "urllib3")  # log what clients send, or a line for every chunk

# gevent gives each greenlet its own context, so this needs no Flask and holds in the decode
# threads' callers too.
request_id: ContextVar[str] = ContextVar("request_id", default="")


@lru_cache(maxsize=100)
def warn_once(logger: logging.Logger, text: str) -> None:
    """Log a warning that would come again with every look at a folder."""
    logger.warning("%s", text)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, of at most ``MAX_LINE_BYTES`` with its newline; never raises."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without a newline."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": cut(record.name, MAX_NAME),
            "message": cut(read_message(record), 2 * MAX_TEXT),
            "pid": record.process,
        }
        if current := request_id.get():
            line["request_id"] = cut(current, MAX_NAME * 2)
        for name, value in islice(getattr(record, "fields", {}).items(), MAX_FIELDS):
            line[cut(name, MAX_NAME)] = simplify(value)
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return fit(line, MAX_LINE_BYTES - 1)
        begun = fit(line, MAX_LINE_BYTES // 2)
        room = MAX_LINE_BYTES - 1 - len(begun) - len(', "traceback": ""')
        return write(line | {"traceback": fit_traceback(error, room)})


def read_message(record: logging.LogRecord) -> str:
    """Return the record's message; its template where the arguments do not fit it."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001  (a line about a fault must not be another)
        return f"{record.msg} ({type(error).__name__} in its arguments)"


def cut(text: str, limit: int) -> str:
    """Return at most ``limit`` characters of a text, as text that every encoding has."""
    if len(text) > limit:
        text = f"{text[:limit]}..."
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def simplify(value: object) -> object:
    """Return a field's value as a short one that JSON has."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and -MAX_INT < value < MAX_INT:
        return value
    if isinstance(value, int):
        return f"an integer of {value.bit_length():,} bits"
    if isinstance(value, bytes | bytearray | list | tuple | set | frozenset | dict):
        return f"{type(value).__name__} of {len(value):,}"
    try:
        return cut(str(value), MAX_TEXT)
    except Exception:  # noqa: BLE001  (somebody's __str__)
        return f"<{type(value).__name__}>"


def write(line: dict[str, Any]) -> str:
    """Return a line's JSON in printable ASCII."""
    return json.dumps(line).replace("\x7f", "\\u007f")


def halve(text: str) -> str:
    """Return the first half of a text."""
    return f"{text[: len(text) // 2]}..."


def fit(line: dict[str, Any], room: int) -> str:
    """Return the line's JSON in at most ``room`` bytes: the longest text is halved until it fits."""
    while len(text := write(line)) > room:
        longest = max(line, key=lambda name: measure(line[name]))
        value = line[longest]
        if measure(value) > MAX_NAME:
            line[longest] = halve(value)
        else:
            line.popitem()
    return text


def measure(value: object) -> int:
    """Return how many bytes of JSON a text takes; 0 for what is no text."""
    return len(json.dumps(value)) if isinstance(value, str) else 0


def fit_traceback(error: BaseException, room: int) -> str:
    """Return an error and its causes with as many of the innermost frames as fit into ``room`` bytes of JSON."""
    parts: list[str] = []
    for each in islice(list_causes(error), CAUSES):
        frames = traceback.format_list(traceback.extract_tb(each.__traceback__, limit=-FRAMES))
        told = f"{type(each).__name__}: {simplify(each)}"
        while measure(told) > room // 2:
            told = halve(told)
        parts = [*(cut(frame, MAX_TEXT) for frame in frames), f"{told}\n", *parts]
    sizes = [measure(part) for part in reversed(parts)]
    totals = [sum(sizes[: count + 1]) for count in range(len(sizes))]
    fitting = bisect_right(totals, room)
    return "".join(parts[len(parts) - fitting :])


def list_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    current: BaseException | None = error
    while current is not None:
        yield current
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)


class StdoutHandler(logging.Handler):
    """Hands lines to the thread that writes them. It takes no lock, so nobody waits for anybody to log."""

    def createLock(self) -> None:
        """Make none: formatting shares nothing, and the queue takes lines from any thread."""
        self.lock = None

    def acquire(self) -> None:
        """Take none, even where gevent has given one."""

    def release(self) -> None:
        """Release none."""

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record's line into the queue, or drop it where that is full."""
        stdout.put(self.format(record).encode("ascii") + b"\n")

    def flush(self) -> None:
        """Wait until what was logged so far is written, for a moment at most; at the process' end."""
        stdout.flush()


@contextmanager
def native_locks() -> Iterator[None]:
    """Keep the locks of logging as they are while gevent patches.

    gevent would replace them by its own, in which native threads and greenlets that log together lose
    each other's wake-ups. A native lock is safe: nobody switches greenlets while holding it.
    """
    handlers = [handler for ref in logging._handlerList if (handler := ref())]  # type: ignore[attr-defined]
    own, locks = logging._lock, [handler.lock for handler in handlers]  # type: ignore[attr-defined]
    yield
    logging._lock = own  # type: ignore[attr-defined]
    for handler, lock in zip(handlers, locks, strict=True):
        handler.lock = lock


def logging_config(level: str) -> dict[str, Any]:
    """Return the configuration for ``logging.config.dictConfig``; Gunicorn takes the same as ``logconfig_dict``."""
    stricter = max(level, "WARNING", key=logging.getLevelName)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "app.logs.JsonFormatter"}},
        "handlers": {"stdout": {"class": "app.logs.StdoutHandler", "formatter": "json"}},
        "root": {"level": level, "handlers": ["stdout"]},
        "loggers": {
            **{name: {"level": stricter} for name in LOUD},
            "gunicorn.error": {"level": level, "handlers": [], "propagate": True},
            "gunicorn.access": {
                "level": "CRITICAL",
                "handlers": [],
            },  # app/web/access.py knows more
        },
    }


def say(text: str) -> None:
    """Tell the person at the terminal what is going on."""
    print(text, file=sys.stderr, flush=True)
