"""ModelServer: the one object that the surfaces talk to.

``classify`` shows the whole way of a request. Which models answer is the affair of ``app/serving/registry.py``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast
from weakref import WeakSet

import gevent
import numpy as np

from app.control.manifest import Manifest, RejectedVersion
from app.errors import MalformedRequest, NotReady, ServingError
from app.processing.heatmap import HeatMap
from app.scoreboard import Scoreboard, State
from app.serving.batcher import is_never_gone
from app.serving.byte_budget import ByteBudget
from app.serving.deadlines import Deadlines
from app.serving.diagnosis import explain_failure
from app.serving.handoff import Handoff
from app.serving.image_pool import ImagePool, Picture
from app.serving.in_flight import InFlight
from app.serving.loader import Loader
from app.serving.model import Model, Servable
from app.serving.prediction import HeatMapRequest, Prediction, TooManyHeatMaps
from app.serving.registry import ModelRegistry
from app.serving.stats import ModelStats, stats_of
from app.serving.status import VersionStatus
from app.serving.thread_pool import NativePool, Task
from app.serving.traffic import ANY, Target
from app.serving.trials import Trials
from app.serving.watchdog import Watchdog
from app.serving.workers import Workers
from app.settings import Settings

T = TypeVar("T")

PARSING_THREADS = 2  # large bodies parsed at once in a worker
logger = logging.getLogger(__name__)


@dataclass
class Call:
    """The request that a set of images belongs to.

    Attributes:
        servable: the version that answers.
        is_gone: returns whether the client has disconnected; safe on any thread.
        heat_maps: the heat maps to compute.
        left_s: the time left for its images.
        maps: heat maps of all its images so far.
    """

    servable: Servable
    is_gone: Callable[[], bool]
    heat_maps: HeatMapRequest | None
    left_s: float
    maps: int = 0

    def select_heat_maps(self, logits: np.ndarray) -> Sequence[int]:
        """Return the classes of one image that get a heat map. Raises TooManyHeatMaps."""
        if self.heat_maps is None:
            return ()
        classes, limit = self.heat_maps.select(logits), self.heat_maps.limit
        self.maps += len(classes)
        if limit is not None and self.maps > limit:
            raise TooManyHeatMaps(
                f"the request wants {self.maps:,} heat maps or more; the limit is {limit}"
            )
        return classes


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
        loader: Loader,
        read_manifest: Callable[[], Manifest] | None = None,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare a server; nothing is loaded before ``start``.

        Args:
            settings: the settings.
            scoreboard: holds the slot of this process.
            loader: loads the versions.
            read_manifest: returns the current manifest; by default always that of the plan.
            on_death: ends the process; called on any thread, when a native thread has ended by itself or
                does not come back.
        """
        self._settings = settings
        self._scoreboard = scoreboard
        self._read_manifest = read_manifest or (lambda: loader.plan.manifest)
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
        self.workers = Workers(settings, scoreboard, len(loader.plan.placements))
        self.in_flight = InFlight(scoreboard)
        self._registry = ModelRegistry(self._handoff, loader, self.in_flight, self._serve)
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

    def find(self, target: Target = ANY) -> Servable:
        """Return the live version that answers a request; a request asks once.

        A request that goes on waiting for its body holds the version by ``Servable.lease``.

        Raises:
            UnknownModel: no such model, version or label is served.
            NotReady: it is not live yet, or not any more.
        """
        if self.state is not State.READY:
            raise NotReady(self._failure or f"the model is {self.state.name.lower()}")
        return self._registry.find(target)

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

    def predict(
        self,
        servable: Servable,
        images: Sequence[Picture],
        is_gone: Callable[[], bool] = is_never_gone,
        heat_maps: HeatMapRequest | None = None,
    ) -> list[Prediction]:
        """Predict the images of one request side by side: decode, submit, forward, decide.

        Args:
            servable: the version that ``find`` has returned.
            images: files open in binary mode, or RGB pixels, (height, width, 3) uint8.
            is_gone: returns whether the client has disconnected; safe on any thread.
            heat_maps: the heat maps to compute.

        Raises:
            ServingError: the first error of any image; the others are cancelled.
        """
        call = Call(servable, is_gone, heat_maps, self.deadlines.left_s())
        if len(images) == 1:
            return [self._answer(call, images[0])]
        greenlets = [gevent.spawn(self._answer, call, image) for image in images]
        try:
            gevent.joinall(greenlets, raise_error=True)
        finally:
            gevent.killall(greenlets, block=False)
        return [cast(Prediction, greenlet.value) for greenlet in greenlets]

    def predict_each(
        self,
        servable: Servable,
        images: Sequence[Picture],
        is_gone: Callable[[], bool] = is_never_gone,
        heat_maps: HeatMapRequest | None = None,
    ) -> list[Prediction | ServingError]:
        """Predict as ``predict`` does, but return the error of each image that fails in its place.

        Raises:
            TooManyHeatMaps: the images need more heat maps than the request may have.
        """
        call = Call(servable, is_gone, heat_maps, self.deadlines.left_s())
        greenlets = [gevent.spawn(self._answer, call, image) for image in images]
        try:
            gevent.joinall(greenlets)
        finally:
            gevent.killall(greenlets, block=False)
        outcomes: list[Prediction | ServingError] = []
        for greenlet in greenlets:
            error = greenlet.exception
            if isinstance(error, ServingError) and not isinstance(error, TooManyHeatMaps):
                outcomes.append(error.with_traceback(None))
            else:
                outcomes.append(greenlet.get())
        return outcomes

    def _answer(self, call: Call, image: Picture) -> Prediction:
        """Predict one image within the deadline and the limit of the queue, and count the outcome."""
        stats = self._stats(call.servable.model)
        try:
            if call.heat_maps is not None:
                call.servable.model.check_heat_maps()
            with (
                gevent.Timeout(call.left_s, self.deadlines.error()),
                call.servable.batcher.slot(),
                stats.in_flight(),
            ):
                prediction = self._trials.run(partial(self._predict, call, image))
        except ServingError as error:
            stats.count_error(error)
            # Its frames hold the decoded image, which would live as long as the error does.
            raise error.with_traceback(None) from None
        stats.count(prediction)
        return prediction

    def _predict(self, call: Call, image: Picture, on_trial: bool) -> Prediction:
        """Predict one image that holds a slot. Raises NeedsTrial for a suspect that is not on trial."""
        servable, model, began = call.servable, call.servable.model, time.monotonic()
        decoded = self._image_pool.decode(image, model, on_trial=on_trial)
        decode_s = time.monotonic() - began
        row = servable.batcher.submit(
            decoded.image, call.is_gone, call.heat_maps is not None, decoded.digest
        )
        maps: dict[int, HeatMap] = {}
        drawing = None
        if call.heat_maps is not None:
            classes = call.select_heat_maps(row.logits)
            maps = servable.explain(row.features, classes, call.is_gone, decoded.digest)
            if call.heat_maps.style is not None:
                with servable.batcher.without_forward():
                    drawing = self._image_pool.draw(
                        image,
                        maps[classes[0]],
                        model.config.transform,
                        call.heat_maps.style,
                        on_trial=on_trial,
                    )
        return Prediction(row.logits, model, row.timing, decode_s, decoded.size, maps, drawing)

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

    def statuses(self, name: str = "") -> list[VersionStatus]:
        """Return how each known version of a model stands, rising; of every model, where none is named."""
        return [each for each in self._registry.statuses() if name in ("", each.name)]

    def rejected(self) -> tuple[RejectedVersion, ...]:
        """Return the versions that were found and are not served."""
        return self._registry.wanted.rejected

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
