"""Damaged pictures, decoded as the server does it, in processes of their own with bounds of memory and time.

Run by itself with a seed, a first index, a last one, a step and the size of bombs, it is such a process: it writes
each index before it decodes that picture, and a line of JSON about each that is not as it should be.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from app.errors import ServingError
from app.processing.images import decode_image
from app.settings import ROOT, Settings
from app.system.machine import count_cores
from scripts.hostile.bombs import make_bombs
from scripts.hostile.dice import throw
from scripts.hostile.mutate import make_picture
from scripts.hostile.trial import Row, Trial

PICTURES = 100_000
MOST_WALL_S = 60  # the process ends after that; a machine may be busy
MOST_CPU_S = 5.0
MOST_MIB = 600  # above what the process has at rest
GROWN_MIB = 200  # kept by it: time for another one
SPARE_MIB = 2048  # of address space: what wants more gets a MemoryError


async def run(trial: Trial, row: Row) -> None:
    """Decode in as many processes as there are cores."""
    count = trial.options.scaled(PICTURES, 300) + 2 * len(make_bombs(1))
    lanes = count_cores()
    await asyncio.gather(*(run_lane(trial, row, lane, count, lanes) for lane in range(lanes)))


async def run_lane(trial: Trial, row: Row, first: int, count: int, lanes: int) -> None:
    """Decode every so-and-so-many-th picture; a process that ends before its last is started again behind it."""
    following: int | None = first
    while following is not None and following < count and not row.out_of_time:
        following = await run_process(trial, row, following, count, lanes)


async def run_process(trial: Trial, row: Row, first: int, count: int, lanes: int) -> int | None:
    """Decode until the process ends; return where another one has to go on."""
    options = trial.options
    numbers = (options.seed, first, count, lanes, options.bomb_bytes)
    command = ["-m", "scripts.hostile.decoding", *map(str, numbers)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    index, why = first, ""
    assert process.stdout is not None  # noqa: S101  (it is a pipe)
    try:
        while line := await asyncio.wait_for(process.stdout.readline(), MOST_WALL_S):
            if line.startswith(b"{"):
                note(trial, row, json.loads(line))
            elif line == b"done\n" or row.out_of_time:
                return None
            else:
                index = int(line)
                row.sent += 1
    except TimeoutError:
        why = f"it was still being decoded after {MOST_WALL_S} s"
    finally:
        if process.returncode is None:
            process.kill()
        status = await process.wait()
    if why or status != 0:
        note(trial, row, {"index": index, "fault": why or f"its process ended with {status}"})
    return index + lanes


def note(trial: Trial, row: Row, found: dict[str, Any]) -> None:
    """Keep a picture that is not decoded as it should be."""
    name, data = picture_at(trial.options.seed, found["index"], trial.options.bomb_bytes)
    path = trial.save(row.name, data, ".bin")
    kind = found["fault"] if not name.startswith("bomb") else f"{name}: {found['fault']}"
    row.add_fault(kind, f"{name}#{found['index']} {path}{found.get('detail', '')}")


def picture_at(seed: int, index: int, bomb_bytes: int) -> tuple[str, bytes]:
    """Return a picture by its index; the first are the bombs, each twice: see ``choose_way``."""
    bombs = make_bombs(bomb_bytes)
    if index < 2 * len(bombs):
        name = list(bombs)[index // 2]
        return f"bomb {name}", bombs[name]()
    return make_picture(seed, index)


def choose_way(seed: int, index: int) -> dict[str, Any]:
    """Return the options by which a picture is decoded; every second one is decoded fast, so each bomb in both ways."""
    return {"fast": bool(index % 2), "exif_rotate": throw(seed, "rotate", index).random() < 0.5}


def check_picture(seed: int, index: int, bomb_bytes: int) -> dict[str, Any] | None:
    """Decode an image; return the fault, or None."""
    data = picture_at(seed, index, bomb_bytes)[1]
    how = choose_way(seed, index)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    rest_mib, began = read_mib("VmRSS"), time.process_time()
    try:
        decode_image(io.BytesIO(data), Settings.from_env({}).max_pixels, **how)
    except ServingError:
        pass
    except Exception as error:  # noqa: BLE001 (that none escapes is what is tried)
        return {"index": index, "fault": f"{type(error).__name__} escapes: {error}"[:200]}
    taken_s = time.process_time() - began
    if taken_s > MOST_CPU_S:
        fault = f"takes over {MOST_CPU_S:g} s of CPU time"
        return {"index": index, "fault": fault, "detail": f" {taken_s:.1f} s, {len(data):,} bytes"}
    if (mib := read_mib("VmHWM") - rest_mib) > MOST_MIB:
        fault = f"takes over {MOST_MIB} MiB"
        return {"index": index, "fault": fault, "detail": f" {mib:.0f} MiB, {len(data):,} bytes"}
    return None


def read_mib(name: str) -> float:
    """Return a number of MiB that the kernel has of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def main(seed: int, first: int, count: int, step: int, bomb_bytes: int) -> None:
    """Decode images; end when the process has grown: it would hide the memory of the next ones."""
    os.nice(5)
    spare = int(read_mib("VmSize") + SPARE_MIB) << 20
    resource.setrlimit(resource.RLIMIT_AS, (spare, spare))
    rest_mib = read_mib("VmRSS")
    for index in range(first, count, step):
        print(index, flush=True)
        if found := check_picture(seed, index, bomb_bytes):
            print(json.dumps(found), flush=True)
        if read_mib("VmRSS") > rest_mib + GROWN_MIB and index + step < count:
            return
    print("done", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
