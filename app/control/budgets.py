"""The memory that a worker may use for its requests, in bytes: a constant, so that the plan can count it."""

from __future__ import annotations

from app.settings import MEGABYTE, Settings

# The limit of a small image's decode: a photograph of 1,600 × 1,200 takes 12 MiB. Larger ones share
# ``SERVING_DECODE_MEMORY_MB``.
SMALL_DECODE_BYTES = 24 * MEGABYTE


def decode_budget_bytes(settings: Settings) -> int:
    """Return the bytes for decoding: one small image per thread, and the budget of the large ones."""
    return settings.decode_pool_size * SMALL_DECODE_BYTES + settings.decode_memory_bytes


def request_budget_bytes(settings: Settings) -> int:
    """Return the bytes for requests: for decoding, for bodies, and for the answer cache."""
    return decode_budget_bytes(settings) + settings.max_bodies_bytes + settings.answer_cache_bytes
