"""The answer cache: the logits of images that this worker has computed before, bounded in bytes.

It lies below the dialects: thresholds, label options and response formats are applied to the logits, so all of
them share one entry, and a hit saves decoding and forward. Heat maps need the features of a forward, and are
always computed.
"""

from __future__ import annotations

import math
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from app import metrics

ENTRY_BYTES = (
    896  # of an entry beside its logits and partition: key, answer and three array and dict headers
)


@dataclass(frozen=True)
class CacheUse:
    """How a request uses the answer cache.

    Attributes:
        partition: only requests of the same partition share answers. ``Age`` and the latency of a hit tell a
            client that the image was sent before, so clients that must not learn this of each other need
            partitions of their own.
        max_age_s: older answers are not used, but computed again.
    """

    partition: str = ""
    max_age_s: float = math.inf


class Key(NamedTuple):
    """All that decides the logits of an image.

    Attributes:
        load: ``Servable.serial``: another version, or the same number loaded again, has another one.
        partition: of the request.
        digest: of the image's bytes, as ``Quarantine.digest`` makes it.
        shape: of pixels; () for a file.
        upright: the file is rotated by its EXIF tag.
    """

    load: int
    partition: str
    digest: bytes
    shape: tuple[int, ...]
    upright: bool


class KnownAnswer(NamedTuple):
    """The outputs for an image.

    Attributes:
        logits: (classes,) float32, read-only.
        size: width and height of the image in px.
        computed: monotonic seconds.
    """

    logits: np.ndarray
    size: tuple[int, int]
    computed: float

    def age_s(self) -> float:
        """Return the seconds since it was computed."""
        return time.monotonic() - self.computed


class AnswerCache:
    """The answers of one worker; the least recently used is removed first. Methods run on the hub.

    Entries of a retired version are not found any more, so they become the least recently used.

    Attributes:
        limit: bytes; 0 turns it off.
        bytes: sum over the entries.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._answers: OrderedDict[Key, KnownAnswer] = OrderedDict()

    def find(self, key: Key, max_age_s: float) -> KnownAnswer | None:
        """Return the answer of an image, or None if it is unknown or not below an age."""
        known = self._answers.get(key)
        if known is None or known.age_s() >= max_age_s:
            return None
        self._answers.move_to_end(key)
        return known

    def store(self, key: Key, logits: np.ndarray, size: tuple[int, int]) -> None:
        """Store the answer of an image; (classes,) logits are copied, because they are a row of their batch's."""
        own = logits.copy()
        own.setflags(write=False)
        if known := self._answers.pop(key, None):
            self.bytes -= cost(key, known)
        self._answers[key] = known = KnownAnswer(own, size, time.monotonic())
        self.bytes += cost(key, known)
        while self.bytes > self.limit:
            self.bytes -= cost(*self._answers.popitem(last=False))
            metrics.answer_cache_evictions.inc()
        metrics.answer_cache_bytes.set(self.bytes)
        metrics.answer_cache_entries.set(len(self._answers))


def cost(key: Key, known: KnownAnswer) -> int:
    """Return the bytes that an entry takes."""
    return known.logits.nbytes + sys.getsizeof(key.partition) + ENTRY_BYTES
