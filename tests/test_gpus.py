"""GPUs are read from NVML, with a stand-in for the driver whose refusals are those of real machines."""

import os
from types import SimpleNamespace

import pynvml
import pytest

from app.system import gpus
from app.system.gpus import confine_to, free_on, held_by, list_gpus
from app.system.machine import read_host_memory

MIB = 1 << 20


class Driver:
    """NVML as app/system/gpus.py calls it. A handle is a dict; reading an exception in it raises that."""

    def __init__(self, *configs):
        """Store these GPUs."""
        self.configs = configs
        self.calls = 0

    def install(self, monkeypatch):
        """Replace pynvml's functions."""
        for name in dir(self):
            if name.startswith("nvml"):
                monkeypatch.setattr(pynvml, name, getattr(self, name))

    def nvmlInit(self):
        self.calls += 1

    def nvmlShutdown(self):
        pass

    def nvmlSystemGetDriverVersion(self):
        return "580.65"

    def nvmlDeviceGetCount(self):
        return len(self.configs)

    def nvmlDeviceGetHandleByIndex(self, index):
        if index >= len(self.configs):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return read_value(self.configs[index], "self", self.configs[index])

    def nvmlDeviceGetHandleByUUID(self, uuid):
        for each in self.configs:
            if each["uuid"] == uuid:
                return each
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetName(self, handle):
        return read_value(handle, "name")

    def nvmlDeviceGetUUID(self, handle):
        return read_value(handle, "uuid")

    def nvmlDeviceGetMemoryInfo(self, handle):
        return read_value(handle, "memory")

    def nvmlDeviceGetUtilizationRates(self, handle):
        return read_value(handle, "busy")

    def nvmlDeviceGetMigMode(self, handle):
        return (
            [int(bool(handle.get("slices"))), 0]
            if "mig" not in handle
            else read_value(handle, "mig")
        )

    def nvmlDeviceGetMaxMigDeviceCount(self, handle):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle, index):
        if index >= len(handle["slices"]):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return handle["slices"][index]

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return read_value(handle, "processes", [])


def read_value(handle, key, default=None):
    """Return a value of a handle, or raise its refusal."""
    value = handle.get(key, default)
    if isinstance(value, Exception):
        raise value
    return value


def rejected(code):
    return pynvml.NVMLError(code)


def config(number=0, free=60, total=80, **more):
    return {
        "uuid": f"GPU-{number}{number}{number}-aa",
        "name": "H100",
        "memory": SimpleNamespace(free=free * MIB, total=total * MIB),
        "busy": SimpleNamespace(gpu=25),
    } | more


