"""Reasons why a URL could not be fetched, in plain words."""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPException

from urllib3 import exceptions

# Kinds of errors → reason; the first that fits counts.
REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((socket.gaierror,), "its host name could not be resolved"),
    (
        (ssl.SSLError, exceptions.SSLError),
        "no secure connection could be made; its certificate may be invalid",
    ),
    (
        (exceptions.NewConnectionError, ConnectionRefusedError),
        "its host accepts no connection at this port",
    ),
    ((exceptions.TimeoutError, TimeoutError), "its host did not answer in time"),
    (
        (exceptions.ProtocolError, exceptions.HTTPError, HTTPException, ValueError),
        "its host broke off, or did not answer in valid HTTP",
    ),
    ((ConnectionError,), "its host closed the connection"),
)
OTHER = "the connection failed"


def explain_fetch(error: Exception) -> str:
    """Return the reason of a failed fetch, without Python's names."""
    return next((reason for kinds, reason in REASONS if isinstance(error, kinds)), OTHER)
