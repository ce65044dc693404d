"""Kill a program with SIGKILL at every step on the disk, and let the next start repair the leftovers.

    python -m tests.walk FOLDER

It publishes a small model, which converts it, and then keeps an int8 network and a report as
scripts/optimize does. Each try runs in a fork of this process, which has imported everything and
computed nothing: at the n-th step it kills itself. Another fork gets its leftovers and starts
as a server does. The last lines say how many steps there were.
"""

import hashlib
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import openvino
import torch
import torchvision

from app.commands import measure
from app.commands.publish import publish
from app.control import footprint
from app.control.cleanup import clean_up
from app.control.footprint import Footprint, MeasureResult
from app.control.scanner import RepositoryScanner
from app.engines import conversion
from app.engines.conversion import convert_bundle
from app.engines.engine import Choice
from app.engines.loader import load_engine
from app.engines.self_check import make_noise
from app.models.artifacts import Artifacts
from app.models.bundle import Bundle, find_bundle
from app.models.checksums import find_damage
from app.settings import Settings
from tests.random_models import write_model

SIDE = 32
CONFIG = {"architecture": "squeezenet1_1", "input_size": SIDE}
STEPS = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.utime"}


class Walk:
    """The folders, and the programs to kill in them."""

    def __init__(self, folder: Path) -> None:
        """Make a model to publish, and convert it once in a process of its own."""
        self.source = folder / "source"
        self.work = folder / "work"
        self.prebuilt = folder / "prebuilt"
        self.settings = Settings.from_env(
            {
                "SERVING_MODELS": str(self.work / "models"),
                "SERVING_CACHE": str(self.work / "cache"),
                "SERVING_DEVICE": "cpu",
                "SERVING_PRECISION": "fp32",
                "SERVING_THREADS": "1",
            }
        )
        assert run_forked(self.prebuild) == 0
        self.network = self.prebuilt / "network.xml"
        self.answers = np.load(self.prebuilt / "answers.npy")
        # Slow steps without writes are done once; all steps with writes are real.
        conversion.openvino.convert_model = lambda *_, **__: openvino.Core().read_model(
            self.network
        )
        footprint.run_measure = self.run_measure

    def run_measure(
        self,
        task: str,
        bundle: Bundle,
        rows: Mapping[str, str],
        _sibling: Footprint | None = None,
    ) -> MeasureResult:
        """Replace the measure process: convert in this process, and do not measure again."""
        if task == footprint.CONVERT:
            return measure.convert(Settings.from_env(rows), bundle)
        if Artifacts(bundle, self.settings.cache).find_network("fp32") is None:
            return MeasureResult(needs_conversion=True)
        return MeasureResult(Footprint("openvino", "fp32", "cpu", "asked for", 10**8))

    def prebuild(self) -> None:
        """Create and convert the model (in a fork: a process that has computed must not be forked)."""
        torch.manual_seed(3)
        weights = torchvision.models.get_model(CONFIG["architecture"], num_classes=5).state_dict()
        weights = {
            name: 3 * tensor for name, tensor in weights.items()
        }  # answers that are not near 0
        write_model(self.source, weights, CONFIG)
        path = convert_bundle(Artifacts(find_bundle(self.source), self.source / "cache"))
        shutil.copytree(path.parent, self.prebuilt)
        shutil.rmtree(self.source / "optimized")

    def publish(self) -> None:
        """Publish the model as scripts/publish does."""
        publish(self.source, self.work / "models" / "leaves", self.settings)

    def optimize(self) -> None:
        """Keep an int8 network and a report, as scripts/optimize does."""
        artifacts = Artifacts(find_bundle(self.work / "models"), self.settings.cache)

        def save(path: Path) -> np.ndarray:
            path.write_text(self.network.read_text() + "<!-- another file -->")
            shutil.copyfile(self.network.with_suffix(".bin"), path.with_suffix(".bin"))
            return self.answers

        artifacts.add_network("int8", save)
        artifacts.add_report("what was measured")

    def start(self) -> None:
        """Start as a server does on the leftovers, and answer as before; publish if nothing was there."""
        models = self.work / "models"
        (models / "leaves").mkdir(parents=True, exist_ok=True)
        manifest = RepositoryScanner(self.settings).scan()
        if not manifest.entries:
            assert "holds no" in manifest.failure, manifest.failure
            publish(self.source, models / "leaves", self.settings)
            manifest = RepositoryScanner(self.settings).scan()
        clean_up(self.settings, manifest)
        (entry,) = manifest.entries
        assert entry.version == 1
        assert find_damage(Path(entry.network)) == ""
        choice = Choice("openvino", "fp32", "cpu", 1, 1)
        loaded = load_engine(choice, entry.open(self.settings.cache))
        found = np.concatenate([loaded.forward([each]).logits for each in make_noise(SIDE)])
        assert np.abs(found - self.answers).max() < 1e-3 * np.abs(self.answers).max()
        self.check_int8(Artifacts(find_bundle(models), self.settings.cache))
        left = [path for path in self.work.rglob(".*") if path.name.startswith((".new", ".pub"))]
        assert not left, left

    def check_int8(self, artifacts: Artifacts) -> None:
        """Check that int8 exists only with its report."""
        if path := artifacts.find_network("int8"):
            assert find_damage(path.parent) == ""
            assert artifacts.report_path().read_text() == "what was measured"

    def state(self) -> str:
        """Return the files that are there now; drafts are identified by their content."""
        digest = hashlib.sha256()
        for path in sorted(self.work.rglob("*")):
            parts = [part[:5] if part[0] == "." else part for part in path.parts]
            digest.update("/".join(parts).encode() + b"\0")
            if path.is_file():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def kill_at(self, program: Callable[[], None], step: int) -> Callable[[], None]:
        """Return a program with a hook that kills it before its step on the disk."""

        def run() -> None:
            taken, here = 0, str(self.work)

            def take(target: object) -> None:
                nonlocal taken
                if str(target).startswith(here):
                    taken += 1
                    if taken == step:
                        os.kill(os.getpid(), signal.SIGKILL)

            def look(event: str, arguments: tuple) -> None:
                writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
                if event in STEPS or writes:
                    take(arguments[0])

            real = os.fsync

            def fsync(handle: int) -> None:
                take(os.readlink(f"/proc/self/fd/{handle}"))
                real(handle)

            os.fsync = fsync
            sys.addaudithook(look)
            program()

        return run


def run_forked(function: Callable[[], None]) -> int:
    """Run a function in a fork; return its exit status, negative for the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:  # noqa: BLE001  (a fork never returns)
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def walk_through(walk: Walk, program: Callable[[], None], before: Path) -> str:
    """Kill a program at each of its steps until it finishes; ``before`` is its initial state."""
    step, status, healed = 0, -signal.SIGKILL, set()
    while status == -signal.SIGKILL:
        step += 1
        shutil.rmtree(walk.work, ignore_errors=True)
        shutil.copytree(before, walk.work)
        status = run_forked(walk.kill_at(program, step))
        assert status in (0, -signal.SIGKILL), f"step {step}: ended with {status}"
        if (state := walk.state()) not in healed:
            healed.add(state)
            assert run_forked(walk.start) == 0, f"what a kill at step {step} left was not healed"
    return f"{program.__name__}: {step - 1} steps, {len(healed)} states"


def main(folder: Path) -> None:
    """Kill both programs at every step."""
    walk, empty, published = Walk(folder), folder / "empty", folder / "published"
    empty.mkdir()
    print(walk_through(walk, walk.publish, empty), flush=True)
    walk.work.rename(published)
    print(walk_through(walk, walk.optimize, published), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
