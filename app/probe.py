"""The throw-away process that prepares a bundle and measures one worker.

    python -m app.probe TASK FOLDER NAME VERSION

``prepare`` converts the bundle for OpenVINO where that is missing (it needs torch and a gigabyte,
which end with the process). ``measure`` loads what a worker loads and reports what it takes (``Footprint``). The last
line on standard output is JSON: the report, or ``{"failure": why}``. Settings come from the
environment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

from app.bundle import Bundle, open_bundle
from app.engines import Choice, load_engine
from app.errors import BundleError, PassingFailure, first_line
from app.footprint import MEASURE, PREPARE, UNPREPARED, Footprint, default_batch, planned_threads
from app.machine import list_gpus, offer_to_end, process_memory
from app.optimized import Optimized
from app.precision import FP32, choose_precision
from app.settings import Settings
from app.sizing import free_on, usable_gpus


def prepare(settings: Settings, bundle: Bundle) -> dict[str, object]:
    """Convert the bundle for OpenVINO; say why where that cannot be done. Raises BundleError."""
    from app.conversion import ConversionError, convert_bundle  # noqa: PLC0415

    try:
        convert_bundle(Optimized(bundle, settings.cache))
    except ConversionError as error:
        return {"unconvertible": str(error)}
    return {"unconvertible": ""}


def measure(settings: Settings, bundle: Bundle) -> dict[str, object]:
    """Load one worker's model, run its largest batch and report what that took. Raises BundleError."""
    import app.factory  # noqa: PLC0415, F401  (its memory is a worker's too)

    optimized = Optimized(bundle, settings.cache)
    engine, device = choose_engine(settings)
    if engine == "openvino" and optimized.find_network(FP32) is None:
        return UNPREPARED
    usable = usable_precisions(engine, optimized)
    report = optimized.read_report()
    kind = device.partition(":")[0]
    precision, reason = choose_precision(report, kind, usable, settings.precision, settings.insist)
    if kind == "cpu" and settings.device == "auto" and list_gpus():
        reason += "; there is a GPU, but torch cannot use it: is its driver too old?"
    max_batch = settings.max_batch or default_batch(kind)
    choice = Choice(engine, precision, device, planned_threads(settings), max_batch)
    before = free_on(device)
    loaded = load_engine(choice, optimized)  # held, and warmed up with the largest batch
    footprint = Footprint(
        engine, precision, kind, reason, process_memory(), device_bytes=before - free_on(device)
    )
    del loaded
    return dataclasses.asdict(footprint)


def choose_engine(settings: Settings) -> tuple[str, str]:
    """Return the engine and one device that it runs on.

    Raises:
        BundleError: a GPU was asked for that is not there.
    """
    if settings.device != "cpu" and list_gpus():
        import torch  # noqa: PLC0415

        if torch.cuda.is_available():
            return "cuda", f"cuda:{usable_gpus(settings.device)[0].index}"
    if settings.device not in ("auto", "cpu"):
        raise BundleError(
            f"SERVING_DEVICE={settings.device}: there are {len(list_gpus())} usable GPUs here"
        )
    return ("openvino" if settings.engine == "auto" else settings.engine), "cpu"


def usable_precisions(engine: str, optimized: Optimized) -> dict[str, str]:
    """Return every precision of an engine → empty, or why it cannot be served here."""
    if engine == "openvino":
        from app.engines import openvino  # noqa: PLC0415

        return openvino.usable_precisions(optimized)
    if engine == "cuda":
        from app.engines import cuda  # noqa: PLC0415

        return cuda.usable_precisions()
    return {FP32: ""}


def main(task: str, folder: str, name: str, version: str) -> None:
    """Do the task and report it."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    offer_to_end()  # a foreign model that takes too much must not end a worker
    try:
        bundle = open_bundle(Path(folder), name, int(version))
        report = {PREPARE: prepare, MEASURE: measure}[task](Settings.from_env(os.environ), bundle)
    except BundleError as error:
        report = {"failure": str(error), "passing": isinstance(error, PassingFailure)}
    except MemoryError as error:
        report = {"failure": f"not enough memory: {first_line(error)}", "passing": True}
    except OSError as error:  # a full disk, above all
        report = {"failure": first_line(error), "passing": True}
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
