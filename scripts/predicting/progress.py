"""How far a run is, and how it went."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from .server import Server
from .table import OK

REDRAW_S = 0.2
SHOWN_FAILURES = 5


class Progress:
    """How far the run is: a line that is drawn over and over on a terminal; elsewhere none."""

    def __init__(self, total: int, server: Server) -> None:
        """Start the clock."""
        self._total, self._server = total, server
        self._started = time.monotonic()
        self._drawn = 0.0
        self._shown = sys.stderr.isatty()
        self.done = 0
        self.failures: list[list[str]] = []

    def count(self, row: list[str]) -> None:
        """Take note of a picture's row."""
        self.done += 1
        if row[1] != OK:
            self.failures.append(row)
        self.draw()

    def draw(self) -> None:
        """Draw the line, where the last drawing is old enough."""
        now = time.monotonic()
        if not self._shown or now < self._drawn + REDRAW_S:
            return
        self._drawn = now
        share = self.done / self._total
        line = f"{share:4.0%} [{'#' * int(20 * share):20}] {self.done:,} of {self._total:,}, {self.rate()}"
        if self.done:
            left_s = round((self._total - self.done) * (now - self._started) / self.done)
            line += f", {left_s // 60}:{left_s % 60:02} left"
        if self.failures:
            line += f", {len(self.failures):,} failed"
        if self._server.trouble:
            line += f" ({self._server.trouble}: trying again)"
        self._write(line[: shutil.get_terminal_size().columns - 1])

    def clear(self) -> None:
        """Wipe the line away."""
        if self._shown:
            self._write("")

    def rate(self) -> str:
        """Return how fast it goes."""
        return f"{self.done / (time.monotonic() - self._started + 1e-9):.1f} a second"

    @staticmethod
    def _write(line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def tell(progress: Progress, path: Path) -> None:
    """Say how it went, and what failed first."""
    failures = progress.failures
    answered = progress.done - len(failures)
    say(f"{answered:,} pictures answered, {progress.rate()}; {len(failures):,} failed; {path}")
    for file, code, *_, detail in failures[:SHOWN_FAILURES]:
        say(f"  {file}: {code}: {detail}")
    if len(failures) > SHOWN_FAILURES:
        say(f"  and {len(failures) - SHOWN_FAILURES:,} more")


def say(text: str) -> None:
    """Tell the person at the terminal."""
    print(text, file=sys.stderr, flush=True)
