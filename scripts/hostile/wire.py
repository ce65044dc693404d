"""HTTP as bytes on a socket: requests of any kind, sent as they are, and every answer that came."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

Address = tuple[str, int]
MOST_RECEIVED = 64 << 20  # bytes of answers; more is never read
NO_BODY = frozenset({204, 304})


@dataclass(frozen=True)
class Answer:
    """One answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Exchange:
    """The result of some bytes on one connection.

    Attributes:
        answers: in their order, without those of 1xx.
        rest: bytes after the last whole answer.
        seconds: from the connection to its end.
        error: why it ended, where the server did not end it.
    """

    answers: list[Answer] = field(default_factory=list)
    rest: bytes = b""
    seconds: float = 0.0
    error: str = ""


def build(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """Return a request on a connection of its own; underscores in names of headers stand for hyphens."""
    given = {"Host": "localhost", "Connection": "close"}
    if body or method == "POST":
        given["Content-Length"] = str(len(body))
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def read_answers(data: bytes, bodiless: bool = False) -> tuple[list[Answer], bytes]:
    """Return the whole answers that some bytes begin with, and the bytes after them.

    Args:
        data: as they came.
        bodiless: answers have no body, whatever their headers say (HEAD).
    """
    answers = []
    while (end := data.find(b"\r\n\r\n")) >= 0 and data.startswith(b"HTTP/1."):
        first, *lines = data[:end].decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        status = int(first.split()[1])
        if status < 200:
            data = data[end + 4 :]
            continue
        empty = bodiless or status in NO_BODY
        found = (b"", end + 4) if empty else read_body(data, end + 4, headers)
        if found is None:
            break
        answers.append(Answer(status, headers, found[0]))
        data = data[found[1] :]
    return answers, data


def read_body(data: bytes, start: int, headers: dict[str, str]) -> tuple[bytes, int] | None:
    """Return an answer's body and where it ends, or nothing where it is not whole."""
    if headers.get("transfer-encoding", "") == "chunked":
        body = b""
        while (line := data.find(b"\r\n", start)) >= 0:
            size = int(data[start:line], 16)
            body += data[line + 2 : line + 2 + size]
            start = line + 2 + size + 2
            if size == 0:
                return body, start
        return None
    length = int(headers.get("content-length", len(data) - start))
    return (data[start : start + length], start + length) if len(data) >= start + length else None


@dataclass(frozen=True)
class Manner:
    """How a connection is used.

    Attributes:
        timeout_s: after which it is given up.
        quiet_s: end it also when that long nothing came, for streams that may leave it open.
        source: the address that it comes from.
        half_close: close the sending side after the bytes.
    """

    timeout_s: float = 60
    quiet_s: float | None = None
    source: str = "127.0.0.1"
    half_close: bool = False


POLITE = Manner()


async def exchange(address: Address, data: bytes, manner: Manner = POLITE) -> Exchange:
    """Send bytes and read until the server closes."""
    done, received = Exchange(), bytearray()
    began = time.monotonic()
    try:
        async with asyncio.timeout(manner.timeout_s):
            await converse(address, data, received, manner)
    except TimeoutError:
        done.error = f"no end within {manner.timeout_s:g} s"
    except OSError as error:  # a reset is an end like another if the answer came before it
        done.error = f"{type(error).__name__}: {error}"
    done.seconds = time.monotonic() - began
    done.answers, done.rest = read_answers(bytes(received), data.startswith(b"HEAD "))
    return done


async def converse(address: Address, data: bytes, received: bytearray, manner: Manner) -> None:
    """Send and receive at once, until the server closes or is quiet."""
    reader, writer = await asyncio.open_connection(*address, local_addr=(manner.source, 0))
    sending = asyncio.create_task(send(writer, data, manner.half_close))
    try:
        while len(received) < MOST_RECEIVED:
            try:
                piece = await asyncio.wait_for(reader.read(1 << 16), manner.quiet_s)
            except TimeoutError:
                if sending.done():
                    return
                continue
            if not piece:
                return
            received += piece
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        writer.transport.abort()


async def send(writer: asyncio.StreamWriter, data: bytes, half_close: bool) -> None:
    """Send bytes; a server that answers early and closes is not an error."""
    with suppress(OSError):
        writer.write(data)
        await writer.drain()
        if half_close:
            writer.write_eof()
