"""Structured logs: one JSON object per line on standard output.

A line has ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message`` and ``pid``; a line that is
logged while a request is handled also has ``request_id``, which the client reads in ``X-Request-ID``.
The items of ``extra={"fields": {...}}`` are added. A line is printable ASCII of at most
``MAX_LINE_BYTES``, whatever clients send.

Logging never blocks: app/system/log_writer.py writes the lines on a thread of its own.
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

MAX_TEXT = 300  # characters of one value; a message may have twice as many
MAX_FIELDS = 32
MAX_NAME = 40  # characters of a logger's or a field's name
MAX_INT = 2**63
FRAMES = 8  # innermost frames of a traceback; fewer if the line is full
CAUSES = 3  # exceptions of a chain
NOISY = ("PIL", "python_multipart", "urllib3")  # they log client input, or a line for every chunk

# gevent gives each greenlet its own context, so this works outside Flask too.
request_id: ContextVar[str] = ContextVar("request_id", default="")


@lru_cache(maxsize=100)
def warn_once(logger: logging.Logger, text: str) -> None:
    """Log a warning once per process; for conditions that every scan of a folder finds again."""
    logger.warning("%s", text)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, at most ``MAX_LINE_BYTES`` with its newline; never raises."""

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
        head = fit(line, MAX_LINE_BYTES // 2)
        room = MAX_LINE_BYTES - 1 - len(head) - len(', "traceback": ""')
        return to_json(line | {"traceback": fit_traceback(error, room)})


def read_message(record: logging.LogRecord) -> str:
    """Return the record's message, or its template if the arguments do not fit it."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001  (logging an error must not raise another)
        return f"{record.msg} ({type(error).__name__} in its arguments)"


def cut(text: str, limit: int) -> str:
    """Truncate a text to ``limit`` characters and escape lone surrogates, which UTF-8 cannot encode."""
    if len(text) > limit:
        text = f"{text[:limit]}..."
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def simplify(value: object) -> object:
    """Return a field's value as a short JSON scalar."""
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
    except Exception:  # noqa: BLE001  (any __str__)
        return f"<{type(value).__name__}>"


def to_json(line: dict[str, Any]) -> str:
    """Serialize a line as printable ASCII."""
    return json.dumps(line).replace("\x7f", "\\u007f")


def halve(text: str) -> str:
    """Truncate a text to its first half."""
    return f"{text[: len(text) // 2]}..."


def fit(line: dict[str, Any], room: int) -> str:
    """Serialize a line in at most ``room`` bytes: the longest value is halved until it fits."""
    while len(text := to_json(line)) > room:
        longest = max(line, key=lambda name: json_size(line[name]))
        value = line[longest]
        if json_size(value) > MAX_NAME:
            line[longest] = halve(value)
        else:
            line.popitem()
    return text


def json_size(value: object) -> int:
    """Return the size of a text in bytes of JSON; 0 for other types."""
    return len(json.dumps(value)) if isinstance(value, str) else 0


def fit_traceback(error: BaseException, room: int) -> str:
    """Format an error and its causes with as many innermost frames as fit into ``room`` bytes of JSON."""
    parts: list[str] = []
    for each in islice(list_causes(error), CAUSES):
        frames = traceback.format_list(traceback.extract_tb(each.__traceback__, limit=-FRAMES))
        summary = f"{type(each).__name__}: {simplify(each)}"
        while json_size(summary) > room // 2:
            summary = halve(summary)
        parts = [*(cut(frame, MAX_TEXT) for frame in frames), f"{summary}\n", *parts]
    sizes = [json_size(part) for part in reversed(parts)]
    totals = [sum(sizes[: count + 1]) for count in range(len(sizes))]
    fitting = bisect_right(totals, room)
    return "".join(parts[len(parts) - fitting :])


def list_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes."""
    current: BaseException | None = error
    while current is not None:
        yield current
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)


class StdoutHandler(logging.Handler):
    """Enqueues lines for the writer thread, without a lock: no thread waits for another one that logs."""

    def createLock(self) -> None:
        """Create no lock: formatting shares no state, and the queue is thread-safe."""
        self.lock = None

    def acquire(self) -> None:
        """Do nothing, even if gevent has set a lock."""

    def release(self) -> None:
        """Do nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        """Enqueue the record's line; it is dropped if the queue is full."""
        stdout.put(self.format(record).encode("ascii") + b"\n")

    def flush(self) -> None:
        """Wait until all lines are written, with a short timeout; called when the process exits."""
        stdout.flush()


@contextmanager
def native_locks() -> Iterator[None]:
    """Keep logging's native locks while gevent patches in the body.

    gevent would replace them by its own, with which native threads and greenlets that log at the same
    time lose wake-ups. A native lock is safe: no greenlet switches while holding it.
    """
    handlers = [handler for ref in logging._handlerList if (handler := ref())]  # type: ignore[attr-defined]
    module_lock, locks = logging._lock, [handler.lock for handler in handlers]  # type: ignore[attr-defined]
    yield
    logging._lock = module_lock  # type: ignore[attr-defined]
    for handler, lock in zip(handlers, locks, strict=True):
        handler.lock = lock


def logging_config(level: str) -> dict[str, Any]:
    """Return the configuration for ``logging.config.dictConfig`` and Gunicorn's ``logconfig_dict``."""
    stricter = max(level, "WARNING", key=logging.getLevelName)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "app.logs.JsonFormatter"}},
        "handlers": {"stdout": {"class": "app.logs.StdoutHandler", "formatter": "json"}},
        "root": {"level": level, "handlers": ["stdout"]},
        "loggers": {
            **{name: {"level": stricter} for name in NOISY},
            "gunicorn.error": {"level": level, "handlers": [], "propagate": True},
            "gunicorn.access": {
                "level": "CRITICAL",
                "handlers": [],
            },  # app/web/access.py logs requests
        },
    }


def say(text: str) -> None:
    """Print progress for the person at the terminal, on standard error."""
    print(text, file=sys.stderr, flush=True)


def log_to_terminal() -> None:
    """Print what this program logs as progress too, in plain lines."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("app").setLevel(logging.INFO)
