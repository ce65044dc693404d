"""What the pictures of one worker are counted as: the one place where the way of a picture meets the metrics."""

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
    """Counts what becomes of the pictures that one version is asked about. Methods run on the hub.

    The metrics' series are looked up once and kept: that halves what counting costs.
    """

    def __init__(self, worker: int, model: str, version: int) -> None:
        """Count for a version of a model in the worker of a slot."""
        own = model, str(version)
        self._depth: Gauge = metrics.queue_depth.labels(str(worker), *own)
        self._decode: Histogram = metrics.decode_seconds.labels(*own)
        self._queue: Histogram = metrics.queue_seconds.labels(*own)
        self._forward: Histogram = metrics.forward_seconds.labels(*own)
        self._computing: Counter = metrics.computing_seconds.labels(*own)
        self._batch: Histogram = metrics.batch_size.labels(*own)
        self._outcome = cache(lambda outcome: metrics.pictures.labels(*own, outcome))
        self._label = cache(lambda label: metrics.labels_given.labels(*own, label))
        self._outcome(ANSWERED)  # so that the first is a rise from 0 already

    def inside(self) -> AbstractContextManager[None]:
        """Count a picture as inside the worker while the block runs."""
        return self._depth.track_inprogress()

    def count(self, outcome: Prediction | ServingError) -> None:
        """Count what became of a picture."""
        if isinstance(outcome, ServingError):
            self._outcome(outcome.code).inc()
            return
        self._outcome(ANSWERED).inc()
        self._decode.observe(outcome.decode_s)
        self._queue.observe(outcome.timing.queue_s)
        self._forward.observe(outcome.timing.forward_s)
        if outcome.timing.leads:
            self._computing.inc(outcome.timing.forward_s)
            self._batch.observe(outcome.timing.batch)
        for label in name_labels(outcome):
            self._label(label).inc()


stats_of = cache(ModelStats)  # one for each version that this process ever served


def name_labels(prediction: Prediction) -> list[str]:
    """Return the labels of a picture as they are counted."""
    names = prediction.model.class_names
    given = [names[i] if i < MAX_LABELS else OTHER_LABEL for i in prediction.passing()]
    return given or [NO_LABEL]
