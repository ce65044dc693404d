"""``GET /metrics``: what all workers have counted, and how they stand at this moment, for Prometheus.

It is answered whether a model is ready or not. The numbers are looked up in a thread aside, because
reading every worker's file takes milliseconds in which the hub would stand still.
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

from app.control.scanner import RejectedVersion
from app.metrics import VERSION, expose
from app.scoreboard import State
from app.serving.handoff import call_in_thread
from app.serving.workers import WorkerReport, Workers
from app.system.gpus import list_gpus
from app.system.machine import read_cpu_pressure, read_host_memory, read_process
from app.web.context import SERVER_VERSION, model_server

PARTS = ("flask", "gevent", "gunicorn", "openvino", "pillow", "torch")  # what may explain a change
STATES = [state.name.lower() for state in State if state is not State.ABSENT]
LIMITS = {
    "workers_planned": "Workers that there are to be.",
    "cores": "CPU cores that the server may use.",
    "decode_threads": "Pictures that one worker decodes at once.",
    "queue_limit": "Pictures of one version that may be inside one worker; one more is answered 429.",
    "batch_wait_limit_seconds": "How long a batch waits for pictures that are being decoded.",
    "deadline_seconds": "A request that is not answered by then is answered 504.",
}

blueprint = Blueprint("monitoring", __name__)


@blueprint.get("/metrics")
@blueprint.get("/monitoring/prometheus/metrics")  # as TensorFlow Serving calls it
def show_metrics() -> Response:
    """Answer the metrics of all workers, as Prometheus reads them, or as OpenMetrics where that is asked for."""
    server, accept = model_server(), request.headers.get("Accept", "")
    notes = server.workers.reports()
    present = [
        *describe_build(),
        *describe_workers(server.workers),
        *describe_models(notes.values()),
        *describe_versions(server.rejected(), notes.values()),
    ]
    device = server.workers.device
    pids = {slot: note["pid"] for slot, note in notes.items()}
    text, content_type = call_in_thread(
        lambda: expose([*present, *look_at_processes(pids), *look_at_machine(device)], accept)
    )
    return Response(text, content_type=content_type)


def gauge(
    name: str, told: str, rows: Iterable[tuple[Iterable[object], float]], labels: Iterable[str] = ()
) -> GaugeMetricFamily:
    """Return a gauge; each of its rows is the values of its labels, and its own."""
    family = GaugeMetricFamily(f"serving_{name}", told, labels=list(labels))
    for values, value in rows:
        family.add_metric([str(each) for each in values], value)
    return family


@cache
def describe_build() -> list[Metric]:
    """Return what this server is made of."""
    parts = {"version": SERVER_VERSION, "python": platform.python_version()}
    parts |= {part: version(part) for part in PARTS}
    return [gauge("build_info", "What the server is made of.", [(parts.values(), 1)], parts)]


def describe_workers(workers: Workers) -> Iterator[Metric]:
    """Return how the workers stand, and what limits them."""
    states = Counter(workers.states().values())
    rows = [([state], states[state]) for state in STATES]
    yield gauge("workers", "Workers by what their model is doing.", rows, ["state"])
    deaths = "Workers that died: killed, crashed, or without their model thread; not those that were asked to end."
    yield CounterMetricFamily("serving_worker_deaths", deaths, workers.deaths())
    for name, value in workers.limits().items():
        yield gauge(name, LIMITS[name], [([], value)])


def describe_models(notes: Iterable[WorkerReport]) -> Iterator[Metric]:
    """Return what is live, in any worker."""
    live = [about for note in notes for about in note["live"]]
    kinds = ("engine", "precision", "device")
    infos = {(a["model"], a["version"], a["engine"], a["precision"], a["device"]) for a in live}
    rows = [(info, 1) for info in sorted(infos)]
    yield gauge("model_info", "Versions that answer, and how they run.", rows, [*VERSION, *kinds])
    batches = {(about["model"], about["version"]): about["max_batch"] for about in live}
    told = "The most pictures in one forward."
    yield gauge("batch_limit", told, sorted(batches.items()), VERSION)
    lanes: Counter[tuple[str, int]] = Counter()
    for about in live:
        lanes[about["model"], about["version"]] += about["lanes"]
    told = "Forwards that can run at once, in all workers together."
    yield gauge("forward_lanes", told, sorted(lanes.items()), VERSION)


def describe_versions(
    rejected: Iterable[RejectedVersion], notes: Iterable[WorkerReport]
) -> Iterator[Metric]:
    """Return in how many workers each version is live or failed, and which were refused."""
    found: Counter[tuple[str, int, str]] = Counter()
    for note in notes:
        found.update((about["model"], about["version"], "live") for about in note["live"])
        found.update((name, number, "failed") for name, number in note["failed"])
    told = "Workers in which a version is live, or could not be loaded."
    yield gauge("version_workers", told, sorted(found.items()), [*VERSION, "state"])
    told = "Versions in the models folder that are not served, and why."
    rows = [((each.name, each.version, each.told), 1) for each in rejected]
    yield gauge("version_refused_info", told, rows, [*VERSION, "reason"])


def look_at_processes(pids: Mapping[int, int]) -> Iterator[Metric]:
    """Return what each worker's process uses (on any thread)."""
    cpu = CounterMetricFamily(
        "serving_worker_cpu_seconds",
        "CPU time of a worker since its start.",
        labels=["worker", "pid"],
    )
    memory = gauge(
        "worker_memory_bytes",
        "Host memory of a worker, with what it shares.",
        [],
        ["worker", "pid"],
    )
    for slot, pid in pids.items():
        if use := read_process(pid):
            cpu.add_metric([str(slot), str(pid)], use.cpu_s)
            memory.add_metric([str(slot), str(pid)], use.memory)
    return iter([cpu, memory])


def look_at_machine(device: str) -> Iterator[Metric]:
    """Return the memory of host and GPUs, and how busy processors and GPUs are (on any thread)."""
    host, gpus = read_host_memory(), list_gpus(device)
    told = "Free memory of the host, or of its container."
    yield gauge("host_memory_free_bytes", told, [([], host.free)])
    told = "Memory of the host, or of its container."
    yield gauge("host_memory_total_bytes", told, [([], host.total)])
    names = {gpu.index: (f"cuda:{gpu.index}", gpu.name) for gpu in gpus}
    labels = ("device", "name")
    rows = [(names[gpu.index], gpu.free) for gpu in gpus]
    yield gauge("gpu_memory_free_bytes", "Free memory of a GPU.", rows, labels)
    rows = [(names[gpu.index], gpu.total) for gpu in gpus]
    yield gauge("gpu_memory_total_bytes", "Memory of a GPU.", rows, labels)
    pressure = CounterMetricFamily(
        "serving_cpu_pressure_seconds", "Time in which something here waited for a processor."
    )
    if (waited_s := read_cpu_pressure()) is not None:
        pressure.add_metric([], waited_s)
    yield pressure
    told = "Share of the last moment in which a GPU computed anything, 0..1."
    busy = [(names[gpu.index], gpu.busy) for gpu in gpus if gpu.busy is not None]
    yield gauge("gpu_busy_ratio", told, busy, labels)
