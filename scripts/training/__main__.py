"""Fine-tune ResNet-50 for multi-label classification and write it as a bundle (docs/training.md)."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from app.errors import SettingsError
from app.settings import Settings
from app.system.machine import count_cores
from scripts.training.errors import Interrupted, TrainingError
from scripts.training.examples import Examples
from scripts.training.loop import Trainer
from scripts.training.options import parse_options
from scripts.training.output import WORK_FOLDER, check_output, write_bundle
from scripts.training.pictures import Reader
from scripts.training.plan import Plan
from scripts.training.run import Interruption, Run, lock_folder, start_run
from scripts.training.start import NONE, build_classifier
from scripts.training.table import read_table
from scripts.training.voc import read_voc

INTERRUPTED = 130  # exit status after Ctrl-C, as in shells


def read_examples(options: argparse.Namespace) -> Examples:
    """Read a VOCdevkit or a CSV file. Raises TrainingError."""
    data: Path = options.data
    if data.is_dir():
        return read_voc(data, options.train_set, options.validation_set)
    if data.is_file():
        return read_table(data, options.classes, options.validation_share)
    raise TrainingError(
        f"--data {data}: there is nothing; expected a VOCdevkit folder (VOC2007/… in it) or a CSV file"
    )


def choose_device(wanted: str) -> str:
    """Return ``cpu`` or ``cuda:N``. Raises TrainingError."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return "cpu"
    number = int(wanted.partition(":")[2] or 0)
    found = torch.cuda.device_count()
    if number >= found:
        raise TrainingError(f"--device {wanted}: this machine has {found} usable GPUs")
    return f"cuda:{number}"


def make_plan(options: argparse.Namespace, examples: Examples, exif_rotate: bool) -> Plan:
    """Return the plan of a training."""
    return Plan(
        examples=examples.fingerprint(),
        pictures=len(examples.training),
        weights=options.weights,
        head_only=options.head_only,
        epochs=options.epochs,
        batch=options.batch,
        rate=options.rate,
        side=options.side,
        seed=options.seed,
        exif_rotate=exif_rotate,
    )


def open_run(plan: Plan, examples: Examples, device: str, checkpoint: Path) -> Run:
    """Resume the run from its checkpoint, or start one at step 0. Raises TrainingError."""
    going_on = checkpoint.exists()
    weights = NONE if going_on else plan.weights  # the checkpoint has them all
    run = start_run(plan, build_classifier(weights, len(examples.class_names), plan.seed), device)
    if going_on:
        run.load(checkpoint)
        say(f"going on from {checkpoint}, step {run.step} of {plan.steps}")
    return run


def train(options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Train and write the bundle.

    Returns:
        The bundle's folder and its scores.

    Raises:
        TrainingError: the data, an option or a file cannot be used.
        SettingsError: the environment's settings are invalid.
        Interrupted: by SIGINT or SIGTERM; the next call resumes.
    """
    settings = Settings.from_env(os.environ)
    reader = Reader(settings.max_pixels, settings.exif_rotate)
    device = choose_device(options.device)
    examples = read_examples(options)
    check_output(options.out)
    threads = options.threads or count_cores()
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    work = options.out / WORK_FOLDER
    with lock_folder(work), Interruption() as interruption:
        checkpoint = work / "checkpoint.pth"
        if options.restart:
            checkpoint.unlink(missing_ok=True)
        plan = make_plan(options, examples, settings.exif_rotate)
        print_plan(plan, examples, device)
        run = open_run(plan, examples, device, checkpoint)
        trainer = Trainer(run, examples, reader, device, threads, checkpoint, interruption.check)
        trainer.train()
        folder = write_bundle(options.out, run.network.classifier, examples, run.scores)
        shutil.rmtree(work)
    return folder, run.scores


def print_plan(plan: Plan, examples: Examples, device: str) -> None:
    """Print the sizes of data set and training."""
    what = "the head" if plan.head_only else "the whole network"
    say(
        f"{examples.source}: {len(examples.training):,} pictures to learn from, "
        f"{len(examples.validation):,} to measure on, {len(examples.class_names)} classes\n"
        f"training {what} from {plan.weights} on {device}: {plan.epochs} epochs, {plan.steps:,} steps "
        f"of {plan.batch_size} pictures"
    )
    if unseen := examples.unseen_classes():
        say(f"no picture to learn from shows: {', '.join(unseen)}")


def say(text: str) -> None:
    """Print progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run the command line and print the scores."""
    options = parse_options()
    try:
        folder, scores = train(options)
    except (TrainingError, SettingsError) as error:
        sys.exit(str(error))
    except (Interrupted, KeyboardInterrupt):
        say("interrupted; the same command goes on from the last checkpoint")
        sys.exit(INTERRUPTED)
    rows = zip(scores["average_precision"].items(), scores["thresholds"], strict=True)
    print(f"{'class':24}{'AP':>8}{'threshold':>11}")
    for (name, precision), threshold in rows:
        print(f"{name:24}{'–' if precision is None else f'{precision:.4f}':>8}{threshold:>11.3f}")
    print(f"{'mean':24}{scores['mean_average_precision'] or 0:>8.4f}")
    print(f"written to {folder}")


if __name__ == "__main__":
    main()
