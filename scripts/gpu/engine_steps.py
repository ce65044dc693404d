"""Steps on an engine without a server."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from app.engines.engine import Choice, Engine
from app.engines.loader import load_engine
from app.errors import BundleError, OutOfMemory
from app.models.artifacts import Artifacts
from app.models.bundle import find_bundle
from app.settings import ROOT
from app.system.machine import count_cores
from scripts.gpu.trial import MIB, Trial, used_mib

FP32_LIMIT = 1e-3  # the contract
ROUNDS = 20


def load(trial: Trial, precision: str, max_batch: int) -> Engine:
    """Load the demo on the GPU, or on the CPU in a rehearsal."""
    artifacts = Artifacts(find_bundle(ROOT / "models"), trial.folder / "cache")
    choice = Choice("cuda", precision, "cuda:0", 1, max_batch)
    if trial.rehearse:
        choice = replace(choice, engine="eager", precision="fp32", device="cpu")
    return load_engine(choice, artifacts)


def agreement(trial: Trial) -> None:
    """Compare every precision and batch size with eager torch on the CPU; fp32 must agree to 1e-3."""
    max_batch = trial.few(64, 2)
    images = list(np.random.default_rng(5).integers(0, 256, (max_batch, 3, 224, 224), np.uint8))
    artifacts = Artifacts(find_bundle(ROOT / "models"), trial.folder / "cache")
    reference = load_engine(
        Choice("eager", "fp32", "cpu", trial.few(count_cores(), 1), 1), artifacts
    )
    expected = np.concatenate([reference.forward([image]).logits for image in images])
    for precision in ("fp32",) if trial.rehearse else ("fp32", "tf32", "fp16"):
        began = time.monotonic()
        try:
            engine = load(trial, precision, max_batch)
        except BundleError as error:
            trial.expect(False, f"{precision}: {error}")
            continue
        found = {"load_s": round(time.monotonic() - began, 1), "max_batch": engine.max_batch}
        worst = max(
            float(np.abs(engine.forward(images[:count]).logits - expected[:count]).max())
            for count in range(1, max_batch + 1)
        )
        found["worst_deviation"] = worst
        found["images_per_s"] = round(measure_speed(engine, images))
        trial.facts[precision] = found
        if precision == "fp32":
            trial.expect(worst <= FP32_LIMIT, f"fp32 deviates by {worst:.2g}, the limit is 0.001")
        engine.close()


def measure_speed(engine: Engine, images: list[np.ndarray]) -> float:
    """Return images/s at the largest batch."""
    engine.forward(images)
    rounds = ROUNDS if engine.device != "cpu" else 1
    began = time.perf_counter()
    for _ in range(rounds):
        engine.forward(images)
    return rounds * len(images) / (time.perf_counter() - began)


def out_of_memory(trial: Trial) -> None:
    """Exhaust the GPU's memory around a running engine: it answers or raises OutOfMemory, and recovers afterwards."""
    engine = load(trial, "fp32", trial.few(64, 2))
    images = list(np.zeros((engine.max_batch, 3, 224, 224), np.uint8))
    held = fill(0) if not trial.rehearse else []
    trial.facts["filled_mib"] = used_mib()
    try:
        engine.forward(images, with_features=True)
        trial.facts["while_full"] = "answered"
    except OutOfMemory as error:
        trial.facts["while_full"] = error.message
    if not trial.rehearse:
        try:
            load(trial, "fp32", 64).close()
            trial.facts["another_while_full"] = "loaded"
        except BundleError as error:
            trial.facts["another_while_full"] = str(error)
    held.clear()
    if not trial.rehearse:
        torch.cuda.empty_cache()
    trial.expect(len(engine.forward(images).logits) == len(images), "it answers again")
    before = used_mib()
    engine.close()
    trial.facts["used_mib_before_and_after_close"] = [before, used_mib()]


def fill(leave_mib: int) -> list[torch.Tensor]:
    """Allocate all GPU memory except ``leave_mib``; return the tensors that hold it."""
    held = []
    size = 1024 * MIB
    while size >= 2 * MIB:
        free, _ = torch.cuda.mem_get_info()
        if free - size < leave_mib * MIB:
            size //= 2
            continue
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except torch.OutOfMemoryError:
            size //= 2
    return held
