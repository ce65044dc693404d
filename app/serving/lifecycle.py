"""The state of one worker: when it is ready, why it is not, and when it has to end."""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent

from app.errors import NotReady
from app.scoreboard import Scoreboard, State
from app.serving.diagnosis import explain_failure
from app.serving.registry import ModelRegistry
from app.settings import Settings

logger = logging.getLogger(__name__)


class Lifecycle:
    """LOADING → READY → DRAINING, or FAILED while nothing can be served. The scoreboard has every change.

    Methods run on the hub unless they say otherwise.

    Attributes:
        state: the current state.
    """

    def __init__(
        self, settings: Settings, scoreboard: Scoreboard, on_death: Callable[[], None]
    ) -> None:
        """Prepare it.

        Args:
            settings: the settings.
            scoreboard: holds the slot of this process.
            on_death: ends the process; called on any thread.
        """
        self._settings = settings
        self._scoreboard = scoreboard
        self._on_death = on_death
        self._load_timer: gevent.Greenlet[..., None] = gevent.Greenlet()
        self._failure = ""
        self.state = State.LOADING

    def start(self, registry: ModelRegistry) -> None:
        """Begin to load; a load that hangs fails the worker, and after as long again ends it.

        If the load succeeds after all, the worker is ready then. A worker that has another version to
        answer with goes on, whatever a load beside it does.
        """
        self._enter(State.LOADING)
        limit_s = self._settings.load_timeout_s
        self._load_timer = gevent.spawn_later(limit_s, self._time_out_load, registry)

    def drain(self) -> None:
        """Accept no more requests, for good."""
        self._enter(State.DRAINING)
        self._load_timer.kill()

    def check_ready(self) -> None:
        """Raise NotReady, with the reason, unless the worker is ready."""
        if self.state is not State.READY:
            raise NotReady(self._failure or f"the model is {self.state.name.lower()}")

    def update(self, registry: ModelRegistry) -> None:
        """Become ready if any version is live, else fail."""
        if self.state is State.DRAINING:
            return
        if registry.live:
            self._enter(State.READY)
            return
        problem, follows = registry.wanted.problem, self._settings.poll_s > 0
        self._fail(explain_failure(registry.statuses(), problem, follows=follows))
        if failure := registry.wanted.failure:
            logger.error("the model cannot be served: %s", failure)

    def die(self, reason: str) -> None:
        """End the worker unless it drains; on any thread."""
        if self.state is not State.DRAINING:
            self._fail("the model has stopped")
            try:
                logger.error("the model has stopped: %s", reason)
            finally:
                self._on_death()

    def _time_out_load(self, registry: ModelRegistry) -> None:
        limit_s = self._settings.load_timeout_s
        if self.state is State.LOADING:
            self._fail("the model did not load in time")
            logger.error("the model did not load in time: the limit is %g s", limit_s)
            self._load_timer = gevent.spawn_later(limit_s, self._end_hanging_load, registry)

    def _end_hanging_load(self, registry: ModelRegistry) -> None:
        if self.state is State.FAILED and registry.is_loading:
            self.die(f"its load has hung for {2 * self._settings.load_timeout_s:g} s")

    def _fail(self, reason: str) -> None:
        """Become unready, on any thread, for a reason that clients may read."""
        self._failure = reason
        self._enter(State.FAILED)

    def _enter(self, state: State) -> None:
        self.state = state
        self._scoreboard.mark(state)
