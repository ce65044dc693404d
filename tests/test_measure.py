"""The measure process measures a GPU's memory, with stand-ins for the driver and torch's allocator."""

import dataclasses
import json
import logging
import os
import sys

import pytest
import torch

from app.commands import measure as program
from app.commands.measure import (
    MIB,
    TYPICAL_CONTEXT,
    Disturbed,
    GpuMemory,
    main,
    measure_footprint,
    measure_on_gpu,
)
from app.control.footprint import Footprint, MeasureResult
from app.errors import BundleError, NoDeviceMemory, OutOfMemory
from app.models.bundle import find_bundle
from app.settings import Settings
from app.system.gpus import Gpu
from tests.helpers import ROOT

GIB = 1 << 30
SIBLING = Footprint("cuda", "fp32", "cuda", "asked for", GIB, 3 * GIB, GIB // 2)


class FakeGpu:
    """A GPU with changing free memory, and the memory of torch's allocator."""

    def __init__(self, monkeypatch, free, held=None, reserved=300 * MIB, peak=500 * MIB):
        """Replace NVML and CUDA; ``free`` lists the free memory at each look."""
        self.locks, self.loaded = [], []
        left = list(free)
        monkeypatch.setattr(program, "free_on", lambda uuid: left.pop(0))
        monkeypatch.setattr(program, "held_by", lambda uuid, pid: held)
        monkeypatch.setattr(program, "load_engine", self.load)
        for name, value in {
            "init": None,
            "synchronize": None,
            "memory_reserved": reserved,
            "max_memory_reserved": peak,
        }.items():
            monkeypatch.setattr(torch.cuda, name, lambda value=value: value)

    def load(self, choice, artifacts):
        self.loaded.append(choice.engine)
        return self

    def close(self):
        self.loaded.append("closed")


def test_tensors_count_by_their_peak_plus_the_context(monkeypatch):
    gpu = FakeGpu(monkeypatch, [10 * GIB, 10 * GIB - 900 * MIB])
    memory = measure_on_gpu(choice(), None, "GPU-1", is_last_try=False)
    assert memory == GpuMemory(500 * MIB + 600 * MIB, 600 * MIB)
    assert gpu.loaded == ["cuda", "closed"]


def test_the_drivers_figure_for_the_process_takes_precedence_over_a_difference(monkeypatch):
    FakeGpu(monkeypatch, [10 * GIB, 2 * GIB], held=1000 * MIB)
    assert measure_on_gpu(choice(), None, "GPU-1", is_last_try=False).context_bytes == 700 * MIB


@pytest.mark.parametrize("after_gib", [4.0, 10.1, 12.0])
def test_an_impossible_difference_is_measured_again(monkeypatch, after_gib):
    """Another program allocated or freed memory; before, the plan could count room for billions of workers."""
    free = [10 * GIB, int(after_gib * GIB)]
    FakeGpu(monkeypatch, free)
    with pytest.raises(Disturbed):
        measure_on_gpu(choice(), None, "GPU-1", is_last_try=False)
    FakeGpu(monkeypatch, free)
    memory = measure_on_gpu(choice(), None, "GPU-1", is_last_try=True)
    assert memory == GpuMemory(500 * MIB + TYPICAL_CONTEXT, TYPICAL_CONTEXT)


def test_measuring_again_begins_with_a_new_process(monkeypatch):
    def disturb(*_, **__):
        raise Disturbed

    began = []
    monkeypatch.setattr(program, "measure_footprint", disturb)

    def execv(program, arguments):
        began.append((program, arguments[1:]))
        raise SystemExit

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(SystemExit):
        main("measure", str(ROOT / "models/demo/1"), "demo", "1", "", "2")
    folder = str(ROOT / "models/demo/1")
    assert began == [
        (sys.executable, ["-m", "app.commands.measure", "measure", folder, "demo", "1", "", "3"])
    ]


def choice():
    return program.Choice("cuda", "fp32", "cuda:0", 1, 4)


@pytest.fixture
def full_gpu(monkeypatch):
    """A full GPU, and an engine on the CPU that only records that it was called."""
    loaded = []

    def load(choice, artifacts):
        loaded.append(choice.engine)
        if choice.engine == "cuda":
            raise NoDeviceMemory("not enough GPU memory: CUDA out of memory")
        return FakeGpu.__new__(FakeGpu)

    monkeypatch.setattr(FakeGpu, "close", lambda self: None)
    monkeypatch.setattr(program, "load_engine", load)
    monkeypatch.setattr(program, "free_on", lambda uuid: 0)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    gpu = Gpu(0, "H100", "580", 0, 80 * GIB, uuid="GPU-1")
    monkeypatch.setattr(program, "choose_engine", lambda settings: ("cuda", gpu))
    return loaded


def test_a_new_version_on_a_full_gpu_counts_as_the_one_before(full_gpu, settings):
    """Before, it was refused for good, even though the old one would have freed its memory."""
    bundle = find_bundle(ROOT / "models")
    result = measure_footprint(settings(), bundle, SIBLING, is_last_try=False)
    assert full_gpu == ["cuda", "eager"], "the weights were looked at all the same"
    assert result.is_estimated
    found = result.footprint
    assert (found.device_bytes, found.context_bytes) == (SIBLING.device_bytes, GIB // 2)
    assert "counted as the version before" in found.reason


def test_the_first_version_or_another_precision_is_refused_on_a_full_gpu(full_gpu, settings):
    bundle = find_bundle(ROOT / "models")
    for sibling in (None, dataclasses.replace(SIBLING, precision="fp16")):
        with pytest.raises(BundleError, match="not enough GPU memory"):
            measure_footprint(settings(), bundle, sibling, is_last_try=False)


def test_a_gpu_that_runs_out_of_memory_is_reported_in_a_sentence(monkeypatch, capsys):
    def run_out(*_, **__):
        raise OutOfMemory("the GPU is out of memory: tried to allocate 2 GiB")

    monkeypatch.setattr(program, "measure_footprint", run_out)
    monkeypatch.setattr(program, "prefer_as_oom_victim", lambda: None)  # not this process
    monkeypatch.setattr(Settings, "from_env", lambda environ: None)
    main(
        "measure", str(ROOT / "models/demo/1"), "demo", "1", json.dumps(dataclasses.asdict(SIBLING))
    )
    assert MeasureResult.from_text(capsys.readouterr().out) == MeasureResult(
        failure="not enough memory: the GPU is out of memory: tried to allocate 2 GiB",
        is_transient=True,
    )


def test_what_the_process_logs_reaches_its_parents_log(monkeypatch, capsys):
    def measure(*_, **__):
        logging.getLogger("app.engines.network").info("the prefix is left out")
        return MeasureResult(SIBLING)

    monkeypatch.setattr(program, "measure_footprint", measure)
    monkeypatch.setattr(program, "prefer_as_oom_victim", lambda: None)
    monkeypatch.setattr(Settings, "from_env", lambda environ: None)
    main("measure", str(ROOT / "models/demo/1"), "demo", "1")
    notes = ("the prefix is left out",)
    assert MeasureResult.from_text(capsys.readouterr().out) == MeasureResult(SIBLING, notes=notes)
