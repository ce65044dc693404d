"""Gunicorn's master, with a reload that never interrupts serving.

A reload reads the configuration, plans the workers and starts the new ones. The old ones are stopped only
when a new one has its model: until then both run beside each other. If memory cannot hold both (on a GPU), the
old ones stop first, as in Gunicorn. If anything fails, the old workers go on and the log has the reason.
The master never blocks meanwhile, so a stop in the middle of a reload is as fast as any other.
"""

from __future__ import annotations

import io
import os
import signal
import time
from contextlib import redirect_stderr
from dataclasses import dataclass
from types import FrameType
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config

from app.control.plan import Plan, fits_beside
from app.control.planner import planner
from app.scoreboard import State, scoreboard
from app.settings import Settings

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
MARGIN_S = 10.0  # a worker whose load takes too long fails by itself
MAX_DEATHS = 3  # of new workers in one reload


class ReloadError(Exception):
    """The configuration cannot be reloaded."""


class Interrupted(BaseException):
    """A stop while the configuration is being read; no ``except Exception`` may catch it."""


@dataclass(frozen=True)
class Before:
    """The state to restore when a reload fails: Gunicorn's configuration and the plan of the old workers."""

    config: Config
    plan: Plan | None


class Master(Arbiter):
    """Gunicorn's master. A worker's ``plan`` identifies its configuration (set in ``pre_fork``)."""

    _before: Before | None = None  # while new workers load beside old ones
    _until = 0.0  # monotonic s: the end of the wait for them
    _age = 0  # of the last worker before them
    _is_reading = False
    _reload_again = False

    @classmethod
    def adopt(cls, arbiter: Arbiter) -> None:
        """Turn Gunicorn's arbiter into this class; Gunicorn has no setting for it."""
        arbiter.__class__ = cls

    def signal(self, sig: int, frame: FrameType | None) -> None:
        """Queue a signal; a stop interrupts the reading of a configuration."""
        super().signal(sig, frame)
        if self._is_reading and sig in STOPS:
            raise Interrupted

    def handle_usr2(self) -> None:
        """Refuse a second master: it would plan the same memory again and count into the same metrics."""
        self.log.warning("SIGUSR2 is refused: reload with SIGHUP, or restart")

    def handle_ttin(self) -> None:
        """Refuse another worker: the plan has no placement for it."""
        self._refuse_another_count("SIGTTIN")

    def handle_ttou(self) -> None:
        """Refuse to remove a worker: the plan sets their number."""
        self._refuse_another_count("SIGTTOU")

    def _refuse_another_count(self, name: str) -> None:
        self.log.warning("%s is refused: SERVING_WORKERS sets the number of workers", name)

    def reload(self) -> None:
        """Apply the current configuration, or keep the one before."""
        if self._before is not None:
            self._reload_again = True
            self.log.info("the workers of a reload are still loading: the next reload follows")
            return
        before, self._age = Before(self.app.cfg, planner.plan), self.worker_age
        try:
            self._read_configuration()
            settings, plan = Settings.from_env(os.environ), planner.plan
            is_room = plan is not None and fits_beside(settings, plan)
        except (Exception, SystemExit, Interrupted) as error:  # noqa: BLE001  (the old workers go on)
            self._restore(before)
            self.log.error("the reload failed, what is served goes on: %s", in_one_line(error))
            return
        self._stats["reloads"] += 1
        self._before, self._until = before, time.monotonic() + settings.load_timeout_s + MARGIN_S
        if not is_room:
            self.log.info("memory does not hold old and new workers at once: the old ones go first")
            self._finish()
        self.manage_workers()

    def _read_configuration(self) -> None:
        """Read the configuration. Raises its errors, and ReloadError."""
        output = io.StringIO()  # the traceback that Gunicorn prints before it exits
        self._is_reading = True
        try:
            with redirect_stderr(output):
                self.app.reload()
        except SystemExit as error:
            raise ReloadError(
                error.code if isinstance(error.code, str) else last_line(output.getvalue())
            ) from error
        finally:
            self._is_reading = False
        if self.app.cfg.address != self.cfg.address:
            raise ReloadError("another bind takes a restart")
        self.setup(self.app)
        self.log.reopen_files()
        self.cfg.on_reload(self)

    def manage_workers(self) -> None:
        """Start missing workers, and stop those of other configurations."""
        for _ in range(self.num_workers - len(self._current())):
            if self.spawn_worker() is None:
                break
        if self._before is not None:
            self._check_new_workers()
        if self._before is None:
            for worker in self._others():
                # Repeated: a process that has just started may miss the first.
                self.kill_worker(worker.pid, signal.SIGTERM)

    def spawn_worker(self) -> int | None:
        """Start a worker and return its pid, or None if that is impossible at this moment."""
        try:
            pid: int = super().spawn_worker()
        except (OSError, RuntimeError, MemoryError) as error:
            if os.getpid() != self.pid:
                raise
            self.log.error("no worker can be started, the next try follows: %r", error)
            for slot in scoreboard.states().keys() - {
                worker.slot for worker in self.WORKERS.values()
            }:
                scoreboard.cancel_claim(slot)
            return None
        return pid

    def _check_new_workers(self) -> None:
        """End the reload as soon as the new workers are known to serve, or to fail."""
        new, old = self._current(), self._others()
        states = [scoreboard.state(worker.slot) for worker in new]
        is_settled = all(state in (State.READY, State.FAILED) for state in states)
        deaths = self.worker_age - self._age - len(new)
        if not any(scoreboard.state(worker.slot) is State.READY for worker in old):
            self._finish()  # there is nothing to lose
        elif State.READY in states and (is_settled or time.monotonic() > self._until):
            self.log.info("the new workers are ready: the old ones finish their requests")
            self._finish()
        elif is_settled or deaths >= MAX_DEATHS or time.monotonic() > self._until:
            self.log.error("the reload failed, the old workers go on: no new one can serve")
            if self._before is not None:
                self._restore(self._before)
            self._finish()

    def _finish(self) -> None:
        """End the reload; start the next if it was requested meanwhile."""
        self._before = None
        if self._reload_again:
            self._reload_again = False
            self.SIG_QUEUE.put_nowait(signal.SIGHUP)

    def _restore(self, before: Before) -> None:
        """Restore an earlier configuration, whose workers still run."""
        planner.restore(before.plan)
        self.app.cfg = before.config
        self.setup(self.app)

    def _current(self) -> list[Any]:
        """Return the workers of this configuration."""
        return [worker for worker in self.WORKERS.values() if worker.plan is planner.plan]

    def _others(self) -> list[Any]:
        """Return the workers of other configurations."""
        return [worker for worker in self.WORKERS.values() if worker.plan is not planner.plan]


def in_one_line(error: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(error, Interrupted):
        return "the server is to stop"
    text = "; ".join(filter(None, (line.strip() for line in str(error).splitlines())))
    return text if isinstance(error, ReloadError) else f"{type(error).__name__}: {text}"


def last_line(text: str) -> str:
    """Return the last non-empty line."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "without a word")
