"""ModelServer: the one object that the surfaces talk to.

``classify`` shows the whole way of a request. Which models answer is the affair of ``app/serving/registry.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TypeVar, cast
from weakref import WeakSet

import gevent

from app.control.plan import current_plan, lacking_room
from app.control.scanner import Entry, Manifest, RejectedVersion
from app.errors import MalformedRequest, NotReady, ServingError
from app.scoreboard import Scoreboard, State
from app.serving.batcher import is_never_gone
from app.serving.byte_budget import ByteBudget
from app.serving.deadlines import Deadlines
from app.serving.diagnosis import explain_failure
from app.serving.handoff import Handoff
from app.serving.image_pool import ImagePool, Picture
from app.serving.in_flight import InFlight
from app.serving.loader import load_model
from app.serving.model import Model, Servable
from app.serving.prediction import HeatMapRequest, Prediction
from app.serving.registry import ModelRegistry
from app.serving.stats import ModelStats, stats_of
from app.serving.status import VersionStatus
from app.serving.thread_pool import NativePool, Task
from app.serving.traffic import ANY, Target
from app.serving.trials import Trials
from app.serving.watchdog import Watchdog
from app.serving.workers import Workers
from app.settings import Settings
from app.system.files import lock_file

T = TypeVar("T")

ASIDE_S = 0.2  # for the worker to stop accepting, and for what it has accepted to come inside
DRAIN_S = 40  # a worker that drains has ended by then: Gunicorn's graceful_timeout, and a little
PARSING_THREADS = 2  # large bodies parsed at once in a worker
logger = logging.getLogger(__name__)


class ModelServer:
    """Serves the manifest in one process.

    Public methods run on the hub's thread. The state goes LOADING → READY → DRAINING, or to FAILED
    while nothing can be served; every change is written into the scoreboard.

    Attributes:
        state: of this worker.
        workers: all workers.
        in_flight: the requests inside this worker.
        deadlines: their time.
    """

    def __init__(
        self,
        settings: Settings,
        scoreboard: Scoreboard,
        read_manifest: Callable[[], Manifest] | None = None,
        load: Callable[[Settings, int, Entry], Model] = load_model,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare a server; nothing is loaded before ``start``.

        Args:
            settings: the settings.
            scoreboard: where this process has its slot.
            read_manifest: returns what to serve now; by default what this process planned.
            load: loads a version, on the loader's thread.
            on_death: called when a native thread ends unasked (on that thread) or does not come back;
                ends the process.
        """
        self._settings = settings
        self._scoreboard = scoreboard
        self._read_manifest = read_manifest or (lambda: current_plan(settings).manifest)
        self._poll_s = settings.poll_s if read_manifest else 0.0
        self._on_death = on_death
        self._handoff = Handoff()
        quarantine = scoreboard.quarantine
        self._records = quarantine.active_inputs(scoreboard.slot)
        self._image_pool = ImagePool(settings, self._handoff, quarantine, self._records)
        self._parsing = NativePool(
            "parsing", PARSING_THREADS, self._handoff, quarantine, self._records
        )
        self._trials = Trials(quarantine, scoreboard.slot)
        self._servables: WeakSet[Servable] = WeakSet()  # those that retire too
        self.deadlines = Deadlines(settings.deadline_s)
        self._bodies = ByteBudget(settings.max_bodies_bytes, "request bodies")
        self.workers = Workers(settings, scoreboard)
        self.in_flight = InFlight(scoreboard)
        self._registry = ModelRegistry(
            self._handoff,
            load=lambda entry: load(settings, scoreboard.slot, entry),
            serve=self._serve,
            lacking_room=self._lacking_room,
            step_aside=self._step_aside,
            in_turn=partial(lock_file, settings.cache / "load.lock", settings.load_timeout_s),
        )
        self._watchdog = Watchdog(settings.deadline_s, self._tasks, self._end_stuck)
        self._load_timer = gevent.Greenlet()
        self._failure = ""
        self.state = State.LOADING

    def start(self) -> None:
        """Start loading and return at once."""
        self._enter(State.LOADING)
        self.workers.tell(self._registry.live, self._registry.failed)
        self._registry.start(self._read_manifest, self._poll_s, self._take_stock)
        self._load_timer = gevent.spawn_later(self._settings.load_timeout_s, self._give_up_loading)
        self._watchdog.start()

    def stop(self, timeout_s: float) -> None:
        """Drain: take nothing new, answer what is inside, end the threads; at most ``timeout_s`` seconds."""
        self._enter(State.DRAINING)
        self._load_timer.kill()
        self._watchdog.stop()
        if not self._registry.stop(timeout_s):
            logger.error("stopped with requests unanswered after %s s", timeout_s)
        self._image_pool.close()
        self._parsing.close()

    def check_room(self, target: Target = ANY) -> None:
        """Refuse a request that would be refused anyway, before its body is read.

        Raises:
            UnknownModel: that is not served.
            NotReady: there is no model, or not any more.
            QueueFull: ``max_queue`` requests are inside.
        """
        self._find(target).batcher.check_room()

    @property
    def most_pictures(self) -> int:
        """The most pictures that one request can have."""
        return self._settings.max_queue

    def check_count(self, pictures: int) -> None:
        """Refuse a request with more pictures than can ever be inside, before anything is made of them.

        Raises:
            MalformedRequest: there are more than ``max_queue``, or none.
        """
        limit = self.most_pictures
        if not 0 < pictures <= limit:
            raise MalformedRequest(
                f"the request has {pictures:,} pictures; 1 to {limit:,} are taken"
            )

    def classify(
        self,
        picture: Picture,
        is_gone: Callable[[], bool] = is_never_gone,
        target: Target = ANY,
        heat_maps_wanted: HeatMapRequest | None = None,
    ) -> Prediction:
        """Answer one picture.

        Args:
            picture: the uploaded file, open in binary mode, or its pixels.
            is_gone: tells whether the client has hung up; safe on any thread.
            target: who shall answer.
            heat_maps_wanted: which heat maps come with the answer.

        Raises:
            ServingError: any of them; see ``errors``.
        """
        servable = self._find(target)
        outcome = self._answer(
            servable, picture, is_gone, heat_maps_wanted, self.deadlines.left_s()
        )
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    def classify_many(
        self,
        pictures: Sequence[Picture],
        is_gone: Callable[[], bool] = is_never_gone,
        target: Target = ANY,
    ) -> list[Prediction]:
        """Answer the pictures of one request, all by the same version, side by side; else as ``classify``.

        Raises:
            ServingError: the first that any of them meets; the others are let go.
        """
        waiting = self._begin(pictures, is_gone, target)
        try:
            for done in gevent.iwait(waiting):
                if isinstance(outcome := done.get(), ServingError):
                    raise outcome
        finally:
            gevent.killall(waiting, block=False)
        return [cast(Prediction, greenlet.value) for greenlet in waiting]

    def classify_each(
        self,
        pictures: Sequence[Picture],
        is_gone: Callable[[], bool] = is_never_gone,
        target: Target = ANY,
        heat_maps_wanted: HeatMapRequest | None = None,
    ) -> list[Prediction | ServingError]:
        """Answer the pictures of one request as ``classify_many``; one's error is returned in its place.

        Raises:
            ServingError: what concerns them all: ``UnknownModel``, ``NotReady``.
        """
        waiting = self._begin(pictures, is_gone, target, heat_maps_wanted)
        try:
            return [greenlet.get() for greenlet in waiting]
        finally:
            gevent.killall(waiting, block=False)

    def _begin(
        self,
        pictures: Sequence[Picture],
        is_gone: Callable[[], bool],
        target: Target,
        heat_maps_wanted: HeatMapRequest | None = None,
    ) -> list[gevent.Greenlet[..., Prediction | ServingError]]:
        """Start a greenlet for each picture; all go to the same version."""
        servable, left_s = self._find(target), self.deadlines.left_s()
        return [
            gevent.spawn(self._answer, servable, picture, is_gone, heat_maps_wanted, left_s)
            for picture in pictures
        ]

    def _answer(
        self,
        servable: Servable,
        picture: Picture,
        is_gone: Callable[[], bool],
        heat_maps_wanted: HeatMapRequest | None,
        left_s: float,
    ) -> Prediction | ServingError:
        """Answer one picture, and count what became of it; errors are returned, as ``_attempt`` does."""
        outcome = self._attempt(servable, picture, is_gone, heat_maps_wanted, left_s)
        self._stats(servable.model).count(outcome)
        return outcome

    def _attempt(
        self,
        servable: Servable,
        picture: Picture,
        is_gone: Callable[[], bool],
        heat_maps_wanted: HeatMapRequest | None,
        left_s: float,
    ) -> Prediction | ServingError:
        """Answer one picture; an error is returned, because gevent prints what a greenlet raises."""
        model = servable.model
        if heat_maps_wanted is not None and model.gradients is None:
            return model.no_heat_map()
        try:
            with (
                gevent.Timeout(left_s, self.deadlines.error()),
                servable.batcher.place(),
                self._stats(model).inside(),
            ):
                return self._trials.run(
                    partial(self._predict, servable, picture, is_gone, heat_maps_wanted)
                )
        except ServingError as error:
            return error.with_traceback(
                None
            )  # which holds the picture: whoever keeps the error would too

    def _predict(
        self,
        servable: Servable,
        picture: Picture,
        is_gone: Callable[[], bool],
        heat_maps_wanted: HeatMapRequest | None,
        on_trial: bool,
    ) -> Prediction:
        """Answer one picture that holds its place. Raises NeedsTrial unless it is on trial."""
        began = time.monotonic()
        decoded = self._image_pool.decode(picture, servable.model, on_trial=on_trial)
        decode_s = time.monotonic() - began
        row = servable.batcher.submit(
            decoded.image, is_gone, heat_maps_wanted is not None, decoded.digest
        )
        prediction = Prediction(row.logits, servable.model, row.timing, decode_s, decoded.size)
        if heat_maps_wanted is None:
            return prediction
        classes = heat_maps_wanted.choose(prediction)
        maps = servable.explain(row.features, classes, is_gone, decoded.digest)
        prediction = replace(prediction, heat_maps=maps)
        if heat_maps_wanted.style is None:
            return prediction
        with servable.batcher.aside():
            drawing = self._image_pool.draw(
                picture, prediction, heat_maps_wanted.style, on_trial=on_trial
            )
        return replace(prediction, drawing=drawing)

    def run_aside(self, data: bytes, work: Callable[[], T]) -> T:
        """Run work on a client's bytes on a native thread, while the hub goes on; return or raise what it does.

        The work must not touch Flask's ``request`` or ``g``, gevent, or the metrics.

        Args:
            data: the client's bytes that the work is about: should it end the process, they are to blame.
            work: what to do; ends within the deadline of a request.

        Raises:
            DeadlinePassed: it did not.
            ServingError: as ``NativePool.run``.
        """
        with gevent.Timeout(self._settings.deadline_s, self.deadlines.error()):
            return self._trials.run(
                lambda on_trial: self._parsing.run(lambda _: work(), data, on_trial=on_trial)
            )

    def hold_body(self, size: int) -> AbstractContextManager[None]:
        """Hold a part of the memory that there is for request bodies; waits for half of a request's time at most.

        Raises:
            QueueFull: it was not free in time.
        """
        return self._bodies.hold(size, self._settings.deadline_s / 2)

    def ready_model(self, target: Target = ANY) -> Model:
        """Return what would answer. Raises UnknownModel or NotReady."""
        return self._find(target).model

    def statuses(self, name: str = "") -> list[VersionStatus]:
        """Return how each known version of a model stands, rising; of every model, where none is named."""
        return [each for each in self._registry.statuses() if name in ("", each.name)]

    def rejected(self) -> tuple[RejectedVersion, ...]:
        """Return the versions that were found and are not served."""
        return self._registry.wanted.rejected

    def _find(self, target: Target) -> Servable:
        """Return what answers; see ``classify``."""
        if self.state is not State.READY:
            raise NotReady(self._failure or f"the model is {self.state.name.lower()}")
        return self._registry.find(target)

    def _stats(self, model: Model) -> ModelStats:
        """Return what counts a model's pictures in this worker."""
        return stats_of(self._scoreboard.slot, model.name, model.version)

    def _serve(self, model: Model) -> Servable:
        """Make a servable of a loaded model; from now on its counts are told, if only as 0."""
        self._stats(model)
        servable = Servable(
            model,
            self._handoff,
            max_wait_s=self._settings.max_wait_ms / 1000,
            max_queue=self._settings.max_queue,
            on_death=self._die,
            records=self._records,
        )
        self._servables.add(servable)
        return servable

    def _lacking_room(self, entry: Entry) -> str:
        """Return which memory cannot hold a version beside those that are loaded, or empty (on the loader's thread).

        Waits for workers that are about to give theirs back.
        """
        plan = current_plan(self._settings)
        if self.state is State.LOADING and not plan.is_tight:
            return ""  # what is loaded first was planned to fit
        placement = plan.placement(self._scoreboard.slot)
        until = time.monotonic() + DRAIN_S
        while True:
            lacking = lacking_room(self._settings, placement, entry.footprint)
            is_draining = State.DRAINING in self._scoreboard.states().values()
            if not (lacking and is_draining) or time.monotonic() > until:
                return lacking
            time.sleep(ASIDE_S)

    def _step_aside(self) -> None:
        """Take no more connections while others can, and answer the requests inside (on the loader's thread)."""
        self._scoreboard.mark(State.LOADING)
        until, had_substitute = time.monotonic() + self._settings.deadline_s, False
        while self._scoreboard.may_get_substitute() and time.monotonic() < until:
            has_substitute = self._scoreboard.has_substitute()
            if has_substitute and had_substitute and not self.in_flight.count:
                return
            had_substitute = has_substitute
            time.sleep(ASIDE_S)

    def _take_stock(self) -> None:
        """Become ready, or not, by what is live now."""
        self.workers.tell(self._registry.live, self._registry.failed)
        if self.state is State.DRAINING:
            return
        if self._registry.live:
            self._enter(State.READY)
            return
        problem, follows = self._registry.wanted.problem, self._settings.poll_s > 0
        self._fail(explain_failure(self.statuses(), problem, follows=follows))
        if failure := self._registry.wanted.failure:
            logger.error("the model cannot be served: %s", failure)

    def _give_up_loading(self) -> None:
        """End the wait for a load that hangs, and after as long again the worker.

        Should the load come through meanwhile, the worker is ready then. A worker that has another
        version to answer with goes on, whatever a load beside it does.
        """
        limit_s = self._settings.load_timeout_s
        if self.state is State.LOADING:
            self._fail("the model did not load in time")
            logger.error("the model did not load in time: the limit is %g s", limit_s)
            self._load_timer = gevent.spawn_later(limit_s, self._end_hanging_load)

    def _end_hanging_load(self) -> None:
        """End the worker if it is still loading and has nothing to answer with."""
        if self.state is State.FAILED and self._registry.is_loading:
            self._die(f"its load has hung for {2 * self._settings.load_timeout_s:g} s")

    def _die(self, reason: str) -> None:
        """End the worker: a native thread has ended unasked, or has not come back (on any thread)."""
        if self.state is not State.DRAINING:
            self._fail("the model has stopped")
            try:
                logger.error("the model has stopped: %s", reason)
            finally:
                self._on_death()

    def _tasks(self) -> list[Task]:
        """Return what the native threads are working on for requests."""
        forwards = [task for servable in self._servables for task in servable.batcher.tasks()]
        return self._image_pool.tasks() + self._parsing.tasks() + forwards

    def _end_stuck(self, task: Task, limit_s: float) -> None:
        """End the worker: a native thread has not come back. What else is in hand is not to blame."""
        try:
            self._records.keep_only(task.digests)
        finally:
            self._die(f"{task.name} has taken longer than {limit_s:g} s and cannot be ended alone")

    def _fail(self, reason: str) -> None:
        """Become unready (on any thread), for a reason that clients may read."""
        self._failure = reason
        self._enter(State.FAILED)

    def _enter(self, state: State) -> None:
        self.state = state
        self._scoreboard.mark(state)
