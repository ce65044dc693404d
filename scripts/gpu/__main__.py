"""Run the GPU steps, each in its own process with a time limit; print a table and write JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from app.settings import ROOT
from app.system.gpus import list_gpus
from app.system.machine import count_cores, processor
from scripts.gpu.trial import Trial

TOTAL_S = 590  # for everything
# Time limit of each step in seconds, capped by the time that is left.
STEPS = {
    "agreement": 100,
    "sizing": 120,
    "swaps": 120,
    "devices": 90,
    "full_card": 120,
    "kill_in_capture": 120,
    "out_of_memory": 40,
    "benchmark": 150,
}
# As pytest, which exits with 5 if it has collected no test.
NOTHING_TESTED = 5
END_S = 15  # for stopping the servers of a step that timed out


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="scripts/test-gpu", description=__doc__)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP",
                        help=", ".join(STEPS))  # fmt: skip
    parser.add_argument(
        "--rehearse", action="store_true", help="run the steps on the CPU, scaled down"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu")
    parser.add_argument("--one", choices=STEPS, help=argparse.SUPPRESS)  # in its own process
    return parser.parse_args()


def find_step(name: str) -> Callable[[Trial], None]:
    """Return a step's function; its modules are imported in its own process only."""
    from scripts.gpu import engine_steps, server_steps, speed  # noqa: PLC0415

    for module in (engine_steps, server_steps, speed):
        if step := getattr(module, name, None):
            found: Callable[[Trial], None] = step
            return found
    raise LookupError(name)


def run_one(name: str, rehearse: bool) -> None:
    """Run a step in this process; the last line on standard output is its report."""
    trial = Trial(rehearse)
    try:
        find_step(name)(trial)
    except Exception as error:  # noqa: BLE001  (a step's failure is a line of the table)
        trial.faults.append(f"{type(error).__name__}: {error}"[:800])
    finally:
        shutil.rmtree(trial.folder, ignore_errors=True)
    print(trial.report())


def run_step(name: str, rehearse: bool, folder: Path, left_s: float) -> dict[str, Any]:
    """Run a step in its own process group and return its report, also if it fails or hangs."""
    limit_s = min(STEPS[name], left_s)
    if limit_s <= 0:
        fault = f"the {TOTAL_S} s for all steps were over: --steps {name} runs it alone"
        return {"facts": {}, "faults": [fault], "seconds": 0.0}
    command = [sys.executable, "-m", "scripts.gpu", "--one", name]
    began = time.monotonic()
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *(["--rehearse"] if rehearse else [])],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            text, _ = process.communicate(timeout=limit_s)
            report: dict[str, Any] = json.loads(text.splitlines()[-1])
        except subprocess.TimeoutExpired:
            report = {"facts": {}, "faults": [f"it took longer than {limit_s:.0f} s"]}
        except (ValueError, IndexError):
            report = {"facts": {}, "faults": [f"it ended with {process.returncode}: {log.name}"]}
        finally:
            end_group(process)
    return report | {"seconds": round(time.monotonic() - began, 1)}


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill everything that a step has left running: supervisord's children have process groups of their own."""
    try:
        left = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        left = []
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(left, timeout=END_S)
    for each in alive:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> int:
    """Run the command line and return the exit status."""
    options = parse_arguments()
    if options.one:
        run_one(options.one, options.rehearse)
        return 0
    gpus = list_gpus()
    if not gpus and not options.rehearse:
        print("the driver reports no GPU (--rehearse runs the steps on the CPU)")
        print("0 tests run")
        return NOTHING_TESTED
    options.out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "rehearsal": options.rehearse,
        "machine": {
            "gpus": [asdict(gpu) for gpu in gpus],
            "processor": processor(),
            "cores": count_cores(),
            "python": platform.python_version(),
            "torch": version("torch"),
        },
        "steps": {},
    }
    title = (
        "REHEARSAL on the CPU: it tests this script, not a GPU"
        if options.rehearse
        else gpus[0].name
    )
    print(title, flush=True)
    until = time.monotonic() + TOTAL_S
    for name in options.steps:
        left_s = until - END_S - time.monotonic()
        report["steps"][name] = found = run_step(name, options.rehearse, options.out, left_s)
        verdict = "FAILED" if found["faults"] else "passed"
        print(f"{name:16} {verdict} {found['seconds']:6.1f} s", flush=True)
        for fault in found["faults"]:
            print(f"    {fault}", flush=True)
        # After each step, so that a later failure loses no results.
        (options.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    print_speeds(report["steps"].get("benchmark", {}).get("facts", {}))
    failed = [name for name, found in report["steps"].items() if found["faults"]]
    count = len(report["steps"])
    print(
        f"{count} tests run, {len(failed)} failed{' (rehearsal)' * options.rehearse}: {options.out}/gpu.json"
    )
    return int(bool(failed))


def print_speeds(facts: dict[str, Any]) -> None:
    """Print the benchmark's table."""
    rows = facts.get("rows", [])
    if not rows:
        return
    print(
        f"\n{'workers':>7}{'clients':>9}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'busy':>7}  GPU MiB"
    )
    for row in rows:
        busy = "" if row["gpu_busy"] is None else f"{row['gpu_busy']:.2f}"
        print(
            f"{row['workers']:>7}{row['clients']:>9}{row['requests_per_s']:>12.1f}{row['p50_ms']:>9.1f}"
            f"{row['p99_ms']:>9.1f}{busy:>7}  {row['used_mib']}"
        )
    print()


if __name__ == "__main__":
    sys.exit(main())
