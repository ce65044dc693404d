"""Numerics on a device: pixels in, logits out."""
