"""Why a run cannot go on."""

from __future__ import annotations


class Stop(Exception):
    """The run cannot go on; the text says why."""


def describe(error: Exception) -> str:
    """Return what went wrong, without an error number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
