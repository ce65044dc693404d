"""Quoting of client text in errors and answers, abbreviated to the limits in ``app/web/limits.py``."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec
from msgspec import Raw

from app.web.limits import MAX_DEPTH, MAX_ECHO, MAX_LISTED, MAX_NAMED, MAX_SHOWN_BITS


def cut(text: str, most: int = MAX_ECHO) -> str:
    """Truncate a text to ``most`` characters; "…" marks the cut."""
    return text if len(text) <= most else f"{text[:most]}…"


def cut_json(text: str, most: int) -> str:
    """Truncate a text to ``most`` bytes of JSON.

    Lone surrogates, which UTF-8 cannot encode, become "?".
    """
    text = text.encode("utf-8", "replace").decode()
    while (size := len(msgspec.json.encode(text))) > most:
        text = f"{text[: (len(text) - 1) * most // (size + 8)]}…"
    return text


def list_names(names: Iterable[str]) -> str:
    """Return a sorted, comma-separated list of at most ``MAX_NAMED`` names; empty if there are none."""
    found = sorted(set(names))
    more = f" … of {len(found):,}" if len(found) > MAX_NAMED else ""
    return ", ".join(cut(name) for name in found[:MAX_NAMED]) + more


def abbreviate(value: object) -> str:
    """Return a value as JSON, abbreviated: lists, objects and strings of any size are safe to quote."""
    return cut(_write(value, MAX_DEPTH))


def _write(value: object, depth: int) -> str:
    if isinstance(value, list):
        return _write_list(value, depth)
    if isinstance(value, dict):
        return _write_object(value, depth)
    if isinstance(value, Raw):
        return bytes(memoryview(value)[: MAX_ECHO + 1]).decode("utf-8", "replace")
    if isinstance(value, int) and value.bit_length() > MAX_SHOWN_BITS:
        return "a number of very many digits"
    return json.dumps(value[: MAX_ECHO + 1] if isinstance(value, str) else value)


def _write_list(elements: list[object], depth: int) -> str:
    if len(elements) > MAX_LISTED:
        return f"a list of {len(elements):,}"
    return f"[{', '.join(_write(each, depth - 1) for each in elements) if depth else '…'}]"


def _write_object(members: dict[str, object], depth: int) -> str:
    shown = [*members][:MAX_LISTED] if depth else []
    pairs = [f"{json.dumps(cut(name))}: {_write(members[name], depth - 1)}" for name in shown]
    more = ["…"] if len(members) > len(shown) else []
    return f"{{{', '.join([*pairs, *more])}}}"
