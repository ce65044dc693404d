"""A few pictures of noise, the same everywhere: a loaded network must answer them as it did when it was made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from app.engines.outputs import Outputs
from app.errors import BundleError

# Of the answers' own size (root mean square over all pictures and classes). Zeros are off by 1, another
# network by as much and more (two of these pictures differ by 0.4 to 1.7). Rounding stays far below:
# bf16 against fp32 was off by 0.0015 with the demo and by at most 0.015 with four random networks, and
# a processor that rounds in another order is off by less than that. int8 is off by 0.5 from fp32 on noise,
# which it was not calibrated on, so it is compared with its own answers: off by 0 with the demo.
MAX_DEVIATION = 0.75
# Where all answers are near zero, rounding is as large as they are.
NEGLIGIBLE = 0.05


def make_noise(side: int) -> np.ndarray:
    """Return pictures of noise, fine to coarse: (3, 3, side, side) uint8."""
    pictures = []
    for cell in (1, 8, 32):
        cells = -(-side // cell)
        # Not NumPy's generators: another release may give other numbers.
        numbers = hashlib.shake_256(str(cell).encode()).digest(3 * cells * cells)
        coarse = np.frombuffer(numbers, np.uint8).reshape(3, cells, cells)
        pictures.append(coarse.repeat(cell, axis=1).repeat(cell, axis=2)[:, :side, :side])
    return np.stack(pictures)


def check_noise(
    forward: Callable[[Sequence[np.ndarray]], Outputs], expected: np.ndarray, side: int, where: Path
) -> None:
    """Compare a loaded network's answers with what it answered when it was made; ``where`` it lies.

    Raises:
        BundleError: it is another network: damaged in memory, mixed of two, or badly compiled.
    """
    found = np.concatenate([forward([picture]).logits for picture in make_noise(side)])
    if found.shape != expected.shape:
        raise BundleError(
            f"{where} has {found.shape[1]} outputs; it was made with {expected.shape[1]}"
        )
    size, deviation = (
        float(np.sqrt(np.square(each).mean())) for each in (expected, found - expected)
    )
    limit = max(MAX_DEVIATION * size, NEGLIGIBLE)
    if not deviation <= limit:
        raise BundleError(
            f"{where} answers pictures of noise otherwise than when it was made: "
            f"by {deviation:.2g}, the limit is {limit:.2g}"
        )
