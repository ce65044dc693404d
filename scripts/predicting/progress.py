"""Progress bar and summary of a run."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from .rows import OK, Row
from .server import Server

REDRAW_S = 0.2
SHOWN_FAILURES = 5


class Progress:
    """Progress bar on standard error; shown only on a terminal.

    Args:
        total: number of images.
        server: the client, for its current trouble.

    Attributes:
        done: number of completed images.
        failures: rows of the failed ones.
    """

    def __init__(self, total: int, server: Server) -> None:
        self._total, self._server = total, server
        self._started = time.monotonic()
        self._drawn = 0.0
        self._shown = sys.stderr.isatty()
        self.done = 0
        self.failures: list[Row] = []

    def count(self, row: Row) -> None:
        """Count an image's row."""
        self.done += 1
        if row.status != OK:
            self.failures.append(row)
        self.draw()

    def draw(self) -> None:
        """Redraw the bar unless it was drawn just now."""
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
        """Erase the bar."""
        if self._shown:
            self._write("")

    def rate(self) -> str:
        """Return the rate as text."""
        return f"{self.done / (time.monotonic() - self._started + 1e-9):.1f} a second"

    @staticmethod
    def _write(line: str) -> None:
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def print_summary(progress: Progress, path: Path) -> None:
    """Print counts, rate and the first failures."""
    failures = progress.failures
    answered = progress.done - len(failures)
    say(f"{answered:,} pictures answered, {progress.rate()}; {len(failures):,} failed; {path}")
    for row in failures[:SHOWN_FAILURES]:
        say(f"  {row.file}: {row.status}: {row.error}")
    if len(failures) > SHOWN_FAILURES:
        say(f"  and {len(failures) - SHOWN_FAILURES:,} more")


def say(text: str) -> None:
    """Print to standard error."""
    print(text, file=sys.stderr, flush=True)
