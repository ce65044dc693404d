"""Measure the effect of new versions on the requests meanwhile: ``python -m scripts.bench.publishing``.

Clients load the server all the time, first in peace, then while one version after another is published.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import requests

from app.models.bundle import find_bundle, put_in_place, write_sums
from app.settings import ROOT
from scripts.bench.contenders import ours
from scripts.bench.form import IMAGE
from scripts.bench.load import MIB, Running, family, measure

LEFT_OUT = shutil.ignore_patterns("calibration")


def publish_copy(model: Path) -> int:
    """Put a copy of the demo in place as the next version, converted already; return its number."""
    draft = model / ".draft"
    shutil.copytree(find_bundle(ROOT / "models").folder, draft, ignore=LEFT_OUT)
    write_sums(draft)
    return int(put_in_place(draft, model).name)


def live_versions(running: Running) -> list[list[int]]:
    """Return the live versions of each worker."""
    ready = running.url.replace("/model_predict", "/readyz")
    answer = requests.get(ready, timeout=60).json()
    return [versions for live in answer.get("live", {}).values() for versions in live.values()]


def worker_memory(running: Running) -> float:
    """Return the PSS of the largest process in MiB: a worker's."""
    sizes = []
    for process in family(running.pid):
        try:
            sizes.append(process.memory_full_info().pss / MIB)
        except psutil.NoSuchProcess:  # a probe that has just ended
            continue
    return max(sizes)


def change_versions(running: Running, model: Path, changes: int) -> list[dict[str, float]]:
    """Publish again and again, each time after the one before is live everywhere and its predecessor gone."""
    rows = []
    for _ in range(changes):
        started = time.monotonic()
        version = publish_copy(model)
        while not (live := live_versions(running)) or any(each != [version] for each in live):
            time.sleep(0.1)
        shutil.rmtree(model / str(version - 1))
        taken_s = time.monotonic() - started
        rows.append({"version": version, "seconds": taken_s, "worker_mib": worker_memory(running)})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.publishing", description=__doc__)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20, help="of peace, before and after")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of JPEG files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="publishing-") as folder:
        model = Path(folder) / "models" / "demo"
        model.mkdir(parents=True)
        publish_copy(model)
        first = sorted(options.pictures.glob("*.jpg"))[0]
        bodies = Path(folder) / "bodies"
        bodies.mkdir()
        IMAGE.write_bodies(options.pictures, bodies)
        with ours(first, models=str(model.parent), precision=options.precision) as running:
            measure(running, bodies, options.clients, 3)
            before = measure(running, bodies, options.clients, options.seconds)
            rows: list[dict[str, float]] = []
            changing = threading.Thread(
                target=lambda: rows.extend(change_versions(running, model, options.changes))
            )
            changing.start()
            during = []
            while changing.is_alive():
                during.append(measure(running, bodies, options.clients, options.seconds))
            changing.join()
            after = measure(running, bodies, options.clients, options.seconds)
    for row in rows:
        print(json.dumps(row))
    for name, sample in [
        ("before", before),
        *(("during", one) for one in during),
        ("after", after),
    ]:
        print(f"{name:7}{json.dumps(asdict(sample))}")


if __name__ == "__main__":
    main()
