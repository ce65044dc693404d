"""ModelServer: the one object that the surfaces talk to.

It owns the model thread. The thread loads the network, warms it up and then answers batches until
the server drains; the hub decodes pictures in a native pool and waits. ``classify`` shows the whole
way of a request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
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
        try:
            return decode_image(file, self._settings.max_pixels, self._settings.exif_rotate)
        except ServingError as error:
            return error

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

    # On the model thread

    def _run_model(self) -> None:
        """Load, then answer batches. Whatever goes wrong is logged and makes the worker unready, never silent."""
        try:
            started = time.monotonic()
            model = self._load(self._settings, self._roster.slot)
            self._announce(model, time.monotonic() - started)
            self._batcher.run(model.forward, model.max_batch)
        except BundleError as error:
            self._fail("the model cannot be served", str(error))
        except Exception as error:
            logger.exception("the model thread died")
            self._fail("the model has stopped", repr(error))
        finally:
            if self.model is not None and self.state is not State.DRAINING:
                self._fail("the model has stopped", "its thread ended without being asked to")
                self._on_death()  # before anybody is turned away: nginx tries them again elsewhere
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
