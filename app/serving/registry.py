"""The registry: the live versions of this process, reconciled with the manifest while requests go on.

A new version is loaded beside the old one on the loader thread, and only then replaces it, in one step on the
hub (``app/serving/routing.py``). The old version answers its last requests, then retires. If memory cannot hold
both, the old one retires first (TensorFlow Serving's resource-preserving order), and the log says so.
"""

from __future__ import annotations

import logging
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial

import gevent

from app.control.manifest import Entry, Key, Manifest
from app.control.scanner import RETRY_MOST_S, RETRY_S
from app.errors import BundleError
from app.serving.handoff import Handoff, start_native_thread
from app.serving.in_flight import InFlight
from app.serving.loader import Loader, return_memory
from app.serving.model import Model, Servable
from app.serving.routing import Routes, Target, versions_by_model
from app.serving.status import VersionStatus, list_statuses

RETIRE_S = 60  # for the requests in flight in a version that retires
THREAD_END_S = 0.1  # for the last model thread to leave its frame, which holds the network

logger = logging.getLogger(__name__)


class ModelRegistry:
    """The live versions of all models.

    Attributes:
        live: the versions that answer; changed on the hub only.
        failed: the versions that could not be loaded, with the reason.
        wanted: the current manifest.
        routes: maps requests to live versions; changed on the hub only.
        is_loading: whether a version is being loaded at this moment.
    """

    def __init__(
        self,
        handoff: Handoff,
        loader: Loader,
        in_flight: InFlight,
        serve: Callable[[Model], Servable],
    ) -> None:
        """Start empty.

        Args:
            handoff: calls functions on the hub from the loader thread.
            loader: loads the versions.
            in_flight: the requests of this worker, which end before a live version leaves without a successor.
            serve: returns a servable of a loaded model, on the hub.
        """
        self._handoff = handoff
        self._loader = loader
        self._in_flight = in_flight
        self._serve = serve
        self._is_start = True  # until the first manifest has been loaded
        self._on_change: Callable[[], None] = lambda: None
        # Manifests to apply, for the loader thread; None ends it.
        self._orders: SimpleQueue[Manifest | None] = SimpleQueue()
        self._is_settled = False  # the newest manifest has been applied as far as possible
        self._poller = gevent.Greenlet()
        self._stopping = False
        self.live: dict[Key, Servable] = {}
        self.failed: dict[Key, str] = {}
        self.wanted = Manifest()
        self.routes = Routes()
        self.is_loading = False

    # On the hub

    def start(
        self, read_manifest: Callable[[], Manifest], poll_s: float, on_change: Callable[[], None]
    ) -> None:
        """Start to load the manifest and to poll for new ones; return at once.

        Args:
            read_manifest: returns the current manifest; fast after the first call.
            poll_s: interval of reading it; 0 reads it once.
            on_change: called on the hub whenever a manifest has been applied as far as possible.
        """
        self._on_change = on_change
        start_native_thread(partial(self._run_loader, read_manifest))
        if poll_s:
            self._poller = gevent.spawn(partial(self._poll, read_manifest, poll_s))

    def stop(self, timeout_s: float) -> bool:
        """Stop loading and retire all versions at once; return whether all requests were answered in time."""
        self._stopping = True
        self._poller.kill()
        self._orders.put(None)
        retiring = [gevent.spawn(servable.retire, timeout_s) for servable in self.live.values()]
        gevent.joinall(retiring)
        return all(greenlet.value for greenlet in retiring)

    def find(self, target: Target) -> Servable:
        """Return the version that answers a request. Raises UnknownModel or NotReady."""
        failed = [key[:2] for key in self.failed]
        name, version = self.routes.find(target, self.wanted, versions_by_model(self.live), failed)
        return self.of_model(name)[version]

    def of_model(self, name: str) -> dict[int, Servable]:
        """Return a model's live versions."""
        live = (servable for servable in self.live.values() if servable.model.name == name)
        return {servable.model.version: servable for servable in live}

    def statuses(self) -> list[VersionStatus]:
        """Return the status of each version that is live, wanted or rejected, by name and number."""
        return list_statuses(self.wanted, self.failed, self.live)

    def _poll(self, read_manifest: Callable[[], Manifest], poll_s: float) -> None:
        """Poll the manifest: order each new one at once, and one with failed versions again, at growing pauses."""
        ordered: Manifest | None = None
        settled, pause_s = time.monotonic(), RETRY_S
        while True:
            gevent.sleep(poll_s)
            try:
                manifest = read_manifest()
            except Exception:
                logger.exception("the manifest cannot be read; what is served goes on")
                continue
            if manifest != (ordered or self.wanted):
                pause_s = RETRY_S
            elif not (self._is_settled and self.failed):
                settled = time.monotonic()
                continue
            elif time.monotonic() - settled < pause_s:
                continue
            else:
                pause_s = min(2 * pause_s, RETRY_MOST_S)
            ordered, settled, self._is_settled = manifest, time.monotonic(), False
            self._orders.put(manifest)

    def _install(self, entry: Entry, model: Model) -> None:
        """Make a loaded model live."""
        if self._stopping:
            return
        servable = self._serve(model)
        try:
            servable.start()
        except BaseException:
            gevent.spawn(servable.retire, RETIRE_S)  # those of its threads that did start
            raise
        self.live[entry.key] = servable

    def _switch(self, leaving: Iterable[Key], gone: SimpleQueue[Callable[[], None]]) -> int:
        """Move the routes to the live versions, and retire in the same step those that no route needs.

        Args:
            leaving: versions to retire in any case.
            gone: receives the ``close`` of each retired version, once its last request is answered.

        Returns:
            The number of versions that retire.
        """
        for key in (retiring := set(leaving)):
            self._retire(key, gone)
        self.routes = self.routes.follow(self.wanted, versions_by_model(self.live))
        unneeded = [key for key in self.live if not self.routes.needs(key, self.wanted, self.live)]
        for key in unneeded:
            self._retire(key, gone)
        if unneeded:
            self.routes = self.routes.follow(self.wanted, versions_by_model(self.live))
        return len(retiring) + len(unneeded)

    def _retire(self, key: Key, gone: SimpleQueue[Callable[[], None]]) -> None:
        """Remove a version from the live ones at once; ``gone`` receives its ``close`` once it has drained.

        Neither this frame nor the greenlet may hold the servable then: it holds the network's memory, which
        has to be free before the next version loads.
        """
        close = self.live[key].model.engine.close
        leaving: Servable | None = self.live.pop(key)

        def finish() -> None:
            nonlocal leaving
            try:
                if leaving is not None and not leaving.retire(RETIRE_S):
                    logger.error("%s, version %s left requests unanswered", key[0], key[1])
                logger.info("%s, version %s is retired", key[0], key[1])
            finally:
                leaving = None  # its memory has to be free when ``gone`` says so
                gone.put(close)

        gevent.spawn(finish)

    def _settle(self) -> None:
        """Report that a manifest has been applied; it is settled unless a newer one waits."""
        self._is_settled = self._orders.empty()
        self._is_start = False
        self._on_change()

    # On the loader's thread

    def _run_loader(self, read_manifest: Callable[[], Manifest]) -> None:
        """Apply the first manifest, then each ordered one; no error ends the thread."""
        order: Callable[[], Manifest | None] = read_manifest
        while True:
            try:
                manifest = order()
                if manifest is None:
                    return
                self._apply(manifest)
            except Exception:
                logger.exception("the manifest could not be applied")
                self._handoff.call_and_wait(self._settle)
            order = self._newest_order

    def _newest_order(self) -> Manifest | None:
        """Wait for an order and return the newest; older ones are dropped."""
        order = self._orders.get()
        while order is not None:
            try:
                order = self._orders.get_nowait()
            except Empty:
                break
        return order

    def _apply(self, manifest: Manifest) -> None:
        """Load the new versions of a manifest, model by model, until a newer manifest comes."""
        is_first = not self.live
        self.wanted = manifest
        wanted = {entry.key: entry for entry in manifest.entries}
        self.failed = {key: why for key, why in self.failed.items() if key in wanted}
        self._move()
        # The default first: it is served where memory does not hold them all.
        for name in dict.fromkeys([manifest.default, *(entry.name for entry in manifest.entries)]):
            for key in [key for key in wanted if key[0] == name and key not in self.live]:
                self._load_one(wanted[key], is_first)
                if not self._orders.empty():
                    return
            self._move()
        for sentence in self.routes.left_behind(manifest):
            logger.warning("%s", sentence)
        self._handoff.call_and_wait(self._settle)

    def _load_one(self, entry: Entry, is_first: bool) -> None:
        """Load a version and make it live, or record the reason why not."""
        started = time.monotonic()
        try:
            # At the first load nobody is served yet, so the workers need not wait for each other.
            with nullcontext() if is_first else self._loader.lock():
                if self.live:
                    self._make_room(entry)
                self.is_loading = True
                model = self._loader.load(entry)
            self._handoff.call_and_wait(partial(self._install, entry, model))
        except BundleError as error:
            self.failed[entry.key] = str(error)
            logger.error("the model cannot be served: %s", error)
        except Exception as error:
            self.failed[entry.key] = repr(error)
            logger.exception("the model cannot be served")
        else:
            self.failed.pop(entry.key, None)
            announce(model, time.monotonic() - started)
        finally:
            self.is_loading = False

    def _make_room(self, entry: Entry) -> None:
        """Retire the versions that this one replaces, if memory cannot hold both.

        Raises:
            BundleError: it replaces nothing, and memory cannot hold it beside the live versions.
        """
        lacking = self._loader.lacking_memory(entry, is_start=self._is_start)
        if not lacking:
            return
        wanted = {each.key for each in self.wanted.entries}
        old = [key for key in self.live if key[0] == entry.name and key not in wanted]
        if not old:
            beside = ", ".join(
                sorted(f"{name}, version {number}" for name, number, *_ in self.live)
            )
            raise BundleError(
                f"{entry.name}, version {entry.version} does not fit beside {beside or 'the other workers'}:"
                f" {lacking}; a reload plans the workers anew"
            )
        logger.warning(
            "memory does not hold both: %s, version %s leaves before version %s is loaded",
            entry.name,
            ", ".join(str(key[1]) for key in old),
            entry.version,
        )
        self._loader.hand_over(self._in_flight)
        self._move(old)

    def _move(self, leaving: Iterable[Key] = ()) -> None:
        """Move the routes on the hub, and wait until the memory of the retired versions is free."""
        gone: SimpleQueue[Callable[[], None]] = SimpleQueue()
        retiring = self._handoff.call_and_wait(partial(self._switch, leaving, gone))
        closing = [gone.get() for _ in range(retiring)]
        if retiring:
            time.sleep(THREAD_END_S)
            while closing:
                closing.pop()()
            return_memory()


def announce(model: Model, load_s: float) -> None:
    """Log a version that is live from now on."""
    fields = {
        **model.about(),
        "classes": len(model.class_names),
        "load_s": round(load_s, 2),
        "description": model.bundle.description,
    }
    logger.info("model ready", extra={"fields": fields})
