"""Parsers of settings: each takes the text of an environment variable and returns its value.

A text that is outside the parser's range raises ValueError; the message says what was expected.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path

from app.keys import parse_scopes
from app.names import name_problem


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from ``least`` to ``most``, both included."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text) or not least <= int(text) <= most:
            raise ValueError(f"expected a whole number from {least} to {most}")
        return int(text)

    return parse


def number(least: float, most: float) -> Callable[[str], float]:
    """Return a parser of decimal numbers from ``least`` to ``most``, both included."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"-?\d+(\.\d+)?", text) or not least <= float(text) <= most:
            raise ValueError(f"expected a number from {least:g} to {most:g}")
        return float(text)

    return parse


def auto_or(parse: Callable[[str], int]) -> Callable[[str], int | None]:
    """Return a parser that accepts ``auto`` (None) besides the values of ``parse``."""

    def parse_auto(text: str) -> int | None:
        try:
            return None if text == "auto" else parse(text)
        except ValueError as error:
            raise ValueError(f"{error}, or auto") from None

    return parse_auto


def switch(text: str) -> bool:
    """Parse ``on`` or ``off``."""
    return one_of("on", "off")(text) == "on"


def device(text: str) -> str:
    """Parse ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return text


def one_of(*words: str) -> Callable[[str], str]:
    """Return a parser that accepts one of some words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected {', '.join(words[:-1])} or {words[-1]}")
        return text

    return parse


def folder(root: Path) -> Callable[[str], Path]:
    """Return a parser of paths; a relative one is resolved against ``root``."""
    return lambda text: root / text


def optional_file(root: Path) -> Callable[[str], Path | None]:
    """Return a parser of paths that returns None if the text is empty."""
    return lambda text: root / text if text else None


def model_name(text: str) -> str:
    """Parse the name of a model, which is a folder's name; empty for none."""
    if text and (problem := name_problem(text)):
        raise ValueError(f"it {problem}")
    return text


def versions(text: str) -> str:
    """Parse a version policy (``app/control/repository.py``)."""
    if not re.fullmatch(r"latest:[1-9]\d{0,2}|all|[1-9]\d{0,17}(,[1-9]\d{0,17})*", text):
        raise ValueError("expected latest:N, all, or version numbers such as 3,4")
    return text


def scopes(text: str) -> frozenset[str] | None:
    """Parse a list of scopes (``app/keys.py``), ``none`` for no scope, or ``auto`` (None)."""
    if text == "auto":
        return None
    return frozenset() if text == "none" else parse_scopes(text)


def hosts(text: str) -> tuple[str, ...]:
    """Parse a list of hosts, optionally with a wildcard and a port (``app/web/input/urls.py``)."""
    found = split_list(text)
    for host in found:
        if not re.fullmatch(r"(\*\.)?[A-Za-z0-9.-]+(:\d{1,5})?", host):
            raise ValueError(
                f"expected hosts such as images.example.org or *.example.org:8443, found {host!r}"
            )
    return found


def addresses(text: str) -> tuple[str, ...]:
    """Parse a list of IP addresses."""
    found = tuple(part.strip() for part in text.split(","))
    for address in found:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise ValueError(
                f"expected IP addresses such as 127.0.0.1 or 0.0.0.0,::, found {address!r}"
            ) from None
    return found


def networks(text: str) -> tuple[str, ...]:
    """Parse a list of IP addresses and networks; an address is a network of one."""
    found = []
    for part in split_list(text):
        try:
            found.append(str(ipaddress.ip_network(part)))
        except ValueError as error:
            raise ValueError(
                f"expected IP addresses or networks such as 10.1.2.3 or 10.0.0.0/8,fd00::/8, found {part!r} ({error})"
            ) from None
    return tuple(dict.fromkeys(found))


def host_names(text: str) -> tuple[str, ...]:
    """Parse a list of host names without ports, optionally with a wildcard; they are returned in lower case."""
    found = split_list(text)
    for name in found:
        if not re.fullmatch(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", name) or len(name) > 253:
            raise ValueError(
                f"expected host names without a port, such as images.example.org or *.example.org, found {name!r}"
            )
    return tuple(dict.fromkeys(name.lower() for name in found))


def origins(text: str) -> tuple[str, ...]:
    """Parse a list of web origins, or ``*`` for every one; they are returned in lower case."""
    found = split_list(text)
    for origin in found:
        known = re.fullmatch(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", origin)
        if origin != "*" and not known:
            raise ValueError(
                f"expected origins such as https://app.example.org or http://localhost:3000, or *, found {origin!r}"
            )
    return tuple(dict.fromkeys(origin.lower() for origin in found))


def split_list(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas, without the empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
