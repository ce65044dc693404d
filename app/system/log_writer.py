"""The thread that writes the log: whoever logs puts a line into its queue and goes on.

Standard output may stop at any moment: a terminal in which somebody selects text, a log driver that
hangs, a full disk. The queue is bounded in bytes; lines that find it full are dropped and counted,
and one line says afterwards how many. So neither a greenlet nor the model thread ever waits for a log.

The thread is a native one, started with the first line of a process: after a fork the child has a
queue and a thread of its own. Nothing in here is known to gevent, whatever it has patched.
"""

from __future__ import annotations

import _thread
import json
import os
import select
import sys
import time
from _queue import SimpleQueue  # queue's own becomes gevent's
from datetime import UTC, datetime
from typing import Any

MAX_LINE_BYTES = 2000  # below PIPE_BUF: lines of several processes never mix in a pipe
MAX_QUEUED_BYTES = 4 * 1024 * 1024
MAX_LINES = MAX_QUEUED_BYTES // MAX_LINE_BYTES
FLUSH_S = 0.5
GATHER_S = 0.01
RETRY_S = 0.05  # where standard output is non-blocking and full


def native(module: Any, name: str) -> Any:
    """Return a module's own function, also after gevent has put one of its own into its place."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module.__name__, name) if monkey else getattr(module, name)


start_thread = native(_thread, "start_new_thread")
make_lock = native(_thread, "allocate_lock")
sleep = native(time, "sleep")


class LineWriter:
    """Writes lines to a descriptor; every method is safe on any thread, in a signal's handler, and never waits.

    Attributes:
        dropped: how many lines of this process were dropped so far.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to a descriptor that stays open."""
        self._descriptor = descriptor
        self.start_anew()

    def start_anew(self) -> None:
        """Forget everything (in the child, after a fork): the queue's lines are the parent's to write."""
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._unstarted = make_lock()  # the first to take it starts the thread
        self._counting = _thread.RLock()
        self.dropped = 0

    def put(self, line: bytes) -> None:
        """Have a line written, or drop it where the queue is full; it ends with a newline."""
        if self._queue.qsize() >= MAX_LINES:
            self._count_drops(1)
            return
        self._queue.put(line)
        if self._unstarted.acquire(blocking=False):
            self._start()

    def _start(self) -> None:
        try:
            start_thread(self._run, ())
        except RuntimeError:  # no more threads just now; the next line tries again
            self._unstarted.release()

    def _count_drops(self, lines: int) -> None:
        with self._counting:
            self.dropped += lines

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until every line put so far is written; at most so long. False where that took longer."""
        if not self._unstarted.locked():
            return True  # nothing was ever put
        written = make_lock()
        written.acquire()
        self._queue.put(written)
        return bool(written.acquire(timeout=timeout_s))

    def _run(self) -> None:
        """Write for ever (in the thread)."""
        told = 0
        while True:
            lines, waiter = self._gather()
            if lines and not self._write(b"".join(lines)):
                self._count_drops(len(lines))
            if waiter is not None:
                waiter.release()
            if self.dropped > told and self._queue.qsize() < MAX_LINES // 2:
                dropped = self.dropped
                if self._write(describe_drops(dropped - told)):
                    told = dropped

    def _gather(self) -> tuple[list[bytes], Any]:
        """Wait for lines; return as many as one write keeps together, and whoever waits in ``flush`` behind them.

        Each turn of this thread takes the GIL from the hub, so a lone line waits a moment for the next.
        """
        lines: list[bytes] = []
        size = 0
        item = self._queue.get()
        if self._queue.empty():
            sleep(GATHER_S)
        while isinstance(item, bytes):
            lines.append(item)
            size += len(item)
            if size + MAX_LINE_BYTES > select.PIPE_BUF or self._queue.empty():
                return lines, None
            item = self._queue.get()
        return lines, item

    def _write(self, line: bytes) -> bool:
        """Write lines however long that takes; False where they cannot be written at all."""
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                sleep(RETRY_S)
            except OSError:  # nobody is left to read it, or the disk is full
                return False
        return True


def describe_drops(lines: int) -> bytes:
    """Return the line that says how many are missing."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "level": "WARNING",
        "logger": __name__,
        "message": f"{lines:,} lines of this log were dropped: they could not be written in time",
        "pid": os.getpid(),
        "dropped": lines,
    }
    return json.dumps(line).encode() + b"\n"


stdout = LineWriter(1)
os.register_at_fork(after_in_child=stdout.start_anew)