@pytest.fixture(autouse=True)
def reset_state(monkeypatch):
    """Reset the state that another test has confined or logged."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in (("_is_confined", False), ("_visible_before", None), ("_warned", set())):
        monkeypatch.setattr(gpus, name, value)


@pytest.fixture
def driver(monkeypatch):
    def make(*configs):
        made = Driver(*configs)
        made.install(monkeypatch)
        return made

    return make


def test_a_gpu_is_reported_with_its_memory_and_utilization(driver):
    driver(config(), config(1, free=5))
    first, second = list_gpus()
    assert (first.index, first.name, first.driver, first.busy) == (0, "H100", "580.65", 0.25)
    assert (first.free, first.total, first.uuid) == (60 * MIB, 80 * MIB, "GPU-000-aa")
    assert (second.index, second.free) == (1, 5 * MIB)


@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_NO_PERMISSION, pynvml.NVML_ERROR_GPU_IS_LOST, 999]
)
def test_a_gpu_that_refuses_a_query_is_left_out_with_one_log_line(driver, caplog, code):
    driver(config(memory=rejected(code), busy=rejected(code)), config(1))
    assert [gpu.index for gpu in list_gpus()] == [1]
    assert [gpu.index for gpu in list_gpus()] == [1]
    (line,) = caplog.messages
    assert line.startswith("GPU 0 (H100) is not used: ")


def test_a_lost_gpu_whose_handle_is_refused_does_not_hide_the_others(driver):
    driver(config(self=rejected(pynvml.NVML_ERROR_GPU_IS_LOST)), config(1))
    assert [gpu.uuid for gpu in list_gpus()] == ["GPU-111-aa"]


def test_every_single_refusal_is_handled(driver, monkeypatch):
    """A refusal of any call leaves the usable GPUs, and no error."""
    names = [name for name in dir(Driver) if name.startswith("nvml")]
    for name in names:
        driver(config())

        def refuse(*_):
            raise rejected(pynvml.NVML_ERROR_UNKNOWN)

        monkeypatch.setattr(pynvml, name, refuse)
        assert len(list_gpus()) <= 1
        free_on("GPU-000-aa")
        assert held_by("GPU-000-aa", 1) is None


def test_a_mig_slice_has_its_own_memory_even_if_the_whole_gpu_is_refused(driver):
    """A container with one MIG slice behaves like that."""
    part = config(uuid="MIG-5", name="H100 MIG 1g.10gb", free=9, total=10)
    part["busy"] = rejected(pynvml.NVML_ERROR_NOT_SUPPORTED)
    driver(config(memory=rejected(pynvml.NVML_ERROR_NO_PERMISSION), slices=[part]))
    (gpu,) = list_gpus()
    assert (gpu.uuid, gpu.free, gpu.total, gpu.busy) == ("MIG-5", 9 * MIB, 10 * MIB, None)
    assert free_on("MIG-5") == 9 * MIB


def test_only_mig_slices_count_even_with_rights_on_the_whole_gpu(driver, monkeypatch):
    slices = [config(uuid="MIG-5", free=9, total=10), config(uuid="MIG-6", free=19, total=20)]
    driver(config(slices=slices), config(1))
    assert [gpu.total // MIB for gpu in list_gpus()] == [10, 20, 80]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-6")
    assert [gpu.uuid for gpu in list_gpus()] == ["MIG-6"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert [gpu.uuid for gpu in list_gpus()] == ["MIG-5", "MIG-6"]


def test_host_memory_counts_if_host_and_gpu_share_one_memory(driver):
    driver(config(memory=rejected(pynvml.NVML_ERROR_NOT_SUPPORTED)))
    (gpu,) = list_gpus()
    assert gpu.is_unified
    assert gpu.total == read_host_memory().total
    assert free_on(gpu.uuid) > 0


def test_nvml_is_not_called_if_only_the_cpu_is_used(driver):
    stand_in = driver(config())
    assert list_gpus("cpu") == []
    assert stand_in.calls == 0


@pytest.mark.parametrize(
    ("visible", "found"),
    [("1", [1]), ("1,0", [1, 0]), ("", []), ("7,0", []), ("GPU-11", [1]), ("GPU-none,0", [])],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(driver, monkeypatch, visible, found):
    driver(config(), config(1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.uuid for gpu in list_gpus()] == [f"GPU-{n}{n}{n}-aa" for n in found]
    assert [gpu.index for gpu in list_gpus()] == list(range(len(found)))


def test_a_process_confined_to_one_gpu_still_sees_the_others(driver, monkeypatch):
    driver(config(), config(1, free=5), config(2))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    confine_to("GPU-111-aa")
    confine_to("GPU-111-aa")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-111-aa"
    assert [gpu.uuid for gpu in list_gpus()] == ["GPU-222-aa", "GPU-111-aa"]
    assert free_on("GPU-111-aa") == 5 * MIB
    assert free_on("GPU-999-aa") is None


def test_the_memory_of_a_process_is_reported_if_the_driver_knows_it(driver):
    processes = [
        SimpleNamespace(pid=7, usedGpuMemory=3 * MIB),
        SimpleNamespace(pid=8, usedGpuMemory=None),
    ]
    driver(config(processes=processes))
    assert held_by("GPU-000-aa", 7) == 3 * MIB
    assert held_by("GPU-000-aa", 8) is None
    assert held_by("GPU-000-aa", 9) is None
