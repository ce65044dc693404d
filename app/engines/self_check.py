"""The self-check of a loaded network: its answers to images of noise must be those recorded at the conversion."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from app.engines.engine import Outputs
from app.errors import BundleError

# Relative to the root mean square of the recorded answers, over all images and classes. Zeros deviate by 1,
# another network by as much and more (two of these images differ by 0.4 to 1.7). Rounding stays far below:
# bf16 against fp32 deviated by 0.0015 with the demo and by at most 0.015 with four random networks, and
# a processor that rounds in another order deviates by less. int8 deviates by 0.5 from fp32 on noise,
# which it was not calibrated on, so it is compared with its own answers: 0 with the demo.
MAX_DEVIATION = 0.75
# The limit if all answers are near zero, where rounding is as large as they are.
NEGLIGIBLE = 0.05


def make_noise(side: int) -> np.ndarray:
    """Return images of noise, fine to coarse, the same on every machine: (3, 3, side, side) uint8."""
    images = []
    for cell in (1, 8, 32):
        cells = -(-side // cell)
        # Not NumPy's generators: another release may return other numbers.
        numbers = hashlib.shake_256(str(cell).encode()).digest(3 * cells * cells)
        coarse = np.frombuffer(numbers, np.uint8).reshape(3, cells, cells)
        images.append(coarse.repeat(cell, axis=1).repeat(cell, axis=2)[:, :side, :side])
    return np.stack(images)


def check_answers(
    forward: Callable[[Sequence[np.ndarray]], Outputs],
    expected: np.ndarray,
    side: int,
    weights: Path,
) -> None:
    """Compare a network's logits for ``make_noise`` with the recorded ones.

    Args:
        forward: the engine's.
        expected: (n, classes) float32, as recorded.
        side: px of both sides of the input.
        weights: the weights file, for the message.

    Raises:
        BundleError: another network answers: damaged in memory, mixed of two, or badly compiled.
    """
    logits = np.concatenate([forward([image]).logits for image in make_noise(side)])
    if logits.shape != expected.shape:
        raise BundleError(
            f"{weights} has {logits.shape[1]} outputs; it was made with {expected.shape[1]}"
        )
    size, deviation = (
        float(np.sqrt(np.square(values).mean())) for values in (expected, logits - expected)
    )
    limit = max(MAX_DEVIATION * size, NEGLIGIBLE)
    if not deviation <= limit:
        raise BundleError(
            f"{weights} answers images of noise differently than at its conversion: "
            f"by {deviation:.2g}, the limit is {limit:.2g}"
        )
