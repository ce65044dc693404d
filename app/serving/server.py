"""ModelServer: the object that the routes call.

The path of a request: ``find`` returns the version that answers, ``Servable.check_capacity`` refuses early what
could not be answered, ``predict`` runs decode → submit → forward → decide. Errors are raised all the way to
Flask's handler. ``app/serving/registry.py`` keeps the live versions, ``app/serving/lifecycle.py`` the state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import cast
from weakref import WeakSet

import gevent

from app.control.manifest import Manifest, RejectedVersion
from app.errors import MalformedRequest, ServingError
from app.scoreboard import Scoreboard, State
from app.serving.answer_cache import AnswerCache, CacheUse
from app.serving.deadlines import Deadlines
from app.serving.handoff import Handoff
from app.serving.image_pool import ImageInput, ImagePool
from app.serving.in_flight import InFlight
from app.serving.lifecycle import Lifecycle
from app.serving.loader import Loader
from app.serving.model import Model, Servable
from app.serving.pipeline import Pipeline
from app.serving.prediction import HeatMapRequest, PredictCall, Prediction, TooManyHeatMaps
from app.serving.registry import ModelRegistry
from app.serving.request_bodies import RequestBodies
from app.serving.routing import ANY, Target
from app.serving.stats import ModelStats, stats_of
from app.serving.status import VersionStatus
from app.serving.thread_pool import NativePool, Task
from app.serving.ticket import is_never_gone
from app.serving.trials import Trials
from app.serving.watchdog import Watchdog
from app.serving.workers import Workers
from app.settings import Settings

PARSING_THREADS = 2  # large bodies that a worker parses at once
logger = logging.getLogger(__name__)


class ModelServer:
    """Serves the manifest in one process. Public methods run on the hub's thread.

    Attributes:
        bodies: the memory and the threads for request bodies.
        workers: the reports and limits of all workers.
        in_flight: the requests that this worker is answering.
        deadlines: their deadlines.
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
        self._handoff = Handoff()
        quarantine = scoreboard.quarantine
        self._active_inputs = quarantine.active_inputs(scoreboard.slot)
        self._image_pool = ImagePool(settings, self._handoff, quarantine, self._active_inputs)
        self._pipeline = Pipeline(
            self._image_pool, quarantine, AnswerCache(settings.answer_cache_bytes)
        )
        self._trials = Trials(quarantine, scoreboard.slot)
        self._servables: WeakSet[Servable] = WeakSet()  # the retiring ones too
        self.deadlines = Deadlines(settings.deadline_s)
        parsing = NativePool(
            "parsing", PARSING_THREADS, self._handoff, quarantine, self._active_inputs
        )
        self.bodies = RequestBodies(settings, parsing, self._trials, self.deadlines)
        self.workers = Workers(settings, scoreboard, len(loader.plan.placements))
        self.in_flight = InFlight(scoreboard)
        self._registry = ModelRegistry(self._handoff, loader, self.in_flight, self._serve)
        self._lifecycle = Lifecycle(settings, scoreboard, on_death)
        self._watchdog = Watchdog(settings.deadline_s, self._tasks, self._end_stuck)

    @property
    def state(self) -> State:
        """State of this worker."""
        return self._lifecycle.state

    def start(self) -> None:
        """Start loading and return at once."""
        self._lifecycle.start(self._registry)
        self.workers.report(self._registry.live, self._registry.failed)
        self._registry.start(self._read_manifest, self._poll_s, self._update)
        self._watchdog.start()

    def stop(self, timeout_s: float) -> None:
        """Drain: accept no request, answer those in flight, end the threads; at most ``timeout_s`` seconds."""
        self._lifecycle.drain()
        self._watchdog.stop()
        if not self._registry.stop(timeout_s):
            logger.error("stopped with requests unanswered after %s s", timeout_s)
        self._image_pool.close()
        self.bodies.close()

    def find(self, target: Target = ANY) -> Servable:
        """Return the live version that answers a request; a request asks once.

        A request that goes on waiting for its body holds the version by ``Servable.lease``.

        Raises:
            UnknownModel: no such model, version or label is served.
            NotReady: it is not live yet, or not any more.
        """
        self._lifecycle.check_ready()
        return self._registry.find(target)

    @property
    def most_images(self) -> int:
        """The most images that one request can have."""
        return self._settings.max_queue

    def check_count(self, images: int) -> None:
        """Check the number of images of a request, before any of them is decoded.

        Raises:
            MalformedRequest: there are none, or more than the queue holds.
        """
        limit = self.most_images
        if not 0 < images <= limit:
            raise MalformedRequest(f"the request has {images:,} pictures; 1 to {limit:,} are taken")

    def predict(
        self,
        servable: Servable,
        images: Sequence[ImageInput],
        is_gone: Callable[[], bool] = is_never_gone,
        heat_maps: HeatMapRequest | None = None,
        upright: bool | None = None,
        cache: CacheUse | None = None,
    ) -> list[Prediction]:
        """Predict the images of one request side by side: decode, submit, forward, decide.

        Args:
            servable: the version that ``find`` has returned.
            images: files open in binary mode, or RGB pixels, (height, width, 3) uint8.
            is_gone: returns whether the client has disconnected; safe on any thread.
            heat_maps: the heat maps to compute.
            upright: rotate files by their EXIF tag; None as ``SERVING_EXIF_ROTATE`` says.
            cache: how to use the answer cache; None neither reads nor writes it.

        Raises:
            ServingError: the first error of any image; the others are cancelled.
        """
        call = self._begin(servable, is_gone, heat_maps, upright, cache)
        if len(images) == 1:
            return [self._answer(call, images[0])]
        greenlets = self._spawn(call, images, raise_error=True)
        return [cast(Prediction, greenlet.value) for greenlet in greenlets]

    def predict_each(
        self,
        servable: Servable,
        images: Sequence[ImageInput],
        is_gone: Callable[[], bool] = is_never_gone,
        heat_maps: HeatMapRequest | None = None,
        upright: bool | None = None,
        cache: CacheUse | None = None,
    ) -> list[Prediction | ServingError]:
        """Predict as ``predict`` does, but return the error of each image that fails in its place.

        Raises:
            TooManyHeatMaps: the images need more heat maps than the request may have.
        """
        call = self._begin(servable, is_gone, heat_maps, upright, cache)
        greenlets = self._spawn(call, images, raise_error=False)
        outcomes: list[Prediction | ServingError] = []
        for greenlet in greenlets:
            error = greenlet.exception
            if isinstance(error, ServingError) and not isinstance(error, TooManyHeatMaps):
                outcomes.append(error.with_traceback(None))
            else:
                outcomes.append(greenlet.get())
        return outcomes

    def _begin(
        self,
        servable: Servable,
        is_gone: Callable[[], bool],
        heat_maps: HeatMapRequest | None,
        upright: bool | None,
        cache: CacheUse | None,
    ) -> PredictCall:
        if upright is None:
            upright = self._settings.exif_rotate
        return PredictCall(servable, is_gone, heat_maps, upright, self.deadlines.left_s(), cache)

    def _spawn(
        self, call: PredictCall, images: Sequence[ImageInput], *, raise_error: bool
    ) -> list[gevent.Greenlet[..., Prediction]]:
        """Predict each image in a greenlet of its own and wait for all, or until the first error."""
        greenlets = [gevent.spawn(self._answer, call, image) for image in images]
        try:
            gevent.joinall(greenlets, raise_error=raise_error)
        finally:
            gevent.killall(greenlets, block=False)
        return greenlets

    def _answer(self, call: PredictCall, image: ImageInput) -> Prediction:
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
                prediction = self._trials.run(
                    lambda on_trial: self._pipeline.predict(call, image, stats, on_trial=on_trial)
                )
        except ServingError as error:
            stats.count_error(error)
            # Its frames hold the decoded image, which would live as long as the error does.
            raise error.with_traceback(None) from None
        stats.count(prediction)
        return prediction

    def statuses(self, name: str = "") -> list[VersionStatus]:
        """Return the status of each known version of a model, or of all models, in rising order."""
        return [each for each in self._registry.statuses() if name in ("", each.name)]

    def rejected(self) -> tuple[RejectedVersion, ...]:
        """Return the versions in the repository that cannot be served."""
        return self._registry.wanted.rejected

    def _stats(self, model: Model) -> ModelStats:
        return stats_of(self._scoreboard.slot, model.name, model.version)

    def _serve(self, model: Model) -> Servable:
        """Return a servable of a loaded model; its counters are exported from now on."""
        self._stats(model)
        servable = Servable(
            model,
            self._handoff,
            max_wait_s=self._settings.max_wait_ms / 1000,
            max_queue=self._settings.max_queue,
            on_death=self._lifecycle.die,
            active_inputs=self._active_inputs,
        )
        self._servables.add(servable)
        return servable

    def _update(self) -> None:
        """Publish the live and failed versions, after the registry has applied a manifest."""
        self.workers.report(self._registry.live, self._registry.failed)
        self._lifecycle.update(self._registry)

    def _tasks(self) -> list[Task]:
        """Return the running tasks of the native threads that work for requests."""
        forwards = [task for servable in self._servables for task in servable.batcher.tasks()]
        return self._image_pool.tasks() + self.bodies.tasks() + forwards

    def _end_stuck(self, task: Task, limit_s: float) -> None:
        """End the worker because of a hanging task; the inputs of other tasks are not to blame."""
        try:
            self._active_inputs.keep_only(task.digests)
        finally:
            reason = f"{task.name} has taken longer than {limit_s:g} s and cannot be ended alone"
            self._lifecycle.die(reason)
