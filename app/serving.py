"""ModelServer: the one object that the surfaces talk to.

It owns the model thread. The thread loads the network, warms it up and then answers batches until
the server drains; the hub decodes pictures in a native pool and waits. ``classify`` shows the whole
way of a request.
"""

from __future__ import annotations

import logging
import time
from _queue import SimpleQueue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import gevent
import numpy as np
from gevent.event import Event
from gevent.threadpool import ThreadPool

from app.batcher import Batcher, Forward, is_never_gone
from app.engines import load_engine
from app.errors import BundleError, DeadlinePassed, NotReady, ServingError
from app.handoff import Handoff, start_native_thread
from app.images import decode_image
from app.precision import FP32
from app.roster import Roster, State
from app.settings import Settings
from app.sizing import current_plan, room_on_device

LOGIT_THRESHOLD = 0.5  # a class passes where its raw output is above this, strictly

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A loaded model: who it is, and its forward."""

    name: str
    version: int
    class_names: tuple[str, ...]
    description: str
    device: str
    engine: str
    precision: str
    max_batch: int
    forward: Forward
    lanes: tuple[Forward, ...] = ()  # forwards that run beside each other; none: only ``forward``


@dataclass(frozen=True)
class Prediction:
    """The answer to one picture. ``logits``: (classes,) float32, in the order of ``class_names``."""

    logits: np.ndarray
    class_names: tuple[str, ...]

    def labels(self) -> list[str]:
        """Return the names of the classes that pass, by rising logit."""
        order = np.argsort(self.logits, kind="stable")
        return [self.class_names[index] for index in order if self.logits[index] > LOGIT_THRESHOLD]


def load_model(settings: Settings, slot: int) -> Model:
    """Load the settings' model for the worker in ``slot``, on the calling thread.

    The plan says what and how; the workers of one plan all serve the same version.

    Raises:
        BundleError: there is no model to serve, or it cannot be served.
    """
    plan = current_plan(settings)
    if plan.optimized is None:
        raise BundleError(plan.failure)
    bundle, choice = plan.optimized.bundle, plan.choice(slot)
    with room_on_device(plan, choice, settings):
        engine = load_engine(choice, plan.optimized)
    return Model(
        bundle.name,
        bundle.version,
        bundle.class_names,
        bundle.description,
        choice.device,
        choice.engine,
        choice.precision,
        choice.max_batch,
        engine.forward,
        tuple(partial(engine.forward_in_lane, lane) for lane in range(engine.lanes)),
    )


class ModelServer:
    """Serves one model in one process.

    Public methods run on the hub's thread. The state goes LOADING → READY → DRAINING, or to FAILED;
    every change is written into the roster.
    """

    def __init__(
        self,
        settings: Settings,
        roster: Roster,
        load: Callable[[Settings, int], Model] = load_model,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare a server; nothing is loaded before ``start``.

        Args:
            settings: the settings.
            roster: where this process has its slot.
            load: loads the model, on the model thread.
            on_death: called on the model thread when it ends after it was ready, unasked.
        """
        self._settings = settings
        self._roster = roster
        self._load = load
        self._on_death = on_death
        self._handoff = Handoff()
        self._batcher = Batcher(
            self._handoff,
            max_wait_s=settings.max_wait_ms / 1000,
            max_queue=settings.max_queue,
        )
        self._decoders = ThreadPool(settings.decode_pool_size)
        self._open_lanes = 1
        self._lanes_ended: SimpleQueue[None] = SimpleQueue()  # an item for each lane that did
        self._ended = Event()
        self._watchdog = gevent.Greenlet()
        self._failure = ""
        self.model: Model | None = None
        self.state = State.LOADING

    def start(self) -> None:
        """Start loading in the model thread and return at once."""
        self._enter(State.LOADING)
        start_native_thread(self._run_model)
        self._watchdog = gevent.spawn_later(self._settings.load_timeout_s, self._give_up_loading)

    def stop(self, timeout_s: float) -> None:
        """Drain: take nothing new, answer what is inside, end the model thread; at most ``timeout_s`` seconds."""
        loaded = self.state is State.READY
        self._enter(State.DRAINING)
        if not self._batcher.drain(timeout_s):
            logger.error("stopped with requests unanswered after %s s", timeout_s)
        if loaded:
            self._ended.wait(timeout_s)
        self._watchdog.kill()
        self._decoders.kill()

    def check_room(self) -> None:
        """Refuse a request that would be refused anyway, before its body is read.

        Raises:
            NotReady: there is no model, or not any more.
            QueueFull: ``max_queue`` requests are inside.
        """
        self.ready_model()
        self._batcher.check_room()

    def classify(self, file: BinaryIO, is_gone: Callable[[], bool] = is_never_gone) -> Prediction:
        """Answer one picture.

        Args:
            file: the uploaded file, open in binary mode.
            is_gone: tells whether the client has hung up; safe on any thread.

        Raises:
            ServingError: any of them; see ``errors``.
        """
        model = self.ready_model()
        settings = self._settings
        too_late = DeadlinePassed(
            f"no answer within {settings.deadline_s:g} s, the limit of a request"
        )
        with gevent.Timeout(settings.deadline_s, too_late), self._batcher.place():
            image = self._decoders.apply(self._decode, (file,))
            if isinstance(image, ServingError):
                raise image
            logits = self._batcher.submit(image, is_gone)
        return Prediction(logits, model.class_names)

    def _decode(self, file: BinaryIO) -> np.ndarray | ServingError:
        """Decode in the native pool; an error is returned, because gevent prints what a pool raises."""
        settings = self._settings
        try:
            return decode_image(
                file, settings.max_pixels, settings.exif_rotate, self._decode_fast()
            )
        except ServingError as error:
            return error

    def _decode_fast(self) -> bool:
        """Tell whether pictures may be decoded nearly: in fp32 they are exact."""
        if self._settings.decode != "auto":
            return self._settings.decode == "fast"
        return self.model is not None and self.model.precision != FP32

    def ready_model(self) -> Model:
        """Return the model.

        Raises:
            NotReady: it is not there yet, or not any more; the text says which.
        """
        if self.model is None or self.state is not State.READY:
            raise NotReady(self._failure or f"the model is {self.state.name.lower()}")
        return self.model

    def worker_states(self) -> dict[int, str]:
        """Return every worker's state by its slot."""
        return {slot: state.name.lower() for slot, state in self._roster.states().items()}

    def _enter(self, state: State) -> None:
        self.state = state
        self._roster.mark(state)

    def _give_up_loading(self) -> None:
        """End the wait for a load that hangs; should it come through after all, the worker is ready then."""
        if self.state is State.LOADING:
            self._fail(
                "the model did not load in time",
                f"the limit is {self._settings.load_timeout_s:g} s",
            )

    def _fail(self, reason: str, detail: str) -> None:
        """Become unready (on any thread); clients read the reason, the log the detail too: it may name paths."""
        self._failure = reason
        self._enter(State.FAILED)
        logger.error("%s: %s", reason, detail)

    # On the model threads

    def _run_model(self) -> None:
        """Load, start the other lanes, then answer batches in the first (on the first model thread)."""
        with self._nothing_silent():
            started = time.monotonic()
            model = self._load(self._settings, self._roster.slot)
            self._open_lanes = max(1, len(model.lanes))
            self._batcher.open_lanes(self._open_lanes)
            self._announce(model, time.monotonic() - started)
            for lane in range(1, self._open_lanes):
                start_native_thread(partial(self._run_lane, model, lane))
            self._answer_batches(model, 0)

    def _run_lane(self, model: Model, lane: int) -> None:
        """Answer batches in one of the other lanes (on a model thread of its own)."""
        with self._nothing_silent():
            self._answer_batches(model, lane)

    def _answer_batches(self, model: Model, lane: int) -> None:
        in_lane = model.lanes[lane] if model.lanes else model.forward
        self._batcher.run(lane, model.forward, in_lane, model.max_batch)

    @contextmanager
    def _nothing_silent(self) -> Iterator[None]:
        """Log whatever ends a model thread; it makes the worker unready, and unless it was asked for, ends it."""
        try:
            yield
        except BundleError as error:
            self._fail("the model cannot be served", str(error))
        except Exception as error:
            logger.exception("the model thread died")
            self._fail("the model has stopped", repr(error))
        finally:
            if self.model is not None and self.state is not State.DRAINING:
                self._fail("the model has stopped", "its thread ended without being asked to")
                self._on_death()  # before anybody is turned away: nginx tries them again elsewhere
            self._lanes_ended.put(None)
            if self._lanes_ended.qsize() >= self._open_lanes:
                self._batcher.turn_away()
                self._handoff.deliver([self._ended])

    def _announce(self, model: Model, load_s: float) -> None:
        """Make the model available."""
        self.model = model
        if self.state is State.DRAINING:
            return
        self._enter(State.READY)
        fields = {
            "model": model.name,
            "version": model.version,
            "classes": len(model.class_names),
            "device": model.device,
            "engine": model.engine,
            "precision": model.precision,
            "max_batch": model.max_batch,
            "load_s": round(load_s, 2),
            "description": model.description,
        }
        logger.info("model ready", extra={"fields": fields})
