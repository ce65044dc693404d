"""Exceptions of the batch client."""

from __future__ import annotations


class Stop(Exception):
    """The run cannot continue; the text gives the reason."""


def describe(error: Exception) -> str:
    """Return an error's text without its errno."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
