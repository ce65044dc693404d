"""Metrics of the images that one worker predicts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from app import metrics
from app.errors import ServingError
from app.serving.prediction import Prediction

ANSWERED = "answered"
NO_LABEL = "(none)"
# Labels beyond are counted as one: every label is a series in every worker's file and in Prometheus.
MAX_LABELS = 1000
OTHER_LABEL = "(other)"


class ModelStats:
    """The counters of one version of a model. Methods run on the hub.

    The series are looked up once and kept, which halves the cost of counting.
    """

    def __init__(self, worker: int, model: str, version: int) -> None:
        own = model, str(version)
        self._depth: Gauge = metrics.queue_depth.labels(str(worker), *own)
        self._decode: Histogram = metrics.decode_seconds.labels(*own)
        self._queue: Histogram = metrics.queue_seconds.labels(*own)
        self._forward: Histogram = metrics.forward_seconds.labels(*own)
        self._computing: Counter = metrics.computing_seconds.labels(*own)
        self._batch: Histogram = metrics.batch_size.labels(*own)
        self._hits: Counter = metrics.answer_cache_hits.labels(*own)
        self._misses: Counter = metrics.answer_cache_misses.labels(*own)
        self._outcome = cache(lambda outcome: metrics.pictures.labels(*own, outcome))
        self._label = cache(lambda label: metrics.labels_given.labels(*own, label))
        self._outcome(ANSWERED)  # so that the first one is a rise from 0

    def in_flight(self) -> AbstractContextManager[None]:
        """Count an image as in flight while the block runs."""
        return self._depth.track_inprogress()

    def count_error(self, error: ServingError) -> None:
        """Count an image that failed."""
        self._outcome(error.code).inc()

    def count_lookup(self, *, is_hit: bool) -> None:
        """Count an image that was looked up in the answer cache."""
        (self._hits if is_hit else self._misses).inc()

    def count(self, prediction: Prediction) -> None:
        """Count an image that was answered, and its labels; its times if it was computed."""
        self._outcome(ANSWERED).inc()
        for label in label_values(prediction):
            self._label(label).inc()
        if prediction.age_s is not None:
            return
        self._decode.observe(prediction.decode_s)
        self._queue.observe(prediction.timing.queue_s)
        self._forward.observe(prediction.timing.forward_s)
        if prediction.timing.leads:
            self._computing.inc(prediction.timing.forward_s)
            self._batch.observe(prediction.timing.batch)


stats_of = cache(ModelStats)  # one for each version that this process ever served


def label_values(prediction: Prediction) -> list[str]:
    """Return the values of the metric's ``label`` for one image; at least one."""
    names = prediction.model.class_names
    given = [names[i] if i < MAX_LABELS else OTHER_LABEL for i in prediction.passing]
    return given or [NO_LABEL]
