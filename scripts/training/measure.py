"""Score a network on the validation part and tune a threshold per class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from app.engines.network import PixelNetwork
from app.processing.decision import LOGIT_THRESHOLD
from scripts.scores import (
    average_precision,
    exact_share,
    f1_score,
    mean_of_present,
    tune_threshold,
)
from scripts.training.examples import Example, make_targets
from scripts.training.pictures import Reader, read_ahead

BATCH = 32


@torch.inference_mode()
def predict(
    network: PixelNetwork,
    examples: Sequence[Example],
    reader: Reader,
    threads: int,
    check: Callable[[], None],
) -> np.ndarray:
    """Return the logits as the server computes them: exact decoding, fp32 even if training uses fp16.

    Leaves the network in evaluation mode.

    Args:
        network: on any device.
        examples: n pictures.
        reader: decodes them.
        threads: number of decode threads.
        check: called after each batch; may raise Interrupted.

    Returns:
        (n, classes) float32.
    """
    network.eval()
    paths = tqdm(
        (example.image for example in examples),
        "measuring",
        len(examples),
        unit="picture",
        leave=False,
    )
    logits: list[torch.Tensor] = []
    batch: list[torch.Tensor] = []
    for pixels in read_ahead(reader.read_served, paths, threads, 2 * BATCH):
        batch.append(torch.from_numpy(pixels))
        if len(batch) == BATCH or len(batch) + BATCH * len(logits) == len(examples):
            check()
            images = torch.stack(batch).to(network.scale.device)
            logits.append(network(images.contiguous(memory_format=torch.channels_last)).cpu())
            batch = []
    return torch.cat(logits).numpy()


def score(
    logits: np.ndarray, examples: Sequence[Example], class_names: Sequence[str]
) -> dict[str, Any]:
    """Return the ``scores`` of ``model.json``.

    An image with a difficult object is excluded for that class, as in VOC's own evaluation. The scores
    with tuned thresholds are optimistic: the thresholds were tuned on the same images.

    Args:
        logits: (n, classes).
        examples: n pictures.
        class_names: one for each output.

    Returns:
        Scores 0..1 and thresholds in logits, in the order of the outputs. A class without examples has
        the score None and the server's default threshold.
    """
    targets, known = make_targets(examples, len(class_names))
    columns = [(logits[known[:, c], c], targets[known[:, c], c]) for c in range(len(class_names))]
    precisions = [average_precision(*column) for column in columns]
    thresholds = [tune_threshold(*column, LOGIT_THRESHOLD) for column in columns]
    served = [f1_score(*column, LOGIT_THRESHOLD) for column in columns]
    tuned = [f1_score(*column, t) for column, t in zip(columns, thresholds, strict=True)]
    return {
        "validation_pictures": len(examples),
        "mean_average_precision": as_figure(mean_of_present(precisions)),
        "average_precision": {
            name: as_figure(value) for name, value in zip(class_names, precisions, strict=True)
        },
        "exact_label_sets": as_figure(exact_share(logits, targets, LOGIT_THRESHOLD, known)),
        "mean_f1": as_figure(mean_of_present(served)),
        "thresholds": thresholds,
        "exact_label_sets_with_thresholds": as_figure(
            exact_share(logits, targets, np.array(thresholds), known)
        ),
        "mean_f1_with_thresholds": as_figure(mean_of_present(tuned)),
    }


def as_figure(value: float) -> float | None:
    """Round a score to four digits; None for NaN, which JSON lacks."""
    return None if np.isnan(value) else round(value, 4)
