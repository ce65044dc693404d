"""Versions: what is live in this process, brought in line with the lineup while requests go on.

A new version is loaded beside the old one on a thread of its own, and only then takes its place, in one
step on the hub. What it replaced answers its last requests, then goes. Where memory cannot hold both,
the old one goes first (TensorFlow Serving's resource-preserving order), and the log says so.
"""

from __future__ import annotations

import ctypes
import logging
import time
from _queue import SimpleQueue
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import gevent

from app.errors import BundleError
from app.handoff import Handoff, start_native_thread
from app.lineup import Entry, Key, Lineup
from app.servable import Model, Servable

RETRY_S = (
    60  # a version that failed to load is tried again after so long, as TensorFlow Serving does
)
THREAD_END_S = 0.1  # for the last model thread to leave its frame, which holds the network

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VersionStatus:
    """How one version stands in this process.

    Attributes:
        name: the model's name.
        version: its number.
        state: TensorFlow Serving's word: ``AVAILABLE`` (it answers), ``LOADING``, or ``END`` (it failed).
        problem: why it failed, for clients: no path is in it; the log has the rest.
    """

    name: str
    version: int
    state: Literal["AVAILABLE", "LOADING", "END"]
    problem: str = ""


class Versions:
    """The live versions of all models.

    Attributes:
        live: those that answer; changed on the hub only.
        failed: those that could not be loaded, and why.
        lineup: what was to be loaded last.
        is_loading: a version is being loaded at this moment.
    """

    def __init__(
        self,
        handoff: Handoff,
        *,
        load: Callable[[Entry], Model],
        serve: Callable[[Model], Servable],
        has_room: Callable[[Entry], bool] = lambda entry: True,
        in_turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Begin with nothing.

        Args:
            handoff: the way to the hub.
            load: loads a version, on the loader's thread. Raises BundleError.
            serve: makes a servable of a loaded model, on the hub.
            has_room: tells whether a version fits beside those that are live.
            in_turn: held while a version is loaded beside others, so that workers do it one by one.
        """
        self._handoff = handoff
        self._load = load
        self._serve = serve
        self._has_room = has_room
        self._in_turn = in_turn
        self._on_change: Callable[[], None] = lambda: None
        self._orders: SimpleQueue[Lineup | None] = SimpleQueue()  # None: nothing comes after this
        self._follower = gevent.Greenlet()
        self._stopping = False
        self.live: dict[Key, Servable] = {}
        self.failed: dict[Key, str] = {}
        self.lineup = Lineup()
        self.is_loading = False

    # On the hub

    def start(
        self, read_lineup: Callable[[], Lineup], poll_s: float, on_change: Callable[[], None]
    ) -> None:
        """Load what is to be served, and go on following it.

        Args:
            read_lineup: returns it; quick, but for the first time.
            poll_s: how often to ask; 0: only once.
            on_change: called on the hub whenever a lineup was brought about, as far as it could be.
        """
        self._on_change = on_change
        start_native_thread(partial(self._run_loader, read_lineup))
        if poll_s:
            self._follower = gevent.spawn(partial(self._follow, read_lineup, poll_s))

    def stop(self, timeout_s: float) -> bool:
        """Load nothing more and retire everything at once; tell whether all requests were answered in time."""
        self._stopping = True
        self._follower.kill()
        self._orders.put(None)
        retiring = [gevent.spawn(servable.retire, timeout_s) for servable in self.live.values()]
        gevent.joinall(retiring)
        return all(greenlet.value for greenlet in retiring)

    def of_model(self, name: str) -> dict[int, Servable]:
        """Return a model's live versions."""
        live = (servable for servable in self.live.values() if servable.model.name == name)
        return {servable.model.version: servable for servable in live}

    def statuses(self) -> list[VersionStatus]:
        """Return how each version stands that is live, wanted or refused, by name and number."""
        failed = "it could not be loaded; the log of the server has the reason"
        lineup = self.lineup
        known = [VersionStatus(r.name, r.version, "END", r.told) for r in lineup.refusals]
        for entry in lineup.entries:
            problem = failed if entry.key in self.failed else ""
            known.append(
                VersionStatus(entry.name, entry.version, "END" if problem else "LOADING", problem)
            )
        # Last, so that it counts: other weights of a version may be loading, or have failed, meanwhile.
        known += [VersionStatus(name, version, "AVAILABLE") for name, version, *_ in self.live]
        latest = {(status.name, status.version): status for status in known}
        return [latest[key] for key in sorted(latest)]

    def _follow(self, read_lineup: Callable[[], Lineup], poll_s: float) -> None:
        """Order each new lineup, and from time to time again one of which something failed."""
        ordered, tried = None, time.monotonic()
        while True:
            gevent.sleep(poll_s)
            lineup = read_lineup()
            again = self.failed and time.monotonic() - tried > RETRY_S
            if lineup != (ordered or self.lineup) or again:
                ordered, tried = lineup, time.monotonic()
                self._orders.put(lineup)

    def _install(self, entry: Entry, model: Model) -> None:
        """Let a loaded model answer."""
        if not self._stopping:
            servable = self._serve(model)
            servable.start()
            self.live[entry.key] = servable

    def _retire(self, key: Key, timeout_s: float, gone: SimpleQueue[Callable[[], None]]) -> None:
        """Take a version out of service at once; ``gone`` gets its ``close`` when its last request is answered."""
        close = self.live[key].model.close
        leaving: Servable | None = self.live.pop(key)

        def finish() -> None:
            nonlocal leaving
            try:
                if leaving is not None and not leaving.retire(timeout_s):
                    logger.error("%s, version %s left requests unanswered", key[0], key[1])
                logger.info("%s, version %s is retired", key[0], key[1])
            finally:
                leaving = None  # its memory has to be free when ``gone`` says so
                gone.put(close)

        gevent.spawn(finish)

    # On the loader's thread

    def _run_loader(self, read_lineup: Callable[[], Lineup]) -> None:
        """Load what the lineup says, each time it changes."""
        lineup: Lineup | None = read_lineup()
        while lineup is not None:
            self._apply(lineup)
            lineup = self._orders.get()

    def _apply(self, lineup: Lineup) -> None:
        """Load what is new and retire what is not wanted any more, model by model."""
        self.lineup = lineup
        wanted = {entry.key: entry for entry in lineup.entries}
        self.failed = {key: why for key, why in self.failed.items() if key in wanted}
        for name in dict.fromkeys(key[0] for key in [*wanted, *self.live]):
            ours = [key for key in wanted if key[0] == name]
            old = [key for key in self.live if key[0] == name and key not in wanted]
            for key in ours:
                if key not in self.live:
                    old = self._load_one(wanted[key], old)
            if not ours or any(key in self.live for key in ours):
                self._let_go(old)  # else they are all there is, and stay
        self._on_hub(self._on_change)

    def _load_one(self, entry: Entry, old: list[Key]) -> list[Key]:
        """Load a version; return those of ``old`` that are left, none where they had to make room."""
        started = time.monotonic()
        try:
            # At the first load nobody is served yet, so the workers need not wait for each other.
            with self._in_turn() if self.live else nullcontext():
                if old and not self._has_room(entry):
                    logger.warning(
                        "memory does not hold both: %s, version %s leaves before version %s is loaded",
                        entry.name,
                        ", ".join(str(key[1]) for key in old),
                        entry.version,
                    )
                    self._let_go(old)
                    old = []
                self.is_loading = True
                model = self._load(entry)
        except BundleError as error:
            self.failed[entry.key] = str(error)
            logger.error("the model cannot be served: %s", error)
        except Exception as error:
            self.failed[entry.key] = repr(error)
            logger.exception("the model cannot be served")
        else:
            self.failed.pop(entry.key, None)
            self._on_hub(partial(self._install, entry, model))
            announce(model, time.monotonic() - started)
        finally:
            self.is_loading = False
        return old

    def _let_go(self, keys: list[Key], timeout_s: float = 60) -> None:
        """Retire versions and wait until they are gone and their memory is free."""
        gone: SimpleQueue[Callable[[], None]] = SimpleQueue()
        for key in keys:
            self._on_hub(partial(self._retire, key, timeout_s, gone))
        closing = [gone.get() for _ in keys]
        if keys:
            time.sleep(THREAD_END_S)
            while closing:
                closing.pop()()
            return_memory()

    def _on_hub(self, function: Callable[[], Any]) -> None:
        """Have a function called on the hub, and wait until it was."""
        done: SimpleQueue[None] = SimpleQueue()

        def call() -> None:
            try:
                function()
            finally:
                done.put(None)

        self._handoff.call(call)
        done.get()


def announce(model: Model, load_s: float) -> None:
    """Log what is served from now on."""
    fields = {
        **model.about(),
        "classes": len(model.class_names),
        "load_s": round(load_s, 2),
        "description": model.description,
    }
    logger.info("model ready", extra={"fields": fields})


def return_memory() -> None:
    """Give freed memory back to the system: glibc keeps what many small blocks of a network took."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
