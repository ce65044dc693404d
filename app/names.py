"""Validation of user-supplied names and texts: models, classes, descriptions.

They appear in logs, headers, JSON, metrics and pages, so only text that each of these can carry is accepted.
Every script is allowed; characters that break lines, are invisible or reverse text are not.
"""

from __future__ import annotations

import unicodedata

MAX_TEXT = 200  # characters of a name
MAX_DESCRIPTION = 2000  # characters
MAX_NAME_BYTES = 255  # in UTF-8: the limit of file names
SHOWN = 60  # characters of a wrong value quoted in an error

# Control characters (C0, C1, NUL, line breaks), lone surrogates, and Unicode's line and paragraph separators.
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
# Bidirectional embeddings, overrides and isolates: they display text in another order.
BIDI_CONTROLS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
LINE_BREAKS = "\t\n"  # allowed in descriptions


def text_problem(text: str, most: int = MAX_TEXT, allowed: str = "") -> str:
    """Validate a text.

    Args:
        text: any text.
        most: maximum number of characters.
        allowed: unprintable characters to accept.

    Returns:
        The fault as a predicate ("is empty"), or "" for a valid text.
    """
    if not text.strip():
        return "is empty"
    if len(text) > most:
        return f"has {len(text)} characters; at most {most} are allowed"
    for character in text:
        kind = unicodedata.category(character)
        if character not in allowed and (kind in UNPRINTABLE or character in BIDI_CONTROLS):
            return f"holds U+{ord(character):04X}, which is not printable"
    return ""


def name_problem(name: str) -> str:
    """Validate a model's name; returns as ``text_problem``."""
    if problem := text_problem(name):
        return problem
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"has {len(name.encode())} bytes in UTF-8; at most {MAX_NAME_BYTES} are allowed"
    if name.startswith("."):
        return "starts with a dot, as hidden folders do"
    if name != name.strip():
        return "starts or ends with a blank, which URLs and headers lose"
    if found := next((character for character in name if character in "/\\:"), ""):
        return f"holds {found!r}, which has a meaning of its own in paths and URLs"
    return ""


def shorten(value: object, most: int = SHOWN) -> str:
    """Return a value's ASCII representation for an error text, truncated to ``most`` characters."""
    text = ascii(value[: most + 1] if isinstance(value, str | bytes | list) else value)
    return text if len(text) <= most else text[:most] + "…"
