"""Gunicorn's master, with a reload of its own that never costs what is served.

A reload reads the configuration, plans the workers and starts the new ones. The old ones are asked to go only
when a new one has its model: until then both run beside each other, or, where memory cannot hold both (on
a GPU), the old ones go first as in Gunicorn. Whatever goes wrong, the old workers go on and the log says why.
The master never waits meanwhile, so a stop in the middle of a reload is as quick as any other.
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
MARGIN_S = 10.0  # a worker whose load takes too long says so itself, and then has failed
MAX_DEATHS = 3  # of new workers in one reload


class ReloadError(Exception):
    """A configuration that cannot be taken over."""


class Interrupted(BaseException):
    """The server is to stop while the configuration is being read; no ``except Exception`` may hold it up."""


@dataclass(frozen=True)
class Before:
    """What a reload goes back to when it fails: Gunicorn's configuration, and the plan of the old workers."""

    config: Config
    plan: Plan | None


class Master(Arbiter):
    """Gunicorn's master. A worker's ``plan`` tells to which configuration it belongs (``pre_fork``)."""

    _before: Before | None = None  # while new workers load beside old ones
    _until = 0.0  # monotonic s: the end of the wait for them
    _age = 0  # of the last worker before them
    _is_reading = False
    _reload_again = False

    @classmethod
    def adopt(cls, arbiter: Arbiter) -> None:
        """Turn Gunicorn's own arbiter, which offers no other way in, into this one."""
        arbiter.__class__ = cls

    def signal(self, sig: int, frame: FrameType | None) -> None:
        """Queue a signal; one that stops the server cuts the reading of a configuration short."""
        super().signal(sig, frame)
        if self._is_reading and sig in STOPS:
            raise Interrupted

    def handle_usr2(self) -> None:
        """Refuse a second master: it would plan the same memory again and count into the same metrics."""
        self.log.warning("SIGUSR2 is refused: reload with SIGHUP, or restart")

    def handle_ttin(self) -> None:
        """Refuse another worker: there is no seat for it."""
        self._refuse_another_count("SIGTTIN")

    def handle_ttou(self) -> None:
        """Refuse one worker less: each has its seat."""
        self._refuse_another_count("SIGTTOU")

    def _refuse_another_count(self, name: str) -> None:
        self.log.warning("%s is refused: SERVING_WORKERS sets the number of workers", name)

    def reload(self) -> None:
        """Take over the configuration as it is now, or go on with the one before."""
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
            self._go_back_to(before)
            self.log.error("the reload failed, what is served goes on: %s", in_one_line(error))
            return
        self._stats["reloads"] += 1
        self._before, self._until = before, time.monotonic() + settings.load_timeout_s + MARGIN_S
        if not is_room:
            self.log.info("memory does not hold old and new workers at once: the old ones go first")
            self._finish()
        self.manage_workers()

    def _read_configuration(self) -> None:
        """Read the configuration. Raises whatever that raises, and ReloadError."""
        words = io.StringIO()  # what Gunicorn prints before it exits: a traceback
        self._is_reading = True
        try:
            with redirect_stderr(words):
                self.app.reload()
        except SystemExit as error:
            raise ReloadError(
                error.code if isinstance(error.code, str) else last_line(words.getvalue())
            ) from error
        finally:
            self._is_reading = False
        if self.app.cfg.address != self.cfg.address:
            raise ReloadError("another bind takes a restart")
        self.setup(self.app)
        self.log.reopen_files()
        self.cfg.on_reload(self)

    def manage_workers(self) -> None:
        """Start the workers that are missing, and let those go that are not of this configuration."""
        for _ in range(self.num_workers - len(self._current())):
            if self.spawn_worker() is None:
                break
        if self._before is not None:
            self._look_at_the_new()
        if self._before is None:
            for worker in self._others():
                # Again and again: a process that has just begun may miss the first.
                self.kill_worker(worker.pid, signal.SIGTERM)

    def spawn_worker(self) -> int | None:
        """Start a worker and return its process; None where that is not possible at this moment."""
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

    def _look_at_the_new(self) -> None:
        """End the reload once it is known whether the new workers can serve."""
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
                self._go_back_to(self._before)
            self._finish()

    def _finish(self) -> None:
        """End the reload; what came meanwhile follows."""
        self._before = None
        if self._reload_again:
            self._reload_again = False
            self.SIG_QUEUE.put_nowait(signal.SIGHUP)

    def _go_back_to(self, before: Before) -> None:
        """Take over an earlier configuration, whose workers still run."""
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
    """Return an error in words."""
    if isinstance(error, Interrupted):
        return "the server is to stop"
    text = "; ".join(filter(None, (line.strip() for line in str(error).splitlines())))
    return text if isinstance(error, ReloadError) else f"{type(error).__name__}: {text}"


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "without a word")
