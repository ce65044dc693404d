"""OpenVINO on the CPU: two to five times the throughput of eager torch, in a third of the memory.

The network was converted by ``app/engines/conversion.py``; reading and compiling it takes a quarter of
a second and needs no torch.
"""

from __future__ import annotations

import sys
from _queue import SimpleQueue  # native: gevent does not patch it
from collections.abc import Sequence
from pathlib import Path

# OpenVINO's import sends telemetry by forking a process from the importing thread. Under gevent that child
# lives on as a copy of the worker, with its listening socket. None here makes the import use its own stub.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import numpy as np  # noqa: E402
import openvino  # noqa: E402

from app.engines.engine import Gradients, Outputs  # noqa: E402
from app.engines.self_check import make_noise  # noqa: E402
from app.errors import BundleError, first_line  # noqa: E402
from app.models.artifacts import NETWORKS, Artifacts  # noqa: E402
from app.models.precision import FP32, INT8  # noqa: E402


class OpenVinoEngine:
    """An OpenVINO network compiled for this processor."""

    device = "cpu"

    def __init__(self, artifacts: Artifacts, precision: str, threads: int, max_batch: int) -> None:
        """Read and compile the network.

        Raises:
            BundleError: it was not converted, or OpenVINO cannot read it.
        """
        kind = NETWORKS[precision]
        path = artifacts.find_network(kind)
        if path is None:
            maker = "the next look at the folder" if kind == FP32 else "scripts/optimize"
            raise BundleError(f"there is no {kind} network for OpenVINO; {maker} makes it")
        self._artifacts = artifacts  # keeps the network locked
        self.precision = precision
        self.max_batch = max_batch
        self.lanes = threads
        # Compiled twice: one forward on all the threads, and one on each. This holds the weights twice,
        # 25 MB in int8 and 100 MB in fp32.
        together = compile_network(path, precision, streams=1, threads=threads)
        self._together: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        self._together.put(together.create_infer_request())
        apart = compile_network(path, precision, streams=threads, threads=threads)
        self._in_lane = [apart.create_infer_request() for _ in range(threads)]
        self.gradients: Gradients = None
        if len(together.outputs) > 1:
            self.gradients = read_gradients(artifacts, kind)

    def forward(self, images: Sequence[np.ndarray], with_features: bool = False) -> Outputs:
        """Run one batch on all the threads; see ``Engine.forward``."""
        request = self._together.get()
        try:
            return run_request(request, images, with_features)
        finally:
            self._together.put(request)

    def forward_in_lane(
        self, lane: int, images: Sequence[np.ndarray], with_features: bool = False
    ) -> Outputs:
        """Run one batch on one thread; see ``Engine.forward_in_lane``."""
        return run_request(self._in_lane[lane], images, with_features)

    def close(self) -> None:
        """Release the compiled networks; see ``Engine.close``."""
        self.gradients = None
        self._in_lane.clear()
        while not self._together.empty():
            self._together.get()


class ConvertedGradients:
    """Gradients computed by a network that ``app/engines/head_conversion.py`` converted."""

    def __init__(self, network: openvino.Model) -> None:
        """Compile the network for one thread, in fp32. Raises RuntimeError (OpenVINO's)."""
        settings = {
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = openvino.Core().compile_model(network, "CPU", settings)
        self._classes = compiled.inputs[1].shape[1]
        self._requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()  # one, for any lane
        self._requests.put(compiled.create_infer_request())

    def __call__(self, features: np.ndarray, label: int) -> np.ndarray:
        """Return one class's gradient, summed over the map's area: (channels,) float32.

        Args:
            features: (channels, height, width) float32, of one image.
            label: the class.
        """
        weights = np.zeros((1, self._classes), np.float32)
        weights[0, label] = 1
        request = self._requests.get()
        try:
            (gradient,) = request.infer([features[None], weights]).values()
        finally:
            self._requests.put(request)
        own: np.ndarray = gradient[0].copy()
        return own


def read_gradients(artifacts: Artifacts, kind: str) -> Gradients:
    """Return the gradients that were stored beside a network: constant or converted ones, or None.

    Raises:
        BundleError: OpenVINO cannot read them.
    """
    path = artifacts.find_head(kind)
    if path is None:
        return artifacts.read_gradients(kind)
    try:
        return ConvertedGradients(openvino.Core().read_model(path))
    except RuntimeError as error:
        raise BundleError(f"OpenVINO cannot read {path}: {first_line(error)}") from error


def run_request(
    request: openvino.InferRequest, images: Sequence[np.ndarray], with_features: bool
) -> Outputs:
    """Run one batch; a request is used by one thread at a time."""
    batch = np.stack(images)  # a copy, so that OpenVINO may read it in place
    # The outputs are OpenVINO's own memory; only requested ones are copied.
    logits, *features = request.infer({0: batch}, share_inputs=True, share_outputs=True).values()
    requested = features if with_features else []
    return Outputs(logits.copy(), *(array.copy() for array in requested))


def compile_network(
    path: Path, precision: str, streams: int, threads: int
) -> openvino.CompiledModel:
    """Compile a converted network for ``streams`` concurrent forwards that share ``threads`` threads.

    Raises:
        BundleError: OpenVINO cannot read or compile it.
    """
    settings = {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        # Two one-thread processes would both be pinned to the first core.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32" if precision == FP32 else computing_type(),
    }
    try:
        core = openvino.Core()
        return core.compile_model(core.read_model(path), "CPU", settings)
    except RuntimeError as error:
        raise BundleError(f"OpenVINO cannot read {path}: {first_line(error)}") from error


def save_network(network: openvino.Model, path: Path, side: int) -> list[np.ndarray]:
    """Write a network, and return the answers of the written file to ``make_noise``: logits, and features if any.

    Raises:
        OSError: it cannot be written; OpenVINO does not say why.
        BundleError: the written file cannot be read.
    """
    save_model(network, path)
    compiled = compile_network(path, FP32, streams=1, threads=0)
    return [answer.copy() for answer in compiled(make_noise(side)).values()]


def save_model(network: openvino.Model, path: Path) -> None:
    """Write a network in fp32. Raises OSError; OpenVINO does not say why."""
    try:
        openvino.save_model(network, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(f"OpenVINO cannot write; is the disk full? ({first_line(error)})") from error


def computing_type() -> str:
    """Return the type of layers that are not quantized: bf16 if the CPU supports it."""
    return "f32" if lacks("bf16") else "bf16"


# Precision → the x86 instructions of which it needs one (/proc/cpuinfo). Without them OpenVINO emulates it:
# bf16 slower than fp32, int8 with sums that saturate.
INSTRUCTIONS = {
    FP32: (),
    "bf16": ("avx512_bf16", "amx_bf16"),
    INT8: ("avx512_vnni", "avx_vnni", "amx_int8"),
}


def lacks(precision: str) -> str:
    """Return the instructions that a precision needs and this processor lacks, as text, or ""."""
    needed = INSTRUCTIONS[precision]
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    if not needed or any(flag in flags for flag in needed):
        return ""
    return f"the processor has none of {', '.join(needed)}"


def cpu_precisions(artifacts: Artifacts) -> dict[str, str]:
    """Return every precision → "", or the reason why this machine cannot serve it."""
    usable = {precision: lacks(precision) for precision in NETWORKS}
    if not usable[INT8] and artifacts.find_network(INT8) is None:
        usable[INT8] = "there is no int8 network for these weights; scripts/optimize makes it"
    return usable
