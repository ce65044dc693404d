"""A first look at real images: one class on nearly all of them is the sign of wrong preprocessing."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np

from app.models.bundle import Bundle

IMAGES = 32  # different ones
MIN_CLASSES = 10  # with fewer, one class may be most of what there is
MIN_SHARE = 0.9

logger = logging.getLogger(__name__)


class FirstLook:
    """Counts the strongest class of a version's first images and warns once; used on the hub."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._seen: set[bytes] = set()
        self._strongest: Counter[int] = Counter()
        self._is_over = len(bundle.class_names) < MIN_CLASSES

    def add(self, digest: bytes, logits: np.ndarray) -> None:
        """Count an image by the digest of its file; (classes,) logits. Does nothing after the first images."""
        if self._is_over or digest in self._seen:
            return
        self._seen.add(digest)
        self._strongest[int(logits.argmax())] += 1
        if len(self._seen) == IMAGES:
            self._is_over = True
            self._seen.clear()
            self._judge()

    def _judge(self) -> None:
        """Log a warning if one class is the strongest on nearly all images."""
        ((strongest, count),) = self._strongest.most_common(1)
        if count >= MIN_SHARE * IMAGES:
            logger.warning(
                "%s, version %d: %s is the strongest class on %d of the first %d different images; if they show "
                "different things, the model was trained with another preprocessing: check channels, input_range, "
                "mean and deviation in model.json (docs/models.md)",
                self._bundle.name,
                self._bundle.version,
                self._bundle.class_names[strongest],
                count,
                IMAGES,
            )
