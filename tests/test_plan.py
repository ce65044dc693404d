"""The number of workers matches sums by hand; the measurement runs in real processes."""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time

import pytest
from torchvision.models import get_model

from app.control import footprint
from app.control import placement as placement_module
from app.control import plan as planning
from app.control.footprint import Footprint, MeasureResult
from app.control.manifest import Entry, Manifest, ManifestFile, instance_id
from app.control.placement import Placement, configure_engine
from app.control.plan import deal_out, fit_workers, scan_and_plan
from app.control.planner import Planner, manifest_reader
from app.control.scanner import RepositoryScanner
from app.engines.engine import Choice
from app.errors import BundleError, TransientError
from app.models.bundle import find_bundle
from app.system.files import lock_file, lock_host
from app.system.gpus import Gpu
from app.system.machine import GIB, Memory
from tests.helpers import ROOT
from tests.random_models import write_model

ON_GPU = Footprint("cuda", "fp16", "cuda", "asked for", GIB, 3 * GIB)
ON_CPU = Footprint("openvino", "bf16", "cpu", "asked for", GIB // 2)
real_scan = RepositoryScanner.scan


def serving(*footprints):
    """Return a manifest of models that need these."""
    entries = [Entry("demo", 1 + n, "", "", each) for n, each in enumerate(footprints)]
    return Manifest("demo", tuple(entries))


def gpu(free_gib, index=0, total_gib=12.0):
    return Gpu(index, "RTX", "580", int(free_gib * GIB), int(total_gib * GIB))


@pytest.fixture
def machine(monkeypatch):
    """Return a factory of machines: cores and free host memory."""

    def make(cores=16, free_gib=60.0):
        for module in (planning, footprint):
            monkeypatch.setattr(module, "count_cores", lambda: cores)
        memory = Memory(int(free_gib * GIB), 64 * GIB)
        for module in (planning, placement_module):
            monkeypatch.setattr(module, "read_host_memory", lambda: memory)

    make()
    return make


def devices(plan):
    return [placement.device for placement in plan.placements]


def row(plan, what):
    return dict(plan.lines)[what]


def test_a_12_gb_gpu_holds_three_workers_of_3_gb_if_four_are_requested(machine, settings):
    plan = fit_workers(settings(workers="4"), serving(ON_GPU), [gpu(11.2)])
    assert devices(plan) == ["cuda:0"] * 3
    expected = "RTX: 11.2 of 12.0 GiB free, 3.00 GiB a worker, reserve 10 % → 3 workers"
    assert row(plan, "GPU 0") == expected
    assert plan.warning == "SERVING_WORKERS=4 does not fit into memory: 3 workers started"


def test_auto_is_the_least_of_gpu_memory_host_memory_and_cores(machine, settings):
    many = [gpu(130, total_gib=140)]
    assert len(fit_workers(settings(), serving(ON_GPU), many).placements) == 8  # 16 cores, two each
    machine(cores=64)
    assert len(fit_workers(settings(), serving(ON_GPU), [gpu(11.2)]).placements) == 3
    machine(cores=64, free_gib=6.4 + 4.5)  # each 1 GiB, and 1.09 for its requests
    assert len(fit_workers(settings(decode_threads="14"), serving(ON_GPU), many).placements) == 2


def test_several_gpus_get_workers_in_turn_each_as_many_as_fit(machine, settings):
    plan = fit_workers(settings(workers="4"), serving(ON_GPU), [gpu(11.2), gpu(5, 1)])
    assert devices(plan) == ["cuda:0", "cuda:1", "cuda:0", "cuda:0"]
    assert not plan.warning
    assert [plan.placement(slot).device for slot in (4, 5, 7)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert "3 on cuda:0, 1 on cuda:1" in row(plan, "plan")


def test_full_gpus_still_get_one_worker(machine, settings):
    plan = fit_workers(settings(), serving(ON_GPU), [gpu(1), gpu(2, 1)])
    assert devices(plan) == ["cuda:0"]
    assert "may wait for its memory" in plan.warning
    assert deal_out(3, ["cuda:0", "cuda:1"], [0, 0]) == ["cuda:0", "cuda:1", "cuda:0"]


def test_memory_of_the_old_workers_counts_as_free_on_a_reload(machine, settings):
    before = fit_workers(settings(), serving(ON_GPU), [gpu(11.2)])
    after = fit_workers(settings(), serving(ON_GPU), [gpu(11.2 - 9)], before)
    assert devices(after) == devices(before) == ["cuda:0"] * 3


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(1, 1, 1), (2, 1, 2), (8, 2, 4), (64, 16, 4)]
)
def test_auto_gives_a_worker_four_cores_on_the_cpu(machine, settings, cores, workers, threads):
    machine(cores=cores)
    plan = fit_workers(settings(), serving(ON_CPU), [])
    assert plan.placements == (Placement("cpu", threads),) * workers
    choice = configure_engine(settings(), plan.placement(0), ON_CPU)
    assert choice == Choice("openvino", "bf16", "cpu", threads, 4)


