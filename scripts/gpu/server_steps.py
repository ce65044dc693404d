"""Steps on complete servers: sizing, versions under load, devices, a full GPU, workers killed while loading."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pynvml

from app.settings import ROOT
from app.system.gpus import all_handles, nvml, query
from scripts.bench.publishing import publish_copy
from scripts.gpu.server import GpuServer, loaded, serving
from scripts.gpu.trial import Trial, gpus, used_mib

FLAT_MIB = 96  # allowed growth of GPU memory over all version changes
SWAP_S = 30  # for one version to become live


def sizing(trial: Trial) -> None:
    """Compare the plan for this GPU with the workers and the memory actually used."""
    before = used_mib()
    server = GpuServer(trial, models=str(model_folder(trial).parent)).start()
    try:
        trial.wait(lambda: server.ready() >= 1, 90, "a worker ready")
        planned = len(server.readiness().get("workers", {}))
        trial.wait(lambda: server.ready() >= planned, 60, f"all {planned} planned workers ready")
        trial.facts["plan"] = server.planned()
        footprints = sorted((trial.folder / "models").rglob("footprints.json"))
        trial.facts["footprints"] = [path.read_text() for path in footprints][:1]
        grown = [now - then for now, then in zip(used_mib(), before, strict=True)]
        trial.facts["used_mib_by_all_workers"] = grown
        trial.facts["workers"] = planned
        for gpu in gpus():
            trial.expect(gpu.free > 0.02 * gpu.total, f"GPU {gpu.index} is full: {gpu}")
    finally:
        server.stop()
    trial.wait(
        lambda: all(now <= then + 64 for now, then in zip(used_mib(), before, strict=True)),
        10,
        "all memory given back after the end",
    )


def swaps(trial: Trial) -> None:
    """Publish versions under load: no request fails and GPU memory does not grow."""
    model = model_folder(trial)
    changes = trial.few(20, 2)
    used: list[int] = []
    took: list[float] = []
    with serving(trial, 1, models=str(model.parent)) as server:
        pids = server.workers()
        with loaded(server, trial.few(16, 4)) as seen:
            for _ in range(changes):
                began = time.monotonic()
                version = publish_copy(model)
                if not trial.wait(
                    partial(server.serves_only, version),
                    SWAP_S,
                    f"version {version} live",
                ):
                    trial.faults.append(f"its log says: {server.last_errors()}")
                    break
                shutil.rmtree(model / str(version - 1))
                took.append(round(time.monotonic() - began, 1))
                time.sleep(0.5)
                used.append(sum(used_mib()))
        trial.facts |= {"answers": dict(seen), "used_mib": used, "seconds": took}
        trial.expect(set(seen) <= {"200"}, f"not all were answered 200: {dict(seen)}")
        trial.expect(server.workers() == pids, f"the worker changed: {pids} → {server.workers()}")
    half = used[len(used) // 4 :]  # the first changes may fill caches
    trial.expect(not half or max(half) - half[0] <= FLAT_MIB, f"the GPU's memory grew: {used} MiB")


def devices(trial: Trial) -> None:
    """Each worker uses exactly one GPU, also after a reload and a kill; the master none."""
    count = max(1, len(gpus()))
    trial.facts["gpus"] = [gpu.name for gpu in gpus()]
    with serving(trial, 2 * count) as server:
        for what in ("start", "reload", "kill"):
            if what == "reload":
                old = set(server.workers())
                os.kill(server.master, signal.SIGHUP)
                trial.wait(partial(server.are_gone, old), 90, "the old workers gone")
            elif what == "kill":
                os.kill(server.workers()[0], signal.SIGKILL)
                time.sleep(1)
            trial.wait(lambda: server.ready() >= 2 * count, 75, f"all workers ready after {what}")
            on = pids_on_gpus()
            workers = set(server.workers())
            trial.facts[f"gpus_of_workers_after_{what}"] = placements = {
                pid: [gpu for gpu, pids in on.items() if pid in pids] for pid in workers
            }
            known = any(pid in workers for pids in on.values() for pid in pids)
            if known:  # in a container the driver may know other PIDs
                wrong = {pid: found for pid, found in placements.items() if len(found) != 1}
                trial.expect(not wrong, f"not on one GPU after {what}: {wrong}")
                spread = Counter(found[0] for found in placements.values() if found)
                trial.expect(len(spread) == count, f"GPUs without a worker after {what}: {spread}")
        trial.facts["driver_counts_our_processes"] = bool(pids_on_gpus())
        opened = nvidia_files(server.master)
        trial.facts["master_has_open"] = opened
        # A fork after cuInit breaks every worker. NVML opens nvidiactl only for as long as it is asked.
        trial.expect(
            not any("uvm" in name for name in opened), f"the master has touched CUDA: {opened}"
        )


def full_card(trial: Trial) -> None:
    """Start and change versions beside a program that fills the GPU; recover after it exits."""
    need_mib = trial.few(4096, 0)  # a worker and a version beside it need less
    model = model_folder(trial)
    with (
        filled(trial, need_mib),
        serving(trial, 1, models=str(model.parent)) as server,
    ):
        trial.facts["used_mib_when_full"] = used_mib()
        version = publish_copy(model)
        trial.wait(lambda: server.live() == [[version]], 90, "a new version live on a full card")
        trial.expect(server.predict().status_code == 200, "it answers on a full card")
    with filled(trial, 64) as filler:
        server = GpuServer(
            trial, workers="1", models=str(model.parent), load_timeout_s="15"
        ).start()
        try:
            time.sleep(trial.few(25, 1))
            trial.facts["errors_without_room"] = server.last_errors()
            filler.terminate()
            filler.wait()
            if not trial.rehearse:  # a reload repeats the failed measurement
                with suppress(OSError, ValueError):
                    os.kill(server.master, signal.SIGHUP)
            trial.wait(lambda: server.ready() >= 1, 75, "ready after the other program has gone")
        finally:
            server.stop()


def kill_in_capture(trial: Trial) -> None:
    """Kill workers while they load and capture: the others keep serving, and all are replaced."""
    workers, kills = trial.few(8, 2), trial.few(8, 2)
    dice = random.Random(4)  # noqa: S311  (when to kill is no secret)
    with serving(trial, workers) as server:
        before = used_mib()
        for _ in range(kills):
            known = set(server.workers())
            victim = dice.choice(sorted(known))
            os.kill(victim, signal.SIGKILL)
            if trial.wait(partial(server.new_workers, known), 20, "a replacement"):
                (fresh, *_) = server.new_workers(known)
                time.sleep(dice.uniform(0.2, trial.few(8, 1)))  # at a random moment of its load
                with suppress(OSError):
                    os.kill(fresh, signal.SIGKILL)
        trial.wait(lambda: server.ready() >= workers, 90, f"all {workers} workers ready again")
        answer = server.predict()
        trial.expect(answer.status_code == 200, f"it answers {answer.status_code}: {answer.text}")
        after = used_mib()
        trial.facts["used_mib_before_and_after"] = [before, after]
        grown = [now - then for now, then in zip(after, before, strict=True)]
        trial.expect(all(each < 256 for each in grown), f"killed workers left memory: {grown} MiB")


def model_folder(trial: Trial) -> Path:
    """Create a model folder with one version of the demo."""
    model = trial.folder / "models" / "demo"
    if not model.exists():
        model.mkdir(parents=True)
        publish_copy(model)
    return model


def pids_on_gpus() -> dict[str, set[int]]:
    """Return the PIDs on each GPU by its UUID, as the driver reports them."""
    with nvml() as is_there:
        if not is_there:
            return {}
        found = {}
        for uuid, handle in all_handles():
            running = query(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
            found[uuid] = {process.pid for process in running}
        return found


def nvidia_files(pid: int) -> list[str]:
    """Return the NVIDIA devices that a process has opened."""
    names = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            names.add(os.readlink(path))
    return sorted(name for name in names if name.startswith("/dev/nvidia"))


@contextmanager
def filled(trial: Trial, leave_mib: int) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold all GPU memory except ``leave_mib``; in a rehearsal it holds none."""
    task = "import time; time.sleep(600)"
    if not trial.rehearse:
        task = (
            "import time; from scripts.gpu.engine_steps import fill; "
            f"held = fill({leave_mib}); print('full', flush=True); time.sleep(600)"
        )
    filler = subprocess.Popen(
        [sys.executable, "-c", task], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        if not trial.rehearse and filler.stdout is not None:
            trial.expect(filler.stdout.readline().strip() == "full", "the card could be filled")
        yield filler
    finally:
        filler.kill()
        filler.wait()
