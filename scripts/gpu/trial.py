"""The state and the report of a step."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.system.gpus import Gpu, list_gpus

MIB = 1 << 20


@dataclass
class Trial:
    """A running step.

    Attributes:
        rehearse: run on the CPU, scaled down.
        facts: measurements for the report.
        faults: failed expectations, a sentence each.
        folder: the step's temporary files.
    """

    rehearse: bool
    facts: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="test-gpu-")))

    @property
    def device(self) -> str:
        """``SERVING_DEVICE`` of the servers."""
        return "cpu" if self.rehearse else "cuda"

    def few(self, many: int, few: int) -> int:
        """Return ``many`` on a GPU, ``few`` in a rehearsal."""
        return few if self.rehearse else many

    def expect(self, holds: object, text: str) -> bool:
        """Record a fault unless a condition holds."""
        if not holds:
            self.faults.append(text)
        return bool(holds)

    def wait(self, condition: Callable[[], object], seconds: float, what: str) -> bool:
        """Wait until a condition holds; record a fault after the timeout."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():
                return True
            time.sleep(0.1)
        return self.expect(False, f"not within {seconds:g} s: {what}")

    def report(self) -> str:
        """Return the report as one line of JSON."""
        return json.dumps({"facts": self.facts, "faults": self.faults})


def gpus() -> list[Gpu]:
    """Return the GPUs."""
    return list_gpus()


def used_mib() -> list[int]:
    """Return the used memory of each GPU, in MiB."""
    return [(gpu.total - gpu.free) // MIB for gpu in list_gpus()]
