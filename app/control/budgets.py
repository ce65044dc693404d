"""What one worker may hold for its requests, in bytes: a constant, so that sizing can count it."""

from __future__ import annotations

from app.settings import MEGABYTE, Settings

# The most that decoding an ordinary picture takes: a photograph of 1,600 × 1,200 takes 12 MiB. Those that take
# more are large ones and share ``SERVING_DECODE_MEMORY_MB``.
SMALL_DECODE_BYTES = 24 * MEGABYTE


def decode_budget_bytes(settings: Settings) -> int:
    """Return the bytes that decoding may take: a small image on each thread, and the large ones."""
    return settings.decode_pool_size * SMALL_DECODE_BYTES + settings.decode_memory_bytes


def request_budget_bytes(settings: Settings) -> int:
    """Return the bytes that all requests together may take: for decoding, and for their bodies."""
    return decode_budget_bytes(settings) + settings.max_bodies_bytes
