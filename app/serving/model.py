"""A loaded model, and the servable that runs it: its queue and its threads.

A server holds several versions beside each other while one replaces another. Each has its own queue, so no
batch mixes versions, and a version retires by draining its queue.
"""

from __future__ import annotations

import itertools
import logging
import time
from _queue import SimpleQueue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import numpy as np
from gevent.event import Event

from app.engines.engine import Choice, Engine
from app.errors import NoHeatMap
from app.models.bundle import Bundle
from app.models.config import ModelConfig
from app.processing.heatmap import HeatMap, make_heat_map
from app.quarantine import ActiveInputs
from app.serving.batcher import Batcher
from app.serving.first_look import FirstLook
from app.serving.handoff import Handoff, start_native_thread

WITHOUT_MAP = ("vit_",)  # names of torchvision's classifiers that pool no feature map begin so

SERIALS = itertools.count()

logger = logging.getLogger(__name__)


class About(TypedDict):
    """Identity and runtime of a model, for logs, metrics and the reports of workers."""

    model: str
    version: int
    device: str
    engine: str
    precision: str
    max_batch: int
    lanes: int


@dataclass(frozen=True)
class Model:
    """A loaded model: its files, how it runs, and the engine that runs it.

    Attributes:
        bundle: names, classes and config.
        choice: engine, precision and threads.
        engine: the loaded network.
        device: ``cpu``, or ``cuda:N`` as the master counts the GPUs.
    """

    bundle: Bundle
    choice: Choice
    engine: Engine
    device: str

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.bundle.name

    @property
    def version(self) -> int:
        """Number of the version."""
        return self.bundle.version

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name for each output, in order."""
        return self.bundle.class_names

    @property
    def config(self) -> ModelConfig:
        """How images are prepared and classes chosen."""
        return self.bundle.config

    def check_heat_maps(self) -> None:
        """Raise NoHeatMap if the engine gives no gradients; the text names a cure."""
        if self.engine.gradients is not None:
            return
        which = f"{self.name} ({self.config.architecture})"
        if self.choice.engine != "openvino" or self.config.architecture.startswith(WITHOUT_MAP):
            raise NoHeatMap(f"{which} pools no feature map that a heat map could be made of")
        raise NoHeatMap(
            f"{which} has no heat maps on the engine openvino: its last layers are too large for them, or an"
            " earlier release converted it (then remove its folder optimized); SERVING_ENGINE=eager computes them"
        )

    def about(self) -> About:
        """Return its identity and runtime."""
        return {
            "model": self.name,
            "version": self.version,
            "device": self.device,
            "engine": self.choice.engine,
            "precision": self.choice.precision,
            "max_batch": self.engine.max_batch,
            "lanes": self.engine.lanes,
        }


class Servable:
    """A loaded version that answers requests. Public methods run on the hub's thread.

    Attributes:
        model: the model.
        batcher: the queue of its requests.
        first_look: warns if its preprocessing seems wrong.
        serial: a number that no other servable of this process has.
    """

    def __init__(
        self,
        model: Model,
        handoff: Handoff,
        *,
        max_wait_s: float,
        max_queue: int,
        on_death: Callable[[str], None],
        active_inputs: ActiveInputs | None = None,
    ) -> None:
        """Prepare it; nothing runs before ``start``.

        Args:
            model: the model.
            handoff: wakes the waiting greenlets.
            max_wait_s: see ``Batcher``.
            max_queue: see ``Batcher``.
            on_death: called with the reason, on a model thread, when one ends unexpectedly; the requests of
                its batch are not answered yet.
            active_inputs: see ``Batcher``.
        """
        self.model = model
        self.batcher = Batcher(
            handoff, max_wait_s=max_wait_s, max_queue=max_queue, active_inputs=active_inputs
        )
        self.first_look = FirstLook(model.bundle)
        self.serial = next(SERIALS)
        self._handoff = handoff
        self._on_death = on_death
        self._lanes_ended: SimpleQueue[None] = SimpleQueue()  # an item per ended lane
        self._retiring = False
        self._leases = 0  # requests that have found this version and are not answered yet
        self._unleased = Event()
        self._unleased.set()
        self._ended = Event()

    def start(self) -> None:
        """Start one thread per lane."""
        lanes = self.model.engine.lanes
        self.batcher.open_lanes(lanes)
        for lane in range(lanes):
            start_native_thread(partial(self._run_lane, lane))

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Keep the version answering while the block runs: ``retire`` waits for it."""
        self._leases += 1
        self._unleased.clear()
        try:
            yield
        finally:
            self._leases -= 1
            if not self._leases:
                self._unleased.set()

    def check_capacity(self) -> None:
        """Fail fast: raise before the body is read if the request could not be answered now.

        Raises:
            QueueFull: ``max_queue`` images are in flight.
            NotReady: the server is shutting down.
        """
        self.batcher.check_capacity()

    def retire(self, timeout_s: float) -> bool:
        """Wait for the leases, answer the requests in flight, end the threads.

        Returns:
            Whether that took at most ``timeout_s`` seconds, so that all were answered.
        """
        until = time.monotonic() + timeout_s
        self._unleased.wait(timeout_s)
        self._retiring = True
        drained = self.batcher.drain(max(0.0, until - time.monotonic()))
        self._ended.wait(timeout_s)
        return drained

    def explain(
        self,
        features: np.ndarray | None,
        classes: Sequence[int],
        is_gone: Callable[[], bool],
        digest: bytes = b"",
    ) -> dict[int, HeatMap]:
        """Return the heat maps of some classes for one image that holds a slot.

        Args:
            features: (channels, height, width) float32, from the image's forward.
            classes: indices of the classes.
            is_gone: returns whether the client has disconnected; safe on any thread.
            digest: of the image's file.

        Raises:
            NoHeatMap: the engine gives no gradients, or no features.
            ServingError: the errors of ``Batcher.submit``, if the gradients are computed per image.
        """
        gradients = self.model.engine.gradients
        if not classes:
            return {}
        self.model.check_heat_maps()
        if gradients is None or features is None:
            raise NoHeatMap(f"{self.model.name} has given no feature map for this image")
        if not callable(gradients):
            return {label: make_heat_map(features, gradients[label]) for label in classes}
        # One at a time: other requests' batches go in between.
        return {
            label: make_heat_map(
                features, self.batcher.run_job(partial(gradients, features, label), is_gone, digest)
            )
            for label in classes
        }

    def _run_lane(self, lane: int) -> None:
        engine = self.model.engine
        with self._report_end():
            self.batcher.run(
                lane, engine.forward, partial(engine.forward_in_lane, lane), engine.max_batch
            )

    @contextmanager
    def _report_end(self) -> Iterator[None]:
        """Report an unexpected end of a model thread; the last thread to end fails the pending tickets."""
        reason = "its thread ended without being asked to"
        try:
            yield
        except Exception as error:
            logger.exception("the model thread died")
            reason = repr(error)
        finally:
            if not self._retiring:
                self._on_death(reason)
            self._lanes_ended.put(None)
            if self._lanes_ended.qsize() >= self.model.engine.lanes:
                self.batcher.reject_pending()
                self._handoff.deliver([self._ended])
