"""Add, list, replace and remove API keys, in the file that SERVING_KEYS names. No server need run.

The server takes a change over within seconds. A key is printed once, alone on standard output; the file has only
its SHA-256, so a lost key cannot be shown again: rotate it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from app.errors import KeyFileError, SettingsError
from app.keys import (
    CLIENT_SCOPES,
    EXPIRY,
    SCOPES,
    Key,
    format_line,
    make_key,
    parse_keys,
    parse_line,
    parse_name,
    parse_scopes,
    read_keys,
    read_lines,
)
from app.settings import Settings
from app.system.files import lock_file, write_file

HEADER = "# API keys; scripts/keys writes this file, and may run while the server does."
LOCK_S = 10
MAX_DAYS = 36_500
OVERLAP = "7d"  # for which a replaced key stays valid


def parse_time(text: str) -> datetime:
    """Return a time in UTC from a number of days (``90d``), a date or a time. Raises ValueError."""
    if days := re.fullmatch(r"(\d{1,5})d", text):
        if int(days[1]) > MAX_DAYS:
            raise ValueError(f"{text} is over the limit of {MAX_DAYS}d")
        return datetime.now(UTC).replace(microsecond=0) + timedelta(days=int(days[1]))
    for form in ("%Y-%m-%d", EXPIRY):
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise ValueError(f"{text!r} is no time; expected 90d, 2027-01-01 or 2027-01-01T00:00:00Z")


@contextmanager
def change(path: Path) -> Iterator[list[str]]:
    """Yield the file's lines for a change in place, then write them; a file that is missing is made.

    Raises:
        KeyFileError: the file is malformed, or would be.
        OSError: it cannot be written.
    """
    with lock_file(path.with_name(f".{path.name}.lock"), LOCK_S) as locked:
        if locked is False:
            raise KeyFileError(f"another scripts/keys has been changing {path} for {LOCK_S} s")
        lines = read_lines(path) if path.exists() else [HEADER]
        parse_keys(lines, path)
        yield lines
        parse_keys(lines, path)
        write_file(path, "".join(f"{line}\n" for line in lines), private=True)


def add(path: Path, name: str, scopes: frozenset[str], expires: datetime | None) -> str:
    """Add a key for a client; return its text."""
    key, text = make_key(name, scopes, expires)
    with change(path) as lines:
        lines.append(format_line(key))
    return text


def remove(path: Path, name: str, id_: str = "") -> int:
    """Remove a client's keys, or the one with the id; return how many. Raises KeyFileError if there is none."""
    with change(path) as lines:
        kept = [line for line in lines if not is_of(parse_line(line), name, id_)]
        count = len(lines) - len(kept)
        if not count:
            raise KeyFileError(describe_absence(path, name, id_))
        lines[:] = kept
    return count


def rotate(path: Path, name: str, until: datetime, expires: datetime | None) -> str:
    """Add a key with the scopes of the client's newest; its other keys expire at ``until`` at the latest."""
    with change(path) as lines:
        places = {place: key for place, line in enumerate(lines) if (key := parse_line(line))}
        own = {place: key for place, key in places.items() if key.name == name}
        if not own:
            raise KeyFileError(describe_absence(path, name))
        for place, key in own.items():
            if key.expires is None or key.expires > until:
                lines[place] = format_line(dataclasses.replace(key, expires=until))
        key, text = make_key(name, own[max(own)].scopes, expires)
        lines.append(format_line(key))
    return text


def is_of(key: Key | None, name: str, id_: str) -> bool:
    """Return whether a key is a client's, and has the id if one is given."""
    return key is not None and key.name == name and id_ in ("", key.id)


def describe_absence(path: Path, name: str, id_: str = "") -> str:
    """Return the sentence for a key that is not there."""
    return f"{path} has no key of {name!r}{f' with the id {id_}' if id_ else ''}"


def list_keys(path: Path) -> Iterator[str]:
    """Yield a table of the keys, without anything secret."""
    rows = [("NAME", "ID", "SCOPES", "EXPIRES")]
    for key in read_keys(path).values():
        scopes = ",".join(scope for scope in SCOPES if scope in key.scopes)
        expiry = f"{key.expiry or 'never'}{' (expired)' if key.has_expired else ''}"
        rows.append((key.name, key.id, scopes, expiry))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def argument(parse: Callable[[str], object]) -> Callable[[str], object]:
    """Return a parser for argparse that keeps the message of a ValueError."""

    def parse_argument(text: str) -> object:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    scopes = "; ".join(f"{scope}: {opens}" for scope, opens in SCOPES.items())
    parser = argparse.ArgumentParser(
        prog="scripts/keys", description=__doc__, epilog=f"Scopes: {scopes}."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {
        name: commands.add_parser(name, help=text, description=f"{text}.")
        for name, text in {
            "add": "make a key for a client and print it",
            "list": "list the keys, without the secrets",
            "remove": "remove the keys of a client",
            "rotate": "make a new key for a client; its old ones expire",
        }.items()
    }
    for name in ("add", "remove", "rotate"):
        parsers[name].add_argument("name", metavar="NAME", type=argument(parse_name))
    parsers["add"].add_argument(
        "--scopes", type=argument(parse_scopes), default=CLIENT_SCOPES, help="default: predict,read"
    )
    for name in ("add", "rotate"):
        parsers[name].add_argument(
            "--expires", type=argument(parse_time), help="90d, or a date; default: never"
        )
    parsers["remove"].add_argument("--id", default="", help="only the key with this id")
    overlap = f"how long the old keys stay valid; default: {OVERLAP}; 0d: not at all"
    parsers["rotate"].add_argument(
        "--overlap", type=argument(parse_time), default=OVERLAP, help=overlap
    )
    return parser


def run(arguments: argparse.Namespace, path: Path) -> None:
    """Run a command and print its result: keys on standard output, sentences on standard error."""
    name = getattr(arguments, "name", "")
    match arguments.command:
        case "add":
            print(add(path, name, arguments.scopes, arguments.expires))
            say(f"the key of {name}: it is not shown again")
        case "list":
            for line in list_keys(path):
                print(line)
        case "remove":
            count = remove(path, name, arguments.id)
            say(f"removed {count} {'key' if count == 1 else 'keys'} of {name}")
        case "rotate":
            print(rotate(path, name, arguments.overlap, arguments.expires))
            until = arguments.overlap.strftime(EXPIRY)
            say(f"the new key of {name}: it is not shown again; older ones expire at {until}")


def say(text: str) -> None:
    """Print a sentence on standard error."""
    print(text, file=sys.stderr)


def main() -> None:
    """Change the keys by the arguments and the environment."""
    arguments = make_parser().parse_args()
    try:
        path = Settings.from_env(os.environ).keys
        if path is None:
            raise SettingsError("SERVING_KEYS names no file; set it, such as SERVING_KEYS=keys")
        run(arguments, path)
    except SettingsError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{path} cannot be written, and is as it was: {error.strerror}")


if __name__ == "__main__":
    main()
