"""An engine without a server around it: ``python -m scripts.bench.bare PRECISION SECONDS`` prints JSON."""

import json
import os
import sys
import time

import numpy as np

from app.control.placement import configure_engine
from app.control.plan import scan_and_plan
from app.engines.loader import load_engine
from app.settings import Settings


def main(precision: str, seconds: float) -> None:
    """Measure batches of 1, 2, 4 … up to the served size, on all cores: images/s and ms a batch."""
    settings = Settings.from_env(
        {
            **os.environ,
            "SERVING_PRECISION": precision,
            "SERVING_INSIST": "on",
            "SERVING_WORKERS": "1",
        }
    )
    plan = scan_and_plan(settings)
    if not plan.manifest.entries:
        sys.exit(plan.manifest.failure)
    entry = plan.manifest.entries[0]
    choice = configure_engine(settings, plan.placement(0), entry.footprint)
    artifacts = entry.open(settings.cache)
    engine = load_engine(choice, artifacts)
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64) if size <= choice.max_batch]
    side = artifacts.bundle.config.transform.side
    rng = np.random.default_rng(0)
    speeds = {}
    for size in sizes:
        batch = list(rng.integers(0, 256, (size, 3, side, side), np.uint8))
        engine.forward(batch)
        times: list[float] = []
        until = time.monotonic() + seconds / len(sizes)
        while time.monotonic() < until or len(times) < 3:
            started = time.perf_counter()
            engine.forward(batch)
            times.append(time.perf_counter() - started)
        speeds[size] = size / float(np.mean(times))
        if size == 1:
            lone_ms = float(np.median(times)) * 1000
    print(
        json.dumps({"requests_per_s": max(speeds.values()), "lone_ms": lone_ms, "by_batch": speeds})
    )


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
