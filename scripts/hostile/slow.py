"""Clients that are slow, idle, disconnected, or never read their answers; many at once, for a while."""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

from scripts.hostile.dice import throw
from scripts.hostile.good import PICTURE
from scripts.hostile.routes import PICTURE_ROUTES
from scripts.hostile.trial import Row, Trial, source_of
from scripts.hostile.wire import Address, build

SLOW = 1000
IDLE = 2000
LEAVING = 200
SECONDS = 45.0  # that the slow ones go on
DRIP_S = (0.3, 3.0)
AT_ONCE = 200  # connections that are opened at the same time
DESCRIPTORS = 8192

Client = Callable[[Address, str, random.Random, float], Awaitable[None]]


def allow_descriptors() -> None:
    """Let this process open as many sockets as it needs, where it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


async def run(trial: Trial, row: Row) -> None:
    """Run all kinds at once; none of them is answered, so nothing of theirs is judged but the good clients'."""
    allow_descriptors()
    options = trial.options
    until = min(row.until, time.monotonic() + max(6.0, SECONDS * min(1.0, options.scale)))
    kinds: list[tuple[Client, int]] = [
        (drip_headers, options.scaled(SLOW // 3, 17)),
        (drip_body, options.scaled(SLOW // 3, 17)),
        (read_nothing, options.scaled(SLOW // 3, 16)),
        (idle, options.scaled(IDLE, 50)),
        (leave, options.scaled(LEAVING, 20)),
    ]
    opening = asyncio.Semaphore(AT_ONCE)

    async def start(client: Client, number: int) -> None:
        dice = throw(options.seed, client.__name__, number)
        async with opening:
            await asyncio.sleep(dice.random())
        row.sent += 1
        with suppress(OSError, TimeoutError):  # it is the server's right to end them
            await client(trial.address, source_of(number), dice, until)

    await asyncio.gather(
        *(start(client, number) for client, count in kinds for number in range(count))
    )


async def connect(
    address: Address, source: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection that holds little on this side."""
    async with asyncio.timeout(15):
        return await asyncio.open_connection(*address, local_addr=(source, 0), limit=1024)


async def drip(
    writer: asyncio.StreamWriter, data: bytes, dice: random.Random, until: float
) -> None:
    """Send byte by byte, with pauses, until the time is over or the server closes."""
    for place in range(len(data)):
        if time.monotonic() > until:
            break
        writer.write(data[place : place + 1])
        await writer.drain()
        await asyncio.sleep(dice.uniform(*DRIP_S))
    writer.transport.abort()


async def drip_headers(address: Address, source: str, dice: random.Random, until: float) -> None:
    """Send a request's headers byte by byte."""
    _, writer = await connect(address, source)
    await drip(writer, build("GET", "/healthz", X="y" * 4000), dice, until)


async def drip_body(address: Address, source: str, dice: random.Random, until: float) -> None:
    """Send headers that promise megabytes, some of them, then byte by byte."""
    _, writer = await connect(address, source)
    length = dice.choice((10_000, 2_000_000, 33_554_432))
    path = dice.choice(("/predict", "/model_predict", "/nothing-here", "/v1/models/demo:predict"))
    headers = {"Content_Length": str(length), "Content_Type": "image/jpeg"}
    writer.write(
        build("POST", path, b"", **headers)
        + bytes(dice.choice((0, 1000, min(length // 2, 100_000))))
    )
    await drip(writer, bytes(1000), dice, until)


async def read_nothing(address: Address, source: str, dice: random.Random, until: float) -> None:
    """Request a long answer repeatedly, and never read it."""
    reader, writer = await connect(address, source)
    asked = build(
        "GET",
        dice.choice(("/openapi.json", "/samples/street.jpg")),
        Connection="keep-alive",
    )
    cast("asyncio.Transport", writer.transport).pause_reading()
    writer.write(asked * 8)
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            await writer.drain()
            await asyncio.sleep(max(0.0, until - time.monotonic()))
    writer.transport.abort()
    del reader


async def idle(address: Address, source: str, dice: random.Random, until: float) -> None:
    """Connect and say nothing, or something once, perhaps close the sending side; then wait."""
    reader, writer = await connect(address, source)
    said = dice.choice((b"", b"", b"GET", build("GET", "/healthz", Connection="keep-alive")))
    writer.write(said)
    if dice.random() < 0.2:
        writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            while await reader.read(1024):
                pass
    writer.transport.abort()


async def leave(address: Address, source: str, dice: random.Random, until: float) -> None:
    """Send pictures and hang up soon, again and again: before, while and after they are computed."""
    data = PICTURE.read_bytes()
    while time.monotonic() < until:
        _, writer = await connect(address, source)
        request = PICTURE_ROUTES[dice.choice(sorted(PICTURE_ROUTES))](data)
        writer.write(request[: dice.choice((len(request), len(request), len(request) // 2))])
        await asyncio.sleep(dice.choice((0, 0.01, 0.1, 0.5)))
        if dice.random() < 0.5:
            writer.transport.abort()  # a reset
        else:
            writer.close()
        await asyncio.sleep(min(dice.uniform(4, 12), max(0.0, until - time.monotonic())))
