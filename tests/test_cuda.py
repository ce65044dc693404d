"""The GPU engine makes the right calls and reports errors, without a GPU (see tests/cuda_stand_in.py)."""

import gc
import json
import weakref

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from app.engines import cuda, loader
from app.engines.cuda import CudaEngine
from app.engines.cuda_errors import translate_cuda_errors
from app.engines.eager import EagerEngine
from app.engines.engine import Choice
from app.engines.loader import load_engine
from app.engines.network import PixelNetwork
from app.errors import BundleError, DeviceLost, NoDeviceMemory, OutOfMemory
from app.models.artifacts import Artifacts
from app.models.bundle import find_bundle
from tests.cuda_stand_in import FakeCuda, Nothing


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return a small network's bundle."""
    folder = tmp_path_factory.mktemp("models") / "own"
    folder.mkdir()
    torch.manual_seed(3)
    torch.save(resnet18(num_classes=3).state_dict(), folder / "model.pth")
    (folder / "class_name.json").write_text('{"0": "a", "1": "b", "2": "c"}')
    (folder / "model.json").write_text(json.dumps({"architecture": "resnet18", "input_size": 64}))
    return find_bundle(folder)


@pytest.fixture
def stand_in(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that wait for each other take seconds on a busy machine
    yield FakeCuda(monkeypatch)
    torch.set_num_threads(threads)


def pictures(count):
    return list(np.random.default_rng(1).integers(0, 256, (count, 3, 64, 64), np.uint8))


def test_every_batch_size_gives_the_networks_own_answers(bundle, stand_in):
    engine = CudaEngine(bundle, "cpu", "fp32", 8)
    assert stand_in.recorded == [8, 4, 2, 1]
    images = pictures(8)
    network = cuda.build_network(bundle)
    with torch.inference_mode():
        expected, features = network.run(torch.from_numpy(np.stack(images)))
    for count in range(1, 9):
        answer = engine.forward(images[:count], with_features=True)
        assert np.abs(answer.logits - expected[:count].numpy()).max() < 1e-3
        assert np.abs(answer.features - features[:count].numpy()).max() < 1e-2
    assert engine.forward(images).features is None


def test_smaller_batches_are_served_if_the_largest_do_not_fit(
    bundle, stand_in, tmp_path, monkeypatch
):
    """Before, the warm-up requested a skipped batch size, and the load failed."""
    stand_in.room = 5
    monkeypatch.setattr(
        loader,
        "open_engine",
        lambda choice, artifacts: CudaEngine(bundle, "cpu", "fp32", 16),
    )
    engine = load_engine(Choice("cuda", "fp32", "cuda:0", 1, 16), Artifacts(bundle, tmp_path))
    assert stand_in.recorded == [4, 2, 1]
    assert engine.max_batch == 4
    with pytest.raises(OutOfMemory, match="no room for a batch of 5; it has for 4"):
        engine.forward(pictures(5))


def test_no_computation_runs_on_the_capture_stream(bundle, stand_in, monkeypatch):
    """Graphs use its workspace of cuBLAS: the live version would answer wrong numbers meanwhile."""
    computed = []
    record, run = stand_in.record, PixelNetwork.run

    def note(self, pixels):
        computed.append(stand_in.stream)
        return run(self, pixels)

    def capture(*how):
        before = len(computed)
        graph = record(*how)
        assert set(computed[before:]) == {how[2]}  # recorded only
        del computed[before:]
        return graph

    monkeypatch.setattr(cuda, "record", capture)
    monkeypatch.setattr(PixelNetwork, "run", note)
    CudaEngine(bundle, "cpu", "fp32", 4).forward(pictures(3))
    _, capturing, answering = stand_in.streams
    assert answering in computed
    assert capturing not in computed


def cut_short():
    """Raise the error of a capture that ran out of memory."""
    try:
        raise torch.OutOfMemoryError("CUDA out of memory")
    finally:
        raise accelerator_error(901)  # the capture was invalidated


def cublas_finds_no_room():
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def instantiating_finds_no_room():
    raise accelerator_error(2)


@pytest.mark.parametrize("fail", [cut_short, cublas_finds_no_room, instantiating_finds_no_room])
def test_a_capture_that_runs_out_of_memory_is_recognized_by_each_of_its_errors(
    bundle, stand_in, monkeypatch, fail
):
    record = stand_in.record
    monkeypatch.setattr(
        cuda, "record", lambda run, *how: record(run, *how) if run.args[0] < 3 else fail()
    )
    assert CudaEngine(bundle, "cpu", "fp32", 4).max_batch == 2
    monkeypatch.setattr(cuda, "record", lambda *_: fail())
    with pytest.raises(NoDeviceMemory, match="not enough GPU memory"):
        CudaEngine(bundle, "cpu", "fp32", 1)


def test_a_gpu_without_memory_for_one_image_is_reported_as_such(bundle, stand_in):
    stand_in.room = 0
    with pytest.raises(NoDeviceMemory, match=r"not enough GPU memory: .*single image") as caught:
        CudaEngine(bundle, "cpu", "fp32", 4)
    assert caught.value.__context__ is None, "a traceback would hold what was allocated"


def test_a_load_that_fails_late_frees_its_memory(bundle, stand_in, tmp_path, monkeypatch):
    opened = []

    def open_engine(choice, artifacts):
        opened.append(CudaEngine(bundle, "cpu", "fp32", 1))
        monkeypatch.setattr(opened[0], "forward", run_out)
        return opened[0]

    def run_out(*_):
        raise OutOfMemory("the GPU is out of memory: tried to allocate 2 GiB")

    monkeypatch.setattr(loader, "open_engine", open_engine)
    with pytest.raises(NoDeviceMemory, match="not enough memory: the GPU is out of memory"):
        load_engine(Choice("cuda", "fp32", "cuda:0", 1, 1), Artifacts(bundle, tmp_path))
    assert not hasattr(opened[0], "_network")


def close_and_check_weights_are_gone(engine):
    """Close without garbage collection: ``close`` has to break the reference cycles itself."""
    weights = weakref.ref(next(engine._network.parameters()))
    gc.disable()
    try:
        engine.close()
        assert weights() is None
    finally:
        gc.enable()


def test_a_closed_engine_frees_its_weights(bundle, stand_in):
    engine = CudaEngine(bundle, "cpu", "fp32", 2)
    before = stand_in.emptied
    close_and_check_weights_are_gone(engine)
    assert stand_in.emptied == before + 1, "torch's cache was given back too"
    with pytest.raises(OutOfMemory):  # a late request gets an error, no crash
        engine.forward(pictures(1))
    engine.close()


def test_a_closed_engine_on_the_cpu_frees_its_weights_too(bundle):
    """A traced network is a cycle of references: dropping the last one frees nothing."""
    engine = EagerEngine(bundle, 1)
    close_and_check_weights_are_gone(engine)


def test_fp32_is_ieee_and_tf32_is_a_separate_precision(bundle, stand_in):
    CudaEngine(bundle, "cpu", "fp32", 2)
    assert stand_in.fp32 == ["ieee"] * 2
    CudaEngine(bundle, "cpu", "tf32", 2)
    assert stand_in.fp32[2:] == ["tf32"] * 2
    assert torch.backends.cudnn.conv.fp32_precision == "ieee", "heat maps and the next version"
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"


def test_kernels_are_timed_only_while_nothing_else_computes(bundle, stand_in):
    first = CudaEngine(bundle, "cpu", "fp32", 2)
    assert stand_in.benchmark == [True] * 2
    second = CudaEngine(bundle, "cpu", "fp32", 4)  # sizes that were never timed
    assert stand_in.benchmark[2:] == [False] * 3
    third = CudaEngine(bundle, "cpu", "fp32", 2)  # the timing is remembered
    assert stand_in.benchmark[5:] == [True] * 2
    for engine in (first, second, third):
        engine.close()
    CudaEngine(bundle, "cpu", "fp32", 4)
    assert stand_in.benchmark[7:] == [True] * 3
    assert not torch.backends.cudnn.benchmark


def test_a_batch_size_with_other_answers_than_the_cpu_is_refused_by_name(
    bundle, stand_in, monkeypatch
):
    """A missing wait, a wrong order of streams or an overflow would cause it."""
    real = CudaEngine._run

    def forget_the_last(self, size):
        real(self, size)
        if size == 2:
            self._logits[1] = 0

    monkeypatch.setattr(CudaEngine, "_run", forget_the_last)
    with pytest.raises(
        BundleError, match=r"a batch of 2 answers otherwise than the CPU: by .*, the limit is"
    ):
        CudaEngine(bundle, "cpu", "fp32", 4)


def test_nan_on_the_gpu_alone_is_refused(bundle, stand_in, monkeypatch):
    real = CudaEngine._run

    def overflow(self, size):
        real(self, size)
        self._logits[0, 0] = float("nan")

    monkeypatch.setattr(CudaEngine, "_run", overflow)
    with pytest.raises(BundleError, match="by nan"):
        CudaEngine(bundle, "cpu", "fp32", 1)


def test_a_capture_does_not_block_other_threads(monkeypatch):
    modes = []

    class graph:  # torch's own name
        def __init__(self, *_, capture_error_mode="global", **__):
            modes.append(capture_error_mode)

        def __enter__(self):
            assert cuda._captures.locked() is False  # record alone takes no lock

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    ran = []
    cuda.record(lambda: ran.append(True), None, None)
    assert modes == ["thread_local"]
    assert ran == [True]


def test_captures_and_freeing_memory_exclude_each_other(bundle, stand_in, monkeypatch):
    held = []
    record, empty = cuda.record, torch.cuda.empty_cache
    monkeypatch.setattr(
        cuda, "record", lambda *how: (held.append(cuda._captures.locked()), record(*how))[1]
    )
    monkeypatch.setattr(
        torch.cuda, "empty_cache", lambda: (held.append(cuda._captures.locked()), empty())[1]
    )
    CudaEngine(bundle, "cpu", "fp32", 2).close()
    assert held == [True] * 3


def accelerator_error(code):
    error = torch.AcceleratorError("CUDA error: something")
    error.error_code = code
    return error


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemory),
        (accelerator_error(2), OutOfMemory),  # cudaErrorMemoryAllocation, at a graph's launch
        (accelerator_error(700), DeviceLost),  # an illegal address
        (RuntimeError("CUDNN_STATUS_ALLOC_FAILED"), OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), OutOfMemory),
        (RuntimeError("the sizes do not fit"), RuntimeError),
    ],
)
def test_a_transient_shortage_is_distinguished_from_a_lost_device(monkeypatch, raised, expected):
    monkeypatch.setattr(torch.cuda, "current_stream", Nothing)
    with pytest.raises(expected) as caught, translate_cuda_errors():
        raise raised
    assert type(caught.value) is expected


def test_a_failure_of_cudnn_on_a_lost_device_is_reported_as_such(monkeypatch):
    class Lost(Nothing):
        def synchronize(self):
            raise accelerator_error(719)

    monkeypatch.setattr(torch.cuda, "current_stream", Lost)
    with pytest.raises(DeviceLost, match="EXECUTION_FAILED"), translate_cuda_errors():
        raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