def test_memory_is_a_limit_on_the_cpu_too(machine, settings):
    machine(cores=64, free_gib=6.4 + 4.7)
    chosen = settings(workers="10", decode_threads="4", decode_memory_mb="600", max_bodies_mb="328")
    plan = fit_workers(chosen, serving(ON_CPU), [])
    assert len(plan.placements) == 3
    assert row(plan, "worker") == (
        "1.50 GiB: 0.50 models, 0.68 pictures being decoded, 0.32 bodies of requests"
    )
    assert "11.1 of 64.0 GiB free, 1.50 GiB a worker, reserve 10 % → 3 workers" in row(plan, "host")


def test_the_answer_cache_counts_as_memory_of_each_worker(machine, settings):
    machine(cores=64)
    rows = {"decode_threads": "4", "decode_memory_mb": "600", "max_bodies_mb": "328"}
    plan = fit_workers(settings(**rows, answer_cache_mb="512"), serving(ON_CPU), [])
    text = row(plan, "worker")
    assert text.startswith("2.00 GiB: ")
    assert text.endswith("0.32 bodies of requests, 0.50 answer cache")


def test_a_machine_too_small_for_its_requests_still_gets_one_worker_and_a_warning(
    machine, settings
):
    machine(cores=4, free_gib=1.2)
    plan = fit_workers(settings(), serving(ON_CPU), [])
    assert plan.placements == (Placement("cpu", 4),)
    assert "memory is short for even one worker" in plan.warning


def test_a_worker_that_fits_only_into_the_reserve_is_reported_as_such(machine, settings):
    machine(cores=4, free_gib=6.4 + 0.6)
    plan = fit_workers(settings(), serving(ON_CPU), [])
    assert plan.placements == (Placement("cpu", 4),)
    assert plan.warning.startswith("memory holds one worker only with the reserve of SERVING_MEM")


def test_an_explicit_number_of_workers_is_used(machine, settings):
    chosen = settings(workers="2", threads="3", max_batch="5", memory_reserve_percent="50")
    plan = fit_workers(chosen, serving(ON_GPU), [gpu(12)])
    assert plan.placements == (Placement("cuda:0", 3),) * 2
    choice = configure_engine(chosen, plan.placement(0), ON_GPU)
    assert choice == Choice("cuda", "fp16", "cuda:0", 3, 5)


def test_several_versions_need_room_together(machine, settings):
    plan = fit_workers(settings(workers="4"), serving(ON_GPU, ON_GPU), [gpu(11.2)])
    assert devices(plan) == ["cuda:0"]
    assert "6.00 GiB a worker" in row(plan, "GPU 0")


def test_a_version_for_a_gpu_is_not_loaded_into_a_worker_without_one(settings):
    with pytest.raises(BundleError, match="reload Gunicorn"):
        configure_engine(settings(), Placement("cpu", 2), ON_GPU)


