"""Tickets: the images that wait for a forward, and the outputs that it gives them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
from gevent.event import Event

from app.engines.engine import Forward
from app.errors import InternalError, ServingError

UNANSWERED = InternalError("the model gave no answer")


@dataclass(frozen=True)
class Timing:
    """The time that one image took after decoding.

    Attributes:
        queue_s: wait for the forward to begin.
        forward_s: duration of the forward, for the whole batch.
        batch: images in the forward.
        leads: it was the first of them; batches are counted by it.
    """

    queue_s: float
    forward_s: float
    batch: int
    leads: bool


class Row(NamedTuple):
    """The outputs of a forward for one image.

    Attributes:
        logits: (classes,) float32.
        timing: queue and forward.
        features: (channels, height, width) float32; None if they were not requested or the network has none.
    """

    logits: np.ndarray
    timing: Timing
    features: np.ndarray | None = None


Job = Callable[[], np.ndarray]


@dataclass(eq=False)
class Ticket:
    """An image, or a job, that waits for the model thread.

    Attributes:
        work: the image, (3, side, side) uint8; or the job.
        is_gone: returns whether the client has disconnected; called on the model thread.
        with_features: return the image's features too.
        digest: of the client's bytes, which are quarantined if the forward crashes the process.
        submitted: time of queueing, monotonic seconds.
        answered: set on the hub once ``outcome`` is there.
        abandoned: the waiter has left (deadline or disconnect).
        outcome: the result of the forward or the job; or the error to raise.
    """

    work: np.ndarray | Job
    is_gone: Callable[[], bool]
    with_features: bool = False
    digest: bytes = b""
    submitted: float = field(default_factory=time.monotonic)
    answered: Event = field(default_factory=Event)
    abandoned: bool = False
    outcome: Row | np.ndarray | ServingError = UNANSWERED


def is_never_gone() -> bool:
    """Default disconnect check: never disconnected."""
    return False


def run_forward(batch: list[Ticket], forward: Forward) -> None:
    """Run one forward and give every ticket its row; if it fails, none has one."""
    began = time.monotonic()
    wanted = any(ticket.with_features for ticket in batch)
    logits, features = forward([cast(np.ndarray, ticket.work) for ticket in batch], wanted)
    forward_s = time.monotonic() - began
    for index, (ticket, own) in enumerate(zip(batch, logits, strict=True)):
        timing = Timing(began - ticket.submitted, forward_s, len(batch), leads=index == 0)
        seen = features[index] if features is not None and ticket.with_features else None
        ticket.outcome = Row(own, timing, seen)
