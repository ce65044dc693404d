"""W3C Trace Context: the trace that a request belongs to, by its ``traceparent`` header (w3.org/TR/trace-context).

The ids go into the access log, and to the hosts that images are fetched from. Without a valid header there is no
trace: this server records no spans, and the request id names its requests. ``tracestate`` and ``baggage`` are not
read, and never passed on.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field

TRACEPARENT = "traceparent"
MAX_MORE = 200  # characters that a later version may add
# version, trace id, parent id, flags; conf/nginx.conf accepts the same.
FORM = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
    rf"(-[!-~]{{0,{MAX_MORE}}})?"
)
RANDOM = 0x02  # the trace id is random; of the other flags none is passed on


@dataclass(frozen=True)
class Trace:
    """The trace of a request.

    Attributes:
        trace_id: 32 hexadecimal digits.
        parent_id: 16 digits: the client's span.
        flags: of the client.
        span_id: 16 digits: the parent of what this server asks others for.
    """

    trace_id: str
    parent_id: str
    flags: int
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def log_fields(self) -> dict[str, str]:
        """Return the fields of the access log."""
        return {
            "trace_id": self.trace_id,
            "parent_span_id": self.parent_id,
            "span_id": self.span_id,
        }

    def headers(self) -> dict[str, str]:
        """Return the header of a request to another server.

        It does not ask for recording: anybody can set the flag ``sampled``, and the other server would pay for it.
        """
        return {TRACEPARENT: f"00-{self.trace_id}-{self.span_id}-{self.flags & RANDOM:02x}"}


def read_trace(text: str) -> Trace | None:
    """Return the trace of a ``traceparent`` header, or None if it is missing or malformed.

    Of a later version the fields of version 00 are read. Several headers, joined by a comma, are malformed.
    """
    match = FORM.fullmatch(text)
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    return Trace(match[2], match[3], int(match[4], 16))