def test_one_more_version_is_checked_against_free_memory(machine, settings, monkeypatch):
    monkeypatch.setattr(placement_module, "list_gpus", lambda: [gpu(4.5), gpu(4, 1)])
    monkeypatch.setattr(placement_module, "_has_context", False)
    assert not placement_module.lacking_memory(settings(), Placement("cuda:0", 1), ON_GPU)
    assert placement_module.lacking_memory(
        settings(), Placement("cuda:1", 1), ON_GPU
    )  # the reserve is 1.2 GiB
    monkeypatch.setattr(placement_module, "_has_context", True)
    with_context = dataclasses.replace(ON_GPU, context_bytes=GIB // 2)
    assert not placement_module.lacking_memory(settings(), Placement("cuda:1", 1), with_context), (
        "the context is there"
    )
    chosen = settings(decode_threads="4")
    machine(free_gib=6.4 + 0.5 + 0.9)  # the version, and 0.84 for requests
    assert not placement_module.lacking_memory(chosen, Placement("cpu", 1), ON_CPU)
    machine(free_gib=6.4 + 0.5 + 0.8)
    assert placement_module.lacking_memory(chosen, Placement("cpu", 1), ON_CPU)


def test_a_missing_gpu_is_reported(settings, monkeypatch):
    monkeypatch.setattr(planning, "list_gpus", lambda _: [gpu(12), gpu(12, 1)])
    assert [found.index for found in planning.usable_gpus("auto")] == [0, 1]
    assert [found.index for found in planning.usable_gpus("cuda:1")] == [1]
    with pytest.raises(BundleError, match="SERVING_DEVICE=cuda:2: there are 2 usable GPUs"):
        planning.usable_gpus("cuda:2")


@pytest.fixture
def loader(settings, monkeypatch):
    """Return a loader that waits for memory on a GPU with the listed free memory, look by look."""

    def load(*free, **rows):
        left = list(free)
        seen = []

        def free_on(uuid):
            assert uuid == "GPU-1"
            seen.append(left.pop(0) if len(left) > 1 else left[0])
            return seen[-1]

        monkeypatch.setattr(placement_module, "free_on", free_on)
        monkeypatch.setattr(placement_module, "MEMORY_POLL_S", 0.001)
        placement = Placement("cuda:0", 1, "GPU-1")
        with placement_module.hold_device(settings(**rows), placement, WITH_CONTEXT):
            return seen

    monkeypatch.setattr(placement_module, "_has_context", False)
    return load


WITH_CONTEXT = dataclasses.replace(ON_GPU, context_bytes=GIB // 2)


def test_a_worker_waits_until_its_memory_is_free(loader):
    assert loader(0, 1 * GIB, 3 * GIB) == [0, 1 * GIB, 3 * GIB]


def test_a_further_version_needs_no_second_context_and_waits_seconds_only(loader, monkeypatch):
    """Before, a swap that could not hold both waited SERVING_LOAD_TIMEOUT_S for its own memory."""
    loader(3 * GIB)
    assert loader(int(2.5 * GIB)) == [int(2.5 * GIB)]
    monkeypatch.setattr(placement_module, "OWN_MEMORY_WAIT_S", 0.05)
    began = time.monotonic()
    assert loader(2 * GIB)[-1] == 2 * GIB
    assert time.monotonic() - began < 5


def test_a_load_does_not_wait_for_memory_that_cannot_be_measured(loader):
    assert loader(None) == [None]


def test_two_servers_with_separate_folders_load_onto_a_gpu_one_by_one(tmp_path, monkeypatch):
    """Before, each lock was in the cache of its own server."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with lock_host("GPU-1", 5) as held:
        assert held
        with lock_host("GPU-1", 0.05) as other:
            assert not other
        with lock_host("GPU-2", 0.05) as other:
            assert other
    with lock_host("GPU-1", 0) as held:
        assert held


def test_a_host_lock_that_is_not_a_regular_file_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)
    (tmp_path / "resnet-serving-link.lock").symlink_to(victim)
    os.mkfifo(tmp_path / "resnet-serving-pipe.lock")
    (tmp_path / "resnet-serving-folder.lock").mkdir()
    for name in ("link", "pipe", "folder"):
        with lock_host(name, 0.05) as held:
            assert not held, name
    assert victim.read_text() == "precious"
    (tmp_path / "resnet-serving-theirs.lock").write_text("")
    (tmp_path / "resnet-serving-theirs.lock").chmod(0o444)  # as another user sees it
    with lock_host("theirs", 0.05) as held:
        assert held
    before = os.umask(0o077)
    try:
        with lock_host("ours", 0.05):
            assert (tmp_path / "resnet-serving-ours.lock").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_a_worker_sees_only_its_own_gpu(machine, settings):
    configs = [dataclasses.replace(gpu(11, n), uuid=f"GPU-{n}") for n in range(2)]
    plan = fit_workers(settings(workers="2"), serving(ON_GPU), configs)
    assert [(placement.device, placement.gpu) for placement in plan.placements] == [
        ("cuda:0", "GPU-0"),
        ("cuda:1", "GPU-1"),
    ]
    assert configure_engine(settings(), plan.placement(1), ON_GPU).device == "cuda:0"
    assert configure_engine(settings(), plan.placement(1), ON_CPU).device == "cpu"


def test_both_needs_count_if_host_and_gpu_share_one_memory(machine, settings):
    machine(cores=64, free_gib=6.4 + 12.5)
    shared = dataclasses.replace(gpu(20, total_gib=64), is_unified=True)
    chosen = settings(decode_threads="1", decode_memory_mb="64", max_bodies_mb="64")
    assert (
        len(fit_workers(chosen, serving(ON_GPU), [shared]).placements) == 3
    )  # each 1 + 3 GiB and requests


@pytest.mark.slow
def test_a_model_is_measured_in_a_separate_process_and_only_once(settings, tmp_path, monkeypatch):
    """A new model is converted and measured, and then known."""
    models = tmp_path / "models" / "small"
    weights = get_model("squeezenet1_1", num_classes=5).state_dict()
    write_model(models, weights, {"architecture": "squeezenet1_1", "input_size": 32})
    chosen = settings(models=str(models), device="cpu")
    plan = scan_and_plan(chosen)
    measured = plan.manifest.entries[0].footprint
    assert (measured.engine, measured.precision) == ("openvino", "fp32")
    assert "no reduced precision was measured" in row(plan, "engine")
    assert 0.05 * GIB < measured.host_bytes < GIB

    def fail(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(footprint, "run_measure", fail)
    again = scan_and_plan(chosen)
    assert (again.placements, again.manifest) == (plan.placements, plan.manifest)


@pytest.mark.slow
def test_a_bundle_that_cannot_be_served_still_yields_a_plan_with_the_reason(settings, tmp_path):
    (tmp_path / "model.pth").write_bytes(b"no weights")
    (tmp_path / "class_name.json").write_text('{"0": "Ant"}')
    plan = scan_and_plan(settings(models=str(tmp_path), workers="2", device="cpu"))
    assert len(plan.placements) == 2
    assert "model.pth cannot be read as weights" in plan.manifest.failure


def test_a_plan_is_made_even_if_nothing_is_writable(settings, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    (tmp_path / "run").write_text("in the way")
    run, cache = str(tmp_path / "run"), str(tmp_path / "cache")
    plan = Planner().make(settings(device="cpu", precision="fp32", run=run, cache=cache))
    assert [entry.name for entry in plan.manifest.entries] == ["demo"]
    assert "manifest.json cannot be written" in plan.warning


@pytest.fixture
def watched_planner(settings, run_folder, tmp_path):
    """Return settings and planner after a start with version 1; the watcher has gone on to version 2."""
    planner = Planner()
    planner.plan = fit_workers(settings(), serving(ON_CPU), [])
    ManifestFile(run_folder, instance_id()).write(
        Manifest("demo", (Entry("demo", 2, "", "", ON_CPU),))
    )
    return settings(device="cpu", run=str(run_folder), cache=str(tmp_path / "cache")), planner


def test_a_reload_while_the_watcher_converts_keeps_the_served_versions(
    watched_planner, tmp_path, monkeypatch
):
    """The versions served at the start do not count."""
    monkeypatch.setattr(RepositoryScanner, "scan", lambda self: real_scan(self, 0.1))
    with lock_file(tmp_path / "cache" / "scanner.lock", 5):
        chosen, planner = watched_planner
        plan = planner.make(chosen)
    assert [entry.version for entry in plan.manifest.entries] == [2]
    assert [entry.version for entry in ManifestFile(chosen.run, instance_id()).read().entries] == [
        2
    ]


@pytest.mark.parametrize("how", ["removed", "damaged"])
def test_a_worker_whose_manifest_is_gone_keeps_the_last_one(watched_planner, how):
    """The manifest of the start does not count."""
    chosen, planner = watched_planner
    read = manifest_reader(chosen, planner.plan.manifest)
    file = chosen.run / "manifest.json"
    assert [entry.version for entry in read().entries] == [2]
    if how == "removed":
        file.unlink()
    else:
        file.write_text("{")
    assert [entry.version for entry in read().entries] == [2]


@pytest.mark.parametrize(("poll_s", "version"), [("0", 1), ("1", 2)])
def test_replaced_workers_serve_the_same_as_the_others_after_a_failed_reload(
    machine, watched_planner, settings, monkeypatch, poll_s, version
):
    """Workers have the new manifest anyway if the folders are watched."""
    found = [serving(ON_CPU), Manifest("demo", (Entry("demo", 2, "", "", ON_CPU),))]
    monkeypatch.setattr(RepositoryScanner, "scan", lambda self: found.pop(0))
    watched, planner = watched_planner
    chosen = settings(device="cpu", poll_s=poll_s, run=watched.run)
    before = planner.make(chosen)
    planner.make(chosen)
    planner.restore(before)
    (entry,) = ManifestFile(watched.run, instance_id()).read().entries
    assert entry.version == version


def test_new_workers_start_beside_the_old_ones_even_if_the_manifest_is_read_only(machine, settings):
    plan = fit_workers(settings(), serving(ON_CPU), [])
    assert planning.fits_beside(settings(device="cpu"), plan)
    warned = dataclasses.replace(plan, warning="run/manifest.json cannot be written (full)")
    assert planning.fits_beside(settings(device="cpu"), warned)


def test_a_requested_gpu_that_does_not_exist_is_reported(settings):
    plan = scan_and_plan(settings(device="cuda:7"))
    assert "SERVING_DEVICE=cuda:7: there are " in plan.manifest.failure


def test_a_network_that_openvino_cannot_convert_runs_on_torch_with_a_reason(settings, monkeypatch):
    calls = []

    def run_measure(task, bundle, serving, sibling=None):
        calls.append((task, serving.get("SERVING_ENGINE", "auto")))
        if task == footprint.CONVERT:
            return MeasureResult(unconvertible="OpenVINO cannot convert it")
        if len(calls) == 1:
            return MeasureResult(needs_conversion=True)
        return MeasureResult(Footprint(**MEASURED))

    monkeypatch.setattr(footprint, "run_measure", run_measure)
    monkeypatch.setattr(footprint.Artifacts, "read_footprints", lambda self: {})
    monkeypatch.setattr(footprint.Artifacts, "add_footprint", lambda *_: None)
    plan = scan_and_plan(settings(device="cpu"))
    assert calls == [("measure", "auto"), ("convert", "auto"), ("measure", "eager")]
    assert plan.manifest.entries[0].footprint.engine == "eager"
    assert row(plan, "engine").startswith("eager, fp32: OpenVINO cannot convert it; ")
    assert "OpenVINO cannot convert it" in make_plan_failure(settings, monkeypatch, calls)


def make_plan_failure(settings, monkeypatch, calls):
    """Return the failure of a plan with OpenVINO set explicitly."""
    calls.clear()
    return scan_and_plan(settings(device="cpu", engine="openvino")).manifest.failure


def test_a_measure_process_that_dies_is_reported_with_its_last_line(settings, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BundleError, match=r"the measure process ended with 1: without a word"):
        footprint.run_measure("measure", find_bundle(ROOT / "models"), {})


def test_a_measure_process_that_the_kernel_killed_is_retried_and_says_why(tmp_path, monkeypatch):
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(
        TransientError, match=r"the convert process was killed, most likely for lack of mem"
    ):
        footprint.run_measure("convert", find_bundle(ROOT / "models"), {})


def test_plan_workers_prints_the_plan_with_its_reasons():
    environment = os.environ | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    shown = subprocess.run(
        ["scripts/plan-workers"],
        cwd=ROOT,
        env=environment | {"SERVING_DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [line.split()[0] for line in shown.splitlines()] == [
        "model",
        "engine",
        "worker",
        "host",
        "cores",
        "plan",
    ]
    assert "demo, version 1" in shown
    assert int(shown.splitlines()[-1].split()[1]) >= 1


MEASURED = dataclasses.asdict(ON_CPU) | {"engine": "eager", "precision": "fp32"}


@pytest.mark.parametrize(
    "kept",
    [
        {"engine": "eager"},
        MEASURED | {"new_field": 1},
        MEASURED | {"host_bytes": "many"},
        MEASURED | {"device_bytes": None},
        MEASURED | {"host_bytes": 0},
        MEASURED | {"host_bytes": -(10**9)},
        MEASURED | {"device_bytes": 10**30},
        MEASURED | {"engine": "other"},
        MEASURED | {"precision": "int4"},
        MEASURED | {"device": "cuda"},
        "damaged",
        ["damaged"],
    ],
)
def test_a_footprint_of_another_release_is_measured_again(settings, tmp_path, monkeypatch, kept):
    """The footprints have fewer or more fields, other types, or no fields at all."""
    calls = []
    result = MeasureResult(Footprint(**MEASURED))
    monkeypatch.setattr(footprint, "run_measure", lambda *call: calls.append(call) or result)
    artifacts = footprint.Artifacts(find_bundle(ROOT / "models"), tmp_path)
    artifacts.homes = (tmp_path / "beside", tmp_path / "cache")
    chosen = settings(device="cpu")
    artifacts.add_footprint(footprint.footprint_key(chosen, artifacts), kept)
    for _ in range(2):  # once measured, it is kept
        assert footprint.find_footprint(chosen, artifacts) == Footprint(**MEASURED)
    assert len(calls) == 1


def test_a_measure_process_adds_nothing_to_the_workers_metrics(monkeypatch):
    """The numbers would go into the files of the first worker's slot."""
    seen = {}

    def run(_command, **how):
        seen.update(how["env"])
        return subprocess.CompletedProcess([], 0, "{}", "")

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "run/metrics")
    monkeypatch.setattr(subprocess, "run", run)
    footprint.run_measure("measure", find_bundle(ROOT / "models"), {"SERVING_DEVICE": "cpu"})
    assert seen["SERVING_DEVICE"] == "cpu"
    assert "PROMETHEUS_MULTIPROC_DIR" not in seen
