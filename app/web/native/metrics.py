"""``GET /metrics``: the counters of all workers and the current state of the server, for Prometheus.

It does not need a model. The files of all workers are read on a native thread, because that takes milliseconds
in which the hub would be blocked.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import version

from flask import Blueprint, Response, request
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from app import __version__
from app.control.manifest import RejectedVersion
from app.metrics import VERSION, expose
from app.scoreboard import State
from app.serving.handoff import call_in_thread
from app.serving.workers import WorkerReport, Workers
from app.system.gpus import list_gpus
from app.system.machine import read_cpu_pressure, read_host_memory, read_process
from app.web.context import model_server

# Packages whose version may explain a change.
PACKAGES = ("flask", "gevent", "gunicorn", "openvino", "pillow", "torch")
STATES = [state.name.lower() for state in State if state is not State.ABSENT]
LIMITS = {
    "workers_planned": "Planned number of workers.",
    "cores": "CPU cores available to the server.",
    "decode_threads": "Images that one worker decodes concurrently.",
    "queue_limit": "Maximum number of images in flight per version and worker; beyond it requests are answered 429.",
    "batch_wait_limit_seconds": "Maximum time that a batch waits for images that are being decoded.",
    "deadline_seconds": "Deadline of a request; after it the request is answered 504.",
}

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
@blueprint.get("/monitoring/prometheus/metrics")  # TensorFlow Serving's path
def show_metrics() -> Response:
    """Returns the metrics of all workers in the Prometheus text format, or as OpenMetrics if `Accept` asks for it."""
    server, accept = model_server(), request.headers.get("Accept", "")
    reports = server.workers.reports()
    gauges = [
        *describe_build(),
        *describe_workers(server.workers),
        *describe_models(reports.values()),
        *describe_versions(server.rejected(), reports.values()),
    ]
    device = server.workers.device
    pids = {slot: report["pid"] for slot, report in reports.items()}
    text, content_type = call_in_thread(
        lambda: expose([*gauges, *sample_processes(pids), *sample_machine(device)], accept)
    )
    return Response(text, content_type=content_type)


def gauge(
    name: str,
    help_text: str,
    rows: Iterable[tuple[Iterable[object], float]],
    labels: Iterable[str] = (),
) -> GaugeMetricFamily:
    """Return a gauge; a row is the values of its labels and the value."""
    family = GaugeMetricFamily(f"serving_{name}", help_text, labels=list(labels))
    for values, value in rows:
        family.add_metric([str(each) for each in values], value)
    return family


@cache
def describe_build() -> list[Metric]:
    """Return the versions of the server and of the packages it runs on."""
    versions = {"version": __version__, "python": platform.python_version()}
    versions |= {package: version(package) for package in PACKAGES}
    help_text = "Versions of the server and its main packages."
    return [gauge("build_info", help_text, [(versions.values(), 1)], versions)]


def describe_workers(workers: Workers) -> Iterator[Metric]:
    """Yield the workers by state, their deaths and their limits."""
    states = Counter(workers.states().values())
    rows = [([state], states[state]) for state in STATES]
    yield gauge("workers", "Workers by state.", rows, ["state"])
    deaths = "Workers that died unexpectedly: killed, crashed, or without a model thread."
    yield CounterMetricFamily("serving_worker_deaths", deaths, workers.deaths())
    for name, value in workers.limits().items():
        yield gauge(name, LIMITS[name], [([], value)])


def describe_models(reports: Iterable[WorkerReport]) -> Iterator[Metric]:
    """Yield the loaded versions of all workers."""
    live = [about for report in reports for about in report["live"]]
    kinds = ("engine", "precision", "device")
    infos = {(a["model"], a["version"], a["engine"], a["precision"], a["device"]) for a in live}
    rows = [(info, 1) for info in sorted(infos)]
    yield gauge(
        "model_info", "Loaded versions with engine, precision and device.", rows, [*VERSION, *kinds]
    )
    batches = {(about["model"], about["version"]): about["max_batch"] for about in live}
    help_text = "Maximum number of images in a forward pass."
    yield gauge("batch_limit", help_text, sorted(batches.items()), VERSION)
    lanes: Counter[tuple[str, int]] = Counter()
    for about in live:
        lanes[about["model"], about["version"]] += about["lanes"]
    help_text = "Concurrent forward passes, all workers together."
    yield gauge("forward_lanes", help_text, sorted(lanes.items()), VERSION)


def describe_versions(
    rejected: Iterable[RejectedVersion], reports: Iterable[WorkerReport]
) -> Iterator[Metric]:
    """Yield the number of workers per version and state, and the rejected versions."""
    counts: Counter[tuple[str, int, str]] = Counter()
    for report in reports:
        counts.update((about["model"], about["version"], "live") for about in report["live"])
        counts.update((name, number, "failed") for name, number in report["failed"])
    help_text = "Workers in which a version is live or failed to load."
    yield gauge("version_workers", help_text, sorted(counts.items()), [*VERSION, "state"])
    help_text = "Versions in the models folder that are rejected, with the reason."
    rows = [((each.name, each.version, each.short_reason), 1) for each in rejected]
    yield gauge("version_refused_info", help_text, rows, [*VERSION, "reason"])


def sample_processes(pids: Mapping[int, int]) -> Iterator[Metric]:
    """Return CPU time and memory of each worker's process (on any thread)."""
    cpu = CounterMetricFamily(
        "serving_worker_cpu_seconds",
        "CPU time of a worker since its start.",
        labels=["worker", "pid"],
    )
    memory = gauge(
        "worker_memory_bytes",
        "Host memory of a worker, including shared memory.",
        [],
        ["worker", "pid"],
    )
    for slot, pid in pids.items():
        if use := read_process(pid):
            cpu.add_metric([str(slot), str(pid)], use.cpu_s)
            memory.add_metric([str(slot), str(pid)], use.memory)
    return iter([cpu, memory])


def sample_machine(device: str) -> Iterator[Metric]:
    """Yield memory and utilization of the host and the GPUs (on any thread)."""
    host, gpus = read_host_memory(), list_gpus(device)
    help_text = "Free memory of the host or container."
    yield gauge("host_memory_free_bytes", help_text, [([], host.free)])
    help_text = "Memory of the host or container."
    yield gauge("host_memory_total_bytes", help_text, [([], host.total)])
    names = {gpu.index: (f"cuda:{gpu.index}", gpu.name) for gpu in gpus}
    labels = ("device", "name")
    rows = [(names[gpu.index], gpu.free) for gpu in gpus]
    yield gauge("gpu_memory_free_bytes", "Free memory of a GPU.", rows, labels)
    rows = [(names[gpu.index], gpu.total) for gpu in gpus]
    yield gauge("gpu_memory_total_bytes", "Memory of a GPU.", rows, labels)
    pressure = CounterMetricFamily(
        "serving_cpu_pressure_seconds",
        "Time in which a task of the host or container waited for a CPU.",
    )
    if (waited_s := read_cpu_pressure()) is not None:
        pressure.add_metric([], waited_s)
    yield pressure
    help_text = "GPU utilization in the last sampling interval, 0..1."
    busy = [(names[gpu.index], gpu.busy) for gpu in gpus if gpu.busy is not None]
    yield gauge("gpu_busy_ratio", help_text, busy, labels)
