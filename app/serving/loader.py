"""The loader: turns a version of the manifest into a model, and makes the memory for it."""

from __future__ import annotations

import ctypes
import sys
import time
from contextlib import AbstractContextManager

from gevent.monkey import is_module_patched

from app.control.manifest import Entry
from app.control.placement import configure_engine, hold_device, lacking_memory
from app.control.plan import Plan
from app.engines.loader import load_engine
from app.errors import BundleError
from app.scoreboard import Scoreboard, State
from app.serving.in_flight import InFlight
from app.serving.model import Model
from app.settings import Settings
from app.system.files import lock_file
from app.system.gpus import confine_to

# For the worker to stop accepting, and for accepted connections to send their request.
HANDOVER_POLL_S = 0.2
DRAIN_S = 40  # a draining worker has ended by then: Gunicorn's graceful_timeout, and a little


class Loader:
    """Loads versions for one worker. Methods run on the registry's loader thread.

    Attributes:
        plan: the plan that the worker belongs to.
    """

    def __init__(self, settings: Settings, scoreboard: Scoreboard, plan: Plan) -> None:
        self._settings = settings
        self._scoreboard = scoreboard
        self.plan = plan

    def load(self, entry: Entry) -> Model:
        """Load a version onto the worker's device.

        Raises:
            BundleError: it cannot be served.
        """
        settings, footprint = self._settings, entry.footprint
        placement = self.plan.placement(self._scoreboard.slot)
        choice = configure_engine(settings, placement, footprint)
        if is_module_patched("threading") and f"app.engines.{choice.engine}" not in sys.modules:
            raise BundleError(  # see log_plan in conf/gunicorn.conf.py
                f"it needs the engine {choice.engine}, which the server did not start with: reload Gunicorn"
            )
        artifacts = entry.open(settings.cache)
        on_gpu = footprint.device == "cuda"
        if on_gpu and placement.gpu:
            confine_to(placement.gpu)  # before anything here has touched CUDA
        with hold_device(settings, placement, footprint):
            engine = load_engine(choice, artifacts)
        return Model(artifacts.bundle, choice, engine, placement.device if on_gpu else "cpu")

    def lock(self) -> AbstractContextManager[object]:
        """Return the lock by which the workers of this server load one after the other."""
        return lock_file(self._settings.cache / "load.lock", self._settings.load_timeout_s)

    def lacking_memory(self, entry: Entry, *, is_start: bool) -> str:
        """Return which memory cannot hold a version beside those that are live, or an empty string.

        Waits for draining workers, whose memory is about to be free.

        Args:
            entry: the version.
            is_start: the worker loads its first manifest, which the plan has found to fit.
        """
        if is_start and not self.plan.is_tight:
            return ""
        placement = self.plan.placement(self._scoreboard.slot)
        until = time.monotonic() + DRAIN_S
        while True:
            lacking = lacking_memory(self._settings, placement, entry.footprint)
            is_draining = State.DRAINING in self._scoreboard.states().values()
            if not (lacking and is_draining) or time.monotonic() > until:
                return lacking
            time.sleep(HANDOVER_POLL_S)

    def hand_over(self, in_flight: InFlight) -> None:
        """Stop accepting if another worker can, and wait until the requests in flight are answered."""
        self._scoreboard.mark(State.LOADING)
        until, had_substitute = time.monotonic() + self._settings.deadline_s, False
        while self._scoreboard.may_get_substitute() and time.monotonic() < until:
            has_substitute = self._scoreboard.has_substitute()
            if has_substitute and had_substitute and not in_flight.count:
                return
            had_substitute = has_substitute
            time.sleep(HANDOVER_POLL_S)


def return_memory() -> None:
    """Return freed memory to the system; glibc keeps the many small blocks of a network."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
