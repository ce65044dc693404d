"""Whether each line of the server's logs is one JSON object of at most 2 kB, whatever clients sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES = 2048
# What some readers take for the end of a line, and what steers terminals.
RAW = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F)]
LOGS = ("gunicorn.log", "nginx.log", "watch.log")


def measure_logs(run: Path) -> dict[str, int]:
    """Return the length of each log; lines before that are not caused by clients."""
    return {name: sum(path.stat().st_size for path in run.glob(f"{name}*")) for name in LOGS}


def check_logs(run: Path, begun: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yield the faults of the lines that were added to the logs since, with the line."""
    for name in LOGS:
        files = sorted(run.glob(f"{name}*"), reverse=True)  # the rotated file is the older one
        data = b"".join(path.read_bytes() for path in files)[begun[name] :]
        for line in data.split(b"\n")[:-1]:
            if fault := find_fault(line):
                yield f"{name}: {fault}", repr(line[:200])


def find_fault(line: bytes) -> str:
    """Return the fault of a line, or an empty text."""
    if len(line) > MOST_BYTES:
        return f"a line of over {MOST_BYTES:,} bytes"
    try:
        text = line.decode()
        content = json.loads(text)
    except ValueError:
        return "a line that is no JSON"
    if not isinstance(content, dict):
        return "a line that is no JSON object"
    return "a raw control character" if set(map(ord, text)) & set(RAW) else ""
