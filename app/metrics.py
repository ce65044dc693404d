"""Metrics: what a server counts while it works, in Prometheus' words. docs/monitoring.md tells what each means.

Each worker counts in files of its own, in the folder that ``PROMETHEUS_MULTIPROC_DIR`` names
(scripts/run-gunicorn empties it before the master starts), and whichever worker is asked reads the
files of all. A file belongs to a worker's slot and not to its process: the worker that takes a dead
one's place counts on from there. So no count ever goes back while the master lives, and however
often workers are replaced, there are never more files than slots. Only gauges die with their
worker (conf/gunicorn.conf.py). Without the folder a process counts for itself alone, and so does one
that finds the disk full when it starts (``app/system/metric_files.py``).

Everything is counted on the hub's thread: one that is not the hub's may neither wait for the locks in
here nor be interrupted while it holds them. Durations are seconds. No label takes a value that
clients make up.
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

KINDS = ("counter", "histogram", "gauge_livesum")  # a file of each for each slot
FOLDER = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
# Before the first metric is made, and after this process got its slot.
if FOLDER and metric_files.allocate(FOLDER, KINDS, scoreboard.slot):
    values.ValueClass = MultiProcessValue(lambda: scoreboard.slot)
else:
    FOLDER, values.ValueClass = "", MutexValue

# From a GPU's forward to the deadline of a request, about three steps to each power of ten.
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
PICTURES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)
VERSION = ("model", "version")

disable_created_metrics()  # when a series began; not known where workers count together
registry = CollectorRegistry()


def seconds(name: str, told: str, labels: Iterable[str] = ()) -> Histogram:
    """Return a histogram of durations."""
    return Histogram(f"serving_{name}_seconds", told, labels, buckets=SECONDS, registry=registry)


def total(name: str, told: str, labels: Iterable[str]) -> Counter:
    """Return a counter."""
    return Counter(f"serving_{name}", told, labels, registry=registry)


# Counted where a request ends, in app/web/access.py

requests = total(
    "requests",
    "Requests answered, whatever the answer.",
    ("route", "method", "status", *VERSION),
)
errors = total("errors", "Requests answered with an error, by the code of the problem.", ("code",))
request_seconds = seconds(
    "request_duration",
    "From the moment when a worker takes up a request to its answer.",
    ("route", *VERSION),
)
upload_seconds = seconds("upload_duration", "How long nginx waited for a client's whole request.")
accept_seconds = seconds(
    "accept_duration", "From nginx passing a request on to a worker taking it up."
)

# Counted at each heartbeat, in app/gunicorn/worker.py

log_lines_dropped = total(
    "log_lines_dropped", "Lines of the log that could not be written in time.", ()
)

# Counted for each picture, in app/serving/stats.py

pictures = total(
    "pictures",
    "Pictures that a model was asked about: answered, or the code of the problem.",
    (*VERSION, "outcome"),
)
decode_seconds = seconds(
    "decode_duration", "Waiting for a decode thread, and decoding, of one picture.", VERSION
)
queue_seconds = seconds(
    "queue_duration", "From a decoded picture to the begin of its forward.", VERSION
)
forward_seconds = seconds(
    "forward_duration", "The forward of the batch that a picture was in.", VERSION
)
computing_seconds = total(
    "computing_seconds", "Time spent in forwards, each batch counted once.", VERSION
)
batch_size = Histogram(
    "serving_batch_size",
    "Pictures in one forward.",
    VERSION,
    buckets=PICTURES,
    registry=registry,
)
labels_given = total("labels", "Labels given to pictures.", (*VERSION, "label"))
queue_depth = Gauge(
    "serving_queue_depth",
    "Pictures inside a worker: being decoded, queued or computed.",
    ("worker", *VERSION),
    multiprocess_mode="livesum",
    registry=registry,
)

for code in {ServingError.code, *(each.code for each in ServingError.__subclasses__())}:
    errors.labels(code)  # so that the first of its kind is a rise from 0 already

KNOWN = [Metric(each.name, each.documentation, each.type) for each in registry.collect()]


class Everything(Collector):
    """All metrics: those counted, by all workers together, and those that are only looked at when asked for."""

    def __init__(self, present: Iterable[Metric]) -> None:
        """Take what was looked at just now."""
        self._present = present

    def collect(self) -> Iterator[Metric]:
        """Return the metrics; those that nobody counted yet too, so that they can be found."""
        if FOLDER:
            counted = MultiProcessCollector(None, FOLDER).collect()
            found = {metric.name: metric for metric in counted}
            yield from (found.get(metric.name, metric) for metric in KNOWN)
        else:
            yield from registry.collect()
        yield from self._present


def expose(present: Iterable[Metric], accept: str = "") -> tuple[bytes, str]:
    """Return all metrics as text, and its content type; on any thread, because it only reads files.

    Args:
        present: those that are looked at when asked for.
        accept: the header; ``application/openmetrics-text`` in it asks for that.
    """
    metrics = Everything(present)
    if "application/openmetrics-text" in accept:
        return openmetrics.generate_latest(metrics), openmetrics.CONTENT_TYPE_LATEST
    return exposition.generate_latest(metrics), exposition.CONTENT_TYPE_PLAIN_0_0_4
