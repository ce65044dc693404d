"""Prometheus metrics of the server; docs/monitoring.md documents each.

Each worker counts in files of its own in the folder ``PROMETHEUS_MULTIPROC_DIR`` (scripts/run-gunicorn
empties it before the master starts), and a scrape of any worker reads all files. A file belongs to a
worker's slot, not to its process: a replacement continues the counters of the worker it replaces. So
counters never go back while the master lives, and there are never more files than slots. Only gauges
are removed with their worker (conf/gunicorn.conf.py). Without the folder, or if the disk is full at
the start (``app/system/metric_files.py``), a process counts for itself alone.

All metrics are updated on the hub's thread: another thread may neither wait for the locks in here nor be
interrupted while it holds them. Durations are in seconds. Label values never come from clients.

Importing this module allocates the files: prometheus_client binds a metric to its storage when it is created.
A worker therefore imports it after it knows its slot (conf/gunicorn.conf.py), and the master never does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, exposition, values
from prometheus_client.metrics import disable_created_metrics
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.values import MultiProcessValue, MutexValue

from app.errors import ServingError
from app.scoreboard import scoreboard
from app.system import metric_files

KINDS = ("counter", "histogram", "gauge_livesum")  # one file each per slot
FOLDER = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
# Before the first metric is created, and after this process got its slot.
if FOLDER and metric_files.allocate(FOLDER, KINDS, scoreboard.slot):
    values.ValueClass = MultiProcessValue(lambda: scoreboard.slot)
else:
    FOLDER, values.ValueClass = "", MutexValue

# From a GPU's forward to the deadline of a request, about three buckets per decade.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)
VERSION = ("model", "version")

disable_created_metrics()  # the start time of a series is unknown if workers share it
registry = CollectorRegistry()


def create_histogram(name: str, help_text: str, labels: Iterable[str] = ()) -> Histogram:
    """Create a histogram of durations in seconds."""
    return Histogram(
        f"serving_{name}_seconds", help_text, labels, buckets=SECONDS, registry=registry
    )


def create_counter(name: str, help_text: str, labels: Iterable[str]) -> Counter:
    """Create a counter."""
    return Counter(f"serving_{name}", help_text, labels, registry=registry)


def create_sum(name: str, help_text: str) -> Gauge:
    """Create a gauge of each worker; a scrape has the sum over the live workers."""
    return Gauge(f"serving_{name}", help_text, multiprocess_mode="livesum", registry=registry)


# Per request, in app/web/access.py

requests = create_counter(
    "requests",
    "Requests answered, whatever the answer.",
    ("route", "method", "status", *VERSION),
)
errors = create_counter("errors", "Requests answered with an error, by error code.", ("code",))
key_requests = create_counter(
    "key_requests", "Requests with a valid API key, by the name of its client.", ("key",)
)
key_refusals = create_counter(
    "key_refusals",
    "Requests refused for their API key: missing, unknown, expired, or without the scope.",
    ("reason",),
)
request_seconds = create_histogram(
    "request_duration",
    "Time from a worker accepting a request to its response.",
    ("route", *VERSION),
)
upload_seconds = create_histogram(
    "upload_duration", "Time nginx waited for a client's complete request."
)
accept_seconds = create_histogram(
    "accept_duration", "Time from nginx forwarding a request to a worker accepting it."
)

# At each heartbeat, in app/gunicorn/worker.py

log_lines_dropped = create_counter(
    "log_lines_dropped", "Log lines dropped because they could not be written in time.", ()
)

# Per image, in app/serving/stats.py

pictures = create_counter(
    "pictures",
    "Images by outcome: answered, or the error code.",
    (*VERSION, "outcome"),
)
decode_seconds = create_histogram(
    "decode_duration", "Time to decode one image, including the wait for a decode thread.", VERSION
)
queue_seconds = create_histogram(
    "queue_duration", "Time from a decoded image to the start of its forward pass.", VERSION
)
forward_seconds = create_histogram(
    "forward_duration", "Duration of the forward pass of the batch that an image was in.", VERSION
)
computing_seconds = create_counter(
    "computing_seconds", "Time spent in forward passes, each batch counted once.", VERSION
)
batch_size = Histogram(
    "serving_batch_size",
    "Images in one forward pass.",
    VERSION,
    buckets=BATCH_SIZES,
    registry=registry,
)
labels_given = create_counter("labels", "Labels assigned to images.", (*VERSION, "label"))
queue_depth = Gauge(
    "serving_queue_depth",
    "Images in flight in a worker: being decoded, queued or computed.",
    ("worker", *VERSION),
    multiprocess_mode="livesum",
    registry=registry,
)

# Per look-up, in app/serving/stats.py; per entry, in app/serving/answer_cache.py

answer_cache_hits = create_counter(
    "answer_cache_hits", "Images answered from the answer cache.", VERSION
)
answer_cache_misses = create_counter(
    "answer_cache_misses", "Images looked up in the answer cache and not found.", VERSION
)
answer_cache_evictions = create_counter(
    "answer_cache_evictions", "Entries removed from the answer cache to make room.", ()
)
answer_cache_bytes = create_sum("answer_cache_bytes", "Memory of the answer cache.")
answer_cache_entries = create_sum("answer_cache_entries", "Images in the answer cache.")

for code in {ServingError.code, *(each.code for each in ServingError.__subclasses__())}:
    errors.labels(code)  # so that the first error of a kind is an increase from 0

for reason in ("missing", "unknown", "expired", "scope"):
    key_refusals.labels(reason)

DECLARED = [Metric(each.name, each.documentation, each.type) for each in registry.collect()]


class AllMetrics(Collector):
    """Collects the counted metrics, summed over all workers, and those sampled for this scrape.

    Args:
        sampled: metrics read at scrape time.
    """

    def __init__(self, sampled: Iterable[Metric]) -> None:
        self._sampled = sampled

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, including those without samples yet, so that they can be discovered."""
        if FOLDER:
            counted = MultiProcessCollector(None, FOLDER).collect()
            found = {metric.name: metric for metric in counted}
            yield from (found.get(metric.name, metric) for metric in DECLARED)
        else:
            yield from registry.collect()
        yield from self._sampled


def expose(sampled: Iterable[Metric], accept: str = "") -> tuple[bytes, str]:
    """Serialize all metrics; safe on any thread, because it only reads files.

    Args:
        sampled: metrics read at scrape time.
        accept: the Accept header; OpenMetrics is chosen if it holds ``application/openmetrics-text``.

    Returns:
        The body and its content type.
    """
    metrics = AllMetrics(sampled)
    if "application/openmetrics-text" in accept:
        return openmetrics.generate_latest(metrics), openmetrics.CONTENT_TYPE_LATEST
    return exposition.generate_latest(metrics), exposition.CONTENT_TYPE_PLAIN_0_0_4
