"""Names and texts that others wrote: models, classes, descriptions.

They go into logs, headers, JSON, metrics and pages, so they are held to text that each of these can carry.
Every script is welcome; what breaks lines, hides or turns text around is not.
"""

from __future__ import annotations

import unicodedata

MAX_TEXT = 200  # characters of a name
MAX_DESCRIPTION = 2000  # characters
MAX_NAME_BYTES = 255  # of UTF-8: what a folder's name may have
SHOWN = 60  # characters of a wrong value that an error quotes

# Controls (C0, C1, NUL, line breaks), halves of surrogate pairs, and Unicode's own line breaks.
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
# Bidirectional embeddings, overrides and isolates: they show a text in another order than it has.
TURNING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
LINE_BREAKS = "\t\n"  # that a description may hold


def text_problem(text: str, most: int = MAX_TEXT, allowed: str = "") -> str:
    """Return why a text cannot be used, as the rest of a sentence that begins with it; empty where it can.

    Args:
        text: anything.
        most: how many characters it may have.
        allowed: characters that it may hold though they are not printable.
    """
    if not text.strip():
        return "is empty"
    if len(text) > most:
        return f"has {len(text)} characters; at most {most} are allowed"
    for character in text:
        kind = unicodedata.category(character)
        if character not in allowed and (kind in UNPRINTABLE or character in TURNING):
            return f"holds U+{ord(character):04X}, which is not printable"
    return ""


def name_problem(name: str) -> str:
    """Return why a name cannot be a model's, as the rest of a sentence that begins with it; empty where it can."""
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
    """Return a value as ASCII for an error's text, at most so many characters of it."""
    text = ascii(value[: most + 1] if isinstance(value, str | bytes | list) else value)
    return text if len(text) <= most else text[:most] + "…"
