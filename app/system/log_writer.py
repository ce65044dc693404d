"""The log's writer thread: callers enqueue lines and never block.

Standard output can stall at any moment: text selected in a terminal, a hanging log driver, a full disk.
The queue is bounded; lines that find it full are dropped and counted, and one line reports their
number afterwards. So neither a greenlet nor the model thread ever waits for the log.

The thread is a native one, started with the first line of a process; after a fork the child has its
own queue and thread. Nothing here uses what gevent has patched.
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
RETRY_S = 0.05  # between attempts to write to a full non-blocking descriptor


def native(module: Any, name: str) -> Any:
    """Return a module's original function, also after gevent has patched it."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module.__name__, name) if monkey else getattr(module, name)


start_thread = native(_thread, "start_new_thread")
make_lock = native(_thread, "allocate_lock")
sleep = native(time, "sleep")


class LineWriter:
    """Writes lines to a descriptor from a thread of its own.

    All methods are safe on any thread and in signal handlers; only ``flush`` waits.

    Args:
        descriptor: an open file descriptor; it stays open.

    Attributes:
        dropped: number of lines that this process has dropped.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.reset()

    def reset(self) -> None:
        """Start with an empty queue (in the child after a fork: the parent writes the queued lines)."""
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._unstarted = make_lock()  # its first holder starts the thread
        self._drop_lock = _thread.RLock()
        self.dropped = 0

    def put(self, line: bytes) -> None:
        """Enqueue a line, which ends with a newline, or drop it if the queue is full."""
        if self._queue.qsize() >= MAX_LINES:
            self._count_drops(1)
            return
        self._queue.put(line)
        if self._unstarted.acquire(blocking=False):
            self._start()

    def _start(self) -> None:
        try:
            start_thread(self._run, ())
        except RuntimeError:  # out of threads; the next line tries again
            self._unstarted.release()

    def _count_drops(self, lines: int) -> None:
        with self._drop_lock:
            self.dropped += lines

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until all lines enqueued so far are written; return False after the timeout."""
        if not self._unstarted.locked():
            return True  # nothing was ever enqueued
        written = make_lock()
        written.acquire()
        self._queue.put(written)
        return bool(written.acquire(timeout=timeout_s))

    def _run(self) -> None:
        """Write lines for ever (the writer thread)."""
        reported = 0
        while True:
            lines, waiter = self._gather()
            if lines and not self._write(b"".join(lines)):
                self._count_drops(len(lines))
            if waiter is not None:
                waiter.release()
            if self.dropped > reported and self._queue.qsize() < MAX_LINES // 2:
                dropped = self.dropped
                if self._write(describe_drops(dropped - reported)):
                    reported = dropped

    def _gather(self) -> tuple[list[bytes], Any]:
        """Wait for lines; return as many as fit one atomic write, and the lock of a ``flush`` behind them.

        Each wake-up of this thread takes the GIL from the hub, so a single line waits for more to come.
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
        """Write lines, waiting as long as that takes; return False if they cannot be written."""
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                sleep(RETRY_S)
            except OSError:  # the reader is gone, or the disk is full
                return False
        return True


def describe_drops(lines: int) -> bytes:
    """Return the log line that reports dropped lines."""
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
os.register_at_fork(after_in_child=stdout.reset)
