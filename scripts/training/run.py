"""Training state: checkpoints and interruption."""

from __future__ import annotations

import dataclasses
import fcntl
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torchvision.models import ResNet

from app.engines.network import PixelNetwork
from app.errors import first_line
from scripts.bundle_files import save_checkpoint
from scripts.training.errors import READ_ERRORS, Interrupted, TrainingError
from scripts.training.plan import Plan
from scripts.training.start import NONE

TRUNK_RATE = 0.1  # of the head's: a trained trunk has less to learn than a new head
WEIGHT_DECAY = 0.01


@dataclass
class Run:
    """The state of a training.

    Attributes:
        plan: the hyperparameters.
        network: maps pixels to logits.
        optimiser: AdamW over the trained parameters.
        scaler: loss scaling for half precision; disabled on the CPU.
        step: number of completed steps.
        losses: losses of the current epoch's steps.
        history: mean loss of each completed epoch.
        scores: validation scores of the last completed epoch (``measure.score``).
    """

    plan: Plan
    network: PixelNetwork
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        state = {
            "plan": dataclasses.asdict(self.plan),
            "network": self.network.classifier.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "losses": self.losses,
            "history": self.history,
            "scores": self.scores,
        }
        save_checkpoint(path, state)

    def load(self, path: Path) -> None:
        """Restore a checkpoint.

        Raises:
            TrainingError: it is damaged, or of another plan.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            kept = dict(state["plan"])
        except (*READ_ERRORS, TypeError) as error:
            raise TrainingError(
                f"the checkpoint {path} cannot be read ({first_line(error)}): --restart throws it away"
            ) from error
        self.plan.check_same(kept, str(path))
        self.network.classifier.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if (
            state["scaler"] and self.scaler.is_enabled()
        ):  # empty if the training was started on a CPU
            self.scaler.load_state_dict(state["scaler"])
        self.step, self.losses = state["step"], state["losses"]
        self.history, self.scores = state["history"], state["scores"]


def start_run(plan: Plan, classifier: ResNet, device: str) -> Run:
    """Return a run at step 0, on its device.

    Args:
        plan: the hyperparameters.
        classifier: ResNet-50 with its initial weights.
        device: ``cpu`` or ``cuda:N``.
    """
    classifier = classifier.to(device).to(memory_format=torch.channels_last)
    head = list(classifier.fc.parameters())
    trunk = [p for name, p in classifier.named_parameters() if not name.startswith("fc.")]
    groups = [{"params": head, "share": 1.0}]
    if plan.head_only:
        for parameter in trunk:
            parameter.requires_grad_(False)
    else:
        groups.append({"params": trunk, "share": 1.0 if plan.weights == NONE else TRUNK_RATE})
    optimiser = torch.optim.AdamW(groups, plan.rate, weight_decay=WEIGHT_DECAY)
    network = PixelNetwork(classifier, classifier.fc.out_features).to(device)
    kind = device.partition(":")[0]
    return Run(plan, network, optimiser, torch.amp.GradScaler(kind, enabled=kind == "cuda"))


class Interruption:
    """Context in which the first SIGINT or SIGTERM sets a flag; a second one has its usual effect."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        """Install the signal handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self.__exit__()

    def check(self) -> None:
        """Raise Interrupted if a signal was received."""
        if self._asked:
            raise Interrupted


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Create and lock a folder. Raises TrainingError if another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"another training writes to {folder}: wait for it or choose another --out"
            ) from error
        yield
